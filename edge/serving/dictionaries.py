"""Dictionaries that stored answers have become, and which of them a client holds (RFC 9842).

A stored answer that asks for it with Use-As-Dictionary becomes a dictionary when it is answered
with, once all of its body is here: its clients keep it from then on, and name it by its digest
when they ask for what it is for. What they are sent then is a variant of its own, `dcz`, one for
each dictionary of the site's that is still known.

- *Only what all may have* becomes one: what is stored, as it came from the origin, uncoded. No
  answer that is one client's alone is read, or is coded with one.
- *Never across sites or origins*: see `coding.dictionary`. Whoever names a dictionary by its
  digest has it, or has nothing from it.
- *By node.* Who owns a URL learns what its answers become, and any worker finds it: see
  `coding.library`. A dictionary that is not known costs nothing but its use.
- *Purges forget none*: see `coding.shelf`.
- *Bounded* as `Dictionaries` are. It is tried once for each stored body, and of no more than
  `MOST_LEARNING` at once.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from edge.coding import renditions
from edge.coding.dictionary import Realm, available, offer
from edge.coding.negotiate import Coding, acceptance
from edge.coding.policy import origin_coding
from edge.errors import ExchangeError

if TYPE_CHECKING:
    from edge.cache.held import Held
    from edge.coding.dictionary import Dictionary, Offer
    from edge.serving.terms import Site
    from edge.serving.visit import Tools, Visit
    from edge.wire.message import RequestHead

PIECE_BYTES: Final = 64 * 1024
MOST_TRIED: Final = 4096  # bodies that were made dictionaries of, or could not be
MOST_LEARNING: Final = 32  # bodies that are being read for it, each of a megabyte at the most


class DictionaryDesk:
    """Where answers of one worker's store become dictionaries, and are coded with them."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._tried: OrderedDict[tuple[Realm, bytes], None] = OrderedDict()
        self._learning = 0

    async def meant_by(self, visit: Visit) -> Dictionary | None:
        """The dictionary that a client holds and that its request may be answered with.

        No checkpoint where a request names none.
        """
        policy, headers = visit.terms.compress, visit.head.headers
        if policy is None or not policy.dictionaries:
            return None
        digest = available(headers)
        if digest is None:
            return None
        if not acceptance(headers.joined(b"accept-encoding")).accepts(Coding.DCZ):
            return None
        request = visit.request
        found = await self._tools.library.find(realm_of(visit.site, request), digest)
        if found is None or not found.offer.match.takes(request.target):
            return None
        return found if found.offer.is_meant_for(headers.get(b"sec-fetch-dest")) else None

    def learn(self, visit: Visit, source: Held) -> None:
        """Have a dictionary made of what a visit is answered with, if that asks for it."""
        entry = source.entry
        if b"use-as-dictionary" not in entry.headers or entry.status != 200:
            return
        tried = realm_of(visit.site, visit.request), renditions.mark(entry)
        if tried in self._tried or origin_coding(entry.headers) is not Coding.IDENTITY:
            return
        offered = offer(entry.headers, visit.request.target)
        if offered is None or not self._tools.library.fits(entry.length or PIECE_BYTES):
            return
        if self._learning >= MOST_LEARNING:
            return  # another time
        self._tried[tried] = None
        if len(self._tried) > MOST_TRIED:
            self._tried.popitem(last=False)
        self._learning += 1
        self._tools.background.start_soon(self._learn, tried, source, offered)

    async def _learn(self, tried: tuple[Realm, bytes], source: Held, offered: Offer) -> None:
        try:
            content = await self._content(source)
            if content is not None:
                await self._tools.library.learn(tried[0], content, offered)
        except ExchangeError:  # its body broke off, or has gone
            self._tried.pop(tried, None)
        finally:
            self._learning -= 1

    async def _content(self, source: Held) -> bytes | None:
        """All of the body; None where it is too large."""
        body = await self._tools.store.peek_body(source)
        library, content = self._tools.library, bytearray()
        try:
            while data := await body.read(len(content), PIECE_BYTES):
                content += data
                if not library.fits(max(len(content), PIECE_BYTES)):
                    return None
        finally:
            body.close()
        return bytes(content)


def realm_of(site: Site, request: RequestHead) -> Realm:
    """Within what a dictionary for this request, as it is admitted, must have been learned."""
    return Realm(site.name, b"%b://%b" % (request.scheme, request.authority))
