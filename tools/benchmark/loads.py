"""The kinds of load: what is asked for, over how many connections, what must come back; pure.

A goal is a ratio of ours to a peer's. It holds for one worker on one core, the load on another.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from tools.benchmark.mixture import Mixture
from tools.benchmark.objects import FILES, NAMED, SMALL, etag

HOST: Final = "www.bench.example"
# What Chromium 130 sends for a picture, without cookies and Referer: with Host, twelve fields.
BROWSER: Final = (
    "Connection: keep-alive",
    'sec-ch-ua-platform: "Windows"',
    "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36",
    'sec-ch-ua: "Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"',
    "sec-ch-ua-mobile: ?0",
    "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Mode: no-cors",
    "Sec-Fetch-Dest: image",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8",
)
RANGE_BYTES: Final = 1024
PACED: Final = 16  # milliseconds between an answer and the next request, in the mean


@dataclass(frozen=True, slots=True)
class Goal:
    """Ours by a peer's: at most, or for what should be large at least, so much."""

    measure: str
    bound: float
    peers: tuple[str, ...] = ("nginx",)
    is_least: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of load. `pause_ms` is the mean pause of a client between two requests."""

    target: str
    connections: int
    status: int = 200
    body: bytes = b""
    fields: tuple[str, ...] = ()
    is_unique: bool = False
    mixture: Mixture | None = None
    pause_ms: int = 0
    beside_limit: bool = False
    memory: str = "1G"
    goals: tuple[Goal, ...] = field(default=())

    def request(self, target: str | None = None) -> bytes:
        """One request's bytes; `target` in place of this kind's own."""
        lines = (f"GET {target or self.target} HTTP/1.1", f"Host: {HOST}", *self.fields)
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode()

    def script(self, mark: str) -> str:
        """What wrk is to run; `mark` is in those targets that are new in each run."""
        return self._requests(mark) + (PAUSE % (2 * self.pause_ms) if self.pause_ms else "")

    def _requests(self, mark: str) -> str:
        if self.mixture is not None:
            return self.mixture.script(mark)
        if not self.is_unique:
            return SAME % _quoted(self.request())
        before, _, after = self.request(f"{self.target}/{mark}/\0").partition(b"\0")
        return UNIQUE % (_quoted(before), _quoted(after))


def _quoted(text: bytes) -> str:
    """As Lua reads it; JSON writes ASCII the same way."""
    return json.dumps(text.decode("ascii"))


SAME: Final = """\
local text = %s
function init()
  wrk.format = function() return text end
end
"""
UNIQUE: Final = """\
local number = 0
function request()
  number = number + 1
  return %s .. number .. %s
end
"""
PAUSE: Final = """\
function delay()
  return math.random(0, %d)
end
"""


def _file(name: str, connections: int, *goals: Goal) -> Kind:
    return Kind(f"/files/{name}", connections, body=FILES[name], goals=goals)


CPU: Final = "CPU/request"
KINDS: Final = {
    "hit-1k": Kind("/1k", 64, body=SMALL, beside_limit=True),
    "hit-browser-heads": Kind(
        "/1k", 64, body=SMALL, fields=BROWSER, beside_limit=True,
        goals=(Goal(CPU, 0.6, ("nginx", "Varnish")), Goal(CPU, 2.5, ("C loop",))),
    ),
    "hit-100k": _file("100k", 64, Goal(CPU, 0.8)),
    "hit-1m": _file("1m", 16),
    "hit-10m": _file("10m", 16, Goal("requests/s", 1.0, is_least=True)),
    "304": Kind(
        "/files/1k", 64, status=304,
        fields=(f"If-None-Match: {etag(NAMED['1k']).decode()}",), goals=(Goal(CPU, 0.6),),
    ),
    "range": Kind(
        "/files/1m", 64, status=206, body=FILES["1m"][:RANGE_BYTES],
        fields=(f"Range: bytes=0-{RANGE_BYTES - 1}",),
    ),
    "miss-1k": Kind("/miss", 64, body=SMALL, is_unique=True, goals=(Goal(CPU, 5.0),)),
    "mixed": Kind(
        "/mixed", 64, mixture=Mixture(), pause_ms=PACED, memory="3G", goals=(Goal("p99", 1.0),)
    ),
    "churn": Kind(
        "/1k", 64, body=SMALL, fields=("Connection: close",), goals=(Goal(CPU, 1.2),)
    ),
}  # fmt: skip
PACED_HIT: Final = Kind("/1k", 32, body=SMALL, pause_ms=PACED)
