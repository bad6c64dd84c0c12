"""Response heads as bytes: the fields of any, and the whole of a plain one.

A *plain* head answers a plain request, and its framing is in it: a Content-Length, or a status
that has no content. To write such a one takes no protocol state, so it is written here, to the
byte as `ServerEngine` does with h11. Every other head is h11's to frame.

What is stored may have been tampered with, and a checksum authenticates nothing: names and values
are checked here as strictly as h11 checks them, but all together. By itself each cost 20 of the
240 µs of a small hit.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from edge.wire.message import Pair, ResponseHead

REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
# What h11's own state rests on; `host` is written first, and by itself (RFC 9110 §7.2).
JUDGED: Final = FRAMING | {b"connection", b"upgrade", b"expect", b"host"}

CLOSE: Final = (b"connection", b"close")

_NAMES: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]*+")
_VALUES: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")
_LENGTH: Final = re.compile(rb"[0-9]{1,20}+")


def divided(pairs: tuple[Pair, ...]) -> tuple[list[Pair], bytes]:
    """The fields of a head that h11 has to judge by, and the lines of the others.

    Names must be lower case, or one that frames could get past h11. Raises
    `ExchangeError(INTERNAL)`; nothing was sent then, so that a refusal can be.
    """
    others = [pair for pair in pairs if pair[0] not in JUDGED]
    names, values = [name for name, _ in others], [value for _, value in others]
    if (
        not all(names)
        or _NAMES.fullmatch(b"".join(names)) is None
        or _VALUES.fullmatch(b"".join(values)) is None
    ):
        raise ExchangeError(Failure.INTERNAL, "a field that cannot be sent")
    lines = b"".join([b"%b: %b\r\n" % pair for pair in others])
    return [pair for pair in pairs if pair[0] in JUDGED], lines


def plain_head(head: ResponseHead, *, is_last: bool = False) -> bytes | None:
    """`head` as it is sent in answer to a plain request; None where it is not plain.

    `is_last`: the request is the last of its connection. Raises as `divided`.
    """
    judged, lines = divided(head.headers.pairs)
    said = b"Connection: close\r\n" if is_last else b""  # in h11's letters
    if judged and judged[-1] == CLOSE:
        said = said or b"connection: close\r\n"
        judged.pop()
    status = head.status
    if status in (204, 304):  # RFC 9110 §8.6: no length with 204, and none is made up for 304
        if judged:
            return None
        framing = b""
    else:
        if not 200 <= status < 1000 or len(judged) != 1:
            return None
        name, value = judged[0]
        if name != b"content-length" or _LENGTH.fullmatch(value) is None:
            return None
        framing = b"content-length: %b\r\n" % value
    reason = head.reason or REASONS.get(status, b"")
    if _VALUES.fullmatch(reason) is None:
        return None
    return b"HTTP/1.1 %d %b\r\n%b%b%b\r\n" % (status, reason, framing, said, lines)
