"""The `edge` command: arguments in, exit codes out.

What a command needs is imported when it runs, so that `edge --help` and `edge check` do not wait
for a whole node. Exit codes: 0 done; 1 it could not be done, and standard error says why; 2 it was
asked for wrongly; 3 no running node answered; 4 it was done, and standard output did not take the
answer (`command.console`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge import __version__
from edge.build import kind
from edge.command.launch import (
    by_path,
    check_file,
    checked_sets,
    hostname,
    print_reference,
    proxy_options,
    run_built,
    run_file,
)
from edge.command.menu import COMMANDS

if TYPE_CHECKING:
    from edge.config import Config
    from edge.process.trade import Trade

_FILE = click.Path(path_type=Path)


@click.group(
    "edge", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99}
)
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
    run_file(file, _load, _trade)


@main.command()
@click.argument("file", type=_FILE)
def check(file: Path) -> None:
    """Tell every fault in the settings in FILE, and what is missing of what they point at;
    exit 1 if there is one.

    \b
    Example:
        edge check edge.toml && edge run edge.toml
    """
    check_file(file, _load, _trade)


@main.command()
@proxy_options
def proxy(listen: tuple[str, ...], to: str, sets: tuple[str, ...], **options: str | None) -> None:
    """Run a node without a settings file, before one origin. Prints `ready ADDRESS`.

    \b
    Examples:
        edge proxy --listen 127.0.0.1:8080 --to http://127.0.0.1:3000
        edge proxy --listen '[::]:80' --to https://origin.example --store /var/cache/edge \\
            --set cache.max_stale=1d --set limits.request_body=10MiB --set site.cache.ttl=5s
    """
    checked_sets(sets)

    def build() -> Config:
        from edge.config import for_proxy

        host = hostname()
        if any(each.endswith(":0") for each in listen):
            host += f" {os.getpid()}"  # a port of the system's choosing tells no two apart
        return for_proxy(listen, to, hostname=host, options=by_path(options), sets=sets)

    run_built(build, _trade)


@main.command()
@click.option("--markdown", is_flag=True, help="As a table, for a document.")
def settings(*, markdown: bool) -> None:
    """Tell every setting: name, type, default, and what it does.

    \b
    Example:
        edge settings | grep -A 2 max_stale
    """
    from edge.config import Config

    print_reference(Config, markdown=markdown)


for _command in COMMANDS:
    main.add_command(_command)


def _load(text: str) -> Config:
    from edge.config import load_config

    return load_config(text, hostname=hostname())


def _trade() -> Trade:
    from edge.node import EDGE

    return EDGE


if __name__ == "__main__":
    main()
