"""`edge purge`: what is to be forgotten, from arguments or a file, to a running node as one order.

A line of `--file` is a name as it stands. There are no comments: a tag may begin with `#`, and a
line passed over in silence would be a page not purged. For the same reason a file without a name
is refused, and what a node finds wrong with a name is told at the line that it stands on.
"""

from __future__ import annotations

import os
import sys
from codecs import BOM_UTF8
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edge.command.console import (
    ADMIN_SOCKET,
    PATH,
    SOCKET_VARIABLE,
    admin_socket,
    answering,
    node_at,
    print_notes,
    print_result,
    program,
    socket_variable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.command.console import Deed

NAMES_BYTES: Final = 16 * 1024 * 1024  # what a node takes in one call


@dataclass(slots=True)
class _Wish:
    """A purge as it was asked for, with where each name came from."""

    kind: str
    names: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def read(self, file: str) -> None:
        """Take a name from each line; raises a usage error at what is no list of names."""
        data = _content(file).removeprefix(BOM_UTF8)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise _unusable(f"{file}:{line}: is not UTF-8 text") from error
        for number, line_text in enumerate(text.split("\n"), 1):
            name = line_text.strip(" \t\r")
            if name:
                self.names.append(name)
                self.places.append(f"{file}:{number}")

    def document(self, *, soft: bool, dry_run: bool, local: bool) -> dict[str, Any]:
        """The body of `POST /v1/purge`."""
        asked: dict[str, Any] = {kind: [] for kind in ("url", "prefix", "host", "tag")}
        asked |= {"all": self.kind == "all", "soft": soft, "dry_run": dry_run}
        if local:
            asked["local"] = True
        if self.kind != "all":
            asked[self.kind] = self.names
        return asked


def _content(file: str) -> bytes:
    try:
        with click.open_file(file, "rb") as opened:
            data: bytes = opened.read(NAMES_BYTES + 1)
    except OSError as error:
        raise _unusable(f"{file}: {error.strerror or error}") from error
    if len(data) > NAMES_BYTES:
        raise _unusable(f"{file}: has more than {NAMES_BYTES} bytes; purge it in parts")
    return data


def _unusable(message: str) -> click.UsageError:
    return click.BadParameter(message, param_hint="--file")


def _purge_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--socket", "path", type=PATH, help=f"The node's admin socket; else ${SOCKET_VARIABLE}, else {ADMIN_SOCKET}."),  # noqa: E501
        click.option("--json", "as_json", is_flag=True, help="The whole answer, for programs."),
        click.option("--dry-run", is_flag=True, help="Only count the stored objects that match."),
        click.option("--local", is_flag=True, help="This node alone, and not its shields."),
        click.option("--file", metavar="FILE", help='More names, one a line, purged at once with the others; "-" is standard input.'),  # noqa: E501
        click.option("--soft", is_flag=True, help="Make stale rather than gone: validated before it is used, and still there if the origin fails."),  # noqa: E501
    ):  # fmt: skip
        function = option(function)
    return function


@click.group()
@_purge_options
@click.pass_context
def purge(context: click.Context, /, **options: Any) -> None:
    """Make a node forget. Returns when it can serve nothing of it any more.

    Prints the purge's number and the milliseconds that it took. Where the node has shields, they
    purge first. One that has not done so is named, and the command ends with 1: the node has
    purged all the same, does not ask that shield while another or the origin can be asked, and
    sends it the purge until it has acknowledged it.

    \b
    Examples:
        edge purge url https://shop.example/a 'https://shop.example/b?page=2'
        edge purge prefix https://shop.example/blog
        edge purge tag front product-17 --soft
        edge purge tag --file changed.txt --dry-run
        edge purge all --yes
    """
    context.obj = options


@purge.command("url")
@click.argument("names", metavar="[URL]...", nargs=-1)
@_purge_options
@click.pass_context
def purge_url(context: click.Context, /, names: tuple[str, ...], **options: Any) -> None:
    """Forget each URL, by http and https, with all its variants.

    \b
    Examples:
        edge purge url 'https://shop.example/a?b=1'
        generate-sitemap | edge purge url --file -
    """
    _purge_names("url", names, _merged(context, options))


@purge.command("prefix")
@click.argument("names", metavar="[URL]...", nargs=-1)
@_purge_options
@click.pass_context
def purge_prefix(context: click.Context, /, names: tuple[str, ...], **options: Any) -> None:
    """Forget each path and all below it: /blog covers /blog?x and /blog/x, not /blogging.

    \b
    Example:
        edge purge prefix https://shop.example/blog
    """
    _purge_names("prefix", names, _merged(context, options))


