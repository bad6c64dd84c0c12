"""The `origin-shield` command: arguments in, exit codes out, as those of `edge`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge import __version__
from edge.build import kind
from edge.command.ab import ab
from edge.command.console import renamed
from edge.command.launch import (
    by_path,
    check_file,
    checked_sets,
    hostname,
    proxy_options,
    run_built,
    run_file,
)
from edge.command.menu import COMMANDS

if TYPE_CHECKING:
    from edge.process.trade import Trade
    from origin_shield.config import ShieldConfig

_NAME = "origin-shield"
_FILE = click.Path(path_type=Path)


@click.group(
    _NAME, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99}
)
@click.version_option(__version__, prog_name=_NAME, message=f"%(prog)s %(version)s ({kind()})")
def main() -> None:
    """A shield: it stands between edges and an origin, so that the origin is asked once for all.

    \b
    Begin with:
        export EDGE_SHIELD_SECRET=$(openssl rand -hex 32)
        origin-shield proxy --listen 127.0.0.1:7000 --to http://127.0.0.1:3000 \\
            --secret-env EDGE_SHIELD_SECRET
    """


@main.command()
@click.argument("file", type=_FILE)
def run(file: Path) -> None:
    """Run a shield with the settings in FILE. TERM drains and ends it, HUP reads FILE again.

    \b
    Example:
        origin-shield run /etc/origin-shield/shield.toml
    """
    run_file(file, _load, _trade)


@main.command()
@click.argument("file", type=_FILE)
def check(file: Path) -> None:
    """Tell every fault in the settings in FILE, and what is missing of what they point at;
    exit 1 if there is one.

    \b
    Example:
        origin-shield check shield.toml && origin-shield run shield.toml
    """
    check_file(file, _load, _trade)


@main.command()
@proxy_options
@click.option("--secret-env", metavar="NAME", help="Environment variable with the edges' secret.")
@click.option("--secret-file", metavar="PATH", help="File with the edges' secret.")
def proxy(
    listen: tuple[str, ...],
    to: str,
    sets: tuple[str, ...],
    secret_env: str | None,
    secret_file: str | None,
    **options: str | None,
) -> None:
    """Run a shield without a settings file, before one origin. Prints `ready ADDRESS`.

    \b
    Example:
        origin-shield proxy --listen 127.0.0.1:7000 --to http://127.0.0.1:3000 \\
            --secret-env EDGE_SHIELD_SECRET --set cache.max_stale=7d
    """
    checked_sets(sets)
    secret = {name: told for name, told in (("env", secret_env), ("file", secret_file)) if told}
    if len(secret) != 1:
        raise click.UsageError("give --secret-env NAME or --secret-file PATH")

    def build() -> ShieldConfig:
        from origin_shield.config import shield_proxy

        host = hostname()
        if any(each.endswith(":0") for each in listen):
            host += f" {os.getpid()}"  # a port of the system's choosing tells no two apart
        given = by_path(options)
        return shield_proxy(listen, to, secret, hostname=host, options=given, sets=sets)

    run_built(build, _trade)


@main.command()
@click.option("--markdown", is_flag=True, help="As a table, for a document.")
def settings(*, markdown: bool) -> None:
    """Tell every setting: name, type, default, and what it does.

    \b
    Example:
        origin-shield settings | grep -A 2 edges
    """
    from edge.settings import as_markdown, as_text
    from origin_shield.config import rows

    click.echo(as_markdown(rows()) if markdown else as_text(rows()), nl=False)


for _command in COMMANDS:
    if _command is not ab:  # experiments are an edge's
        main.add_command(renamed(_command, _NAME))


def _load(text: str) -> ShieldConfig:
    from origin_shield.config import load_shield

    return load_shield(text, hostname=hostname())


def _trade() -> Trade:
    from origin_shield.node import Shield

    return Shield().trade()


if __name__ == "__main__":
    main()
