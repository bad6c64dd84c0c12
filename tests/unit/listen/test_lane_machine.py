"""Whatever clients do, in whatever order: a socket is in one hand, and what was asked is answered.

The kernel is asked which sockets an epoll set holds, not the lane.
"""

from __future__ import annotations

import os
import re
import select
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from edge.errors import Failure
from edge.listen.connection import ConnectionPolicy
from edge.listen.debts import Debt
from edge.listen.lane import After, Lane, Parked
from edge.upstream.transport import FileSpan, SocketTransport
from edge.wire.message import Chunk, End, Headers, ResponseHead
from tests.unit.listen.parking import RESET, FakeHop, Node, OnDisk

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from edge.listen.connection import ClientStream
    from edge.upstream.transport import Part
    from edge.wire.message import RequestHead

HEAD = re.compile(rb"HTTP/1.1 (\d+) .*?content-length: (\d+).*?\r\n\r\n", re.DOTALL)
LARGE_BYTES = 300_000  # more than the kernel takes of one who does not read
KINDS = (
    "quick", "parts", "large", "file", "slow", "slow-large", "final", "final-large", "unwanted",
    "hop", "hop-none", "hop-large", "hop-file", "hop-lost",
)  # fmt: skip
LAST = ("final", "final-large", "unwanted", "hop-lost")
CLIENTS = 4
STEPS = (
    *[("send", kind) for kind in KINDS],
    ("connect", ""), ("connect", "quick"), ("connect", "large"), ("connect", "slow"),
    ("connect", "final"), ("connect", "hop"),
    ("half", ""), ("half", ""), ("read", ""), ("read", ""), ("end", ""), ("close", ""),
    ("reset", ""), ("go", ""), ("go", ""), ("go", ""), ("shed", ""), ("wait", ""),
    ("drain", ""),
)  # fmt: skip


def request(kind: str) -> bytes:
    last = b"Connection: close\r\n" if kind.startswith("final") else b""
    return b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (kind.encode(), last)


def body(kind: str) -> bytes:
    kind = "file" if kind == "hop-file" else kind  # there is one
    return kind.encode().ljust(LARGE_BYTES if "large" in kind or "file" in kind else 20, b".")


def head(kind: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body(kind))


@dataclass
class Client:
    """One side of a pair, which neither waits nor reads before it is told to."""

    sock: socket.socket
    asked: list[str] = field(default_factory=list)  # whole, and not after a last one
    half: bytes = b""
    got: bytes = b""
    is_mute: bool = False
    has_left: bool = False
    is_certain: bool = True  # that all is answered; else what was begun, and perhaps not whole

    def send(self, kind: str) -> None:
        if self.has_left or self.is_mute:
            return
        data = request(kind)
        if not self.half and not (self.asked and self.asked[-1] in LAST):
            self.asked.append("file" if kind == "hop-file" else kind)
        elif self.half:
            data = self.half
            self.half = b""
            self.asked.append("slow")
        with suppress(OSError):  # there is no one who listens
            self.sock.send(data)

    def send_half(self) -> None:
        if self.has_left or self.is_mute or self.half or (self.asked and self.asked[-1] in LAST):
            return
        with suppress(OSError):
            self.sock.send(request("slow")[:9])
            self.half = request("slow")[9:]

    def read(self) -> bool:
        """Take what there is; whether there was anything."""
        before = len(self.got)
        with suppress(OSError):
            while not self.has_left and (data := self.sock.recv(1 << 20)):
                self.got += data
        return len(self.got) > before

    def leave(self, *, rudely: bool = False) -> None:
        if rudely:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.has_left = True
        self.sock.close()

    def has_all(self) -> bool:
        """Whether all that was asked was answered, in order."""
        (found, is_whole), asked = self.answers(), self.asked
        if asked and asked[-1] in LAST:
            found = found[: len(asked)]  # what was sent behind it may have been read with it
            if asked[-1] == "hop-lost" and not is_whole:
                return found == asked[:-1]  # else it was a driver's
        return found == asked

    def answers(self) -> tuple[list[str], bool]:
        """What was answered whole, and whether that is all that came."""
        found: list[str] = []
        rest = self.got
        while match := HEAD.match(rest):
            size = int(match[2])
            content = rest[match.end() : match.end() + size]
            if len(content) < size:
                return found, False
            found.append(content.rstrip(b".").decode() if match[1] == b"200" else "refused")
            rest = rest[match.end() + size :]
        return found, not rest


