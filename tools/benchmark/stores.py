"""Stores full of small objects, built by the product's own code, and kept from run to run.

`python -m tools.benchmark.stores DIRECTORY OBJECTS TAGS` fills one; `kept_store` has that done
where there is none yet. A store counts as whole once it has its final name. It is taken again only
if the node of today would write the same: scopes, keys or the form of rows may have changed since.
What is measured runs on a copy, since whoever serves from a store changes it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from edge.cache.disk import Disk
from edge.cache.entry import Seq
from edge.cache.estate import Estate
from edge.cache.integrity import checks_of
from edge.cache.journal import Journal
from edge.cache.packing import pack
from edge.cache.ruling import Keep
from edge.cache.storing import judged
from edge.config import for_proxy
from edge.node import parts
from edge.serving.admission import admit
from edge.surroundings.behind import Behind
from edge.wire.fields import format_date
from edge.wire.message import Headers, RequestHead, ResponseHead, Times
from tools.benchmark.catalogue import BODY_BYTES, Item, Shape
from tools.benchmark.report import MIB, progress
from tools.benchmark.servers import ROOT, NotReady

if TYPE_CHECKING:
    from edge.cache.entry import Entry
    from edge.cache.packing import StoredRow

BATCH: Final = 1000
TELL_S: Final = 10.0
ROW_BYTES: Final = 1300  # on the disk, for each object; measured 1,084
SLACK_BYTES: Final = 512 * MIB  # for the node's log and what it fetches anew
SHARD: Final = "shard-0"
AGED_S: Final = 90 * 86_400  # a store older than that is built again, before its objects expire
SAMPLES: Final = 10


class Maker:
    """Makes entries as a node without settings would, of answers that came at `now`."""

    def __init__(self, now: float) -> None:
        config = for_proxy(["127.0.0.1:1"], "http://127.0.0.1:2", hostname="bench")
        self._parts = parts(config, Behind(now=lambda: now, chance=lambda: 0.0), b"")
        self._times = Times(now, now)
        self._date = (b"date", format_date(now))

    def entry(self, item: Item) -> Entry:
        """The entry that the answer to a request for `item` becomes."""
        head = RequestHead(b"GET", b"http", item.host.encode(), item.target.encode())
        admitted = admit(self._parts, head, b"127.0.0.1")
        response = ResponseHead(200, Headers((*item.fields(), self._date)))
        keep = judged(admitted.request, response, self._times, admitted.policy)
        assert isinstance(keep, Keep), keep
        return keep.entry(admitted.key, 200, self._times, Seq(0), length=BODY_BYTES)


@dataclass(frozen=True, slots=True)
class Told:
    """What is written down about a store: its shape, its form, and how it was built."""

    objects: int
    tags: int
    form: str
    built_at: float
    build_s: float

    def serves(self, shape: Shape, now: float) -> bool:
        """Whether it can stand for `shape` today."""
        fits = (self.objects, self.tags) == (shape.objects, shape.tags)
        return fits and self.form == form_of(shape) and now - self.built_at < AGED_S


def form_of(shape: Shape) -> str:
    """Another word for each way in which the rows of some objects have ever been written, and for
    each place where they were."""
    maker, seen = Maker(0.0), blake2b(SHARD.encode(), digest_size=16)
    for number in range(SAMPLES):
        item = shape.item(number * shape.objects // SAMPLES)
        seen.update(pack(maker.entry(item), checks_of(item.stored), item.stored))
    return seen.hexdigest()


# --- having one ---------------------------------------------------------------


def kept_store(directory: Path, shape: Shape) -> tuple[Path, Told]:
    """A store of this shape in `directory`, built if need be; raises `NotReady`."""
    _own(directory)
    place = directory / f"objects-{shape.objects}-tags-{shape.tags}"
    told = _told(place)
    if told is not None and told.serves(shape, time.time()):
        progress(f"{place} is there, built in {told.build_s:.0f} s")
        return place, told
    check_room(directory, shape.objects * ROW_BYTES)
    building = place.with_name(place.name + ".building")
    _build(building, shape)
    shutil.rmtree(place, ignore_errors=True)
    building.rename(place)
    told = _told(place)
    assert told is not None
    return place, told


def copied(place: Path, to: Path) -> Path:
    """A copy of a kept store, to be changed; raises `NotReady`."""
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    check_room(to.parent, size)
    shutil.copytree(place, to, ignore=shutil.ignore_patterns("shape.json", "lock"))
    return to


def check_room(directory: Path, size: int) -> None:
    """Raise `NotReady` where `size` more bytes would fill the disk."""
    free = shutil.disk_usage(directory).free
    if free < size + SLACK_BYTES:
        raise NotReady(
            f"{directory}: {free // MIB} MiB are free, {(size + SLACK_BYTES) // MIB} MiB are "
            "needed; ask for fewer --objects, or name a --store (and TMPDIR) on another disk"
        )


def _own(directory: Path) -> None:
    """Have the directory, and for us alone: its name in the temporary directory can be guessed."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise NotReady(f"{directory} is another user's; name another --store")


