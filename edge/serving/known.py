"""What is known of a plain request once it has been seen: what of it need not be worked out again.

See `quick`, which remembers it by the request's bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from edge.cache import decision
from edge.cache.validation import CONDITIONALS
from edge.coding import renditions
from edge.listen.lane import After
from edge.observe.record import text
from edge.serving.answer import ONE_VISITORS
from edge.serving.ready import Ready
from edge.serving.visit import arms_told
from edge.wire.plain import is_last

if TYPE_CHECKING:
    from collections.abc import Iterable

    from msgspec import UnsetType

    from edge.cache.entry import Key
    from edge.cache.held import Held
    from edge.errors import ExchangeError
    from edge.routing.experiment import Assignment
    from edge.serving.admission import Admitted, Drawn
    from edge.serving.branches import Branches
    from edge.wire.message import RequestHead


class Known:
    """What follows from a request and the settings; `admitted` is None where it is not for here,
    or `refused`, or where more than its bytes has to be known (`branches`).

    `plain` is the law's word for it, and `whole` says that it asks for no part and on no
    condition. What has the `token` it selects, when that is alone, and is answered with in the
    `form`, from what is stored under `key`. `wish` is what it accepts of the codings that its site
    sends, if any are. `mark` stands for its site by these settings. `cookies` are lines of the
    answer's head that tell a new visitor its arms, and `drawn` are those that chance has given.
    The words are for the log.
    """

    __slots__ = (
        "admitted", "after", "arms", "branches", "cookies", "drawn", "form", "head", "host",
        "key", "mark", "method", "plain", "refused", "target", "token", "whole", "wish",
    )  # fmt: skip

    def __init__(
        self,
        head: RequestHead,
        admitted: Admitted | None,
        mark: object = None,
        refused: ExchangeError | None = None,
        branches: Branches[Known] | None = None,
        drawn: Drawn = (),
    ) -> None:
        self.head = head
        self.admitted = admitted
        self.refused = refused
        self.branches = branches
        self.drawn = drawn
        self.arms: tuple[str, ...] | UnsetType = UNSET
        self.cookies = b""
        if admitted is not None and admitted.arms:
            self.arms = arms_told(admitted.arms)
            self.cookies = cookie_lines(admitted.arms, admitted.request.scheme)
        self.after = After.CLOSE if is_last(head) else After.PARK
        self.mark = mark
        # RFC 9211 §2.7: where the key is told, no two answers need be the same
        told = admitted is None or admitted.tells_key
        self.plain = not told and decision.is_plain(head)
        self.token: object = None
        self.form = 0
        self.key: Key | None = None
        policy = admitted.terms.compress if admitted is not None else None
        self.wish = renditions.wish(head, policy) if policy is not None else None
        self.whole = CONDITIONALS.isdisjoint([name for name, _ in head.headers.pairs])
        self.method = text(head.method)
        self.host = text(head.authority)
        self.target = text(head.target)

    def form_of(self, status: int) -> int:
        """The number of the kind of answer that this has with `status`, among an entry's."""
        is_last = self.after is After.CLOSE
        return 4 * (status == 304) + 2 * is_last + (self.method == "HEAD")

    def told(self, head: bytes) -> bytes:
        """A head as it is written, with what a new visitor is told."""
        return head[:-2] + self.cookies + b"\r\n" if self.cookies else head

    def learn(self, held: Held, status: int) -> None:
        """Note that this selects `held`, which is alone, and how it is answered by that."""
        ready, form = held.ready, self.form_of(status)
        if not self.plain or not (self.whole or status == 304):
            return
        if isinstance(ready, Ready) and ready.mark is self.mark and form in ready.hits:
            self.token, self.form, self.key = ready.token, form, held.entry.key


def cookie_lines(arms: Iterable[Assignment], scheme: bytes) -> bytes:
    """The lines of Set-Cookie for new visitors, as they stand in a head."""
    lines = [b"set-cookie: %b\r\n" % each.cookie(scheme) for each in arms if each.is_new]
    return b"".join([*lines, b"%b: %b\r\n" % ONE_VISITORS]) if lines else b""
