"""The commands that ask a running node over its admin socket: arguments in, words out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from edge.command.ab import ab
from edge.command.console import answering, json_option, node_at, print_result, socket_option
from edge.command.origin import origin
from edge.command.purge import purge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEAD_BYTES: Final = 1024 * 1024  # of a stored response; more is something else

MOST_LISTED: Final = 999_999_999


def _fields(function: Callable[..., None]) -> Callable[..., None]:
    return click.option("-H", "--header", "fields", multiple=True, metavar="'NAME: VALUE'", callback=_checked_fields, help="A field of the request; may be given again.")(function)  # fmt: skip # noqa: E501


def _checked_fields(
    context: click.Context, option: click.Parameter, fields: tuple[str, ...]
) -> tuple[str, ...]:
    for each in fields:
        name, colon, _ = each.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"\"{each}\" is not 'NAME: VALUE'")
    return fields


def _query(
    url: str, fields: tuple[str, ...], address: str | None = None, method: str | None = None
) -> list[tuple[str, str]]:
    """The question as a node is asked it; what it would refuse to be asked is a usage error."""
    from edge.explain.question import QuestionRefused, asked

    query = [("url", url), *(("field", each) for each in fields)]
    query += [(name, each) for name, each in (("from", address), ("method", method)) if each]
    try:
        asked({name: [each for known, each in query if known == name] for name, _ in query})
    except QuestionRefused as error:
        raise click.UsageError(str(error)) from error
    return query


@click.command()
@click.argument("url")
@_fields
@click.option("--from", "address", metavar="ADDRESS", help="As if asked from there.")
@click.option("--method", metavar="METHOD", help="GET if not given.")
@json_option
@socket_option
def explain(
    url: str, fields: tuple[str, ...], address: str | None, method: str | None, path: Path, *, as_json: bool  # noqa: E501
) -> None:  # fmt: skip
    """Tell what a node would do with a request, and why, without doing it.

    \b
    Examples:
        edge explain https://shop.example/a
        edge explain https://shop.example/a -H 'Accept-Encoding: gzip' --from 192.0.2.7
    """
    from edge.command.explanation import explained

    query = _query(url, fields, address, method)
    with answering(as_json=as_json):
        document = node_at(path).get("/v1/explain", query)
        print_result(document if as_json else explained(document).rstrip("\n"))


@click.command()
@click.argument("prefix", required=False)
@click.option("--limit", type=click.IntRange(1, MOST_LISTED), metavar="N", help="At most so many.")
@json_option
@socket_option
def ls(prefix: str | None, limit: int | None, path: Path, *, as_json: bool) -> None:
    """List what is stored: size, age, time to live, hits, state, and URL with its variant.

    \b
    Examples:
        edge ls https://shop.example/blog/ --limit 20
        edge ls --json | jq -r 'select(.state == "stale") | .url'
    """
    from json import dumps

    from edge.command.status import clean
    from edge.command.telling import STORED_HEAD, stored

    query = [("prefix", prefix)] if prefix is not None else []
    query += [("limit", str(limit))] if limit is not None else []
    with answering(as_json=as_json):
        if not as_json and sys.stdout.isatty():
            click.echo(STORED_HEAD)
        document = None
        for document in node_at(path).lines("/v1/ls", query):
            sys.stdout.write(f"{dumps(document) if as_json else stored(document)}\n")
        if document is None:
            begins = f"nothing stored begins with {prefix}" if prefix else "nothing is stored"
            click.echo(clean(begins), err=True)


@click.command()
@click.argument("url")
@_fields
@click.option("--head", "head_only", is_flag=True, help="Without the body.")
@socket_option
def get(url: str, fields: tuple[str, ...], path: Path, *, head_only: bool) -> None:
    """Print a stored response, head and body, as it would stand on the wire.

    \b
    Examples:
        edge get https://shop.example/a --head
        edge get https://shop.example/a -H 'Accept-Encoding: gzip' > a.http
    """
    query = _query(url, fields)
    with answering():
        pieces = node_at(path).stream("/v1/get", query)
        write = _shown if sys.stdout.isatty() else sys.stdout.buffer.write
        for piece in _head_of(pieces) if head_only else pieces:
            write(piece)


def _head_of(pieces: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for piece in pieces:
        head += piece
        if b"\r\n\r\n" in head or len(head) > HEAD_BYTES:
            break
    end = head.find(b"\r\n\r\n")
    yield head[: end + 4] if end >= 0 else head


def _shown(data: bytes) -> None:
    """Write to a terminal what cannot move its cursor."""
    from edge.command.status import clean

    lines = data.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    sys.stdout.write("\n".join("\t".join(map(clean, line.split("\t"))) for line in lines))


@click.command()
@json_option
@socket_option
def purges(path: Path, *, as_json: bool) -> None:
    """List the recent purges: number, when, how, by whom, and what.

    \b
    Example:
        edge purges --json | jq .latest
    """
    from shutil import get_terminal_size

    from edge.command.telling import purges as lines

    with answering(as_json=as_json):
        document = node_at(path).get("/v1/purges")
        width = get_terminal_size().columns if sys.stdout.isatty() else None
        print_result(document if as_json else "\n".join(lines(document, width)))


@click.command()
@json_option
@socket_option
def status(path: Path, *, as_json: bool) -> None:
    """Tell how a running node does.

    \b
    Examples:
        edge status --socket /run/edge/admin.sock
        edge status --json | jq .requests
    """
    from edge.command.status import overview

    with answering(as_json=as_json):
        document = node_at(path).get("/v1/status")
        print_result(document if as_json else overview(document).rstrip("\n"))


@click.command("reload")
@click.option("--wait", is_flag=True, help="Return when every process goes by them.")
@json_option
@socket_option
def reload_(path: Path, *, wait: bool, as_json: bool) -> None:
    """Have a node read its settings again; where they have faults, it keeps the old.

    What running processes can take up, they do. For the rest the workers are replaced: new ones
    begin, and the old ones finish what they are at. No request is refused or cut.

    \b
    Examples:
        edge check /etc/edge/edge.toml && edge reload
        edge reload --wait
    """
    from edge.command.status import clean
    from edge.command.telling import reloaded

    with answering(as_json=as_json) as deed:
        document = node_at(path).post("/v1/reload", {"wait": wait})
        deed.done = "the settings are taken"
        print_result(document if as_json else reloaded(document))
        later = document.get("later")
        for name in later if isinstance(later, list) and not as_json else []:
            click.echo(clean(f"note: {name} changed; it counts from the next start on"), err=True)


@click.command()
@json_option
@socket_option
def drain(path: Path, *, as_json: bool) -> None:
    """Have a node end: it takes no new connections, and ends what runs within `node.drain`.

    \b
    Example:
        edge drain
    """
    with answering(as_json=as_json) as deed:
        document = node_at(path).post("/v1/drain")
        deed.done = "the node is draining"
        print_result(document if as_json else "draining: the node ends when its requests have")


COMMANDS: Final = (purge, explain, ls, get, purges, origin, ab, reload_, drain, status)
