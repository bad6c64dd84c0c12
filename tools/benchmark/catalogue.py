"""The objects of the purge scenario: what each is called, what covers it, what it holds; pure.

Everything follows from an object's number, so no list of a million names is kept, and whoever asks
for one knows what must come back: bytes that the store was built with, or those that the origin
gives since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tools.benchmark.plain import content

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HOSTS: Final = 1000
BRANCHES: Final = 10  # of each directory
DEPTH: Final = 3
PURGED_DEPTH: Final = 1  # of a million objects such a prefix covers a hundred
QUICK_OBJECTS: Final = 100_000  # with fewer, a run is to be a short one
BODY_BYTES: Final = 200
LIFETIME_S: Final = 31_536_000
FEWEST_TAGS: Final = 3
_PRIMES: Final = (2_654_435_761, 2_246_822_519, 3_266_489_917, 668_265_263, 374_761_393)

KINDS: Final = ("url", "tag", "prefix", "host")


@dataclass(frozen=True, slots=True)
class Item:
    """One object."""

    number: int
    host: str
    directories: tuple[str, ...]  # "/", "/s1/", "/s1/s7/" …
    tags: tuple[str, ...]

    @property
    def target(self) -> str:
        """Unlike those of all others, on whatever host."""
        return f"{self.directories[-1]}{self.number}.html"

    @property
    def url(self) -> str:
        """Its URL; and of a directory, that of the first prefixes."""
        return f"http://{self.host}{self.target}"

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The URLs of all its directories."""
        return tuple(f"http://{self.host}{each}" for each in self.directories)

    @property
    def stored(self) -> bytes:
        """The body that the store was built with."""
        return content(self.url, BODY_BYTES)

    @property
    def fetched(self) -> bytes:
        """The body that the origin gives."""
        return content(self.url + "#fetched", BODY_BYTES)

    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields of the answer, without Date."""
        return (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", b"%d" % BODY_BYTES),
            (b"cache-control", b"public, max-age=%d" % LIFETIME_S),
            (b"etag", b'"%x"' % self.number),
            (b"surrogate-key", " ".join(self.tags).encode()),
        )

    def scope(self, kind: str) -> str:
        """A name of `kind` (one of `KINDS`) that covers this object, as a purge is told it."""
        match kind:
            case "url":
                return self.url
            case "tag":
                return self.tags[0]
            case "prefix":
                return self.prefixes[PURGED_DEPTH]
            case _:
                return self.host


@dataclass(frozen=True, slots=True)
class Shape:
    """How many objects there are, and how many tags they have among them."""

    objects: int
    tags: int

    @property
    def is_quick(self) -> bool:
        """Whether a run is to take less than a minute."""
        return self.objects < QUICK_OBJECTS

    def item(self, number: int) -> Item:
        """The object of this number."""
        rest, host = divmod(number, HOSTS)
        directories = ["/"]
        for _ in range(DEPTH):
            rest, branch = divmod(rest, BRANCHES)
            directories.append(f"{directories[-1]}s{branch}/")
        primes = _PRIMES[: FEWEST_TAGS + number % (len(_PRIMES) - FEWEST_TAGS + 1)]
        tags = (f"t{(number * prime >> 5) % self.tags}" for prime in primes)
        name = f"h{host}.bench.example"
        return Item(number, name, tuple(directories), tuple(dict.fromkeys(tags)))


def number_in(target: str) -> int:
    """The number of the object that has this target."""
    return int(target.rpartition("/")[2].removesuffix(".html"))


@dataclass(slots=True)
class Purged:
    """What has been purged, to tell by another way than the node's what that covers."""

    everything: bool = False
    names: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})

    def add(self, kind: str, names: Iterable[str]) -> None:
        """Take note of a purge; `kind` is one of `KINDS`, or `all`."""
        if kind == "all":
            self.everything = True
        else:
            self.names[kind].update(names)

    def covers(self, item: Item) -> bool:
        """Whether a purge covers this object."""
        names = self.names
        return (
            self.everything
            or item.url in names["url"]
            or item.host in names["host"]
            or not names["tag"].isdisjoint(item.tags)
            or not names["prefix"].isdisjoint(item.prefixes)
        )


def sorted_out(
    items: Iterator[Item], now: Purged, before: Purged, most: int
) -> tuple[list[Item], list[Item]]:
    """Up to `most` of `items` that were purged `now`, and up to `most` that never were."""
    covered: list[Item] = []
    others: list[Item] = []
    for item in items:
        if now.covers(item):
            covered.append(item)
        elif not before.covers(item):
            others.append(item)
        if len(covered) >= most and len(others) >= most:
            break
    return covered[:most], others[:most]
