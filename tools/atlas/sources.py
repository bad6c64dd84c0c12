"""Read tables that say which network is where: our own CSV, and the lists of Debian's tor-geoipdb.

A CSV has a head that names its columns: `network`, or `first` and `last`; `country`; and if known
`subdivision`, `city`, `latitude` and `longitude`. A list of tor-geoipdb has no head; a line is
`FIRST,LAST,COUNTRY`, where IPv4 addresses are numbers and IPv6 addresses are text. Lines that
begin with # and empty ones are skipped in both. What is wrong is collected with its file and line,
so that one run tells all of it.
"""

from __future__ import annotations

import csv
import io
import ipaddress
import re
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from edge.routing.geo import Coordinates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    _Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
    Step: TypeAlias = Callable[[str, int], None]  # file, lines read of it so far

MOST_TOLD: Final = 20  # faults; more would only scroll the first away
STEP_LINES: Final = 50_000
COLUMNS: Final = (
    "network", "first", "last", "country", "subdivision", "city", "latitude", "longitude",
)  # fmt: skip
IPV4_END: Final = 1 << 32  # IPv4 stands in ::/96 of a database's one tree

_SUBDIVISION: Final = re.compile(r"[A-Z0-9]{1,3}")
_GENERATED: Final = re.compile(r"# Generated: +(.+)")
_TOR_LINE: Final = re.compile(r"([0-9A-Fa-f:.]+),([0-9A-Fa-f:.]+),([A-Z?][A-Z0-9?])")