@purge.command("host")
@click.argument("names", metavar="[HOST]...", nargs=-1)
@_purge_options
@click.pass_context
def purge_host(context: click.Context, /, names: tuple[str, ...], **options: Any) -> None:
    """Forget all of each host.

    \b
    Example:
        edge purge host shop.example
    """
    _purge_names("host", names, _merged(context, options))


@purge.command("tag")
@click.argument("names", metavar="[TAG]...", nargs=-1)
@_purge_options
@click.pass_context
def purge_tag(context: click.Context, /, names: tuple[str, ...], **options: Any) -> None:
    """Forget what the origin gave any of these tags (Cache-Tag, Surrogate-Key, xkey).

    \b
    Examples:
        edge purge tag front product-17
        edge purge tag --soft --file tags.txt
    """
    _purge_names("tag", names, _merged(context, options))


@purge.command("all")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_purge_options
@click.pass_context
def purge_all(context: click.Context, /, *, yes: bool, **options: Any) -> None:
    """Forget everything. Asks first.

    \b
    Examples:
        edge purge all
        edge purge all --soft --yes
    """
    options = _merged(context, options)
    if options["file"] is not None:
        raise _unusable("all needs no names")
    if not yes and not options["dry_run"]:
        _be_sure()
    _purge(_Wish("all"), options)


def _merged(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Options from before and from behind the kind; those behind count where both are given."""
    given = {name: value for name, value in options.items() if value not in (None, False)}
    merged = {**options, **context.obj, **given}
    if merged["path"] is None:
        merged["path"] = Path(
            os.environ.get(socket_variable(program())) or admin_socket(program())
        )
    return merged


def _be_sure() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; say --yes to purge everything")
    if not click.confirm("Purge everything that this node has stored?", err=True):
        click.echo("nothing was purged", err=True)
        sys.exit(1)


def _purge_names(kind: str, names: tuple[str, ...], options: dict[str, Any]) -> None:
    wish = _Wish(kind, [*names], [""] * len(names))
    if options["file"] is not None:
        wish.read(options["file"])
    if not wish.names:
        where = f"; {options['file']} has none" if options["file"] is not None else ""
        raise click.UsageError(f"no {kind} was given{where}; nothing was purged")
    for name in names:  # arguments may be any bytes; a file's lines are text
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise click.UsageError(f"{name!a} is not UTF-8 text") from error
    _purge(wish, options)


def _purge(wish: _Wish, options: dict[str, Any]) -> None:
    flags = {name: options[name] for name in ("soft", "dry_run", "local")}
    asked = wish.document(**flags)
    as_json: bool = options["as_json"]
    with answering(wish.places, as_json=as_json) as deed:
        if options["dry_run"]:
            _count(options["path"], asked, as_json=as_json)
        else:
            _do(options["path"], asked, wish.kind, deed, as_json=as_json)


def _do(path: Path, asked: dict[str, Any], kind: str, deed: Deed, *, as_json: bool) -> None:
    from time import perf_counter

    from edge.command.asking import UNSURE, Unreachable
    from edge.command.telling import purged, unacknowledged

    began = perf_counter()
    document = node_at(path).post("/v1/purge", asked)
    ms = (perf_counter() - began) * 1e3
    number = document.get("number")
    if isinstance(number, bool) or not isinstance(number, int):
        words = "the answer tells no purge, so this is hardly a node's admin socket"
        raise Unreachable(f"{path}: {words}{UNSURE}")
    deed.done = f"purge {number} is done"
    print_notes(document)
    print_result(document if as_json else purged(document, kind, ms))
    if lines := unacknowledged(document):
        deed.fail(*lines)


def _count(path: Path, asked: dict[str, Any], *, as_json: bool) -> None:
    from edge.command.asking import Unreachable
    from edge.command.telling import looked, matched

    last: dict[str, Any] = {}
    terminal = sys.stderr.isatty()
    for last in node_at(path).lines("/v1/purge", document=asked):
        if terminal:
            click.echo(f"\r{looked(last)}\x1b[K", err=True, nl=False)
    if terminal:
        click.echo("\r\x1b[K", err=True, nl=False)
    if last.get("done") is not True:
        raise Unreachable(f"{path}: the count did not come to its end")
    print_notes(last)
    print_result(last if as_json else matched(last))
