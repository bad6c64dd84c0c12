"""`edge origin`: how the servers of origins stand, and orders about them.

An order returns when every worker goes by it. Where one does not in time, the order holds all the
same, its name is told, and the command ends with 1: whoever takes a drained server off the network
next must not read that as done.
"""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from edge.command.console import answering, json_option, node_at, print_result, socket_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_WHO = "ORIGIN|SERVER | ORIGIN SERVER"


@click.group()
def origin() -> None:
    """Look at the servers of origins, take one out of use, or give it another weight.

    A server is named by its origin and its URL, or by its URL alone; an origin alone means all
    its servers. An order holds until it is taken back or the settings name another value, also
    over a restart of the node.

    \b
    Examples:
        edge origin list
        edge origin drain eu http://eu-1.example
        edge origin up eu
        edge origin weight http://eu-1.example 3
    """


@origin.command("list")
@click.argument("name", metavar="[ORIGIN]", required=False)
@json_option
@socket_option
def list_servers(name: str | None, path: Path, *, as_json: bool) -> None:
    """List servers: what workers see, what checks found, requests at work, weight, latency.

    \b
    Examples:
        edge origin list eu
        edge origin list --json | jq -r '.servers[] | select(.drained) | .id'
    """
    from edge.command.standing import servers

    with answering(as_json=as_json):
        document = node_at(path).get("/v1/origins")
        if name is not None:
            document = _only(document, name)
        print_result(document if as_json else "\n".join(servers(document)))


def _only(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The servers of one origin; ends with 1 where there are none."""
    from edge.command.status import clean

    listed = document.get("servers")
    told = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    its = [each for each in told if each.get("origin") == name]
    if not its:
        known = ", ".join(sorted({str(each.get("origin")) for each in told}))
        click.echo(clean(f'edge: "{name}" is no origin; there is {known}'), err=True)
        sys.exit(1)
    return {**document, "servers": its}


@origin.command()
@click.argument("servers", metavar=_WHO, nargs=-1, required=True)
@json_option
@socket_option
def drain(servers: tuple[str, ...], path: Path, *, as_json: bool) -> None:
    """Give a server, or all of an origin, no new requests. What it is at, it finishes.

    \b
    Examples:
        edge origin drain eu http://eu-1.example
        edge origin drain eu
    """
    _order(path, "/v1/origins/drain", {"servers": _words(servers)}, as_json=as_json)


@origin.command()
@click.argument("servers", metavar=_WHO, nargs=-1, required=True)
@json_option
@socket_option
def up(servers: tuple[str, ...], path: Path, *, as_json: bool) -> None:
    """Take a drained server, or all of an origin, into use again.

    \b
    Example:
        edge origin up eu http://eu-1.example
    """
    _order(path, "/v1/origins/up", {"servers": _words(servers)}, as_json=as_json)


@origin.command()
@click.argument("words", metavar=f"({_WHO}) [WEIGHT]", nargs=-1, required=True)
@click.option("--reset", is_flag=True, help="The weight that the settings say.")
@json_option
@socket_option
def weight(words: tuple[str, ...], path: Path, *, reset: bool, as_json: bool) -> None:
    """Give a server, or all of an origin, another weight, in place of the settings'.

    \b
    Examples:
        edge origin weight eu http://eu-1.example 3
        edge origin weight eu --reset
    """
    asked: dict[str, Any] = {"servers": _words(words if reset else words[:-1]), "weight": None}
    if not reset:
        asked["weight"] = finite(words[-1], "write a number at the end, or --reset")
    _order(path, "/v1/origins/weight", asked, as_json=as_json)


def _words(words: tuple[str, ...]) -> list[str]:
    if not 0 < len(words) < 3:
        raise click.UsageError(
            "name an origin, a server by its URL, or both: eu http://eu-1.example"
        )
    for word in words:
        check_text(word)
    return [*words]


def _order(path: Path, route: str, asked: Mapping[str, Any], *, as_json: bool) -> None:
    from edge.command.standing import servers_ordered

    order(path, route, asked, servers_ordered, as_json=as_json)


def finite(text: str, way_out: str) -> float:
    """The number in an argument; a usage error with `way_out` where there is none."""
    with suppress(ValueError):
        number = float(text)
        if math.isfinite(number):  # JSON has no others
            return number
    raise click.UsageError(f'"{text}" is no weight; {way_out}')


def check_text(word: str) -> None:
    """Raise a usage error for an argument that is no text."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise click.UsageError(f"{word!a} is not UTF-8 text") from error


def order(
    path: Path,
    route: str,
    asked: Mapping[str, Any],
    lines: Callable[[Mapping[str, Any]], Iterator[str]],
    *,
    as_json: bool,
) -> None:
    """Give an order, tell what it came to in `lines`, and end with 1 where a worker is behind."""
    from edge.command.standing import behind

    with answering(as_json=as_json) as deed:
        document = node_at(path).post(route, asked)
        deed.done = "the order is recorded"
        print_result(document if as_json else "\n".join(lines(document)))
        sys.stdout.flush()
        late = behind(document)
        if late:
            click.echo(f"edge: {late}", err=True)
            sys.exit(1)
