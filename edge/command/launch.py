"""How a command reads a node's settings and runs a node by them, whatever its trade.

What it takes to run is imported when it is run, so that a command that only reads settings does
not wait for a whole node.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from edge.command.console import program
from edge.process.place import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge.config import Config
    from edge.process.trade import Trade

T = TypeVar("T")
C = TypeVar("C", bound="Config")

SETTINGS_BYTES: Final = 16 * 1024 * 1024  # a file of settings that is larger is something else


def run_file(file: Path, load: Callable[[str], Config], trade: Callable[[], Trade]) -> NoReturn:
    """Run a node by a file of settings, whose text `load` reads, and exit when it has ended."""
    text, config = loaded(file, load)
    source = Source(str(file), lambda: _bytes_of(file), lambda data: _parsed(data, load))
    _serve(trade, config, text, source)


def run_built(build: Callable[[], Config], trade: Callable[[], Trade]) -> NoReturn:
    """Run a node by settings of the command line, which are the same each time they are read."""
    source = Source("the command line", lambda: b"", lambda _text: build())
    _serve(trade, _whole(build, f"{program()} proxy"), b"", source)


def loaded(file: Path, load: Callable[[str], C]) -> tuple[bytes, C]:
    """The text in a file of settings, and what it says; every fault ends the command."""

    def read() -> tuple[bytes, C]:
        text = _bytes_of(file)
        return text, _parsed(text, load)

    return _whole(read, str(file))


def checked_sets(sets: tuple[str, ...]) -> None:
    """Make sure that all are `KEY=VALUE`, or it is a wrong usage."""
    for each in sets:
        if "=" not in each:
            raise click.BadParameter(f'"{each}" is not KEY=VALUE', param_hint="--set")


def check_file(file: Path, load: Callable[[str], Config], trade: Callable[[], Trade]) -> None:
    """Tell every fault in the settings in a file, and in what they point at, and exit 1; or that
    there is none."""
    from edge.process.trial import faults_of, try_out

    _, config = loaded(file, load)
    try:
        try_out(trade(), config, ())
    except (OSError, ValueError) as error:
        for fault in faults_of(error):
            click.echo(fault.at(str(file)), err=True)
        sys.exit(1)
    sites, origins = len(config.sites), len(config.origins)
    click.echo(f"{file}: good; sites: {sites}, origins: {origins}")


def by_path(options: Mapping[str, str | None]) -> dict[str, Any]:
    """The settings, by their path, that options of `proxy` stand for."""
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


def proxy_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of `proxy` that any node has; `by_path` and `checked_sets` read them."""
    for names, metavar, words, more in reversed(_PROXY_OPTIONS):
        function = click.option(*names, metavar=metavar, help=words, **more)(function)
    return function


_MANY: Final[dict[str, Any]] = {"multiple": True}
_MUST: Final[dict[str, Any]] = {"required": True}
_PROXY_OPTIONS: Final[tuple[tuple[tuple[str, ...], str, str, dict[str, Any]], ...]] = (
    (("--listen",), "ADDRESS", "Where clients connect; may be given again.", _MANY | _MUST),
    (("--to",), "URL", "The origin.", _MUST),
    (("--store",), "DIR", "Where answers are kept; else a directory for this run.", {}),
    (("--memory",), "SIZE", 'Memory for answers, "256MiB" if not given.', {}),
    (("--disk",), "SIZE", 'Disk for answers, "10GiB" if not given.', {}),
    (("--admin",), "SOCKET", "UNIX socket for the commands that ask a running node.", {}),
    (("--workers",), "N", "Worker processes; one a core if not given.", {}),
    (("--access-log",), "PATH|-|off", "JSON lines, one a request; off if not given.", {}),
    (
        ("--set", "sets"),
        "KEY=VALUE",
        "Any other setting of `settings`; may be given again.",
        _MANY,
    ),
)


def print_reference(config: type[object], *, markdown: bool) -> None:
    """Tell every setting of a schema."""
    from edge.settings import as_markdown, as_text, reference

    rows = reference(config)
    click.echo(as_markdown(rows) if markdown else as_text(rows), nl=False)


def hostname() -> str:
    """This host's name, from which a node is named."""
    import socket

    return socket.gethostname()


def _serve(trade: Callable[[], Trade], config: Config, text: bytes, source: Source) -> NoReturn:
    """Run a node to its end, with a store of its own where the settings name none."""
    from edge.process.parent import serve

    if config.store.dir is not None:
        sys.exit(serve(trade(), config, text, source))
    import tempfile

    prefix = f"{program()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as store:
        words = f"no store given; answers are kept in {store} for this run"
        click.echo(f"{program()}: {words}", err=True)
        parse = source.parse
        source = replace(source, parse=lambda text: _stored_in(parse(text), store))
        sys.exit(serve(trade(), _stored_in(config, store), text, source))


def _stored_in(config: Config, directory: str) -> Config:
    if config.store.dir is not None:
        return config
    return replace(config, store=replace(config.store, dir=Path(directory)))


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


def _parsed(data: bytes, load: Callable[[str], C]) -> C:
    """The settings in what a file holds. Raises `SettingsError`."""
    from edge.settings import Fault, SettingsError

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError([Fault(line, "", None, "is not UTF-8 text")]) from error
    return load(text)


def _whole(build: Callable[[], T], file: str) -> T:
    """What `build` gives, or every fault on standard error and exit 1."""
    from edge.settings import SettingsError

    try:
        return build()
    except SettingsError as error:
        for fault in error.faults:
            click.echo(fault.at(file), err=True)
        sys.exit(1)
