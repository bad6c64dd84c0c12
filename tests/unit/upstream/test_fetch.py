"""A fetch, told as dialogues with a scripted origin over socket pairs, on a clock that jumps."""

from __future__ import annotations

import math
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from edge.errors import ExchangeError, Failure
from edge.upstream.fetch import Response, Upstream
from edge.upstream.origin import Origin
from edge.upstream.transport import SocketTransport, Transport
from edge.wire.message import Chunk, End, Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from edge.upstream.transport import Part

ORIGIN = Origin("http", "origin.example", 80)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Party:
    """The origin's side of one connection."""

    def __init__(self, transport: SocketTransport) -> None:
        self.transport = transport
        self._unread = b""

    async def asked(self) -> bytes:
        """One request's head, with its blank line."""
        return await self.until(b"\r\n\r\n")

    async def until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            data = await self.transport.receive_some()
            assert data, f"ended after {self._unread!r}"
            self._unread += data
        taken, _, self._unread = self._unread.partition(mark)
        return taken + mark

    async def rest(self) -> bytes:
        """What comes until the other side closes or breaks off."""
        try:
            while data := await self.transport.receive_some():
                self._unread += data
        except trio.BrokenResourceError:
            pass
        return self._unread

    async def say(self, data: bytes) -> None:
        await self.transport.send_all(data)

    def close(self) -> None:
        self.transport.close()


class Network:
    """Where fetches connect to, and the test accepts."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Party](100)
        self.parties: list[Party] = []

    async def connect(self, origin: Origin) -> Transport:
        await trio.lowlevel.checkpoint()
        one, two = socket.socketpair()
        party = Party(SocketTransport(two))
        self.parties.append(party)
        self._send.send_nowait(party)
        return SocketTransport(one, peer=b"192.0.2.7")

    async def accept(self) -> Party:
        return await self._receive.receive()

    def close(self) -> None:
        for party in self.parties:
            party.close()


@asynccontextmanager
async def an_upstream(**changes: Any) -> AsyncIterator[tuple[Upstream, Network]]:
    network = Network()
    upstream = Upstream(
        replace(ORIGIN, **changes), connect=network.connect, now=lambda: trio.current_time() + 1e9
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upstream.run)
            yield upstream, network
            nursery.cancel_scope.cancel()
    finally:
        network.close()
    statistics = upstream.statistics()
    assert statistics.open == statistics.idle == statistics.waiting == 0


def request(method: bytes = b"GET", *headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(method, b"http", b"site.example", b"/a?b", Headers(headers))


class Body:
    """A request's body, one piece after another, each after `pause_s`."""

    def __init__(
        self,
        *pieces: bytes,
        length: int | None = None,
        pause_s: float = 0.0,
        fails: ExchangeError | None = None,
    ) -> None:
        self.length = length
        self.pause_s = pause_s
        self.fails = fails
        self.left = list(pieces)

    async def receive(self) -> Chunk | End:
        await trio.sleep(self.pause_s)
        if self.left:
            return Chunk(self.left.pop(0))
        if self.fails is not None:
            raise self.fails
        return End()


async def read(response: Response) -> bytes:
    body = bytearray()
    while isinstance(message := await response.receive(), Chunk):
        body += message.data
    return bytes(body)


async def fetched(upstream: Upstream, *args: Any, **kwargs: Any) -> tuple[ResponseHead, bytes]:
    async with upstream.fetch(*args, **kwargs) as response:
        return response.head, await read(response)


async def failure(upstream: Upstream, *args: Any, **kwargs: Any) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        await fetched(upstream, *args, **kwargs)
    return caught.value


