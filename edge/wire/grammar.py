"""What an HTTP/1.1 head, chunk-size line and trailer section may look like, and how a body is cut.

Every check is one possessive regular expression over bytes, so none can backtrack: the time is
linear in the input whatever it holds. Bytes patterns know ASCII only, so no Unicode digit, space
or case folding takes part (`int`, `isdigit`, `strip()` and `str.lower` would let them in).

The node is a gateway: what it misreads, it misroutes. Where RFC 9112 lets a recipient be lenient
for old peers (bare LF, obs-fold, repeated equal lengths), a request gets no leniency, since two
readers of one byte string are what request smuggling is made of. A response gets the three that
§5.1, §6.3 and §4 ask of a proxy: white space before a colon is removed, equal repeated lengths
are one, and a missing reason phrase is empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple, NoReturn

from edge.errors import Failure, ProtocolError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a peer may send outside its bodies. Sizes in bytes, line ends included."""

    head_bytes: int = 32 * 1024  # nginx 4×8 KiB; large cookies need more than h11's 16
    target_bytes: int = 8 * 1024  # RFC 9112 §3 asks for 8000 at least
    fields: int = 100  # Apache's LimitRequestFields
    chunk_line_bytes: int = 256  # a size is at most 16 digits; the rest is extensions
    extension_bytes: int = 16 * 1024  # all of one message's chunk extensions, as Go's net/http
    trailer_bytes: int = 8 * 1024
    interim_heads: int = 32  # responses with status 1xx before the final one
    unread_bytes: int = 64 * 1024  # body that no reader took, and what is queued to be sent


# An origin is ours or our customer's: long lists of Set-Cookie and policies are common there.
RESPONSE_LIMITS: Final = Limits(head_bytes=64 * 1024, fields=256)

LARGEST_SIZE: Final = 2**63 - 1  # a signed 64-bit length, the most that others can read
METHOD_ROOM: Final = 128  # of a request line, beside its target


