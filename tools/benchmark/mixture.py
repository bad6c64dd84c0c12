"""The mixture of a site: URLs of realistic sizes, asked for by Zipf's law; pure.

The URL of rank r is asked for in proportion to 1/r. The first ones, which have 95 of 100 requests
among them, are stored before anything is measured. Those behind them have the run's mark and the
request's number in their names, so that each request for one of them is a miss, however long a run
is. The generator is seeded: every server is asked for the same in the same order.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from tools.benchmark.objects import SIZES

if TYPE_CHECKING:
    from collections.abc import Iterable

URLS: Final = 100_000
HIT_SHARE: Final = 0.95
SCATTER: Final = 2_654_435_761  # Knuth's multiplier: neighbours in rank differ in size
BOUNDS: Final = tuple(accumulate(SIZES.values()))


def size_of(rank: int) -> int:
    """The bytes of the URL of this rank, from 1 on; the script below does the same sum."""
    place = (rank * SCATTER % 2**32) * BOUNDS[-1] // 2**32
    return tuple(SIZES)[bisect(BOUNDS, place)]


def stored_count(urls: int) -> int:
    """How many of the first ranks have `HIT_SHARE` of the requests among them."""
    shares = list(accumulate(1 / rank for rank in range(1, urls + 1)))
    return bisect(shares, HIT_SHARE * shares[-1]) + 1


@dataclass(frozen=True, slots=True)
class Mixture:
    """So many URLs."""

    urls: int = URLS

    @property
    def stored(self) -> int:
        """How many are stored beforehand."""
        return stored_count(self.urls)

    def target(self, rank: int, mark: str = "") -> str:
        """The target of a rank; only of those that are not stored `mark` is a part."""
        behind = f"/{mark}" if rank > self.stored else ""
        return f"/mixed/{size_of(rank)}/{rank}{behind}"

    def fill_script(self) -> str:
        """For wrk: each of those to be stored, once."""
        return self._script("") + FILL.replace("COUNT", str(self.stored))

    def script(self, mark: str) -> str:
        """For wrk: what the clients of one run ask for."""
        return self._script(mark) + ZIPF.replace("URLS", str(self.urls))

    def _script(self, mark: str) -> str:
        return (
            TARGET.replace("SIZES", _list(SIZES))
            .replace("BOUNDS", _list(BOUNDS))
            .replace("SCATTER", str(SCATTER))
            .replace("STORED", str(self.stored))
            .replace("MARK", mark)
        )


def _list(numbers: Iterable[int]) -> str:
    return "{" + ", ".join(map(str, numbers)) + "}"


TARGET: Final = """\
local sizes, bounds, number = SIZES, BOUNDS, 0
local function ask(rank)
  local place = math.floor((rank * SCATTER % 2^32) * bounds[#bounds] / 2^32)
  local at = 1
  while bounds[at] <= place do at = at + 1 end
  local behind = ""
  if rank > STORED then
    number = number + 1
    behind = "/MARK-" .. number
  end
  return string.format("GET /mixed/%d/%d%s HTTP/1.1\\r\\nHost: www.bench.example\\r\\n\\r\\n",
    sizes[at], rank, behind)
end
"""

FILL_DONE: Final = "all answered"
FILL: Final = """\
local asked, seen = 0, 0
function request()
  asked = asked + 1
  return ask((asked - 1) % COUNT + 1)
end
function response()
  seen = seen + 1
  if seen == COUNT + 64 then
    wrk.thread:stop()
    io.write("all answered\\n")
    io.flush()
  end
end
"""

ZIPF: Final = """\
local sums, total = {}, 0
for rank = 1, URLS do
  total = total + 1 / rank
  sums[rank] = total
end
math.randomseed(20)
function request()
  local point, low, high = math.random() * total, 1, URLS
  while low < high do
    local middle = math.floor((low + high) / 2)
    if sums[middle] < point then low = middle + 1 else high = middle end
  end
  return ask(low)
end
"""
