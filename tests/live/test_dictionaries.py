"""Dictionaries with two workers: whichever has learned one, each answers by it, for bytes that the
client can make the origin's of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from base64 import b64encode
from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import brotli
import pytest

from edge.coding.zstd import ZstdDecompressor, ZstdDict
from tests.live.harness import Answer, Client, Node, Reply, ScriptedOrigin, eventually
from tests.live.hostile_harness import ROOT, free_port
from tests.unit.scraped import Scraped, scraped

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.live

PAIRS: Final = 20
HOSTILE: Final = 2_000
AT_ONCE: Final = 100  # of them, in one go
SETS: Final = ("site.compress={dictionaries=true}", "node.access_log=off", "node.workers=2")
FIELDS: Final = ("cache-control: max-age=600", "content-type: text/javascript")
RISE_KIB: Final = 16 * 1024  # of a worker's memory, for what any 2,000 requests take


def bundle(number: int, version: int) -> bytes:
    """A script that is like its other versions, and like nothing else."""
    random = Random(number)
    lines = [b"f%d(%r);\n" % (at, random.randbytes(20).hex()) for at in range(300)]
    lines[7 * version] = b"changed(%d, %d);\n" % (number, version)
    return b"".join(lines)


class World:
    """A node with two workers, before an origin with versioned bundles."""

    def __init__(self, directory: Path, origin: ScriptedOrigin) -> None:
        self.admin = directory / "admin.sock"
        self.shelf = directory / "store" / "dictionaries"
        self.metrics = free_port()
        sets = *SETS, f"node.admin={self.admin}", f"node.metrics=127.0.0.1:{self.metrics}"
        self.node = Node(origin.url, directory, sets)
        for number in range(PAIRS):
            for version in (1, 2):
                name = f"app{number}.v{version}.js"
                offer = f'use-as-dictionary: match="/app{number}.*.js", id="v{version}"'
                origin.always(name, Reply.of(200, (*FIELDS, offer), bundle(number, version)))

    def edge(self, *words: str) -> str:
        command = [sys.executable, "-m", "edge", *words, "--socket", str(self.admin)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, check=True, text=True, timeout=30
        )
        return done.stdout

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.edge("status", "--json"))
        return document

    def counted(self, what: str) -> int:
        return int(self.status()["dictionaries"][what])

    def measured(self) -> Scraped:
        with closing(HTTPConnection("127.0.0.1", self.metrics, timeout=30)) as connection:
            connection.request("GET", "/metrics")
            return scraped(connection.getresponse().read())

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]

    def ask(
        self, number: int, version: int, held: bytes = b"", accepts: str = "br, dcz"
    ) -> Answer:
        """By a newcomer: any worker may be the one who takes it in."""
        fields = [f"accept-encoding: {accepts}"]
        if held:
            fields.append(f"available-dictionary: {named(sha256(held).digest())}")
        with Client(self.node.port) as client:
            return client.ask("GET", f"/app{number}.v{version}.js", fields)

    def teach(self) -> None:
        """Have all first versions learned."""
        before = self.counted("learned")
        for number in range(PAIRS):
            answer = self.ask(number, 1)
            assert answer.field("content-encoding") == "br"
            assert brotli.decompress(answer.body) == bundle(number, 1)
        assert eventually(lambda: self.counted("learned") == before + PAIRS)

    def check_all(self) -> None:
        """Each second version, by the first and without it, whoever takes the client in."""
        for number in range(PAIRS):
            old, new = bundle(number, 1), bundle(number, 2)
            for _ in range(3):
                answer = self.ask(number, 2, old)
                assert decoded(answer, old) == new
                assert len(answer.body) < 300
            plain = self.ask(number, 2)
            assert plain.field("content-encoding") == "br"
            assert brotli.decompress(plain.body) == new
            assert self.ask(number, 2, accepts="identity").body == new
            other = self.ask(number, 2, bundle((number + 1) % PAIRS, 1))  # is for other URLs
            assert other.field("content-encoding") == "br"

    def kill_worker(self, slot: int) -> None:
        """kill -9, and wait for another one."""
        before = self.pids()[slot]
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: self.pids()[slot] != before)


def named(digest: bytes) -> str:
    return f":{b64encode(digest).decode()}:"


def decoded(answer: Answer, held: bytes) -> bytes:
    """What an answer in dcz is to who holds that dictionary."""
    assert answer.field("content-encoding") == "dcz"
    assert answer.body[8:40] == sha256(held).digest()
    decoder = ZstdDecompressor(zstd_dict=ZstdDict(held, is_raw=True).as_undigested_dict)
    return bytes(decoder.decompress(answer.body[40:]))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ScriptedOrigin() as origin:
        made = World(tmp_path, origin)
        with made.node:
            yield made
            assert "internal" not in made.node.errors()
        assert origin.unexpected == []


def test_any_worker_answers_by_what_any_other_has_learned(world: World) -> None:
    world.teach()
    world.check_all()
    assert world.counted("read") > 0  # or this would prove nothing
    assert world.counted("used") == 3 * PAIRS

    def are_all_measured() -> bool:
        found = world.measured()
        uses = found.all("edge_dictionaries_total", what="used")
        learned = found.all("edge_dictionaries_total", what="learned")
        return (uses, learned) == (3 * PAIRS, 2 * PAIRS)

    assert eventually(are_all_measured)
    assert world.measured().all("edge_dictionaries_held") >= 2 * PAIRS
    told = world.edge(
        "explain", "http://example.com/app3.v2.js", "-H", "Accept-Encoding: br, dcz",
        "-H", f"Available-Dictionary: {named(sha256(bundle(3, 1)).digest())}",
    )  # fmt: skip
    short = sha256(bundle(3, 1)).hexdigest()[:12]
    assert f'\ncoding   dcz by dictionary {short} ("v1", for /app3.*.js), stored, ' in told


def test_what_a_killed_worker_has_learned_is_not_lost(world: World) -> None:
    world.teach()
    for slot in (0, 1):  # in the end, none is left of those who have learned
        world.kill_worker(slot)
        world.check_all()


def test_a_node_that_starts_learns_anew(world: World) -> None:
    world.teach()
    world.check_all()
    assert len(list(world.shelf.iterdir())) == 2 * PAIRS
    world.node.stop()
    world.node.start()
    assert world.counted("learned") == 0
    assert not world.shelf.exists()
    assert world.ask(0, 2, bundle(0, 1)).field("content-encoding") == "br"
    world.ask(0, 1)  # from the store
    assert eventually(lambda: world.ask(0, 2, bundle(0, 1)).field("content-encoding") == "dcz")


def test_digests_that_clients_think_up_cost_next_to_nothing(world: World) -> None:
    world.teach()
    files, random = sorted(world.shelf.iterdir()), Random(1)
    head = "GET /app0.v1.js HTTP/1.1\r\nhost: example.com\r\naccept-encoding: br, dcz\r\n"
    before: list[int] = []
    for batch in range(HOSTILE // AT_ONCE):
        with Client(world.node.port) as client:
            client.send(
                b"".join(
                    f"{head}available-dictionary: {named(random.randbytes(32))}\r\n\r\n".encode()
                    for _ in range(AT_ONCE)
                )
            )
            for _ in range(AT_ONCE):
                assert client.receive().field("content-encoding") == "br"
        if batch == 5:
            before = [resident_kib(pid) for pid in world.pids()]
    after = [resident_kib(pid) for pid in world.pids()]
    assert all(now - then < RISE_KIB for then, now in zip(before, after, strict=True))
    assert world.counted("unknown") == HOSTILE
    assert world.counted("read") == 0
    assert sorted(world.shelf.iterdir()) == files


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