class Body(Enum):
    """How the end of a body is found."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    INTERIM = auto()  # none, and another head follows


class Framing(NamedTuple):
    """How much belongs to a message behind its head; `length` counts for `Body.LENGTH` only."""

    body: Body
    length: int = 0


_VERSIONS: Final = (b"1.1", b"1.0")

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
_FIELDS = rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+"
_REQUEST_LINE = rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/([0-9]\.[0-9])"
_STATUS_LINE = rb"HTTP/([0-9]\.[0-9]) ([1-5][0-9][0-9])(?: " + _VALUE + rb")?"

_request_line = re.compile(_REQUEST_LINE)
_request_head = re.compile(_REQUEST_LINE + rb"\r\n" + _FIELDS + rb"\r\n")
_status_line = re.compile(_STATUS_LINE)
_response_head = re.compile(_STATUS_LINE + rb"\r\n" + _FIELDS + rb"\r\n")
_trailers = re.compile(_FIELDS + rb"\r\n")
_field_line = re.compile(_TOKEN + rb":" + _VALUE)
_space_before_colon = re.compile(rb"(?<=\r\n)(" + _TOKEN + rb")[ \t]++:")

_framing_field = re.compile(
    rb"\r\n(content-length|transfer-encoding|host):[ \t]*+([^\r]*+)", re.IGNORECASE
)
_length = re.compile(rb"0|[1-9][0-9]{0,17}+")  # 18 digits: below 2**63 without looking

_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16}+)(;" + _VALUE + rb")?\r\n")
_chunk_line_part = re.compile(rb"[0-9A-Fa-f]{0,16}+|[0-9A-Fa-f]{1,16}+(?:;" + _VALUE + rb")?\r?")

# Nothing but text, and CR with LF: what no head, whole or part, may hold. A bare CR is told by
# the byte behind it, so that a cut between CR and LF is no fault.
_bad_byte = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]|\r[^\n]|(?<!\r)\n")


def bad_byte(data: bytes | bytearray, start: int, stop: int) -> int:
    """Index of the byte that shows the first forbidden one from `start` on, or `stop`."""
    found = _bad_byte.search(data, start, stop)
    return found.end() - 1 if found else stop


def check_request_line(line: bytes, limits: Limits) -> None:
    """Raise 400, 505 or 414 where `line` (without CRLF) is no request line (RFC 9112 §3)."""
    parts = _request_line.fullmatch(line)
    if parts is None:
        raise ProtocolError(Failure.BAD_MESSAGE, f"request line {line[:80]!r}")
    _check_request_line_parts(parts, limits)


def request_framing(head: bytes, limits: Limits) -> Framing:
    """The framing of a request with this whole head; raises its first fault (RFC 9112 §6)."""
    parts = _request_head.fullmatch(head)
    if parts is None:
        check_request_line(head[: head.find(b"\r\n")], limits)
        _refuse_fields(head, Failure.BAD_MESSAGE)
    _check_request_line_parts(parts, limits)
    if head.count(b"\r\n") - 2 > limits.fields:
        raise ProtocolError(Failure.HEAD_TOO_LARGE, f"more than {limits.fields} fields")
    lengths, codings, hosts = _framing_fields(head)
    if hosts > 1 or (hosts == 0 and parts[3] == b"1.1"):
        raise ProtocolError(Failure.BAD_HOST, f"{hosts} Host fields")  # RFC 9112 §3.2
    if codings:
        _check_chunked(codings, lengths, parts[3], Failure.BAD_MESSAGE)
        return Framing(Body.CHUNKED)
    if not lengths:
        return Framing(Body.NONE)
    return Framing(Body.LENGTH, _read_length(lengths, Failure.BAD_MESSAGE))


def check_status_line(line: bytes) -> None:
    """Raise BAD_RESPONSE where `line` (without CRLF) is no status line of 1.0 or 1.1."""
    parts = _status_line.fullmatch(line)
    if parts is None or parts[1] not in _VERSIONS:
        raise ProtocolError(Failure.BAD_RESPONSE, f"status line {line[:80]!r}")


def canonical_response(head: bytes) -> bytes:
    """`head` without white space before colons (RFC 9112 §5.1: a proxy must remove it)."""
    if _response_head.fullmatch(head):
        return head
    return _space_before_colon.sub(rb"\1:", head)


def response_framing(head: bytes, limits: Limits, method: bytes) -> Framing:
    """The framing of a response to `method` with this whole head (RFC 9112 §6.3)."""
    parts = _response_head.fullmatch(head)
    if parts is None:
        check_status_line(head[: head.find(b"\r\n")])
        _refuse_fields(head, Failure.BAD_RESPONSE)
    if parts[1] not in _VERSIONS:
        check_status_line(head[: head.find(b"\r\n")])
    if head.count(b"\r\n") - 2 > limits.fields:
        raise ProtocolError(Failure.BAD_RESPONSE, f"more than {limits.fields} fields")
    status = int(parts[2])
    if status < 200:
        return Framing(Body.NONE if status == 101 else Body.INTERIM)
    lengths, codings, _ = _framing_fields(head)
    if codings:
        _check_chunked(codings, lengths, parts[1], Failure.BAD_RESPONSE)
    length = _read_repeated_length(lengths) if lengths else None
    if method == b"HEAD" or status in (204, 304):
        return Framing(Body.NONE)
    if codings:
        return Framing(Body.CHUNKED)
    return Framing(Body.UNTIL_CLOSE) if length is None else Framing(Body.LENGTH, length)


def read_chunk_line(
    data: bytes | bytearray, start: int, stop: int, fault: Failure
) -> tuple[int, int, int] | None:
    """(size, bytes of extension, index behind) of the chunk-size line at `start`.

    None where the line is not whole yet before `stop`. RFC 9112 §7.1: hexadecimal digits alone;
    no sign, no prefix, no space. Raises `fault`.
    """
    line = _chunk_line.match(data, start, stop)
    if line is None:
        if _chunk_line_part.fullmatch(data, start, stop) is None:
            detail = f"chunk-size line {bytes(data[start : min(stop, start + 40)])!r}"
            raise ProtocolError(fault, detail)
        return None
    size = int(line[1], 16)
    if size > LARGEST_SIZE:
        raise ProtocolError(fault, f"chunk of {size} bytes")
    return size, len(line[2] or b""), line.end()


def check_trailers(section: bytes, limits: Limits, fault: Failure) -> None:
    """Raise `fault` unless `section` is field lines and an empty line, none of them framing."""
    if _trailers.fullmatch(section) is None:
        _refuse_fields(b"\r\n" + section, fault)
    if section.count(b"\r\n") - 1 > limits.fields or _framing_field.search(b"\r\n" + section):
        raise ProtocolError(fault, "trailers with framing, Host, or too many fields")


def _check_request_line_parts(parts: re.Match[bytes], limits: Limits) -> None:
    if parts[3] not in (b"1.1", b"1.0"):
        raise ProtocolError(Failure.BAD_VERSION, f"HTTP/{parts[3].decode()}")
    line_bytes = parts.end(3) - parts.start()
    if len(parts[2]) > limits.target_bytes or line_bytes > limits.target_bytes + METHOD_ROOM:
        raise ProtocolError(Failure.TARGET_TOO_LONG, f"{line_bytes} bytes of request line")


def _framing_fields(head: bytes) -> tuple[list[bytes], list[bytes], int]:
    """(Content-Length values, Transfer-Encoding values, number of Host lines)."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    hosts = 0
    for name, value in _framing_field.findall(head):
        match name.lower():
            case b"host":
                hosts += 1
            case b"content-length":
                lengths.append(value.rstrip(b" \t"))
            case _:
                codings.append(value.rstrip(b" \t"))
    return lengths, codings, hosts


def _check_chunked(
    codings: list[bytes], lengths: list[bytes], version: bytes, fault: Failure
) -> None:
    # RFC 9112 §6.1: Content-Length beside it ought to be handled as an error; 1.0 has no codings.
    if lengths or version == b"1.0" or len(codings) > 1 or codings[0].lower() != b"chunked":
        detail = f"Transfer-Encoding {codings[0][:40]!r} in HTTP/{version.decode()}"
        raise ProtocolError(fault, detail)


def _read_length(values: list[bytes], fault: Failure) -> int:
    if len(values) != 1 or _length.fullmatch(values[0]) is None:
        raise ProtocolError(fault, f"Content-Length {b' and '.join(values)[:60]!r}")
    return int(values[0])


def _read_repeated_length(values: list[bytes]) -> int:
    # RFC 9112 §6.3: a list of one value, repeated, may be taken for that value.
    members = {member.strip(b" \t") for value in values for member in value.split(b",")}
    return _read_length(sorted(members), Failure.BAD_RESPONSE)


def _refuse_fields(head: bytes, fault: Failure) -> NoReturn:
    """Raise `fault` for a head whose start line is good, naming the line that is not."""
    for line in head.split(b"\r\n")[1:-2]:
        if _field_line.fullmatch(line) is None:
            raise ProtocolError(fault, f"field line {line[:80]!r}")
    raise ProtocolError(fault, "no empty line behind the fields")
