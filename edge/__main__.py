"""The `edge` command: arguments in, exit codes out.

What a command needs is imported when it runs, so that `edge --help` and `edge check` do not wait
for a whole node. Exit codes: 0 done; 1 it could not be done, and standard error says why; 2 it was
asked for wrongly; 3 no running node answered; 4 it was done, and standard output did not take the
answer (`console`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge import __version__
from edge.build import kind
from edge.commands import COMMANDS
from edge.place import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge.config import Config

T = TypeVar("T")

SETTINGS_BYTES = 16 * 1024 * 1024  # a file of settings that is larger is something else

_FILE = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99})
@click.version_option(__version__, prog_name="edge", message=f"%(prog)s %(version)s ({kind()})")
def main() -> None:
    """A caching node: it stands before your origin, remembers its answers, and tells why.

    \b
    Begin with:
        edge proxy --listen 127.0.0.1:8080 --to http://127.0.0.1:3000
    """


@main.command()
@click.argument("file", type=_FILE)
def run(file: Path) -> None:
    """Run a node with the settings in FILE. TERM drains and ends it, HUP reads FILE again.

    \b
    Example:
        edge run /etc/edge/edge.toml
    """
    text, config = _loaded(file)
    _serve(config, text, Source(str(file), lambda: _bytes_of(file), _parsed))


@main.command()
@click.argument("file", type=_FILE)
def check(file: Path) -> None:
    """Tell every fault in the settings in FILE; exit 1 if there is one.

    \b
    Example:
        edge check edge.toml && edge run edge.toml
    """
    _, config = _loaded(file)
    sites, origins = len(config.sites), len(config.origins)
    click.echo(f"{file}: good; sites: {sites}, origins: {origins}")


@main.command()
@click.option("--listen", multiple=True, required=True, metavar="ADDRESS", help="Where clients connect; may be given again.")  # fmt: skip # noqa: E501
@click.option("--to", required=True, metavar="URL", help="The origin.")
@click.option("--store", metavar="DIR", help="Where answers are kept; else a directory for this run.")  # fmt: skip # noqa: E501
@click.option("--memory", metavar="SIZE", help='Memory for answers, "256MiB" if not given.')
@click.option("--disk", metavar="SIZE", help='Disk for answers, "10GiB" if not given.')
@click.option(
    "--admin", metavar="SOCKET", help="UNIX socket for `edge purge`, `edge explain` and the like."
)
@click.option("--workers", metavar="N", help="Worker processes; one a core if not given.")
@click.option("--access-log", metavar="PATH|-|off", help="JSON lines, one a request; off if not given.")  # fmt: skip # noqa: E501
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any other setting of `edge settings`; may be given again.")  # fmt: skip # noqa: E501
def proxy(listen: tuple[str, ...], to: str, sets: tuple[str, ...], **options: str | None) -> None:
    """Run a node without a settings file, before one origin. Prints `ready ADDRESS`.

    \b
    Examples:
        edge proxy --listen 127.0.0.1:8080 --to http://127.0.0.1:3000
        edge proxy --listen '[::]:80' --to https://origin.example --store /var/cache/edge \\
            --set cache.max_stale=1d --set limits.request_body=10MiB --set site.cache.ttl=5s
    """
    for each in sets:
        if "=" not in each:
            raise click.BadParameter(f'"{each}" is not KEY=VALUE', param_hint="--set")

    def build() -> Config:
        from edge.config import for_proxy

        hostname = _hostname()
        if any(each.endswith(":0") for each in listen):
            hostname += f" {os.getpid()}"  # a port of the system's choosing tells no two apart
        return for_proxy(listen, to, hostname=hostname, options=_by_path(options), sets=sets)

    source = Source("the command line", lambda: b"", lambda _text: build())
    _serve(_whole(build, "edge proxy"), b"", source)


def _by_path(options: Mapping[str, str | None]) -> dict[str, Any]:
    paths = {
        "store": "store.dir",
        "memory": "store.memory",
        "disk": "store.disk",
        "admin": "node.admin",
        "workers": "node.workers",
        "access_log": "node.access_log",
    }
    given = {paths[name]: value for name, value in options.items()}
    workers = options["workers"]
    is_count = workers is not None and workers.isascii() and workers.isdigit()
    return given | ({"node.workers": int(workers[:9])} if workers and is_count else {})


@main.command()
@click.option("--markdown", is_flag=True, help="As a table, for a document.")
def settings(*, markdown: bool) -> None:
    """Tell every setting: name, type, default, and what it does.

    \b
    Example:
        edge settings | grep -A 2 max_stale
    """
    from edge.config import Config
    from edge.settings import as_markdown, as_text, reference

    rows = reference(Config)
    click.echo(as_markdown(rows) if markdown else as_text(rows), nl=False)


for _command in COMMANDS:
    main.add_command(_command)


def _serve(config: Config, text: bytes, source: Source) -> None:
    """Run a node to its end, with a store of its own where the settings name none."""
    if config.store.dir is not None:
        _exit(config, text, source)
    import tempfile
    from dataclasses import replace

    with tempfile.TemporaryDirectory(prefix="edge-", ignore_cleanup_errors=True) as store:
        click.echo(f"edge: no store given; answers are kept in {store} for this run", err=True)
        parse = source.parse
        source = replace(source, parse=lambda text: _stored_in(parse(text), store))
        _exit(_stored_in(config, store), text, source)


def _stored_in(config: Config, directory: str) -> Config:
    from dataclasses import replace

    if config.store.dir is not None:
        return config
    return replace(config, store=replace(config.store, dir=Path(directory)))


def _exit(config: Config, text: bytes, source: Source) -> None:
    from edge.workers import serve

    sys.exit(serve(config, text, source))


def _loaded(file: Path) -> tuple[bytes, Config]:
    """The text in a file of settings, and what it says."""

    def read() -> tuple[bytes, Config]:
        text = _bytes_of(file)
        return text, _parsed(text)

    return _whole(read, str(file))


def _bytes_of(file: Path) -> bytes:
    """What a file of settings holds. Raises `SettingsError`."""
    from edge.settings import Fault, SettingsError

    try:
        with file.open("rb") as opened:
            data = opened.read(SETTINGS_BYTES + 1)
    except OSError as error:
        raise SettingsError([Fault(None, "", None, error.strerror or str(error))]) from error
    if len(data) > SETTINGS_BYTES:
        raise SettingsError([Fault(None, "", None, "is too large for settings")])
    return data


def _parsed(data: bytes) -> Config:
    """The settings in what a file holds. Raises `SettingsError`."""
    from edge.config import load_config
    from edge.settings import Fault, SettingsError

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError([Fault(line, "", None, "is not UTF-8 text")]) from error
    return load_config(text, hostname=_hostname())


def _whole(build: Callable[[], T], file: str) -> T:
    """What `build` gives, or every fault on standard error and exit 1."""
    from edge.settings import SettingsError

    try:
        return build()
    except SettingsError as error:
        for fault in error.faults:
            click.echo(fault.at(file), err=True)
        sys.exit(1)


def _hostname() -> str:
    import socket

    return socket.gethostname()


if __name__ == "__main__":
    main()
