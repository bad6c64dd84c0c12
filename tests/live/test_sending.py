"""Bodies sent from their files on real sockets: whole, in parts, slowly, and while files rot."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live.harness import Client, Node, Reply, ScriptedOrigin, eventually
from tests.live.test_lane import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.live

FRESH = ["cache-control: max-age=600", 'etag: "1"']
MIB = 1 << 20
SIZE = 3 * MIB + 12_345  # larger than what goes to memory
BODY = os.urandom(SIZE)
SETS = ("node.access_log=off", "store.memory=64MiB")


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as made:
        yield made
        assert made.unexpected == []


@pytest.fixture
def node(origin: ScriptedOrigin, tmp_path: Path) -> Iterator[Node]:
    with Node(origin.url, tmp_path, SETS) as made:
        yield made
        assert "internal" not in made.errors()


def files(node: Node) -> set[Path]:
    found = (node.directory / "store").glob("shard-*/bodies/**/*")
    return {path for path in found if path.is_file()}


def stored(origin: ScriptedOrigin, node: Node, token: str, body: bytes = BODY) -> tuple[str, Path]:
    """A target whose answer is stored, was read twice since, and its file."""
    before = files(node)
    origin.script(token, Reply.of(200, FRESH, body))
    with Client(node.port) as client:
        assert client.ask("GET", f"/{token}").body == body
        assert eventually(lambda: len(files(node) - before) == 1)
        for _ in range(2):
            assert client.ask("GET", f"/{token}").body == body
    assert len(origin.requests(token)) == 1
    (path,) = files(node) - before
    return f"/{token}", path


def written(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 8]))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(BODY[::-1])
    other.rename(path)


def test_whole_and_in_parts_it_is_what_was_stored(origin: ScriptedOrigin, node: Node) -> None:
    target, _ = stored(origin, node, "parts")
    with Client(node.port) as client:
        for start, stop in ((0, 1), (5, MIB), (MIB - 1, 2 * MIB + 1), (SIZE - 7, SIZE)):
            answer = client.ask("GET", target, [f"Range: bytes={start}-{stop - 1}"])
            assert (answer.status, answer.body) == (206, BODY[start:stop])
        several = client.ask("GET", target, ["Range: bytes=0-99,2000000-2999999"])
        assert several.status == 206
        assert BODY[:100] in several.body
        assert BODY[2_000_000:3_000_000] in several.body
        head = client.ask("HEAD", target)
        assert (head.status, head.body, head.field("content-length")) == (200, b"", str(SIZE))
        assert client.ask("GET", target, ['If-None-Match: "1"']).status == 304
        client.send(written(target) * 5)
        assert all(client.receive().body == BODY for _ in range(5))


@pytest.mark.parametrize("at", [0, MIB + 3, SIZE - 1])
def test_a_byte_flipped_below_a_running_node_is_never_taken_for_whole(
    origin: ScriptedOrigin, node: Node, at: int
) -> None:
    target, path = stored(origin, node, "flip")
    flip(path, at)
    origin.script("flip", Reply.of(200, FRESH, BODY))
    for _ in range(3):
        with Client(node.port) as client:
            client.send(written(target))
            try:
                got = client.receive().body
            except (OSError, EOFError):
                continue  # broken off where the fault was met
        assert got in (BODY, BODY[: len(got)])
    assert eventually(lambda: not path.exists())  # until then it may be broken off again
    with Client(node.port) as client:
        assert client.ask("GET", target).body == BODY
    assert len(origin.requests("flip")) == 2
    assert "body lost" in node.errors()


@pytest.mark.parametrize(
    "hurt",
    [lambda path: os.truncate(path, SIZE - 1), os.unlink, replace],
    ids=["truncated", "removed", "replaced"],
)
def test_a_file_cut_removed_or_replaced_is_fetched_again(
    origin: ScriptedOrigin, node: Node, hurt: Callable[[Path], None]
) -> None:
    target, path = stored(origin, node, "hurt")
    hurt(path)
    origin.script("hurt", Reply.of(200, FRESH, BODY))
    with Client(node.port) as client:
        for _ in range(3):
            assert client.ask("GET", target).body == BODY
    assert len(origin.requests("hurt")) == 2
    assert "body lost" in node.errors()


def test_a_file_that_rots_under_slow_readers_reaches_none_of_them_whole(
    origin: ScriptedOrigin, node: Node
) -> None:
    body = os.urandom(24 * MIB)  # more than two kernels hold
    target, path = stored(origin, node, "rots", body)
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(Client(node.port)) for _ in range(5)]
        for client in clients:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.send(written(target))
            client.sock.recv(1)
        flip(path, len(body) - 1)
        for client in clients:
            got = bytearray()
            try:
                while piece := client.sock.recv(1 << 20):
                    got += piece
            except ConnectionResetError:
                pass
            assert body[-1000:] not in got
            assert len(got) < len(body)


def test_slow_readers_cost_no_copies(origin: ScriptedOrigin, node: Node) -> None:
    target, _ = stored(origin, node, "slow", os.urandom(24 * MIB))
    before = resident_bytes(node)
    with ExitStack() as open_ones:
        for _ in range(200):
            client = open_ones.enter_context(Client(node.port))
            client.send(written(target))
        with Client(node.port) as client:
            assert len(client.ask("GET", target).body) == 24 * MIB
        assert resident_bytes(node) - before < 8 * MIB


def test_those_who_leave_in_the_middle_leave_nothing_behind(
    origin: ScriptedOrigin, node: Node
) -> None:
    target, _ = stored(origin, node, "leave", os.urandom(24 * MIB))
    assert node._process is not None
    descriptors = Path(f"/proc/{node._process.pid}/fd")
    before = len(os.listdir(descriptors))
    for _ in range(50):
        with Client(node.port) as client:
            client.send(written(target))
            client.sock.recv(1000)
    assert eventually(lambda: len(os.listdir(descriptors)) <= before)


def test_what_the_store_evicts_gives_its_space_back(
    origin: ScriptedOrigin, tmp_path: Path
) -> None:
    with Node(origin.url, tmp_path, (*SETS, "store.disk=64MiB")) as node:
        for number in range(40):
            origin.script(f"e{number}", Reply.of(200, FRESH, BODY))
            with Client(node.port) as client:
                for _ in range(3):
                    assert client.ask("GET", f"/e{number}").body == BODY
        assert node._process is not None
        descriptors = Path(f"/proc/{node._process.pid}/fd")

        def no_ghosts() -> bool:
            names = [os.readlink(each) for each in descriptors.iterdir() if each.is_symlink()]
            return not any("/bodies/" in name and "(deleted)" in name for name in names)

        assert eventually(no_ghosts)
