"""The synchronous half of an exchange: plain requests whose answer needs no waiting.

Theory of operation
-------------------
Most requests of a cache are plain, and what answers them is in memory. Such a one needs no task,
no engine and no stream: its bytes go in here and the bytes of its answer come out, or None, and
then an exchange answers it as if it had not been here.

- *It decides nothing.* It asks the functions that the exchange asks, in the same order: `admit`,
  the purge number before the store, `select`, the law (its cheap side first), `from_entry`,
  `finished`. A test sends random requests both ways and compares the bytes and the log records.
- *It leaves alone* whatever would wait, or change more than a use and a hit: misses, what is
  dead, what is being filled, bodies that are on disk only and not open, every error but a
  client's own.
- *It remembers* what follows from a request's bytes and the settings in force alone (`Known`),
  found again by the very object that the reader gives for equal bytes; of a stored response the
  heads that answer with it, written (`ready`); and that a request selects such a one. New settings
  begin with nothing remembered. What depends on the peer is never remembered with the request:
  where a peer is trusted to speak for others, its requests are admitted each time; and all are,
  where the settings say more than a request's bytes can (`Parts.remembers`).
- *Bounded.* What is known of requests is two generations of a fixed room, charged with each
  request's bytes and for each of its branches; what is ready of a response is charged to the
  store, and goes with it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edge.cache import decision
from edge.cache.freshness import current_age
from edge.cache.purge import Verdict
from edge.cache.reasons import Reason, cache_status
from edge.cache.ruling import Refuse, Revalidate, Serve, ServeStale
from edge.coding.renditions import (
    Shown,
    as_now,
    asks_by_dictionary,
    coding_for,
    fitting,
    is_lasting,
    key_of,
    keys_of_copies,
    may_stand_alone,
    plain,
    told,
)
from edge.errors import ExchangeError, Failure, Side
from edge.guard.address import client_address
from edge.listen.lane import After
from edge.observe.record import Outcome as Told
from edge.observe.record import Record, text
from edge.routing import experiment
from edge.serving.admission import NONE, PURGE
from edge.serving.answer import finished
from edge.serving.branches import Branches
from edge.serving.delivery import ends_connection, own_answer
from edge.serving.finding import judge, rule, select
from edge.serving.known import Known
from edge.serving.ready import Ready
from edge.serving.scribe import JOINED_BYTES, Scribe
from edge.serving.visit import OUTCOMES
from edge.wire.plain import PlainReader
from edge.wire.serial import plain_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.entry import Seq
    from edge.cache.held import Held
    from edge.cache.purge import Purges
    from edge.coding.policy import CompressPolicy
    from edge.listen.lane import Hop
    from edge.serving.admission import Admitted, Drawn
    from edge.serving.exchange import Exchange
    from edge.serving.finding import Found
    from edge.serving.terms import Terms
    from edge.serving.visit import Parts, Tools
    from edge.upstream.transport import Part
    from edge.wire.grammar import Limits
    from edge.wire.message import RequestHead, ResponseHead

    Answered = tuple[list[Part], Record, After]

ROOM_BYTES: Final = 4 << 20  # of what is known of requests, in each of two generations
KNOWN_BYTES: Final = 3000  # of one request, beside twice its bytes
PEERS: Final = 4096
MARKS: Final = 4096


class Quick:
    """Answers what it can at once, as `exchange` would; `limits` are those of requests.

    `log` takes the records of what was answered, many at a time. Parts of files are given out
    only where it `lends`.
    """

    def __init__(
        self,
        exchange: Exchange,
        tools: Tools,
        limits: Limits,
        log: Callable[[list[Record]], None],
        *,
        room_bytes: int = ROOM_BYTES,
        lends: bool = True,
    ) -> None:
        self._exchange = exchange
        self._tools = tools
        self._log = log
        self._done: list[Record] = []
        self._now = 0.0
        self._drawn: Drawn = NONE  # for the request that is being answered
        self._room = room_bytes
        self._lends = lends
        self.take_up(limits)

    def take_up(self, limits: Limits) -> None:
        """Go by these limits, and by the settings that the exchange has now."""
        self._limits = limits
        self._reader = PlainReader(limits)
        self._forget(self._exchange.parts)

    def _forget(self, parts: Parts) -> None:
        self._parts = parts
        self._scribe = Scribe(parts, self._tools.store, lends=self._lends)
        # By the head's identity, which nobody else can have while the head is kept here.
        self._young: dict[int, Known] = {}
        self._old: dict[int, Known] = {}
        self._dying: dict[int, Known] = {}
        self._left = self._room
        self._clients: dict[bytes, str] = {}
        self._marks: dict[int, tuple[Terms, object]] = {}

    def begin(self) -> None:
        """What is asked until `settle` is asked now, by the settings of now."""
        self._now = self._tools.now()
        if self._exchange.parts is not self._parts:
            self._forget(self._exchange.parts)

    def read(self, data: bytes) -> RequestHead | None:
        """The request that `data` are, if it is whole and plain."""
        return self._reader.read(data)

    def answer(self, data: bytes, peer: bytes) -> Answered | None:
        """The answer to the request that `data` are, and its record; None: an exchange's.

        What is answered must be sent, and the record given to `close`.
        """
        head = self._reader.read(data)
        if head is None:
            return None
        self._drawn = NONE
        try:
            answered = self._answer(head, len(data), peer)
            if answered is None and self._drawn:
                self._exchange.expect(head, peer, self._drawn)
            return answered
        except ExchangeError:
            return None
        except Exception as error:  # around a stream: no request takes its worker down
            self._tools.complain(Failure.INTERNAL.slug, repr(error), None)
            return None

    def close(self, record: Record, took_s: float, error: ExchangeError | None = None) -> None:
        """The answer has been sent, `took_s` seconds after its request came, or has not."""
        record.total_s = record.first_byte_s = round(took_s, 6)
        if error is not None:
            record.error = error.failure.slug
        self._done.append(record)

    def settle(self) -> None:
        """Hand on the records of what has been closed."""
        if self._done:
            done, self._done = self._done, []
            self._log(done)

    def hop(self, data: bytes, peer: bytes) -> Hop | None:
        """Nobody else can answer at once what is not answered here."""
        return None

    def _answer(self, head: RequestHead, size: int, peer: bytes) -> Answered | None:
        client = self._clients.get(peer) or self._client(peer)
        if client:
            known = self._young.get(id(head)) or self._known(head, size, peer)
            if known.branches is not None:
                known = known.branches.take(peer)
        else:
            known = self._made(head, peer)
        self._drawn = known.drawn
        admitted = known.admitted
        if admitted is None:
            return self._refusal(known, known.refused, text(peer)) if known.refused else None
        if admitted.redirect is not None:
            return self._redirected(known, admitted, admitted.redirect, client)
        tools, purges = self._tools, self._tools.purges.current()
        as_of = purges.latest  # before the store is read: a purge in between must win
        now = self._now
        if known.token is not None:
            answered = self._hit(known, admitted, purges, now, client)
            if answered is not None:
                return answered
        for key in keys_of_copies(admitted.key, known.wish):
            resource = tools.store.glance(key, now)
            if resource is None or not resource.variants:
                continue
            is_copy = resource.variants[0].lease is not None
            if not is_copy and key is not admitted.key:
                continue  # what is made of a stored body answers for it, and not by itself
            found = select(resource, admitted.request, admitted.policy, purges)
            return self._by_law(known, admitted, found, as_of, now, peer, is_copy=is_copy)
        return None

    def _by_law(
        self,
        known: Known,
        admitted: Admitted,
        found: Found,
        as_of: Seq,
        now: float,
        peer: bytes,
        *,
        is_copy: bool,
    ) -> Answered | None:
        """What answers at once with what was found, if anything does."""
        if found.dead:
            return None
        client = self._client(peer) or text(admitted.client)
        because, refreshes = self._ruled(admitted, found, now)
        if is_copy and because is not Reason.HIT:
            return None  # it is served as it is, or not at all
        if because is Reason.ONLY_IF_CACHED:
            self._tools.store.use(admitted.key)
            return self._refusal(known, ExchangeError(Failure.NOT_IN_STORE), client)
        if because is None or found.held is None or found.entry is None:
            return None
        age = current_age(found.entry, now)
        ttl = int((found.entry.terms.lifetime_s - age) // 1)
        # For this peer, not for who asked first; before anything is lent, as it may raise.
        asking = self._again(known, peer) if refreshes else None
        shown = self._shown(known, admitted, found.held, is_copy=is_copy)
        if shown is None or shown.held is None:
            return None
        written = self._scribe.written(known, admitted, shown, because, int(age), ttl)
        if written is None:
            return None
        parts, status, sent, is_usual = written
        if because is Reason.HIT and not found.soft and len(found.variants) == 1 and is_usual:
            known.learn(shown.held, status)
        self._tools.store.use(found.held.entry.key)
        if shown.held is not found.held:
            found.held.count_hit()
            self._tools.store.use(shown.held.entry.key)
            self._earn(admitted, found.held, shown.held)
        request_id = self._id(known)
        if asking is not None:
            self._exchange.refresh(self._parts, asking, found, as_of, request_id)
        record = Record(
            now, request_id, client, known.method, known.host,
            known.target, "1.1", status, sent, OUTCOMES[because], because.slug, ttl,
            arms=known.arms,
        )  # fmt: skip
        return parts, record, known.after

    def _shown(
        self, known: Known, admitted: Admitted, held: Held, *, is_copy: bool
    ) -> Shown | None:
        """What the answer is made of, as `Encodings.shown` has it; None where it is to be made
        yet, and where there may be a part of two bodies."""
        policy, entry = admitted.terms.compress, held.entry
        if policy is None or known.wish is None:
            return Shown(held, entry, entry)
        if is_copy:
            stands = may_stand_alone(entry, admitted.request, known.wish, policy)
            return self._plainly(held, policy) if stands else None
        coding = None if held.newest.uncodable else coding_for(entry, known.wish, policy)
        if coding is None:
            return self._plainly(held, policy)
        made = self._tools.store.glance(key_of(entry.key, coding), self._now)
        variant = fitting(made, entry) if made is not None else None
        if variant is None or not is_lasting(variant.entry, entry):
            return None
        if b"range" in admitted.request.headers:
            return None
        return Shown(variant, told(as_now(entry, variant.entry, coding), policy), entry)

    def _earn(self, admitted: Admitted, source: Held, variant: Held) -> None:
        policy = admitted.terms.compress
        if policy is not None:
            self._exchange.encodings.earn(source, variant, policy)

    @staticmethod
    def _plainly(held: Held, policy: CompressPolicy) -> Shown:
        """What is held as it is."""
        entry = held.entry
        return Shown(held, entry if entry.made_of else plain(entry, policy), entry)

    def _refusal(self, known: Known, error: ExchangeError, client: str) -> Answered | None:
        """The answer that tells of a client's error, as `deliver_refusal` does."""
        now, new_id = self._now, self._id(known)
        head, body = own_answer(error, new_id, now, self._parts.name)
        after = known.after
        written = plain_head(head, is_last=after is After.CLOSE)
        assert written is not None  # it is of our own making
        if known.method == "HEAD":
            body = b""
        if after is After.PARK and ends_connection(error):
            after = After.LINGER
        slug = error.failure.slug
        record = Record(
            now, new_id, client, known.method, known.host, known.target, "1.1",
            error.status, len(body), Told.REFUSED, slug, error=slug,
        )  # fmt: skip
        return [written + body], record, after

    def _redirected(
        self, known: Known, admitted: Admitted, sent_on: ResponseHead, client: str
    ) -> Answered | None:
        """The answer that sends the client somewhere else."""
        now, because = self._now, Reason.REDIRECT
        status = cache_status(self._parts.name, because)
        rules = admitted.terms.fields
        head = finished(sent_on, name=self._parts.name, rules=rules, cache_status=status)
        written = plain_head(head, is_last=known.after is After.CLOSE)
        if written is None:
            return None
        written = known.told(written)
        record = Record(
            now, self._id(known), client or text(admitted.client), known.method, known.host,
            known.target, "1.1", sent_on.status, 0, OUTCOMES[because], because.slug,
            arms=known.arms,
        )  # fmt: skip
        return [written], record, known.after

    def _hit(
        self, known: Known, admitted: Admitted, purges: Purges, now: float, client: str
    ) -> Answered | None:
        """The answer where all of it has been made ready; the same as by the longer way."""
        assert known.key is not None  # it is known by what it selects
        store = self._tools.store
        slot = store.at_hand(known.key)
        if slot is None or len(slot.value.variants) != 1:
            return None
        held = slot.value.variants[0]
        ready = held.ready
        if not isinstance(ready, Ready) or ready.token is not known.token:
            return None
        if held.fill is not None or held.heir is not None:  # somebody else has the body now
            return None
        judged, source = held, None
        if held.entry is not ready.source:  # it is made of what is stored elsewhere
            source = store.at_hand(admitted.key)
            if source is None or len(source.value.variants) != 1:
                return None
            judged = source.value.variants[0]
            if judged.entry is not ready.source or judged.fill or judged.heir:
                return None
        if now >= ready.fresh_until:
            return None
        if judged.passed < purges.latest and judge(judged, purges) is not Verdict.LIVE:
            return None
        entry, made, body = ready.entry, ready.hits[known.form], held.body
        if not made.since <= now < made.until:
            assert made.head is not None  # as among `hits`
            ready.fill(made, made.head, now)
        head = known.told(made.filled)
        parts: list[Part] = [head]
        sent = 0
        if made.has_body:
            lent = self._scribe.lent(held, made)
            if lent is not None:
                sent = len(lent)
                parts.append(lent)
            elif body is None or len(body) != entry.length:
                return None
            else:
                sent = len(body)
                parts = [head + body] if sent <= JOINED_BYTES else [head, body]
        store.serve(slot, held)
        if source is not None:
            store.serve(source, judged)
            if not held.uncodable:
                self._earn(admitted, judged, held)
        record = Record(
            now, self._tools.new_id(), client, known.method, known.host, known.target, "1.1",
            304 if known.form & 4 else entry.status, sent, made.outcome, made.slug, made.ttl,
            arms=known.arms,
        )  # fmt: skip
        return parts, record, known.after

    # What is asked.

    def _id(self, known: Known) -> str:
        """What the request goes by: the name that somebody before has given it, or a new one."""
        named = known.admitted.id if known.admitted is not None else ""
        return named or self._tools.new_id()

    def _client(self, peer: bytes) -> str:
        """The client that `peer` is, in words; empty where it is not to be remembered."""
        if not self._parts.remembers or self._parts.trusted.trusts(peer):
            return ""
        if len(self._clients) >= PEERS:
            self._clients.clear()
        client = self._clients[peer] = text(client_address(peer, ()))
        return client

    def _known(self, head: RequestHead, size: int, peer: bytes) -> Known:
        """What is known of a head that the younger generation does not have, and now has."""
        if head.method == PURGE:  # it is the peer that may ask for it, or may not
            return self._made(head, peer)
        known = self._old.pop(id(head), None) or self._rooted(head, peer)
        for _ in range(min(2, len(self._dying))):  # no request waits until all are freed
            self._dying.popitem()
        self._young[id(head)] = known
        branches = 0 if known.branches is None else len(known.branches)
        self._charge((1 + branches) * KNOWN_BYTES + 2 * size)
        return known

    def _charge(self, size: int) -> None:
        """Take so many bytes off the room of the younger generation; past it, a new one begins."""
        self._left -= size
        if self._left < 0:
            self._dying, self._old, self._young = self._old, self._young, {}
            self._left = self._room

    def _rooted(self, head: RequestHead, peer: bytes) -> Known:
        """What is known of a head by its bytes alone."""
        known, parts = self._made(head, peer), self._parts
        site = parts.sites.find(head.authority)
        if site is None or not (site.needs_place or site.experiments):
            return known
        if known.refused is not None:  # by this place or these arms: others need not be
            return Known(head, None)
        by_chance = {name for name, _ in known.drawn}
        experiments = [each for each in site.experiments if each.name in by_chance]
        branches = Branches(
            parts.ways, site.needs_place, experiments, partial(self._branched, head)
        )
        return Known(head, None, branches=branches) if branches else known

    def _branched(self, head: RequestHead, peer: bytes, drawn: Drawn) -> Known:
        """What is known of a head with that, which is kept beside what else is known of it."""
        self._charge(KNOWN_BYTES)
        return self._made(head, peer, drawn)

    def _made(self, head: RequestHead, peer: bytes, drawn: Drawn = NONE) -> Known:
        if head.method == PURGE and not self._parts.remembers:
            return Known(head, None)  # it may be admitted once, and that is for the exchange
        try:
            admitted = self._parts.admit(self._parts, head, peer, drawn=drawn)
        except ExchangeError as error:
            is_theirs = error.side is Side.CLIENT
            return Known(head, None, refused=error if is_theirs else None)
        arms = experiment.drawn(admitted.arms)
        if decision.may_use_store(head, admitted.policy) is not None:
            return Known(head, None, drawn=arms)
        if asks_by_dictionary(head, admitted.terms.compress):
            return Known(head, None, drawn=arms)  # an exchange knows the dictionaries
        return Known(head, admitted, self._mark(admitted.terms), drawn=arms)

    def _again(self, known: Known, peer: bytes) -> Admitted:
        """What has been admitted, for this peer. It has the arms that were drawn: what is found
        under their key must not come to stand under another's."""
        return self._parts.admit(self._parts, known.head, peer, drawn=known.drawn)

    def _mark(self, terms: Terms) -> object:
        """What stands for these terms by these settings: answers made ready by others are not."""
        found = self._marks.get(id(terms))
        if found is None:
            if len(self._marks) >= MARKS:
                self._marks.clear()
            # Kept with what it is named by, or another could come to have the same identity.
            found = self._marks[id(terms)] = (terms, object())
        return found[1]

    def _ruled(self, admitted: Admitted, found: Found, now: float) -> tuple[Reason | None, bool]:
        """Why what was found may answer at once, or nothing may; None where that is to be waited
        for. And whether it is to be validated behind."""
        entry = found.entry if not found.soft else None
        if entry is not None and decision.is_plainly_fresh(entry, admitted.request, now):
            return Reason.HIT, False
        flights, digest = self._tools.flights, admitted.key.digest
        ruling = rule(admitted.request, found, digest, flights, admitted.policy, now)
        match ruling:
            case Serve() | Refuse():
                return ruling.because, False
            case Revalidate(background=True) | ServeStale():
                return ruling.because, True
            case _:
                return None, False