def serving(
    network: Network, *scripts: Callable[[Party], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    """A task that plays one script for each connection, in order."""

    async def serve() -> None:
        for script in scripts:
            await script(await network.accept())

    return serve


def answering(*answers: bytes, close: bool = False) -> Callable[[Party], Awaitable[None]]:
    """A script: one answer for each request."""

    async def script(party: Party) -> None:
        for answer in answers:
            await party.asked()
            await party.say(answer)
        if close:
            party.close()

    return script


# --- the plain case


async def test_a_request_goes_out_as_it_is_and_its_response_comes_back(
    autojump_clock: Any,
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        asked: list[bytes] = []

        async def origin() -> None:
            party = await network.accept()
            asked.append(await party.asked())
            await trio.sleep(3)
            await party.say(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 5\r\n\r\nhel')
            await party.say(b"lo")

        nursery.start_soon(origin)
        async with upstream.fetch(request(b"GET", (b"accept", b"*/*"))) as response:
            assert response.head.status == 200
            assert response.head.headers.get(b"etag") == b'"x"'
            assert response.peer == b"192.0.2.7"
            assert not response.reused
            assert response.times.request_time == pytest.approx(1e9)
            assert response.times.response_time == pytest.approx(1e9 + 3)
            assert await read(response) == b"hello"
            assert await response.receive() == End()
        head, _, fields = asked[0].partition(b"\r\n")
        assert head == b"GET /a?b HTTP/1.1"
        assert fields.lower() == b"host: site.example\r\naccept: */*\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (OK, b"hi", True),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            b"hi",
            True,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", b"hi", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
        (OK + b"surplus", b"hi", False),
        (b"HTTP/1.1 204 No Content\r\n\r\nbody", b"", False),
    ],
)
async def test_a_connection_is_kept_only_where_nothing_speaks_against_it(
    answer: bytes, body: bytes, kept: bool, autojump_clock: Any
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(serving(network, answering(answer)))
        assert (await fetched(upstream, request()))[1] == body
        assert upstream.statistics().idle == kept


async def test_a_response_that_ends_with_the_connection_is_whole_at_a_clean_end(
    autojump_clock: Any,
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(serving(network, answering(b"HTTP/1.1 200 OK\r\n\r\nhi", close=True)))
        assert (await fetched(upstream, request()))[1] == b"hi"
        assert upstream.statistics().open == 0


async def test_the_connection_is_free_when_the_response_ends_not_when_the_block_does(
    autojump_clock: Any,
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(serving(network, answering(OK, OK)))
        async with upstream.fetch(request()) as first:
            await read(first)
            async with upstream.fetch(request()) as second:
                assert second.reused
                assert await read(second) == b"hi"


async def test_head_has_no_body_whatever_its_length_says(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(
            serving(network, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", OK))
        )
        head, body = await fetched(upstream, request(b"HEAD"))
        assert (head.headers.get(b"content-length"), body) == (b"99", b"")
        assert (await fetched(upstream, request()))[1] == b"hi"


async def test_an_origin_that_says_how_long_it_keeps_connections_is_believed(
    autojump_clock: Any,
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        answer = OK.replace(b"Content", b"Keep-Alive: max=9, Timeout=5\r\nContent")
        nursery.start_soon(serving(network, answering(answer)))
        await fetched(upstream, request())
        await trio.sleep(3.5)
        assert upstream.statistics().idle == 1
        await trio.sleep(1.6)
        assert upstream.statistics().idle == 0


# --- bodies of requests


@pytest.mark.parametrize(
    ("body", "framing", "sent"),
    [
        (None, b"content-length: 0", b""),
        (Body(b"ab", b"cd", length=4), b"content-length: 4", b"abcd"),
        (Body(length=0), b"content-length: 0", b""),
        (Body(b"ab", b"cd"), b"transfer-encoding: chunked", b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_is_framed_by_what_is_known_of_its_length(
    body: Body | None, framing: bytes, sent: bytes, autojump_clock: Any
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            assert framing in (await party.asked()).lower()
            assert await party.until(sent[-4:]) == sent if sent else True
            await party.say(OK)

        nursery.start_soon(origin)
        claimed = request(b"POST", (b"content-length", b"7"))
        assert (await fetched(upstream, claimed, body))[1] == b"hi"
        assert upstream.statistics().idle == 1


async def test_a_get_without_a_body_says_nothing_of_one(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            assert b"content-length" not in (await party.asked()).lower()
            await party.say(OK)

        nursery.start_soon(origin)
        await fetched(upstream, request(b"GET", (b"content-length", b"0")))


@pytest.mark.parametrize("length", [None, 10])
async def test_a_body_that_fails_midway_breaks_the_request_off(
    length: int | None, autojump_clock: Any
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        rest: list[bytes] = []

        async def origin() -> None:
            party = await network.accept()
            await party.asked()
            rest.append(await party.rest())

        nursery.start_soon(origin)
        gone = ExchangeError(Failure.CLIENT_LEFT)
        body = Body(b"abcd", length=length, pause_s=1, fails=gone)
        assert await failure(upstream, request(b"POST"), body) is gone
        await trio.testing.wait_all_tasks_blocked()
        assert rest == [b"4\r\nabcd\r\n" if length is None else b"abcd"]


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abcde"]])
async def test_a_source_that_breaks_its_word_is_not_taken_for_whole(
    pieces: list[bytes], autojump_clock: Any
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            await party.asked()
            assert len(await party.rest()) < 4

        nursery.start_soon(origin)
        error = await failure(upstream, request(b"POST"), Body(*pieces, length=4, pause_s=0.1))
        assert error.failure is Failure.INTERNAL


async def test_an_answer_before_the_requests_end_is_passed_on_and_ends_the_connection(
    autojump_clock: Any,
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            await party.asked()
            await party.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await party.rest()

        nursery.start_soon(origin)
        body = Body(*[b"x" * 1000] * 100, pause_s=1)
        head, answer = await fetched(upstream, request(b"POST"), body)
        assert (head.status, answer) == (413, b"no")
        assert upstream.statistics().open == 0
        assert len(body.left) > 90


async def test_the_last_words_of_an_origin_that_stops_reading_are_heard(
    autojump_clock: Any,
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            await party.asked()
            await party.say(b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno")
            await party.transport.receive_some()
            party.close()

        nursery.start_soon(origin)
        body = Body(*[b"x" * 100_000] * 50, pause_s=0.1)
        async with upstream.fetch(request(b"POST"), body) as response:
            await trio.sleep(10)
            assert response.head.status == 400
            assert await read(response) == b"no"


async def test_a_slow_upload_is_not_taken_for_a_slow_answer(autojump_clock: Any) -> None:
    async with an_upstream(first_byte_s=5) as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            await party.until(b"0\r\n\r\n")
            await trio.sleep(4)
            await party.say(OK)

        nursery.start_soon(origin)
        body = Body(*[b"x"] * 10, pause_s=10)
        assert (await fetched(upstream, request(b"POST"), body))[1] == b"hi"
        assert trio.current_time() > 100


async def test_an_error_raised_inside_the_block_comes_out_as_it_is(autojump_clock: Any) -> None:
    for body in (None, Body(b"x", pause_s=1000)):
        async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
            nursery.start_soon(serving(network, answering(OK)))
            with pytest.raises(LookupError):
                async with upstream.fetch(request(b"POST"), body):
                    raise LookupError
            assert upstream.statistics().open == 0


async def test_a_defect_in_a_body_source_is_not_swallowed(autojump_clock: Any) -> None:
    class Defective(Body):
        async def receive(self) -> Chunk | End:
            raise LookupError

    async with an_upstream() as (upstream, _network):
        with pytest.raises(ExceptionGroup) as caught:
            await fetched(upstream, request(b"POST"), Defective())
        assert caught.group_contains(LookupError)
        assert upstream.statistics().open == 0


# --- the one retry


async def test_a_reused_connection_that_dies_unheard_is_replaced_once(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def dies(party: Party) -> None:
            await answering(OK)(party)
            await party.asked()
            party.close()

        nursery.start_soon(serving(network, dies, answering(OK)))
        await fetched(upstream, request())
        async with upstream.fetch(request()) as response:
            assert not response.reused
            assert await read(response) == b"hi"
        assert upstream.statistics().made == 2


class Doomed(SocketTransport):
    """Its other side goes with the second message sent to it, before anyone has had a turn."""

    other: SocketTransport
    sent = 0

    async def send_parts(self, parts: Sequence[Part], *, stall_s: float = math.inf) -> None:
        await super().send_parts(parts, stall_s=stall_s)
        self.sent += 1
        if self.sent == 2:
            self.other.close()


async def test_what_may_be_sent_once_goes_on_a_new_connection_and_no_second_time(
    autojump_clock: Any,
) -> None:
    """Sent again as it is, its proof would have been used."""
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def dies(party: Party) -> None:
            await party.asked()
            party.close()

        nursery.start_soon(serving(network, answering(OK), dies))
        await fetched(upstream, request())
        with pytest.raises(ExchangeError) as caught:
            async with upstream.fetch(request(b"DELETE"), once=True):
                raise AssertionError("answered")
        assert caught.value.failure is Failure.CLOSED_EARLY
        assert caught.value.retry  # by whoever dresses it anew
        assert upstream.statistics().made == 2


async def test_a_body_of_which_some_may_be_gone_is_not_begun_again(autojump_clock: Any) -> None:
    async def connect(origin: Origin) -> Transport:
        await trio.lowlevel.checkpoint()
        one, two = socket.socketpair()
        doomed = Doomed(one, peer=b"")
        doomed.other = SocketTransport(two)
        await doomed.other.send_all(OK)
        return doomed

    upstream = Upstream(ORIGIN, connect=connect)
    async with upstream.fetch(request()) as response:
        while isinstance(await response.receive(), Chunk):
            pass
    with pytest.raises(ExchangeError) as caught:
        async with upstream.fetch(request(b"PUT"), Body(b"abc", length=3)):
            raise AssertionError("answered")
    assert caught.value.failure is Failure.CLOSED_EARLY
    assert not caught.value.retry
    assert upstream.statistics().open == 0


async def test_the_second_death_is_the_answer(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def dies(party: Party) -> None:
            await party.asked()
            party.close()

        async def dies_later(party: Party) -> None:
            await answering(OK)(party)
            await dies(party)

        nursery.start_soon(serving(network, dies_later, dies))
        await fetched(upstream, request())
        error = await failure(upstream, request())
        assert error.failure is Failure.CLOSED_EARLY
        assert error.retry
        assert upstream.statistics().made == 2


@pytest.mark.parametrize(
    ("method", "body", "said"),
    [
        (b"POST", None, b""),
        (b"PATCH", None, b""),
        (b"PUT", Body(b"x"), b""),
        (b"GET", None, b"HTTP/1.1 2"),
    ],
)
async def test_nothing_is_repeated_that_may_have_been_acted_upon(
    method: bytes, body: Body | None, said: bytes, autojump_clock: Any
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def dies(party: Party) -> None:
            await answering(OK)(party)
            await party.asked()
            await party.say(said)
            party.close()

        nursery.start_soon(serving(network, dies))
        await fetched(upstream, request())
        error = await failure(upstream, request(method), body)
        assert error.failure is Failure.CLOSED_EARLY
        assert upstream.statistics().made == 1


async def test_a_new_connection_that_dies_is_not_tried_again_here(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def dies(party: Party) -> None:
            await party.asked()
            party.close()

        nursery.start_soon(serving(network, dies))
        error = await failure(upstream, request())
        assert (error.failure, error.retry) == (Failure.CLOSED_EARLY, True)


# --- deadlines


async def silent(party: Party) -> None:
    await party.asked()


async def test_an_origin_that_does_not_answer_is_given_up(autojump_clock: Any) -> None:
    async with an_upstream(first_byte_s=7) as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(serving(network, silent))
        error = await failure(upstream, request())
        assert error.failure is Failure.FIRST_BYTE_TIMEOUT
        assert trio.current_time() == pytest.approx(7)


async def test_a_head_in_drips_gains_no_time(autojump_clock: Any) -> None:
    async with an_upstream(first_byte_s=7) as (upstream, network), trio.open_nursery() as nursery:

        async def drip(party: Party) -> None:
            await party.asked()
            await party.say(b"HTTP/1.1 200 OK\r\nX: ")
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await trio.sleep(1)
                    await party.say(b"x")

        nursery.start_soon(serving(network, drip))
        assert (await failure(upstream, request())).failure is Failure.FIRST_BYTE_TIMEOUT
        assert trio.current_time() == pytest.approx(7)


async def test_a_body_that_stands_still_is_given_up_and_one_that_drips_is_not(
    autojump_clock: Any,
) -> None:
    async with an_upstream(between_bytes_s=7) as (upstream, network):
        async with trio.open_nursery() as nursery:

            async def drip(party: Party) -> None:
                await party.asked()
                await party.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
                for _ in range(9):
                    await trio.sleep(6)
                    await party.say(b"x")

            nursery.start_soon(serving(network, drip))
            error = await failure(upstream, request())
        assert error.failure is Failure.BETWEEN_BYTES_TIMEOUT
        assert trio.current_time() == pytest.approx(9 * 6 + 7)


async def test_nothing_takes_longer_than_the_total(autojump_clock: Any) -> None:
    async with an_upstream(total_s=100) as (upstream, network), trio.open_nursery() as nursery:

        async def endless(party: Party) -> None:
            await party.asked()
            await party.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await trio.sleep(3)
                    await party.say(b"1\r\nx\r\n")

        nursery.start_soon(serving(network, endless))
        assert (await failure(upstream, request())).failure is Failure.TOTAL_TIMEOUT
        assert trio.current_time() == pytest.approx(100, abs=3)


async def test_an_origin_that_stops_reading_before_it_answers_is_given_up(
    autojump_clock: Any,
) -> None:
    async with an_upstream(between_bytes_s=7) as (upstream, network):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serving(network, silent))
            body = Body(*[b"x" * 100_000] * 100)
            error = await failure(upstream, request(b"POST"), body)
        assert error.failure is Failure.BETWEEN_BYTES_TIMEOUT
        assert trio.current_time() == pytest.approx(7)


async def test_an_origin_that_has_answered_may_stop_reading(autojump_clock: Any) -> None:
    async with an_upstream(between_bytes_s=7) as (upstream, network):
        async with trio.open_nursery() as nursery:

            async def origin(party: Party) -> None:
                await party.asked()
                await party.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
                for _ in range(6):
                    await trio.sleep(5)
                    await party.say(b"x")

            nursery.start_soon(serving(network, origin))
            body = Body(*[b"x" * 100_000] * 100)
            assert (await fetched(upstream, request(b"POST"), body))[1] == b"xxxxxx"
        assert upstream.statistics().open == 0


async def test_a_slow_reader_of_the_response_is_not_a_slow_origin(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(serving(network, answering(OK)))
        async with upstream.fetch(request()) as response:
            await trio.sleep(1000)
            assert await read(response) == b"hi"


# --- interim responses and upgrades


async def test_interim_responses_are_passed_on_and_each_gives_new_time(
    autojump_clock: Any,
) -> None:
    async with an_upstream(first_byte_s=7) as (upstream, network), trio.open_nursery() as nursery:
        heard: list[int] = []

        async def interim(head: ResponseHead) -> None:
            heard.append(head.status)

        async def origin(party: Party) -> None:
            await party.asked()
            for _ in range(3):
                await trio.sleep(5)
                await party.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            await trio.sleep(5)
            await party.say(OK)

        nursery.start_soon(serving(network, origin))
        assert (await fetched(upstream, request(), interim=interim))[1] == b"hi"
        assert heard == [103, 103, 103]


async def test_endless_interim_responses_are_refused(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin(party: Party) -> None:
            await party.asked()
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await party.say(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                    await trio.sleep(1)

        nursery.start_soon(serving(network, origin))
        assert (await failure(upstream, request())).failure is Failure.BAD_RESPONSE


async def test_an_upgrade_gives_the_connection_and_what_came_behind(autojump_clock: Any) -> None:
    async with an_upstream(total_s=50) as (upstream, network), trio.open_nursery() as nursery:

        async def origin(party: Party) -> None:
            await party.asked()
            await party.say(
                b"HTTP/1.1 101 Switching\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\nfirst"
            )
            await party.say(await party.until(b"?"))
            assert await party.rest() == b""

        nursery.start_soon(serving(network, origin))
        upgrade = request(b"GET", (b"connection", b"upgrade"), (b"upgrade", b"chat"))
        async with upstream.fetch(upgrade) as response:
            assert response.head.status == 101
            assert response.leftover == b"first"
            assert response.tunnel is not None
            await trio.sleep(500)  # a tunnel has its own deadlines
            await response.tunnel.send_all(b"anyone there?")
            assert await response.tunnel.receive_some() == b"anyone there?"
            assert upstream.statistics().open == 1
        assert upstream.statistics().open == 0


async def test_an_upgrade_that_was_not_asked_for_is_refused(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(
            serving(network, answering(b"HTTP/1.1 101 Switching\r\nUpgrade: chat\r\n\r\n"))
        )
        assert (await failure(upstream, request())).failure is Failure.BAD_RESPONSE


# --- broken origins, and leaving early


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", Failure.CLOSED_EARLY),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Failure.CLOSED_EARLY),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", Failure.CLOSED_EARLY),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Failure.BAD_RESPONSE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", Failure.BODY_TRUNCATED),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
            Failure.BODY_TRUNCATED,
        ),
    ],
)
async def test_a_response_that_is_not_whole_is_an_error(
    answer: bytes, expected: Failure, autojump_clock: Any
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(serving(network, answering(answer, close=True)))
        assert (await failure(upstream, request())).failure is expected
        assert upstream.statistics().open == 0


async def test_a_chunk_fault_ends_the_response_in_an_error(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        bad = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n+2\r\nho\r\n"
        nursery.start_soon(serving(network, answering(bad)))
        error = await failure(upstream, request())
        assert error.failure in (Failure.BAD_RESPONSE, Failure.BODY_TRUNCATED)


async def test_leaving_early_breaks_the_connection_off(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def endless(party: Party) -> None:
            await party.asked()
            await party.say(b"HTTP/1.1 200 OK\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await party.say(b"x" * 10_000)

        nursery.start_soon(serving(network, endless))
        async with upstream.fetch(request()) as response:
            assert isinstance(await response.receive(), Chunk)
        assert upstream.statistics().open == 0


@pytest.mark.parametrize("body", [None, Body(b"x", pause_s=1)])
async def test_a_cancelled_fetch_holds_nothing(body: Body | None, autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        nursery.start_soon(serving(network, silent))
        with trio.move_on_after(5) as scope:
            await fetched(upstream, request(b"POST"), body)
        assert scope.cancelled_caught
        assert upstream.statistics().open == 0


async def test_a_receive_cancelled_and_taken_up_again_loses_no_byte(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:
        whole = bytes(range(256)) * 2000

        async def origin(party: Party) -> None:
            await party.asked()
            await party.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole))
            for start in range(0, len(whole), 5000):
                await trio.sleep(0.7)
                await party.say(whole[start : start + 5000])

        nursery.start_soon(serving(network, origin))
        received = bytearray()
        async with upstream.fetch(request()) as response:
            while len(received) < len(whole):
                with trio.move_on_after(0.3):
                    message = await response.receive()
                    assert isinstance(message, Chunk)
                    received += message.data
            assert await response.receive() == End()
        assert received == whole


async def test_a_body_that_is_always_there_lets_others_run(autojump_clock: Any) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin(party: Party) -> None:
            await party.asked()
            await party.say(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
            await party.say(b"x" * 20_000_000)

        nursery.start_soon(serving(network, origin))
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with upstream.fetch(request()) as response, trio.open_nursery() as others:
            others.start_soon(other)
            assert len(await read(response)) == 20_000_000
            others.cancel_scope.cancel()
        assert turns > 10


async def test_a_watcher_is_told_when_the_body_has_ended(autojump_clock: trio.abc.Clock) -> None:
    told: list[ExchangeError | None] = []
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            for answer in (OK, OK[:-1]):
                await party.asked()
                await party.say(answer)
            party.close()

        nursery.start_soon(origin)
        async with upstream.fetch(request()) as response:
            response.watch(told.append)
            assert told == []
            while isinstance(await response.receive(), Chunk):
                pass
            assert told == [None]
            await response.receive()
            assert told == [None]  # once, however often the end is asked for
        async with upstream.fetch(request()) as response:
            response.watch(told.append)
            with pytest.raises(ExchangeError) as raised:
                while isinstance(await response.receive(), Chunk):
                    pass
    assert told == [None, raised.value]


async def test_a_watcher_is_told_nothing_of_a_block_that_is_left(
    autojump_clock: trio.abc.Clock,
) -> None:
    told: list[ExchangeError | None] = []
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            await party.asked()
            await party.say(OK)

        nursery.start_soon(origin)
        async with upstream.fetch(request()) as response:
            response.watch(told.append)
    assert told == []


async def test_connections_to_other_addresses_are_retired(autojump_clock: trio.abc.Clock) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            await party.asked()
            await party.say(OK)

        nursery.start_soon(origin)
        async with upstream.fetch(request()) as response:
            while isinstance(await response.receive(), Chunk):
                pass
        upstream.keep_only({b"192.0.2.7"})
        assert upstream.statistics().idle == 1
        upstream.keep_only({b"192.0.2.8"})
        assert upstream.statistics().open == 0


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_gives_its_connection_back_unread(
    autojump_clock: trio.abc.Clock, method: bytes, answer: bytes
) -> None:
    told: list[ExchangeError | None] = []
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            for _ in range(3):
                await party.asked()
                await party.say(answer)

        nursery.start_soon(origin)
        for _ in range(3):
            condition = (b"if-none-match", b'"a"')
            async with upstream.fetch(request(method, condition)) as response:
                response.watch(told.append)
                assert upstream.statistics().idle == 1
                assert isinstance(await response.receive(), End)
        assert upstream.statistics().made == 1
    assert told == [None, None, None]


async def test_a_304_to_no_condition_is_the_last_on_its_connection(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with an_upstream() as (upstream, network), trio.open_nursery() as nursery:

        async def origin() -> None:
            party = await network.accept()
            await party.asked()
            await party.say(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP/")

        nursery.start_soon(origin)
        async with upstream.fetch(request()) as response:
            assert response.head.status == 304
        assert upstream.statistics().open == 0
