"""The servers of one scenario: this node and its peers, started one after the other, all alike.

What is not installed is named and left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.benchmark.limit import start_limit
from tools.benchmark.nginx import start_nginx_cache, start_nginx_origin
from tools.benchmark.servers import (
    MISSING,
    Server,
    program,
    running,
    start_node,
    start_plain_origin,
)
from tools.benchmark.varnish import start_varnish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import ExitStack
    from pathlib import Path

    from tools.benchmark.report import Report

NOTES: Final = {
    "nginx": "what nginx has stored is in the page cache, which is not in its memory here",
    "Varnish": "Varnish writes its log to shared memory; no varnishncsa reads it",
}


def tell_notes(report: Report, names: Iterable[str]) -> None:
    """Say what a comparison with these must take into account."""
    for name in names:
        if name in NOTES:
            report.say(f"  {NOTES[name]}")


def start_origin(directory: Path) -> Server:
    """The origin of the load scenarios, on core 1; by nginx, where that is installed."""
    nginx = program("nginx")
    if nginx is None:
        return start_plain_origin(directory)
    return start_nginx_origin(nginx, directory)


def start_peers(
    stack: ExitStack,
    place: Path,
    origin: str,
    report: Report,
    *,
    memory: str = "1G",
    beside_limit: bool = False,
    extra: tuple[str, ...] = (),
) -> list[Server]:
    """This node, then its peers, on core 0 until `stack` ends; `memory` as Varnish writes it."""
    kept = ("--memory", f"{memory}iB", *extra)
    starts: list[tuple[str, Callable[[str], Server]]] = [
        ("nginx", lambda path: start_nginx_cache(path, place / "nginx", origin)),
        ("varnishd", lambda path: start_varnish(path, place / "varnish", origin, memory)[0]),
    ]
    if beside_limit:
        starts.append(("cc", lambda path: start_limit(path, place / "limit")))
    servers = [stack.enter_context(running(start_node(place / "node", origin, extra=kept)))]
    for name, start in starts:
        path = program(name)
        if path is None:
            report.say(f"  left out: {MISSING[name]}")
            report.figures.setdefault("left out", []).append(name)
        else:
            servers.append(stack.enter_context(running(start(path))))
    return servers
