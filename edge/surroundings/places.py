"""The place of an address, from a MaxMind-format City or Country database on disk.

Theory of operation
-------------------
`geoip2.database.Reader` opens the file and says what it is. Looking up goes past it, to
`maxminddb`'s reader in C: of each record geoip2 makes a model of a dozen objects, which takes five
times as long as finding it (15 µs against 3 µs in a City database, 8.5 against 1.4 in one of
countries), and the edge wants four values. Without the C extension both would go on in Python, ten
times slower and without a word; so it is asked for by `MODE_MMAP_EXT`, which refuses.

What a place costs: 0.15 µs for a client that is remembered, 1.5 µs for its neighbour, 8 to 15 µs
for one of whose block nothing is known yet.

- *Remembered twice.* By the address's text, for a client that comes again: one lookup in a dict.
  And by block (/24 of IPv4, /48 of IPv6), for its neighbours: a record that covers the whole block
  is found and read once for all of it. Networks smaller than a block are remembered by address
  only. Both memories are two generations of a fixed room: what is asked for moves to the younger,
  and when that is full, the older one goes, in well under a millisecond.
- *Replaced under way.* Every few seconds a thread looks whether the file at the path is another
  one or has been changed, and opens it; the swap is one step on the loop, and forgets what was
  remembered. A file that is renamed into place, as geoipupdate does it, is taken at once; one that
  is written in place only when it has come to rest. What cannot be read is told once, and the old
  one kept.
- *Mapped, not copied.* All workers share one copy in the page cache, however large. The price: who
  writes over a file in place takes it away from under the map, and to read beyond its new end
  would kill the process. So the file is asked for its size and time before each lookup (1.5 µs;
  not for what is remembered), and from the first sign of change on nothing is read of it: what is
  not remembered has no place until the new file is whole. Copying the file would close the last
  few microseconds of that gap, for some 70 MB a worker and City database.
- *Never a reason to fail.* An address that cannot be read, one that no record covers, and a record
  that is broken are all nowhere. What the reader in C makes of bytes that have been damaged inside
  an otherwise whole file is its own affair: mostly it says so, seldom it ends the process. So the
  file has to come from where its sum is checked, as geoipupdate does.
"""

from __future__ import annotations

import csv
import io
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from math import inf
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, NamedTuple

import geoip2.database
import maxminddb
import trio

from edge.routing.geo import NOWHERE, Coordinates, Place, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from maxminddb.reader import Metadata

CHECK_S: Final = 5.0
DAY_S: Final = 86_400.0
AGE_S: Final = 30 * DAY_S  # the GeoLite2 licence: destroyed within 30 days of the next release
LAST_DAY_S: Final = 253_402_300_799.0  # of the year 9999: a damaged file may say it is from later
ROOM: Final = 8_192  # entries a generation; four full ones take about 5 MB
KIND: Final = "geo"  # of lines in the error log
TYPES: Final = ("City", "Country", "Enterprise")  # in a type's name: how geoip2 tells them, too
SOURCE: Final = "geo_data/README.md says how to get a database"
_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96


@dataclass(frozen=True, slots=True)
class PlacesStatistics:
    """The database in use, and since the start how many places were asked for and remembered."""

    path: str
    type: str
    built_unix: float
    age_s: float
    lookups: int
    cached: int


class _Stamp(NamedTuple):
    """What differs where a file is another one, or has been written to."""

    device: int
    inode: int
    size: int
    changed_ns: int


class _Found(NamedTuple):
    """What there was at the path: nothing new, a good database, or trouble."""

    stamp: _Stamp | None
    database: _Database | None = None
    trouble: str = ""


class _Recent:
    """Places by key, at most two generations of `ROOM`."""

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[bytes, Place] = {}
        self._old: dict[bytes, Place] = {}

    def get(self, key: bytes) -> Place | None:
        place = self._young.get(key)
        if place is None and (place := self._old.get(key)) is not None:
            self.put(key, place)
        return place

    def put(self, key: bytes, place: Place) -> None:
        if len(self._young) >= ROOM:
            self._old, self._young = self._young, {}
        self._young[key] = place