class SourceError(Exception):
    """What is wrong in the sources, a line each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))


class Spot(NamedTuple):
    """What is said of a network."""

    country: str
    subdivision: str = ""
    city: str = ""
    at: Coordinates | None = None

    @property
    def is_more_than_country(self) -> bool:
        """Whether it takes a City database to say this."""
        return bool(self.subdivision or self.city or self.at)


class Range(NamedTuple):
    """The addresses from `first` to `last`, as numbers of 128 bits, and where a line says so."""

    first: int
    last: int
    spot: int  # its number in `Table.spots`
    source: str  # "FILE:" of its line
    line: int

    def __str__(self) -> str:
        return f"{self.source}{self.line}"


@dataclass
class Table:
    """What all sources say together."""

    ranges: list[Range] = field(default_factory=list)
    spots: dict[Spot, int] = field(default_factory=dict)  # numbered in order
    left_out: dict[str, int] = field(default_factory=dict)  # lines of codes that are no country's
    generated: list[float] = field(default_factory=list)  # Unix seconds, where a source says it
    faults: list[str] = field(default_factory=list)

    def add(self, first: int, last: int, spot: Spot, source: str, line: int) -> None:
        """Take in what one line says."""
        number = self.spots.setdefault(spot, len(self.spots))
        self.ranges.append(Range(first, last, number, source, line))


class Country(NamedTuple):
    """A row of `geo_data/countries.csv`."""

    continent: str
    name: str


def countries() -> Mapping[str, Country]:
    """Continent and English name of each country, by its ISO 3166-1 code."""
    text = (resources.files("geo_data") / "countries.csv").read_text("utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return {row["country"]: Country(row["continent"], row["name"]) for row in rows}


def read(paths: Sequence[Path], step: Step = lambda source, lines: None) -> Table:
    """All that the files say; `step` is told now and then how far it is.

    Raises `SourceError` with the first faults, and `OSError`.
    """
    table = Table()
    known = countries()
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            try:
                _read_one(str(path), file, known, table, step)
            except UnicodeDecodeError as error:
                table.faults.append(f"{path}: is not text in UTF-8: {error}")
    if not table.ranges and not table.faults:
        table.faults.append(f"{paths[0]}: no network in it" if paths else "no source")
    if table.faults:
        more = len(table.faults) - MOST_TOLD
        rest = [f"... and {more:,} more"] if more > 0 else []
        raise SourceError(table.faults[:MOST_TOLD] + rest)
    return table


def _read_one(
    name: str, file: io.TextIOBase, known: Mapping[str, Country], table: Table, step: Step
) -> None:
    lines = _lines(name, file, table, step)
    first = next(lines, None)
    if first is None:
        table.faults.append(f"{name}: is empty")
    elif _TOR_LINE.fullmatch(first[1]):
        _read_tor(name, _with(first, lines), known, table)
    else:
        _read_csv(name, first, lines, known, table)


def _lines(name: str, file: io.TextIOBase, table: Table, step: Step) -> Iterator[tuple[int, str]]:
    """Lines that say something, with their numbers; of comments the date is kept."""
    for number, raw in enumerate(file, start=1):
        if not number % STEP_LINES:
            step(name, number)
        line = raw.strip()
        if line.startswith("#"):
            _note_date(line, table)
        elif line:
            yield number, line


def _with(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _note_date(comment: str, table: Table) -> None:
    found = _GENERATED.fullmatch(comment)
    if found:
        with suppress(ValueError):  # a comment may say what it likes
            table.generated.append(parsedate_to_datetime(found[1]).timestamp())


def _read_tor(
    name: str, lines: Iterator[tuple[int, str]], known: Mapping[str, Country], table: Table
) -> None:
    for number, line in lines:
        try:
            found = _TOR_LINE.fullmatch(line)
            if found is None:
                raise ValueError(f"{line[:80]!r} is not FIRST,LAST,COUNTRY")
            first, last = _between(_address(found[1]), _address(found[2]))
        except ValueError as error:
            table.faults.append(f"{name}:{number}: {error}")
            continue
        code = found[3]
        if code in known:
            table.add(first, last, Spot(code), f"{name}:", number)
        else:  # "??" is unknown, AP a region of the registries, AN and CS are no more
            table.left_out[code] = table.left_out.get(code, 0) + 1


def _read_csv(
    name: str,
    head: tuple[int, str],
    lines: Iterator[tuple[int, str]],
    known: Mapping[str, Country],
    table: Table,
) -> None:
    columns = [column.strip() for column in next(csv.reader([head[1]]))]
    fault = _fault_of(columns)
    if fault:
        table.faults.append(f"{name}:{head[0]}: {fault}")
        return
    for number, line in lines:
        try:
            cells = _cells(columns, line)
            first, last = _extent(cells)
            table.add(first, last, _spot(cells, known), f"{name}:", number)
        except (ValueError, csv.Error) as error:
            table.faults.append(f"{name}:{number}: {error}")


def _fault_of(columns: Sequence[str]) -> str:
    """What is wrong with the head of a CSV; "" if nothing."""
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown:
        return f"unknown column {unknown[0]!r}; known are {', '.join(COLUMNS)}"
    if len(set(columns)) < len(columns):
        return "a column is there twice"
    if "country" not in columns:
        return "the column country is missing"
    if ("network" in columns) == ("first" in columns or "last" in columns):
        return "either network is needed, or first and last"
    if "network" not in columns and not {"first", "last"} <= set(columns):
        return "first and last are needed, both"
    return ""


def _cells(columns: Sequence[str], line: str) -> dict[str, str]:
    """The cells of a line by column; those that it ends without are empty."""
    cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
    if len(cells) > len(columns):
        raise ValueError(f"{len(cells)} cells, but {len(columns)} columns")
    return dict.fromkeys(COLUMNS, "") | dict(zip(columns, cells, strict=False))


def _extent(cells: Mapping[str, str]) -> tuple[int, int]:
    if not cells["network"]:
        return _between(_address(cells["first"]), _address(cells["last"]))
    network = ipaddress.ip_network(cells["network"])
    return _between(network.network_address, network.broadcast_address)


def _between(first: _Ip, last: _Ip) -> tuple[int, int]:
    """The ends of a range as numbers. Raises `ValueError`."""
    if first.version != last.version:
        raise ValueError(f"{first} and {last} are of different IP versions")
    if first.version == 6 and int(first) < IPV4_END:
        raise ValueError(f"{first} lies in ::/96, where a database keeps IPv4")
    if int(first) > int(last):
        raise ValueError(f"{first} is behind {last}")
    return int(first), int(last)


def _address(text: str) -> _Ip:
    return ipaddress.IPv4Address(int(text)) if text.isdecimal() else ipaddress.ip_address(text)


def _spot(cells: Mapping[str, str], known: Mapping[str, Country]) -> Spot:
    country = cells["country"]
    if country not in known:
        raise ValueError(f"country {country!r} is not in geo_data/countries.csv; write DE, US ...")
    subdivision = cells["subdivision"].removeprefix(f"{country}-")
    if subdivision and not _SUBDIVISION.fullmatch(subdivision):
        raise ValueError(f"subdivision {subdivision!r} is no code of ISO 3166-2, like BE or DE-BE")
    return Spot(country, subdivision, cells["city"], _at(cells["latitude"], cells["longitude"]))


def _at(latitude: str, longitude: str) -> Coordinates | None:
    if not latitude and not longitude:
        return None
    if not latitude or not longitude:
        raise ValueError("latitude and longitude are needed, both or neither")
    return Coordinates(float(latitude), float(longitude))
