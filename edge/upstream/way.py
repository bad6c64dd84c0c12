"""The way of one request to whoever can answer it: over groups, servers, and a few tries.

A `Way` has `fetch` and `upload_place` with the contract of an `Upstream`, and chooses one for each
try: of its stops in order the first group with a live server; where no group has one, the first
with any at all that has not been tried. A group that is back and starts slowly gives way to the
next live one for what is beyond its share. A try needs a place in its group's breaker, and holds
it until the response has ended, or the head of a 101 has come: what is under way after that is a
tunnel, and no request any more. A group whose breaker is full is passed over for the next.

Another try, never at the same server, follows

- an error that says `retry`: nothing of the request can have had an effect, or its method is
  idempotent and none of its body is gone;
- an answer of 502, 503 or 504 to GET or HEAD, while another live server needs no waiting for. An
  answer with Retry-After is given as it is: whoever says when to come back does not want to be
  asked by another door at once;

and all this `tries` times at most, the last one begun within `budget_s`; but one after the first
may always be. The first, of a GET or HEAD, is given up when the budget is over and somebody else
is left to be asked: one that hangs would have all of it. The others have all the time of their
servers' own settings: to break one off would turn an answer that is late into none. Where all
tries fail, the last error is raised, or the last answer given.

What a try met with is told to the group's `Members`: how long the head took, failures of the
server's, and that it went well. A client that left, or a fault of ours, tells nothing.

With one server and no trouble this adds no checkpoint to a fetch, and the same microseconds
whatever the number of stops behind the first.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from edge.errors import ExchangeError, Failure, Side
from edge.routing.health import Outcome
from edge.wire.proof import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from edge.upstream.breaker import Place
    from edge.upstream.fetch import BodySource, Response
    from edge.upstream.group import Group
    from edge.upstream.origin import Origin
    from edge.wire.message import RequestHead, ResponseHead

TROUBLE: Final = frozenset({502, 503, 504})  # a gateway's words for "not I, but who is behind me"
SAFE: Final = frozenset({b"GET", b"HEAD"})
# Ours, or of many causes: no evidence against a server.
_NO_EVIDENCE: Final = frozenset({Failure.OVERLOADED, Failure.TOTAL_TIMEOUT})


def _says(sentence: str, unit: str = "") -> dict[str, Any]:
    return {"says": sentence, "unit": unit}


@dataclass(frozen=True, slots=True)
class Persistence:
    """How much is tried before a request has failed."""

    tries: int = field(default=3, metadata=_says("tries in all, each at another server"))
    budget_s: float = field(
        default=10.0, metadata=_says("for a head to come, while another try is left", "seconds")
    )


class Stop(NamedTuple):
    """A group on a way, and how a request is dressed for one of its servers: the final head.

    A stop that is a `tier` of its own tries elsewhere by itself, so what it answers is given as
    it is. Where it does not take this node for one of its edges, that is an error.
    """

    group: Group
    dress: Callable[[RequestHead, Origin], RequestHead]
    is_tier: bool = False


class Way:
    """See the module. `stops` are in order of preference, one at least.

    `key` and `address` are what groups that balance by hash go by. `told` names who answered last,
    or was tried last: the server's id, `eu http://a:80`; "" before any try. `refused` says which
    tier has refused this node, and why, where another was asked instead; else it is "".
    """

    __slots__ = ("_address", "_key", "_persistence", "_stops", "refused", "told")

    def __init__(
        self,
        stops: Sequence[Stop],
        persistence: Persistence,
        *,
        key: bytes = b"",
        address: bytes = b"",
    ) -> None:
        if not stops:
            raise ValueError("a way without a stop leads nowhere; give it a group")
        self._stops = stops
        self._persistence = persistence
        self._key = key
        self._address = address
        self.told = ""
        self.refused = ""

    def fetch(
        self,
        request: RequestHead,
        body: BodySource | None = None,
        *,
        interim: Callable[[ResponseHead], Awaitable[None]] | None = None,
    ) -> AbstractAsyncContextManager[Response]:
        """The response to `request`, from its head on; raises `ExchangeError`.

        As `Upstream.fetch`; `request` is as its stop is to dress it.
        """
        return _Passage(self, request, body, interim)

    @asynccontextmanager
    async def upload_place(self) -> AsyncIterator[None]:
        """A place for a request whose body is still to come from its client; raises OVERLOADED.

        It is of the group that is likely to be asked. One that has to stand in for it takes what
        comes unasked, until the first is known to be dead.
        """
        groups = [stop.group for stop in self._stops]
        group = next((one for one in groups if one.is_alive()), groups[0])
        with await group.uploads.acquire():
            yield

    def _choose(self, group: Group, now: float, besides: Container[int]) -> int | None:
        """The live server of `group` whose turn it is."""
        return group.members.choose(now, key=self._key, address=self._address, besides=besides)

    def _any_at_all(self, group: Group, now: float, besides: Container[int]) -> int | None:
        """The least bad server of `group`."""
        return group.members.any_at_all(now, key=self._key, address=self._address, besides=besides)


class _Passage:
    """The block in which a response may be read, whoever it is from."""

    __slots__ = (
        "_attempt",
        "_body",
        "_error",
        "_full",
        "_give_up",
        "_interim",
        "_request",
        "_stops",
        "_tried",
        "_tries",
        "_way",
    )

    def __init__(
        self,
        way: Way,
        request: RequestHead,
        body: BodySource | None,
        interim: Callable[[ResponseHead], Awaitable[None]] | None,
    ) -> None:
        self._way = way
        self._stops = way._stops
        self._request = request
        self._body = body
        self._interim = interim
        self._attempt: _Attempt | None = None
        self._give_up = way._persistence.budget_s  # from the beginning on
        self._tries = 0
        self._tried: dict[Group, set[int]] = {}
        self._full: list[Group] = []  # their breakers had no place
        self._error: ExchangeError | None = None  # what went wrong last

    async def __aenter__(self) -> Response:
        self._give_up += trio.current_time()
        if len(self._stops) > 1:
            self._stops = _eased(self._stops)
        response = None
        try:
            response = await self._answer()
        finally:
            self._error = None  # it holds its traceback, and that holds us
            if response is None and self._attempt is not None:
                self._attempt.settle(Outcome.NEITHER)  # cancelled, unless it has been told
        return response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._attempt is not None
        return await self._attempt.close(kind, error, trace)

    async def _answer(self) -> Response:
        attempt = self._at_once(self._stops[0]) or await self._first()
        while True:
            self._attempt = attempt
            self._way.told = attempt.name
            self._tries += 1
            try:
                response = await self._opened(attempt)
            except ExchangeError as error:
                is_busy = attempt.is_final and error.failure is Failure.OVERLOADED
                if not error.retry or is_busy or self._is_spent():
                    raise
                self._error = error
                self._tried.setdefault(attempt.group, set()).add(attempt.index)
                attempt = await self._first()
                if error.failure is Failure.SHIELD_REFUSED:
                    self._way.refused = error.detail
                continue
            is_given = attempt.is_final or self._is_of_use(response.head)
            if is_given or self._is_spent():
                return attempt.kept(response)
            self._tried.setdefault(attempt.group, set()).add(attempt.index)
            other = self._another(attempt)
            if other is None:
                return attempt.kept(response)
            await attempt.close(None, None, None)
            attempt = other

    def _is_spent(self) -> bool:
        """Whether no further try may be made."""
        if self._tries >= self._way._persistence.tries:
            return True
        return self._tries > 1 and trio.current_time() >= self._give_up

    async def _opened(self, attempt: _Attempt) -> Response:
        """The head of a try's response. The first is not waited for past the budget while others
        are left to be asked: one that hangs would have all of it."""
        if not self._may_go_on():
            return await attempt.open(self._request, self._body, self._interim)
        with trio.CancelScope(deadline=self._give_up) as patience:
            return await attempt.open(self._request, self._body, self._interim)
        assert patience.cancelled_caught
        attempt.give_up(self._way._persistence.budget_s)
        detail = f"no head in {self._way._persistence.budget_s:g} s, and others are left"
        raise ExchangeError(Failure.FIRST_BYTE_TIMEOUT, detail, retry=True)

    def _may_go_on(self) -> bool:
        """Whether this try may be given up for another one."""
        if self._tries > 1 or self._body is not None or self._request.method not in SAFE:
            return False
        if self._is_spent():
            return False
        return sum(len(stop.group.upstreams) for stop in self._stops) > self._tries

    def _is_of_use(self, head: ResponseHead) -> bool:
        """Whether to give this answer without asking for a better one."""
        if head.status not in TROUBLE or self._request.method not in SAFE:
            return True
        return self._body is not None or b"retry-after" in head.headers

    async def _first(self) -> _Attempt:
        """A try at the best server that has not been tried; raises what went wrong last."""
        for stop in self._stops:
            attempt = self._at_once(stop) or await self._in_time(stop)
            if attempt is not None:
                return attempt
            if stop.is_tier and stop.group in self._full:
                break  # it lives, and has enough to do: the origins behind it are not to have more
        else:
            return await self._least_bad()
        assert self._error is not None
        raise self._error

    async def _least_bad(self) -> _Attempt:
        """A try where nobody lives to be asked; raises what went wrong last."""
        for stop in self._stops:
            attempt = await self._in_need(stop)
            if attempt is not None:
                return attempt
        assert self._error is not None  # a server that was tried, or a breaker that is full
        raise self._error

    def _at_once(self, stop: Stop, place: Place | None = None) -> _Attempt | None:
        """A try at a live server of a group that has a place (or in `place`)."""
        group = stop.group
        place = place or group.breaker.acquire_nowait()
        if place is None:
            return None
        now = group.now()
        index = self._way._choose(group, now, self._tried.get(group, ()))
        if index is None:
            place.release()
            return None
        return _Attempt(stop, index, place, now)

    async def _in_time(self, stop: Stop) -> _Attempt | None:
        """The same where a place has to be waited for, if anyone lives to be asked."""
        group = stop.group
        if not group.members.is_alive(group.now(), besides=self._tried.get(group, ())):
            return None
        place = await self._wait(group)
        return None if place is None else self._at_once(stop, place)

    async def _in_need(self, stop: Stop) -> _Attempt | None:
        """A try at any server of a group that is left."""
        group = stop.group
        besides = self._tried.get(group, ())
        if len(besides) == len(group.upstreams):
            return None
        place = await self._wait(group)
        if place is None:
            return None
        now = group.now()
        index = self._way._any_at_all(group, now, besides)
        assert index is not None  # for there is one that was not tried
        return _Attempt(stop, index, place, now)

    async def _wait(self, group: Group) -> Place | None:
        """A place in a group's breaker; none, and none ever after, where that is full.

        Nor is a further place waited for once there is no time left to use it.
        """
        if group in self._full or (self._error and trio.current_time() >= self._give_up):
            return None
        try:
            return await group.breaker.acquire()
        except ExchangeError as error:
            self._full.append(group)
            self._error = error
            return None

    def _another(self, before: _Attempt) -> _Attempt | None:
        """A try at a live server in place of one that answered badly, if that needs no waiting."""
        for stop in self._stops:
            group = stop.group
            if not group.members.is_alive(group.now(), besides=self._tried.get(group, ())):
                continue
            place = before.hand_over() if group is before.group else None
            attempt = self._at_once(stop, place)
            if attempt is not None:
                return attempt
        return None


def _eased(stops: Sequence[Stop]) -> Sequence[Stop]:
    """`stops` as this request is to take them: a group that gives way comes behind the next live
    one."""
    live = (at for at, stop in enumerate(stops) if stop.group.is_alive())
    first = next(live, None)
    if first is None or not stops[first].group.gives_way():
        return stops
    instead = next(live, None)
    if instead is None:
        return stops
    return [*stops[:first], stops[instead], *stops[first:instead], *stops[instead + 1 :]]


class _Attempt:
    """One try at one server: what it holds is given back, and what it met with told, once."""

    __slots__ = (
        "_block",
        "_era",
        "_is_over",
        "_place",
        "_stop",
        "_verdict",
        "group",
        "index",
    )

    def __init__(self, stop: Stop, index: int, place: Place, now: float) -> None:
        self._stop = stop
        self.group = stop.group
        self.index = index
        self._place: Place | None = place
        self._era = self.group.members.began(index, now)
        self._is_over = False
        self._verdict = Outcome.NEITHER  # of the head that has come
        self._block: AbstractAsyncContextManager[Response, bool | None] | None = None

    @property
    def name(self) -> str:
        """The server's id."""
        return self.group.ids[self.index]

    @property
    def is_final(self) -> bool:
        """Whether its answer is given, whatever it is."""
        return self._stop.is_tier

    def hand_over(self) -> Place:
        """The place, for another try in the same group."""
        assert self._place is not None
        place, self._place = self._place, None
        return place

    async def open(
        self,
        request: RequestHead,
        body: BodySource | None,
        interim: Callable[[ResponseHead], Awaitable[None]] | None,
    ) -> Response:
        """The response's head; raises `ExchangeError`, and then all is settled."""
        upstream = self.group.upstreams[self.index]
        dressed = self._stop.dress(request, upstream.origin)
        began = trio.current_time()
        # A tier takes the proof of an unsafe request once: sent again, it has to be dressed anew.
        once = self.is_final and request.method not in SAFE
        block = upstream.fetch(dressed, body, interim=interim, once=once)
        try:
            response = await block.__aenter__()
        except ExchangeError as error:
            self.settle(_blame(error))
            raise
        self._block = block
        if self.is_final and (why := refusal(response.head)) is not None:
            await self._refused(why, retry=body is None)
        # Behind a tier it is others that fail: it has answered, whatever it says of them.
        self._verdict = Outcome.GOOD if self.is_final else _verdict(response.head)
        if self._verdict is Outcome.GOOD:
            # A client that takes its time to send a body says nothing of the server.
            latency_s = None if body is not None else trio.current_time() - began
            self.group.members.heard(self.index, self._era, self.group.now(), latency_s)
        return response

    async def _refused(self, why: Failure, *, retry: bool) -> None:
        """Have done with a tier that has refused this node; raises SHIELD_REFUSED."""
        # A proof that has counted already is of one request, and no evidence for the next.
        self._verdict = Outcome.NEITHER if why is Failure.PROOF_USED else Outcome.BAD
        await self.close(None, None, None)
        raise ExchangeError(Failure.SHIELD_REFUSED, f"{self.name}: {why.slug}", retry=retry)

    def kept(self, response: Response) -> Response:
        """`response`, which is the one to give: what is held is given back when it has ended."""
        if response.head.status == 101:
            self.settle(Outcome.GOOD)
        else:
            response.watch(self._ended)
        return response

    async def close(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Leave the response, read or not."""
        assert self._block is not None
        try:
            return await self._block.__aexit__(kind, error, trace)
        finally:
            self.settle(Outcome.BAD if self._verdict is Outcome.BAD else Outcome.NEITHER)

    def give_up(self, waited_s: float) -> None:
        """No head has come in so many seconds: which tells of a server that has answered nobody
        else meanwhile, and of one that has, only that this answer takes long."""
        members, now = self.group.members, self.group.now()
        is_slow = members.has_answered(self.index, now, waited_s)
        self.settle(Outcome.NEITHER if is_slow else Outcome.BAD)

    def settle(self, outcome: Outcome) -> None:
        """Give back what is held and tell what it was like; only the first call counts."""
        if self._is_over:
            return
        self._is_over = True
        self.group.members.ended(self.index, self._era, self.group.now(), outcome)
        if self._place is not None:
            self._place.release()

    def _ended(self, error: ExchangeError | None) -> None:
        self.settle(self._verdict if error is None else _blame(error))


def _verdict(head: ResponseHead) -> Outcome:
    """What a head says of the server that sent it.

    A 500 is an application's answer to what it was asked; it is the words of gateways that say
    that the server is of no use. One that says when to come back is alive, and only busy.
    """
    if head.status not in TROUBLE:
        return Outcome.GOOD
    return Outcome.NEITHER if b"retry-after" in head.headers else Outcome.BAD


def _blame(error: ExchangeError) -> Outcome:
    """What an error says of the server."""
    if error.side is not Side.UPSTREAM or error.failure in _NO_EVIDENCE:
        return Outcome.NEITHER
    return Outcome.BAD
