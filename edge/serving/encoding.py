"""Making coded variants, and finding those that are made: what an answer's body is sent from.

See `coding.renditions` for what a variant is. Here is the work: `shown` says from which body and
under which head an answer from the store goes to its client, and where no variant of that body is
at hand yet, sets one off. The first client reads along as it is made, and so does everyone who
comes meanwhile: there is one encoding for each body and coding, in the background, so that it
outlives the client who set it off. What is no one's to share is coded for its one client
(`passing`), and not kept.

- *A broken source breaks off its variants.* Only a source that has come to its end makes a whole
  variant; until then who reads it reads something unfinished.
- *What its origin coded* is decoded for who does not accept that, and what comes of it goes into
  the encoder of the coding that they like best. Before a client is told anything, it is decoded
  as far as needed to know that it is no bomb; who else asks for the same meanwhile waits for that.
- *What does not shrink* is noted on its source, and goes as it is from then on. Who reads along
  already is served to the end, and nothing is kept. Where nobody knew how long it would be, it is
  kept all the same: see `coding.policy`.
- *Parts.* A range is one of the stored variant where there is one, else of the source, if its
  client accepts that; If-Range says of which of them a client has a part.
- *For nobody* a variant is made to its end only where its source is here whole. What is yet to
  come of the source is not waited for: how long to do that is the errand's affair.
- *What has earned it* is coded again, as well as can be, by a thread that takes what is left
  over (`earn`): what that makes comes in place of the first, with a tag of its own, if it is
  smaller. It is tried once.
- *Bounded* by the coders: where too many are at work, the answer goes as it is, or decoded.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.entry import Times, body_mark
from edge.cache.held import NOTHING
from edge.cache.purge import Verdict
from edge.cache.validation import Outcome, preconditions
from edge.coding import renditions
from edge.coding.bodies import PIECE_BYTES, Decoded, Encoded
from edge.coding.coders import AT_ONCE
from edge.coding.merit import Merit
from edge.coding.negotiate import CODED, Coding
from edge.coding.policy import is_coded, is_sized, is_worth, origin_coding
from edge.coding.representation import varied_headers
from edge.errors import ExchangeError, Failure, let_go
from edge.serving.dictionaries import DictionaryDesk
from edge.serving.finding import look_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edge.cache.body import Body
    from edge.cache.entry import Entry, Key
    from edge.cache.held import Held
    from edge.coding.bodies import Recoded
    from edge.coding.dictionary import Dictionary
    from edge.coding.policy import CompressPolicy
    from edge.serving.visit import Tools, Visit
    from edge.wire.message import Headers, RequestHead, ResponseHead

PROBE_BYTES: Final = 64 * 1024  # of a body, after which it may prove not to shrink
FOR_ONE_AT_ONCE: Final = AT_ONCE // 2  # the others are for what all can have, at its own pace
STEPS_AT_ONCE: Final = 2  # each may take a third of a millisecond of the loop


@dataclass(slots=True)
class _Opening:
    """A variant that is about to be begun; `failure` says why none can be, of what is stored."""

    done: trio.Event = field(default_factory=trio.Event)
    failure: ExchangeError | None = None


class Encodings:
    """Makes variants of what is in the store of `tools`; none, where those have no coders."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._numbers = count()
        self._turns = trio.Semaphore(STEPS_AT_ONCE)
        self._for_one = trio.Semaphore(FOR_ONE_AT_ONCE)
        self._openings: dict[bytes, _Opening] = {}  # as many as requests begin one
        self.dictionaries = DictionaryDesk(tools)
        self._merits: dict[tuple[int, float], Merit] = {}  # as many as sites have settings

    async def shown(self, visit: Visit, source: Held) -> renditions.Shown:
        """What `visit` is answered with of what is held; raises as `Store.open` does."""
        policy, entry = visit.terms.compress, source.entry
        if policy is None or entry.made_of:  # another worker has made it, and this is its copy
            return renditions.Shown(source, entry, entry)
        if policy.dictionaries:
            self.dictionaries.learn(visit, source)
        coding = renditions.coding_for(entry, renditions.wish(visit.head, policy), policy)
        dictionary = await self.dictionaries.meant_by(visit) if coding in CODED else None
        if dictionary is not None:
            coding = Coding.DCZ
        shown = None
        if coding is not None and not source.newest.uncodable:
            shown = await self._shown_in(coding, visit, source, policy, dictionary)
            if shown is None and is_coded(entry.headers) and coding is not Coding.IDENTITY:
                shown = await self._shown_in(Coding.IDENTITY, visit, source, policy)
        return shown or renditions.Shown(source, renditions.plain(entry, policy), entry)

    async def _shown_in(
        self,
        coding: Coding,
        visit: Visit,
        source: Held,
        policy: CompressPolicy,
        dictionary: Dictionary | None = None,
    ) -> renditions.Shown | None:
        """As `shown`, of the variant in `coding`; None where it is not to be had, or not meant."""
        entry, store = source.entry, self._tools.store
        by = dictionary.digest if dictionary is not None else b""
        key, now = renditions.key_of(entry.key, coding, by), self._tools.now()
        variant = renditions.fitting(await store.find(key, now), entry)
        if renditions.has_part_of(visit.request, entry, variant):
            return None
        if variant is None and _has_no_content(visit.request, entry):
            return renditions.Shown(
                None, renditions.told(renditions.entry_of(entry, coding), policy), entry
            )
        if variant is None:
            body = store.open_nowait(source)
            if body is None:
                body = await store.open(source)
            variant = await self._made(source, body, coding, policy, dictionary)
        if variant is None:
            return None
        if dictionary is not None:
            self._tools.library.count_use()
        as_now = renditions.as_now(entry, variant.entry, coding)
        if variant.fill is None and not renditions.is_lasting(variant.entry, entry):
            variant = store.freshen(variant, as_now)
        return renditions.Shown(variant, renditions.told(as_now, policy), entry)

    async def _made(
        self,
        source: Held,
        body: Body,
        coding: Coding,
        policy: CompressPolicy,
        dictionary: Dictionary | None,
    ) -> Held | None:
        """A variant that is being made of `body`, a reader of what is held; None where there can
        be none now. Raises BAD_RESPONSE for what cannot be decoded: that is not kept."""
        entry, store = source.entry, self._tools.store
        by = dictionary.digest if dictionary is not None else b""
        key = renditions.key_of(entry.key, coding, by)
        async with AsyncExitStack() as stack:
            stack.callback(body.close)
            async with self._opening(key, source):
                made = store.find_nowait(key, self._tools.now()) or NOTHING
                variant = renditions.fitting(made, entry)
                if variant is not None:  # somebody else was quicker
                    return variant
                recoded = await self._recoded(
                    stack, entry.headers, body, entry.length, coding, policy, dictionary
                )
                if recoded is None:
                    return None
                held = store.begin(renditions.entry_of(entry, coding, self._new_mark(), by=by))
                closing = stack.pop_all()
            self._tools.background.start_soon(self._make, source, held, recoded, policy, closing)
            return held

    @asynccontextmanager
    async def _opening(self, key: Key, source: Held) -> AsyncIterator[None]:
        """The turn to begin what is to be stored under `key`, made of what is held; raises what
        somebody has learnt of that meanwhile."""
        name = key.digest + renditions.mark(source.entry)
        while (other := self._openings.get(name)) is not None:
            await other.done.wait()
            if other.failure is not None:
                raise ExchangeError(other.failure.failure, other.failure.detail)
        opening = self._openings[name] = _Opening()
        try:
            yield
        except ExchangeError as error:
            if error.failure is Failure.BAD_RESPONSE:
                self._tools.store.drop(source.newest)  # nobody could read it
                opening.failure = error
            raise
        finally:
            del self._openings[name]
            opening.done.set()

    async def _recoded(
        self,
        stack: AsyncExitStack,
        headers: Headers,
        body: Body,
        length: int | None,
        coding: Coding,
        policy: CompressPolicy,
        dictionary: Dictionary | None = None,
    ) -> Recoded | None:
        """`body`, of an answer with `headers`, in another coding: decoded first, if it came coded.
        What that takes is closed with `stack`; None where too many are at work."""
        coders, coder = self._tools.coders, None
        if coders is None:
            return None
        came = origin_coding(headers) or Coding.IDENTITY
        if coding is not Coding.IDENTITY:
            plain_length = length if came is Coding.IDENTITY else None
            coder = coders.begin(coding, policy, plain_length, dictionary)
            if coder is None:
                return None
            stack.callback(coder.close)
        if came is Coding.IDENTITY:
            assert coder is not None  # or there would be nothing to do
            return Encoded(body, length, self._turns, coder)
        decoder = await stack.enter_async_context(coders.decoding(came))
        decoded = Decoded(body, length, self._turns, decoder)
        await decoded.prove()
        return decoded if coder is None else Encoded(decoded, None, self._turns, coder)

    def _new_mark(self) -> bytes:
        now = self._tools.now()
        return body_mark(Times(now, now), self._tools.purges.current().latest, next(self._numbers))

    async def _make(
        self,
        source: Held,
        held: Held,
        recoded: Recoded,
        policy: CompressPolicy,
        closing: AsyncExitStack,
    ) -> None:
        """See a variant through, to the store or to nothing."""
        store = self._tools.store
        error = ExchangeError(Failure.DRAINING)  # stands if it is cancelled
        whole = False
        try:
            async with closing:
                await self._pour(source, held, recoded, policy)
            whole = True
        except ExchangeError as known:
            error = known
            if known.failure is Failure.BAD_RESPONSE and is_coded(source.entry.headers):
                store.drop(source.newest)
        except Exception as unknown:  # around a flight: its end is told, not thrown
            self._tools.complain(Failure.INTERNAL.slug, f"a coding failed: {unknown!r}", None)
            error = ExchangeError(Failure.INTERNAL)
        finally:
            let_go(error)
            if not whole:
                store.abort(held, error)
        if whole:
            await store.commit(held)
            if look_at(source.newest, self._tools.purges.current()) is Verdict.DEAD:
                store.drop(held)  # its source went meanwhile: it would only take up room

    async def _pour(
        self, source: Held, held: Held, recoded: Recoded, policy: CompressPolicy
    ) -> None:
        """All that comes into what is being filled; raises what ends it early."""
        fill = held.fill
        assert fill is not None
        has_to_shrink = is_sized(source.entry.headers)
        while data := await recoded.read(recoded.given, PIECE_BYTES):
            await fill.write(data)
            is_probed = has_to_shrink and recoded.taken >= PROBE_BYTES
            if is_probed and not _is_worth(recoded, policy):
                self._give_up(source, held)
            if fill.was_read and not fill.readers and _is_coming(source):
                raise ExchangeError(Failure.CLIENT_LEFT, "no one reads it")
        if has_to_shrink and not _is_worth(recoded, policy):
            self._give_up(source, held)

    def _give_up(self, source: Held, held: Held) -> None:
        """It does not shrink: let those who read it have it, and nobody else."""
        source.newest.uncodable = True
        if not held.dropped:
            self._tools.store.drop(held)

    # What has earned it.

    def earn(self, source: Held, variant: Held, policy: CompressPolicy) -> None:
        """A request was answered with a whole `variant` of what is held: if many were, have that
        made anew, smaller."""
        if variant.uncodable or variant.fill is not None:
            return
        coders = self._tools.coders
        if coders is None or coders.is_full or not renditions.may_improve(source.entry, policy):
            return
        terms = policy.recompress_after, policy.recompress_within_s
        merit = self._merits.get(terms)
        if merit is None:
            merit = self._merits[terms] = Merit(*terms)
        if merit.hit(variant.entry.key.digest, trio.current_time()):
            self._tools.background.start_soon(self._improve, source, variant, policy)

    async def _improve(self, source: Held, variant: Held, policy: CompressPolicy) -> None:
        """Put a smaller variant in the place of this one, if there is one to be had."""
        try:
            coded_body = await self._coded_harder(source, variant, policy)
            if coded_body is not None:
                await self._replace(source, variant, coded_body)
        except ExchangeError:
            pass  # the source has gone meanwhile, or its body has
        except Exception as unknown:  # around a flight: its end is told, not thrown
            self._tools.complain(Failure.INTERNAL.slug, f"a coding failed: {unknown!r}", None)

    async def _coded_harder(
        self, source: Held, variant: Held, policy: CompressPolicy
    ) -> bytes | None:
        variant.uncodable = True  # whatever comes of it
        coding = origin_coding(variant.entry.headers)
        coders = self._tools.coders
        if coding not in CODED or coders is None:
            return None
        body = await self._tools.store.peek_body(source)
        try:
            made = await coders.recompress(coding, policy, body)
        finally:
            body.close()
        is_smaller = made is not None and len(made) < (variant.entry.length or 0)
        return made if is_smaller else None

    async def _replace(self, source: Held, variant: Held, body: bytes) -> None:
        """Store `body` in place of that of `variant`, if that is still what fits its source."""
        store, entry = self._tools.store, source.newest.entry
        found = await store.find(variant.entry.key, self._tools.now())
        now = renditions.fitting(found, entry)
        coding = origin_coding(variant.entry.headers)
        if now is None or now.entry.body != variant.entry.body or coding is None:
            return
        made = store.begin(renditions.entry_of(entry, coding, self._new_mark(), len(body)))
        made.uncodable = True
        fill = made.fill
        assert fill is not None
        whole = False
        try:
            await fill.write(body)
            whole = True
        finally:
            if not whole:
                store.abort(made, ExchangeError(Failure.DRAINING))
        await store.commit(made)

    # What is not kept.

    @asynccontextmanager
    async def passing(
        self, visit: Visit, head: ResponseHead, body: Body
    ) -> AsyncIterator[tuple[ResponseHead, Body]]:
        """An answer that is one client's alone, as it goes to it."""
        policy = visit.terms.compress
        if policy is None:
            yield head, body
            return
        if head.status == 304:  # RFC 9110 §15.4.5: with the Vary that its 200 had
            held = renditions.held_by(visit.head, head)
            yield replace(held, headers=varied_headers(held.headers)), body
            return
        coding = renditions.coding_of(head, renditions.wish(visit.head, policy), policy)
        plain = head
        if renditions.is_chosen(head, policy):
            plain = replace(head, headers=varied_headers(head.headers))
        if coding is None:
            yield plain, body
        elif visit.head.method == b"HEAD":
            yield replace(head, headers=renditions.fields_of(head.headers, coding)), body
        else:
            async with AsyncExitStack() as stack:
                stack.callback(body.close)
                length, recoded = body.length, None
                if coding is Coding.IDENTITY or self._has_room_for_one(stack):
                    recoded = await self._recoded(
                        stack, head.headers, body, length, coding, policy
                    )
                if recoded is None and is_coded(head.headers):  # it cannot go as it is
                    coding = Coding.IDENTITY
                    recoded = await self._recoded(
                        stack, head.headers, body, length, coding, policy
                    )
                if recoded is None:
                    yield plain, body
                else:
                    fields = renditions.fields_of(head.headers, coding, self._new_mark())
                    yield replace(head, headers=fields), recoded

    def _has_room_for_one(self, stack: AsyncExitStack) -> bool:
        """Whether one client may have an encoder of its own, for as long as it reads."""
        try:
            self._for_one.acquire_nowait()
        except trio.WouldBlock:
            return False
        stack.callback(self._for_one.release)
        return True


def _is_worth(recoded: Recoded, policy: CompressPolicy) -> bool:
    return is_worth(recoded.given, recoded.taken, policy)


def _has_no_content(request: RequestHead, source: Entry) -> bool:
    """Whether the answer has no content, whatever its coding."""
    return request.method == b"HEAD" or preconditions(request, source) is not Outcome.PROCEED


def _is_coming(source: Held) -> bool:
    """Whether there is more of a source to be waited for."""
    fill = source.newest.fill
    return fill is not None and not fill.finished
