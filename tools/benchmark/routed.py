"""hit-routed: what geography and an experiment cost a 1 KiB hit.

Two nodes of one worker, before the same origin, take turns on core 0: one has a database of
places, keys by the client's country, and has an experiment whose arms change the answer; the other
has none of this. Both are asked the same: by visitors who have an arm, and by visitors who are new
each time, and whom the first node gives one. The database knows this machine's addresses.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from tools.benchmark import comparison, proof
from tools.benchmark.loads import CPU, Goal, Kind
from tools.benchmark.objects import SMALL
from tools.benchmark.peers import start_origin
from tools.benchmark.report import Report
from tools.benchmark.servers import ROOT, free_port, program, running, start_node_by_file
from tools.benchmark.wrk import Run, run_wrk

if TYPE_CHECKING:
    from pathlib import Path

    from tools.benchmark.report import Wishes
    from tools.benchmark.servers import Server

ROUNDS: Final = 7
SECONDS: Final = 4.0
WARM_S: Final = 1.0
ROUTED, PLAIN = "routed", "without"
GOALS: Final = (Goal(CPU, 1.10, (PLAIN,)),)
LOADS: Final = {
    "visitors who have an arm": Kind("/1k", 64, body=SMALL, fields=("Cookie: ab=new",)),
    "new visitors": Kind("/1k", 64, body=SMALL),
}
PLACES: Final = """\
network,country,subdivision,city,latitude,longitude
127.0.0.0/8,DE,HE,Frankfurt am Main,50.11,8.68
"""
ROUTED_SITE: Final = """\
key = { place = ["country"] }
place = ["country"]
[[site.experiment]]
name = "checkout"
cookie = { name = "ab" }
arms = { control = { weight = 50 }, new = { weight = 50, header = { "X-Checkout" = "new" } } }
"""


def measure(wishes: Wishes) -> Report:
    """The scenario."""
    report, wrk = Report(), program("wrk")
    if wrk is None:
        report.fault("not measured: wrk is missing")
        return report
    with ExitStack() as stack:
        place = wishes.directory
        origin = stack.enter_context(running(start_origin(place / "origin")))
        servers = [
            stack.enter_context(running(_start(place / name, name, origin.url)))
            for name in (ROUTED, PLAIN)
        ]
        for words, kind in LOADS.items():
            part = Report()
            report.say(f"  {words}:")
            comparison.tell(part, _rounds(wrk, kind, servers, wishes), GOALS)
            report.lines += part.lines
            report.faults += part.faults
            report.figures[words] = part.figures
    return report


def _start(directory: Path, name: str, origin: str) -> Server:
    directory.mkdir(parents=True)
    port, file = free_port(), directory / "edge.toml"
    is_routed = name == ROUTED
    geo = f'geo = "{_database(directory)}"' if is_routed else ""
    file.write_text(f"""
[node]
listen = ["127.0.0.1:{port}"]
workers = 1
admin = "{directory / "admin.sock"}"
access_log = "{directory / "access.log"}"
{geo}
[store]
dir = "{directory / "store"}"
[origin.a]
servers = ["{origin}"]
at = [39.0, -77.5]
[origin.b]
servers = ["{origin}"]
at = [1.35, 103.8]
[[site]]
hosts = ["*"]
route = {{ {"nearest" if is_routed else "first"} = ["a", "b"] }}
{ROUTED_SITE if is_routed else ""}
""")
    return start_node_by_file(name, file, port)


def _database(directory: Path) -> Path:
    table, made = directory / "places.csv", directory / "places.mmdb"
    table.write_text(PLACES)
    command = [sys.executable, str(ROOT / "tools" / "geodata"), "build", str(table)]
    subprocess.run([*command, "--out", str(made)], check=True, capture_output=True, cwd=ROOT)
    return made


def _rounds(wrk: str, kind: Kind, servers: list[Server], wishes: Wishes) -> dict[str, list[Run]]:
    place, runs = wishes.directory, dict[str, list[Run]]()
    for server in servers:
        run_wrk(wrk, kind, server, WARM_S, place, "warm")
        proof.check(server, kind, "before")
        runs[server.name] = []
    for number in range(wishes.rounds or ROUNDS):
        for server in servers if number % 2 == 0 else reversed(servers):
            run = run_wrk(wrk, kind, server, wishes.seconds or SECONDS, place, str(number))
            runs[server.name].append(run)
    for server in servers:
        proof.check(server, kind, "after")
    return runs