def _told(place: Path) -> Told | None:
    try:
        return Told(**json.loads((place / "shape.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _build(place: Path, shape: Shape) -> None:
    """Fill `place` in a process of its own; it is removed where that fails."""
    command = [sys.executable, "-m", "tools.benchmark.stores"]
    words = [str(place), str(shape.objects), str(shape.tags)]
    with subprocess.Popen([*command, *words], cwd=ROOT) as process:
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            shutil.rmtree(place, ignore_errors=True)
            raise
    if code:
        raise NotReady(f"{place} could not be built; the reason stands above")


# --- building one -------------------------------------------------------------


async def _fill(place: Path, shape: Shape) -> None:
    began, now = time.perf_counter(), time.time()
    estate = Estate(place)
    estate.enter(1)
    birth = estate.renew_birth()  # someone may have been interrupted
    journal = Journal(place, log=progress)
    if await journal.open(birth):
        raise NotReady(f"{place}: its journal is older than the store")
    await journal.begin(birth)
    await journal.close()
    disk = Disk(estate.shard(0), birth=birth, quota_bytes=_quota(shape), log=progress)
    await disk.open()
    await _save_all(disk, shape, Maker(now))
    await disk.close()
    estate.leave()
    took = time.perf_counter() - began
    told = Told(shape.objects, shape.tags, form_of(shape), now, took)
    (place / "shape.json").write_text(json.dumps(asdict(told)))
    size = (place / SHARD / "cache.db").stat().st_size
    progress(f"{shape.objects:,} objects in {took:.0f} s, {size / shape.objects:.0f} bytes each")


async def _save_all(disk: Disk, shape: Shape, maker: Maker) -> None:
    began = told_at = time.perf_counter()
    refused = 0

    def done(row: StoredRow | None) -> None:
        nonlocal refused
        refused += row is None

    for number in range(shape.objects):
        item = shape.item(number)
        disk.save(maker.entry(item), item.stored, done=done)
        if number % BATCH == BATCH - 1:
            await disk.flush()
            clock = time.perf_counter()
            if clock - told_at > TELL_S:
                told_at, rate = clock, number / (clock - began)
                progress(
                    f"{number + 1:,} of {shape.objects:,} objects stored, {rate:,.0f} a second"
                )
    await disk.flush()
    if refused or disk.statistics().rows != shape.objects:
        raise NotReady(f"{refused} objects refused; {disk.statistics()}")


def _quota(shape: Shape) -> int:
    return max(1 << 30, 4 * ROW_BYTES * shape.objects)


def disk_option(shape: Shape) -> tuple[str, ...]:
    """What a node must be told to have room for all of `shape`."""
    return ("--disk", f"{_quota(shape) // MIB}MiB")


if __name__ == "__main__":
    try:
        trio.run(_fill, Path(sys.argv[1]), Shape(int(sys.argv[2]), int(sys.argv[3])))
    except (OSError, NotReady) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(1)
