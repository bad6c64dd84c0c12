"""The journal of purges under faults: nothing purged comes back, and the node serves on.

Every case begins with a copy of one store whose journal has an opening with ten thousand scopes,
and purges behind it. What was *gone* before the damage must never be served from that store again,
whatever became of the journal; what was *kept* may be lost to it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from edge.cache.ledger import HEADER_BYTES, Header, header_bytes, read_header, wanted
from edge.command.asking import Node as Socket
from tests.live.hostile_harness import (
    EDGE,
    ROOT,
    SOCKETS,
    Asked,
    Node,
    Origin,
    Wire,
    plain,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.live

GONE: Final = ("/by-tag", "/by-url", "/below/prefix", "/by-many", "/softly")
KEPT: Final = ("/kept", "/kept/too")
TAGS: Final = {"/by-tag": "one", "/by-many": "many-9999"}
MANY: Final = "\n".join(f"many-{number}" for number in range(10_000))
NOBODY: Final = 65_534
MIB: Final = 1 << 20
BOOK: list[str] = []  # what the origin was asked for


def answer(asked: Asked, wire: Wire) -> None:
    """Pages for a day; their bodies tell when they were made, by a count."""
    made = b"%d" % len(BOOK)
    BOOK.append(asked.target)
    tag = TAGS.get(asked.target, "none")
    wire.send(
        plain(made, "Cache-Control: max-age=86400", f"Cache-Tag: {tag}", f'ETag: "{made!r}"')
    )


def purge(node: Node, *arguments: str, names: str = "") -> subprocess.CompletedProcess[str]:
    """`edge purge`, to its end."""
    command = [*EDGE, "purge", *arguments, "--socket", str(node.admin)]
    return subprocess.run(
        command, cwd=ROOT, input=names, capture_output=True, text=True, timeout=60, check=False
    )


def made(node: Node, target: str) -> int:
    """Which one the node gives."""
    answer = node.get(target)
    assert answer.status == 200, answer
    return int(answer.body)


@dataclass(frozen=True)
class Stock:
    """A store of a node that was killed: what it had, and which of it may never be seen again."""

    store: Path
    kept: dict[str, int]
    gone: dict[str, int]

    def journal(self) -> Path:
        return self.store / "purges"

    def copied(self, place: Path) -> Stock:
        """The same in a place of its own."""
        store = place / "store"
        shutil.copytree(self.store, store, ignore=SOCKETS)
        return Stock(store, self.kept, self.gone)


@dataclass
class Life:
    """A node on a copy of the stock, asked what it still knows."""

    node: Node
    stock: Stock
    purged: dict[str, int] = field(default_factory=dict)

    def check(self) -> None:
        """Nothing that was purged comes back; all is served."""
        for target, number in {**self.stock.gone, **self.purged}.items():
            assert made(self.node, target) > number, target
        for target in self.stock.kept:
            made(self.node, target)

    def has_kept(self) -> bool:
        """Whether what was never purged is still the same."""
        return all(made(self.node, target) == n for target, n in self.stock.kept.items())

    def purges_again(self) -> None:
        """Purge another page, which is stored."""
        target, number = self._another()
        Socket(self.node.admin).post("/v1/purge", {"url": [f"http://example.com{target}"]})
        self.purged[target] = number
        assert made(self.node, target) > number

    def refuses(self, *words: str) -> None:
        """`edge purge` ends with 1 and these words, and has done nothing."""
        target, number = self._another()
        done = purge(self.node, "url", f"http://example.com{target}")
        assert done.returncode == 1, done
        assert "purges: not purged: " in done.stderr
        assert all(word in done.stderr for word in words), done.stderr
        assert made(self.node, target) == number

    def _another(self) -> tuple[str, int]:
        target = f"/another/{len(self.purged)}"
        number = made(self.node, target)
        assert made(self.node, target) == number
        return target, number

    def again(self) -> None:
        """kill -9 and another life."""
        self.node.kill()
        self.node.start()
        self.check()


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin(answer) as origin:
        yield origin
        assert not origin.trouble


@pytest.fixture(scope="module")
def stock(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """The store that every case has a copy of."""
    with a_node(tmp_path_factory.mktemp("stock"), origin) as node:
        first = {target: made(node, target) for target in (*GONE, *KEPT)}
        wait_until(lambda: node.status()["store"]["disk"]["saved"] == len(first))
        assert purge(node, "tag", "--file", "-", names=MANY).returncode == 0
        node.kill()
        node.start()  # a journal so long is written anew
        assert purge(node, "tag", "one").returncode == 0
        assert purge(node, "url", "http://example.com/by-url").returncode == 0
        assert purge(node, "prefix", "http://example.com/below").returncode == 0
        assert purge(node, "tag", "many-1", "many-2").returncode == 0
        assert purge(node, "url", "http://example.com/softly", "--soft").returncode == 0
        node.kill()
        kept = {target: first[target] for target in KEPT}
        return Stock(node.store, kept, {target: first[target] for target in GONE})


def a_node(directory: Path, origin: Origin, store: Path | None = None) -> Node:
    return Node(directory, origin.url, sets=("store.free_floor=1MiB",), store=store)


@pytest.fixture
def begin(
    origin: Origin, stock: Stock, tmp_path: Path
) -> Iterator[Callable[[Callable[[Path], None]], Life]]:
    """`begin(damage)`: a node on a copy of the stock whose journal was damaged before it."""
    lives: list[Life] = []

    def beginning(damage: Callable[[Path], None]) -> Life:
        copy = stock.copied(tmp_path)
        damage(copy.journal())
        life = Life(a_node(tmp_path, origin, copy.store), copy)
        lives.append(life)
        life.node.start()
        return life

    yield beginning
    for life in lives:
        life.node.kill()


# --- what can happen to a file


def nothing(_journal: Path) -> None:
    """The file as it was left by kill -9."""


def remove(journal: Path) -> None:
    journal.unlink()


def cut_to(size: Callable[[Path], int]) -> Callable[[Path], None]:
    return lambda journal: os.truncate(journal, size(journal))


def records(journal: Path) -> list[int]:
    """Where each record begins, the opening first, and where the last one ends."""
    data, at = journal.read_bytes(), HEADER_BYTES
    found = [at]
    while size := wanted(data, at):
        at += size
        found.append(at)
    return found


def flip(place: Callable[[Path], int]) -> Callable[[Path], None]:
    def flipped(journal: Path) -> None:
        with journal.open("r+b") as file:
            file.seek(place(journal))
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ (1 << random.Random(byte).randrange(8))]))

    return flipped


def blot(journal: Path) -> None:
    """Zeros where a record was, as of a page that a disk has lost."""
    _, first, second, *_ = records(journal)
    with journal.open("r+b") as file:
        file.seek(first)
        file.write(bytes(second - first))


def put_a_directory(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


def put_a_pipe(journal: Path) -> None:
    journal.unlink()
    os.mkfifo(journal)


def put_a_link(journal: Path) -> None:
    journal.rename(journal.with_name("elsewhere"))
    journal.symlink_to("elsewhere")


def put_anothers(journal: Path) -> None:
    """The journal of another store, which is good in itself."""
    data = bytearray(journal.read_bytes())
    header = read_header(bytes(data))
    data[:HEADER_BYTES] = header_bytes(Header("0" * 32, header.reach))
    journal.unlink()
    journal.write_bytes(data)


BAD: Final[dict[str, Callable[[Path], None]]] = {
    "gone": remove,
    "empty": cut_to(lambda journal: 0),
    "half a header": cut_to(lambda journal: HEADER_BYTES // 2),
    "a header alone": cut_to(lambda journal: HEADER_BYTES),
    "half an opening": cut_to(lambda journal: records(journal)[1] // 2),
    "half a record": cut_to(lambda journal: records(journal)[-1] - 3),
    "cut between records": cut_to(lambda journal: records(journal)[-2]),
    "a bit of the header": flip(lambda journal: 20),
    "a bit of the opening": flip(lambda journal: records(journal)[1] // 2),
    "a bit of a length": flip(lambda journal: records(journal)[2] + 3),
    "a bit of a record": flip(lambda journal: records(journal)[3] + 20),
    "a record lost": blot,
    "another store's": put_anothers,
    "a link": put_a_link,
    "a pipe": put_a_pipe,
}
WHILE_RUNNING: Final = ("empty", "half a record", "a bit of a record", "a record lost")


def test_after_kill_9_all_that_was_purged_is_gone_and_the_rest_is_kept(
    begin: Callable[[Callable[[Path], None]], Life],
) -> None:
    life = begin(nothing)
    assert life.has_kept()
    life.check()
    life.purges_again()
    life.again()
    assert life.has_kept()


@pytest.mark.parametrize("damage", BAD.values(), ids=BAD)
def test_a_damaged_journal_brings_nothing_back(
    damage: Callable[[Path], None], begin: Callable[[Callable[[Path], None]], Life]
) -> None:
    life = begin(damage)
    life.check()
    life.purges_again()
    life.check()
    assert life.node.status()["purges"]["journal"]["fault"] == ""
    assert "/purges: " in life.node.complaints() or damage is remove
    assert " internal" not in life.node.complaints()


@pytest.mark.parametrize("name", ["gone", "half a record", "a bit of a record"])
def test_what_is_purged_after_damage_stays_purged(
    name: str, begin: Callable[[Callable[[Path], None]], Life]
) -> None:
    life = begin(BAD[name])
    life.purges_again()
    life.again()
    life.purges_again()
    life.check()


def test_a_node_without_a_journal_refuses_purges_until_it_can_have_one(
    begin: Callable[[Callable[[Path], None]], Life],
) -> None:
    life = begin(put_a_directory)
    life.check()
    life.refuses("directory", "then purge again")
    life.check()
    life.stock.journal().rmdir()
    life.purges_again()
    life.again()


def test_no_damage_under_a_running_node_loses_a_purge(
    begin: Callable[[Callable[[Path], None]], Life],
) -> None:
    life = begin(nothing)
    for damage in (remove, *(BAD[name] for name in WHILE_RUNNING)):
        life.purges_again()
        life.purges_again()
        damage(life.stock.journal())
        life.check()
    life.purges_again()
    put_a_directory(life.stock.journal())
    life.refuses("directory", "then purge again")
    life.check()
    life.stock.journal().rmdir()
    life.purges_again()
    life.again()


@pytest.mark.parametrize("name", WHILE_RUNNING)
def test_damage_under_a_running_node_brings_nothing_back_after_kill_9(
    name: str, begin: Callable[[Callable[[Path], None]], Life]
) -> None:
    life = begin(nothing)
    for _ in range(3):
        life.purges_again()
    BAD[name](life.stock.journal())
    life.again()


# --- a disk that does not let it write


@pytest.fixture
def unprivileged(origin: Origin, stock: Stock) -> Iterator[Life]:
    """A node that a mode can keep from reading and writing; not started."""
    wrapper: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="edge-purges-") as name:
        place = Path(name)
        copy = stock.copied(place)
        if os.geteuid() == 0:
            if shutil.which("setpriv") is None:
                pytest.skip(
                    "root is kept from nothing, and there is no setpriv to be someone else"
                )
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
            wrapper = ("setpriv", *ids)
        node = Node(place, origin.url, sets=(), store=copy.store, wrapper=wrapper)
        try:
            yield Life(node, copy)
        finally:
            node.kill()
            copy.store.chmod(0o700)


@pytest.mark.parametrize("mode", [0o400, 0o000])
def test_a_journal_that_may_not_be_read_or_written_brings_nothing_back(
    mode: int, unprivileged: Life
) -> None:
    life = unprivileged
    life.stock.journal().chmod(mode)
    life.node.start()
    life.check()
    assert life.has_kept() is bool(mode)  # what cannot be read may have been anything
    life.purges_again()
    life.again()


def test_a_directory_that_may_not_be_written_refuses_purges_until_it_may(
    unprivileged: Life,
) -> None:
    life = unprivileged
    life.node.start()
    life.purges_again()
    life.stock.journal().unlink()
    life.stock.store.chmod(0o500)
    life.refuses("Permission denied", "let this node write to its directory")
    life.check()
    life.stock.store.chmod(0o700)
    life.purges_again()
    life.again()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={24 * MIB}", "edge-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs may be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(place: Path) -> Path:
    hog = place / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return hog


def test_on_a_full_disk_small_purges_go_on_and_large_ones_are_refused_whole(
    origin: Origin, stock: Stock, tmp_path: Path, small_disk: Path
) -> None:
    copy = stock.copied(small_disk)
    with a_node(tmp_path, origin, copy.store) as node:
        life = Life(node, copy)
        life.purges_again()
        hog = fill_up(small_disk)
        life.purges_again()
        many = "\n".join(f"filler-{number}" for number in range(99_999))
        codes: list[int] = []
        while 1 not in codes and len(codes) < 4:  # 800 KB each, and 1 MiB of room ahead
            done = purge(node, "tag", "--file", "-", names=f"{many}\nnth-{len(codes)}")
            codes.append(done.returncode)
        assert codes[-1] == 1
        assert "No space left on device" in done.stderr
        assert "make room on its disk" in done.stderr
        life.check()
        life.purges_again()  # there was room ahead for small ones
        node.kill()
        node.start()
        life.check()
        hog.unlink()
        done = purge(node, "tag", "--file", "-", names=many)
        assert done.returncode == 0, done.stderr
        life.purges_again()
        life.again()
