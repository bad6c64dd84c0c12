"""The pure part of measuring: reading what other programs print, and what may be said of it.

A ratio is taken within each round, where both servers had the same machine under the same weather,
and only then summed up over the rounds. It is said only where the rounds agree on it: the median
has to be further from 1 than the rounds are from each other, both counted as factors.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)\Z")
_TOTAL: Final = re.compile(
    r"^\s*([0-9]+) requests in \S+, ([0-9]+\.[0-9]+)([KMGT]?)B read$", re.MULTILINE
)
_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_RATE: Final = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)
_PERCENTILE: Final = re.compile(r"^\s+(50|99)%[ ]+(\S+)[ ]*$", re.MULTILINE)
_SOCKET_ERRORS: Final = re.compile(
    r"Socket errors: connect ([0-9]+), read ([0-9]+), write ([0-9]+), timeout ([0-9]+)"
)
_OTHER_STATUS: Final = re.compile(r"Non-2xx or 3xx responses: ([0-9]+)")


class Unreadable(ValueError):  # noqa: N818 - it says what the text is
    """What was to be read is not what the program is known to print."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk says of one run; `failed` are broken connections and answers past 399."""

    requests: int
    per_s: float
    p50_s: float
    p99_s: float
    failed: int
    read_bytes: float = 0.0  # heads and bodies, as far as three digits tell


def seconds(text: str) -> float:
    """The seconds that wrk means by "1.23ms"; raises `Unreadable`."""
    matched = _TIME.match(text)
    if matched is None:
        raise Unreadable(f"not a time: {text!r}")
    return float(matched[1]) * _UNITS_S[matched[2]]


def read_wrk(text: str) -> Load:
    """What `wrk --latency` printed; raises `Unreadable` with the text."""
    total, rate = _TOTAL.search(text), _RATE.search(text)
    tail = dict(_PERCENTILE.findall(text))
    if total is None or rate is None or tail.keys() != {"50", "99"}:
        raise Unreadable(f"not what wrk --latency prints:\n{text}")
    broken = _SOCKET_ERRORS.search(text)
    others = _OTHER_STATUS.search(text)
    failed = sum(map(int, broken.groups())) if broken else 0
    failed += int(others[1]) if others else 0
    p50_s, p99_s = seconds(tail["50"]), seconds(tail["99"])
    read_bytes = float(total[2]) * _SIZES[total[3]]
    return Load(int(total[1]), float(rate[1]), p50_s, p99_s, failed, read_bytes)


@dataclass(frozen=True, slots=True)
class ProcessLine:
    """What is of use here in /proc/PID/stat; `ticks` of the processor, user and system.

    Those of children that have ended are in it, as else what they used would be lost.
    """

    parent: int
    ticks: int


def read_stat(text: str) -> ProcessLine:
    """One /proc/PID/stat: the command's name may hold blanks and parentheses, so from its end."""
    words = text.rpartition(")")[2].split()
    return ProcessLine(int(words[1]), sum(map(int, words[11:15])))


def descendants(root: int, parents: dict[int, int]) -> set[int]:
    """`root` and all processes below it, by each one's parent."""
    found, rim = {root}, {root}
    while rim:
        rim = {each for each, parent in parents.items() if parent in rim} - found
        found |= rim
    return found


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours by the peer's, over the rounds: the median, and the extremes."""

    middle: float
    least: float
    most: float

    @property
    def is_telling(self) -> bool:
        """Whether the rounds agree better with each other than the median does with 1."""
        spread = math.log(self.most / self.least)
        return spread < abs(math.log(self.middle))

    def __str__(self) -> str:
        extremes = f"{self.least:.3g} to {self.most:.3g}"
        if not self.is_telling:
            return f"no ratio: the rounds differ more ({extremes}) than the servers"
        return f"{self.middle:.3g} ({extremes})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Ours by theirs, round by round; None where fewer than two rounds tell of no spread."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds beside {len(theirs)}")
    quotients = [mine / other for mine, other in zip(ours, theirs, strict=True) if other > 0]
    if len(quotients) < 2 or min(quotients) <= 0:
        return None
    return Ratio(median(quotients), min(quotients), max(quotients))


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of `values` do not exceed; NaN of none."""
    ranked = sorted(values)
    if not ranked:
        return math.nan
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]
