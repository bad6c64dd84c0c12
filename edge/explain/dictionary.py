"""Which dictionary an answer would be coded with (RFC 9842), and why none, for an explanation.

What is asked is what `serving.dictionaries` asks before it codes, in its order. Looking a
dictionary up learns none, and counts as no use; one of another worker's is read, but not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from edge.coding.dictionary import available
from edge.coding.negotiate import Coding, acceptance
from edge.coding.renditions import AVAILABLE
from edge.explain.question import plain
from edge.serving.dictionaries import realm_of

if TYPE_CHECKING:
    from edge.coding.dictionary import Dictionary
    from edge.explain.particulars import Case

_SHOWN: Final = 12  # digits of a digest, as `sha256sum` has them


class Unused(Enum):
    """Why a dictionary that a request names is not used."""

    OFF = "off"
    UNREAD = "unread"
    UNACCEPTED = "unaccepted"
    ALONE = "alone"
    UNKNOWN = "unknown"
    ELSEWHERE = "elsewhere"
    MATCH = "match"
    DESTINATION = "destination"


@dataclass(frozen=True, slots=True)
class Named:
    """What a request's Available-Dictionary comes to: `why` it is not used, None where it is."""

    why: Unused | None
    digest: bytes | None = None
    found: Dictionary | None = None

    @property
    def used(self) -> Dictionary | None:
        """The dictionary that an answer is coded with."""
        return self.found if self.why is None else None

    @property
    def by(self) -> bytes:
        """Its digest, b"" where none is."""
        return self.used.digest if self.used is not None else b""

    def document(self) -> dict[str, Any]:
        """For JSON: the digest in hexadecimal, and what the dictionary's origin said of it."""
        offer = self.found.offer if self.found is not None else None
        return {
            "digest": None if self.digest is None else self.digest.hex(),
            "id": plain(offer.id) if offer is not None and offer.id else None,
            "match": None if offer is None else plain(offer.match.pattern),
            "why": None if self.why is None else self.why.value,
        }

    @property
    def says(self) -> str:
        """`dictionary 0123456789ab ("v1", for /app.*.js)`, or `not dcz: ` and why."""
        if self.why is None:
            return f"dictionary {self._short} ({self._of_origin})"
        return f"not dcz: {self._reason(self.why)}"

    @property
    def _short(self) -> str:
        return (self.digest or b"").hex()[:_SHOWN]

    @property
    def _of_origin(self) -> str:
        if self.found is None:
            return ""
        offer = self.found.offer
        called = f'"{plain(offer.id)}", ' if offer.id else ""
        return f"{called}for {plain(offer.match.pattern)}"

    def _reason(self, why: Unused) -> str:
        match why:
            case Unused.UNKNOWN:
                return f"no dictionary {self._short} is known"
            case Unused.ELSEWHERE:
                return f"dictionary {self._short} is another site's or origin's"
            case Unused.MATCH:
                return f"dictionary {self._short} ({self._of_origin}) is not for this URL"
            case Unused.DESTINATION:
                meant = self.found.offer.match_dest if self.found is not None else ()
                words = plain(b", ".join(sorted(meant)))
                return f"dictionary {self._short} is for {words} alone (Sec-Fetch-Dest)"
            case _:
                return _WHY[why]


async def named(case: Case, goes: str = "") -> Named | None:
    """The dictionary that a request names; None where it names none. `goes` is how it goes to its
    origin, "" where it does not."""
    headers, policy = case.head.headers, case.admitted.terms.compress
    if AVAILABLE not in headers or policy is None:
        return None
    digest = available(headers)
    if not policy.dictionaries:
        return Named(Unused.OFF, digest)
    if digest is None:
        return Named(Unused.UNREAD)
    if not acceptance(headers.joined(b"accept-encoding")).accepts(Coding.DCZ):
        return Named(Unused.UNACCEPTED, digest)
    if goes == "alone":
        return Named(Unused.ALONE, digest)
    request, library = case.admitted.request, case.tools.library
    found = await library.look(realm_of(case.admitted.site, request), digest)
    if found is None:
        is_elsewhere = await library.has_elsewhere(digest)
        return Named(Unused.ELSEWHERE if is_elsewhere else Unused.UNKNOWN, digest)
    if not found.offer.match.takes(request.target):
        return Named(Unused.MATCH, digest, found)
    if not found.offer.is_meant_for(headers.get(b"sec-fetch-dest")):
        return Named(Unused.DESTINATION, digest, found)
    return Named(None, digest, found)


_WHY: Final = {
    Unused.OFF: "the site has no dictionaries (compress.dictionaries)",
    Unused.UNREAD: "Available-Dictionary names no SHA-256",
    Unused.UNACCEPTED: "the client does not accept it",
    Unused.ALONE: "what is one client's alone is coded with no dictionary",
}