class _Database:
    """An open database. Making one raises `OSError` and `ValueError`, in words for the operator.

    The descriptor is of the same file as the map, so it shows what becomes of that file.
    """

    __slots__ = ("_fd", "_held", "_reader", "built", "has_ipv6", "stamp", "type")

    def __init__(self, path: Path) -> None:
        with ExitStack() as held:
            self._fd = held.enter_context(_open(path)).fileno()
            self.stamp = _stamp(os.fstat(self._fd))
            try:
                told = _described(path)
                self._reader = maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT)
                held.callback(self._reader.close)
                self.has_ipv6 = told.ip_version == 6
                is_empty = self._is_empty()
            except (maxminddb.InvalidDatabaseError, UnicodeDecodeError) as error:
                raise ValueError(f"{path} is no MaxMind-format database; {SOURCE}") from error
            if is_empty:
                raise ValueError(f"{path} has no network in it; {SOURCE}")
            if _stamp(os.stat(path)) != self.stamp:
                raise ValueError(f"{path} was replaced while it was being opened; try again")
            self._held = held.pop_all()
        self.type = told.database_type
        self.built = float(told.build_epoch)

    def is_whole(self) -> bool:
        """Whether the file is still what was opened: nothing else may be read through the map."""
        try:
            state = os.fstat(self._fd)
        except OSError:  # it is closed, or was on a network disk that knows it no longer
            return False
        return state.st_mtime_ns == self.stamp.changed_ns and state.st_size == self.stamp.size

    def read(self, packed: bytes) -> tuple[object, int]:
        """The record of an address, and how many leading bits of it have the same.

        Raises `InvalidDatabaseError` or `ValueError` where the record cannot be decoded.
        """
        if len(packed) == 4:
            return self._reader.get_with_prefix_len(socket.inet_ntop(socket.AF_INET, packed))
        if not self.has_ipv6:
            return None, 0
        return self._reader.get_with_prefix_len(socket.inet_ntop(socket.AF_INET6, packed))

    def close(self) -> None:
        self._held.close()
        self._fd = -1  # the number may be another file's soon

    def _is_empty(self) -> bool:
        """Whether neither half of all addresses has anything in it."""
        rest = bytes(15 if self.has_ipv6 else 3)
        halves = (self.read(first + rest) for first in (b"\x00", b"\x80"))
        return all(record is None and bits <= 1 for record, bits in halves)


class Places:
    """Where addresses are, by the database at `path`.

    `now` gives Unix seconds, and `tell` takes a kind and a line for the operator. Raises `OSError`
    or `ValueError` where the database cannot be opened; later on the old one is kept.
    """

    def __init__(
        self, path: Path, *, now: Callable[[], float], tell: Callable[[str, str], None]
    ) -> None:
        self._path = path
        self._now = now
        self._tell = tell
        self._centroids = centroids()
        self._database = _Database(path)
        self._by_address: _Recent = _Recent()
        self._by_block: _Recent = _Recent()
        self._lookups = self._reads = 0
        self._is_faulty = False  # and that has been told
        self._unsettled: _Stamp | None = None  # the file as it was last time, if written to
        self._refused: tuple[_Stamp | None, str] | None = None  # what was told of the file there
        self._age_told = -inf
        self._tell_age()

    def find(self, address: bytes) -> Place:
        """The place of a client, by its address as `guard.address` gives it.

        `NOWHERE` for what is no address (`unix`), or is not in the database. Never raises.
        """
        self._lookups += 1
        place = self._by_address.get(address)
        return self._search(address) if place is None else place

    async def run(self) -> None:
        """Follow the file for as long as it is not cancelled."""
        while True:
            await trio.sleep(CHECK_S)
            self._take(await trio.to_thread.run_sync(self._look))

    def check(self) -> None:
        """Look after the file once, as `run` does every `CHECK_S`. Waits for the disk."""
        self._take(self._look())

    def statistics(self) -> PlacesStatistics:
        """What is in use now, and how much was asked of it since the start."""
        return PlacesStatistics(
            path=str(self._path),
            type=self._database.type,
            built_unix=self._database.built,
            age_s=self._age_s(),
            lookups=self._lookups,
            cached=self._lookups - self._reads,
        )

    def close(self) -> None:
        """Let go of the file: from now on, what is not remembered is nowhere."""
        self._database.close()

    def _search(self, address: bytes) -> Place:
        packed = _packed(address)
        if packed is None:
            return NOWHERE
        place = self._by_block.get(_block(packed))
        if place is None:
            if not self._database.is_whole():
                self._reads += 1
                return NOWHERE  # for now: not to be remembered
            place = self._read(packed)
        self._by_address.put(address, place)
        return place

    def _read(self, packed: bytes) -> Place:
        self._reads += 1
        try:
            record, bits = self._database.read(packed)
        except (maxminddb.InvalidDatabaseError, ValueError) as error:
            self._tell_fault(error)
            return NOWHERE
        place = place_of(record, self._centroids)
        if bits <= 8 * len(_block(packed)):
            self._by_block.put(_block(packed), place)
        return place

    def _look(self) -> _Found:
        """What there is at the path now. Changes nothing but what only this looks at."""
        stamp = None
        try:
            stamp = _stamp(os.stat(self._path))
            if stamp == self._database.stamp or self._is_being_written(stamp):
                return _Found(stamp)
            return _Found(stamp, database=_Database(self._path))
        except (OSError, ValueError) as error:
            return _Found(stamp, trouble=str(error))

    def _is_being_written(self, stamp: _Stamp) -> bool:
        """Whether the file in use was written to since the last look."""
        before, self._unsettled = self._unsettled, stamp
        used = self._database.stamp
        return (stamp.device, stamp.inode) == (used.device, used.inode) and stamp != before

    def _take(self, found: _Found) -> None:
        if found.database is not None:
            self._swap(found.database)
        elif found.trouble:
            self._tell_refused(found)
        elif found.stamp == self._database.stamp:
            self._refused = None
        self._tell_age()

    def _swap(self, database: _Database) -> None:
        self._database.close()
        self._database = database
        self._by_address, self._by_block = _Recent(), _Recent()
        self._is_faulty = False
        self._refused = None
        self._age_told = -inf
        self._tell(KIND, f"{self._path} was replaced: {database.type} of {_date(database.built)}")

    def _tell_refused(self, found: _Found) -> None:
        """Say once of each file that it is not taken, and what goes on instead."""
        if self._refused == (found.stamp, found.trouble):
            return
        self._refused = (found.stamp, found.trouble)
        if self._database.is_whole():
            rest = "the old one stays in use"
        else:
            rest = "it was written over the old one, so only what is remembered has a place"
        self._tell(KIND, f"{found.trouble}; {rest}")

    def _tell_fault(self, error: Exception) -> None:
        """Say once of each database that something in it cannot be decoded."""
        if not self._is_faulty:
            self._is_faulty = True
            self._tell(KIND, f"{self._path} is damaged: {error}; addresses there have no place")

    def _tell_age(self) -> None:
        """Say at once and then daily that a database has grown too old."""
        age_s, now = self._age_s(), self._now()
        if age_s > AGE_S and now - self._age_told >= DAY_S:
            self._age_told = now
            self._tell(
                KIND,
                f"{self._path} was built {age_s / DAY_S:.0f} days ago, and addresses move; "
                "GeoLite2 may not be used more than 30 days after an update: run geoipupdate",
            )

    def _age_s(self) -> float:
        return max(0.0, self._now() - self._database.built)