class Stage(Node):
    """A node with all kinds of answers, whose sockets hold little."""

    def __init__(self, file: OnDisk, most: int) -> None:
        super().__init__(ConnectionPolicy(), most)
        self.file = file
        self.transports: list[SocketTransport] = []
        self.clients_of: list[Client] = []
        self.answered = 0
        self.all_hops: list[FakeHop] = []

    def span(self) -> FileSpan:
        self.file.users += 1
        return FileSpan(self.file, 0, len(self.file.body))

    def answer(self, data: bytes, peer: bytes) -> tuple[Sequence[Part], bytes, After] | None:
        assert self.begun
        kind = next((each for each in KINDS if data == request(each)), "")
        after = After.CLOSE if kind.startswith("final") else After.PARK
        parts: Sequence[Part]
        match kind:
            case "quick" | "large" | "final" | "final-large":
                parts = [head(kind) + body(kind)]
            case "unwanted":
                parts, after = [head(kind) + body(kind)], After.LINGER
            case "parts":
                parts = [head(kind), body(kind)]
            case "file":
                parts = [head(kind), self.span()]
            case _:
                return None
        self.answered += 1
        return parts, data, after

    def hop(self, data: bytes, peer: bytes) -> FakeHop | None:
        assert self.begun
        kind = next((each for each in KINDS if data == request(each)), "")
        match kind:
            case "hop":
                made = FakeHop([head(kind)], body(kind))
            case "hop-none":
                made = FakeHop(None)
            case "hop-large":
                made = FakeHop([head(kind), body(kind)])
            case "hop-file":
                made = FakeHop([head(kind), self.span()])
            case "hop-lost":
                made = FakeHop([head(kind)], failure=Failure.OWNER_GONE)
            case _:
                return None
        made.go.set()
        self.all_hops.append(made)
        return made

    async def serve(self, stream: ClientStream, head: RequestHead) -> None:
        kind = head.target[1:].decode()
        length = b"%d" % len(body(kind))
        await stream.send(ResponseHead(200, Headers([(b"content-length", length)])), more=True)
        await trio.lowlevel.checkpoint()
        await stream.send(Chunk(body(kind)), more=True)
        await stream.send(End())

    def take_in(self, kind: str) -> None:
        here, there = socket.socketpair()
        here.setblocking(False)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        client = Client(here)
        if kind:
            client.send(kind)
        self.clients_of.append(client)
        self.transports.append(SocketTransport(there, peer=b"192.0.2.1"))
        self.lane.take_in(self.transports[-1])

    def check(self) -> None:
        """Each socket is in one hand, and each hand holds what it says."""
        lane, opened = self.lane, list(self.connections._open)
        sockets = {each.fileno() for each in self.transports} - {-1}
        assert len(opened) == len(sockets)
        assert not self.begun
        parked = {each.transport.fileno(): each for each in opened if isinstance(each, Parked)}
        owed = {each.transport.fileno() for each in opened if isinstance(each, Debt)}
        waiting = set(lane._debts._waiting)
        assert lane._parked == parked
        assert waiting <= owed
        assert not waiting & set(parked)
        assert waiting | set(parked) <= sockets
        if lane._epoll.closed:
            assert not waiting
            assert not parked
            return
        new = {number for number, each in parked.items() if each.is_new}
        assert watched(lane._newcomers) == dict.fromkeys(new, select.EPOLLIN)
        assert watched(lane._epoll) == {
            **dict.fromkeys(set(parked) - new, select.EPOLLIN),
            **dict.fromkeys(waiting, select.EPOLLOUT),
            lane._newcomers.fileno(): select.EPOLLIN,
        }
        assert not any(each.has_left for each in parked.values())