@lru_cache(maxsize=1)
def centroids() -> Mapping[str, Coordinates]:
    """The middle of each country by its ISO 3166-1 code, from `geo_data/countries.csv`."""
    text = (resources.files("geo_data") / "countries.csv").read_text("utf-8")
    return {
        row["country"]: Coordinates(float(row["latitude"]), float(row["longitude"]))
        for row in csv.DictReader(io.StringIO(text))
    }


def _open(path: Path) -> io.FileIO:
    """A file that may be a database."""
    try:
        state = os.stat(path)  # first: to open a pipe would wait for its other end
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is not there; {SOURCE}") from error
    if not S_ISREG(state.st_mode):
        raise ValueError(f"{path} is no file; {SOURCE}")
    if not state.st_size:
        raise ValueError(f"{path} is empty; {SOURCE}")
    return io.FileIO(path)


def _described(path: Path) -> Metadata:
    """What a database says of itself, if it is of a kind that tells places."""
    if not hasattr(maxminddb, "extension"):
        raise ValueError(
            f"{path} cannot be read: maxminddb has been installed without its C extension; "
            "install a wheel that has it: "
            "pip install --force-reinstall --only-binary :all: maxminddb"
        )
    with geoip2.database.Reader(path, mode=maxminddb.MODE_MMAP_EXT) as reader:
        told = reader.metadata()
    if not any(name in told.database_type for name in TYPES):
        raise ValueError(
            f"{path} is of type {told.database_type!r}, which tells no places; "
            f"a City or Country database is needed, and {SOURCE}"
        )
    return told


def _stamp(state: os.stat_result) -> _Stamp:
    return _Stamp(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


def _packed(address: bytes) -> bytes | None:
    """The bytes of an address in text; None for anything else."""
    family = socket.AF_INET6 if b":" in address else socket.AF_INET
    try:
        packed = socket.inet_pton(family, address.decode("ascii"))
    except (OSError, ValueError):  # ValueError: a NUL, or not ASCII
        return None
    return packed.removeprefix(_MAPPED) if len(packed) == 16 else packed


def _block(packed: bytes) -> bytes:
    """What the neighbours of an address have in common with it: its /24, or /48 of IPv6."""
    return packed[:3] if len(packed) == 4 else packed[:6]


def _date(built: float) -> str:
    return datetime.fromtimestamp(min(built, LAST_DAY_S), UTC).date().isoformat()