def watched(epoll: select.epoll) -> dict[int, int]:
    """The descriptors in an epoll set and what each is watched for, as the kernel has it."""
    with open(f"/proc/self/fdinfo/{epoll.fileno()}") as told:
        found = re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)", told.read())
    always = select.EPOLLERR | select.EPOLLHUP
    return {int(number): int(events, 16) & ~always for number, events in found}


async def play(steps: list[tuple[tuple[str, str], int]], file: OnDisk, clock: MockClock) -> None:
    stage = Stage(file, CLIENTS)
    drained = False
    async with trio.open_nursery() as clients:
        stage.clients = clients
        stage.lane = Lane(stage.connections, stage, stage.make, lambda: stage.policy, clients)
        clients.start_soon(stage.lane.run)
        try:
            await wait_all_tasks_blocked()
            for first in ("", "", "quick"):
                stage.take_in(first)
            for (what, kind), which in steps:
                there = [each for each in stage.clients_of if not each.has_left]
                client = there[which % len(there)] if there else None
                match what:
                    case "connect" if stage.connections.statistics().open < CLIENTS:
                        stage.take_in(kind)
                    case "go":
                        await wait_all_tasks_blocked()
                        stage.check()
                    case "shed":
                        await wait_all_tasks_blocked()
                        before = {each.fileno() for each in stage.transports}
                        if stage.connections.shed_one():
                            await wait_all_tasks_blocked()
                            assert {each.fileno() for each in stage.transports} < before | {-1}
                            for each, transport in zip(
                                stage.clients_of, stage.transports, strict=True
                            ):
                                each.is_certain &= transport.fileno() != -1
                        stage.check()
                    case "wait":
                        await wait_all_tasks_blocked()
                        clock.jump(stage.policy.send_s / 2)
                        await wait_all_tasks_blocked()
                        for each in stage.clients_of:
                            each.is_certain = False
                        stage.check()
                    case "drain" if not drained:
                        drained = True
                        for each in stage.clients_of:
                            each.is_certain = False
                        stage.connections.drain()
                        stage.lane.stop()
                    case "send" if client is not None:
                        client.send(kind)
                    case "half" if client is not None:
                        client.send_half()
                    case "read" if client is not None:
                        client.read()
                    case "end" if client is not None and not client.is_mute:
                        client.is_mute = True
                        client.sock.shutdown(socket.SHUT_WR)
                    case "close" | "reset" if client is not None:
                        client.leave(rudely=what == "reset")
            if not drained:
                await until_still(stage)
                stage.check()
                for client in stage.clients_of:
                    if client.is_certain and not client.has_left:
                        assert client.has_all(), client.asked
            stage.connections.drain()
            stage.lane.stop()
            await until_still(stage)
            clock.autojump_threshold = 0.0
            with trio.move_on_after(100):
                while stage.connections.statistics().open:
                    await trio.sleep(1)
                    await until_still(stage)
            assert stage.connections.statistics().open == 0
        finally:
            clock.autojump_threshold = 0.0  # for those that linger
    for client in stage.clients_of:
        answers, _ = client.answers()
        if answers and answers[-1] == "refused":
            answers.pop()
        asked = client.asked
        known = len(asked) if asked[-1:] and asked[-1] in LAST else len(answers)
        assert answers[:known] == asked[: len(answers)]
        client.leave()
    assert {each.fileno() for each in stage.transports} <= {-1}
    assert len(stage.told) == stage.answered
    assert all(len(each.closed) == 1 for each in stage.all_hops)
    assert file.users == 0


async def until_still(stage: Stage) -> None:
    """All who are there read until nothing comes any more."""
    more = True
    while more:
        await wait_all_tasks_blocked()
        more = sum(each.read() for each in stage.clients_of) > 0


def test_each_socket_is_in_one_hand_and_all_is_answered(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = OnDisk(tmp_path_factory.mktemp("lane") / "file", body("file"))

    @settings(max_examples=60)
    @given(
        st.lists(
            st.tuples(st.sampled_from(STEPS), st.integers(0, CLIENTS - 1)), min_size=5, max_size=40
        )
    )
    def all_goes_well(steps: list[tuple[tuple[str, str], int]]) -> None:
        file.users = 0
        clock = MockClock()
        trio.run(play, steps, file, clock, clock=clock)

    all_goes_well()
    os.close(file.descriptor)
