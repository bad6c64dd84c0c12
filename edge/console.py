"""What the commands that ask a running node share: its socket, how they end, what they print.

Exit codes: 0 done; 1 the node refused, or the user did; 2 asked for wrongly; 3 no node answered,
or not to the end. Results go to standard output, and everything else to standard error. A reader
who closes the pipe has had what it wanted: that is 0, and nothing is said.

The socket may also be named in `EDGE_SOCKET`, as where a host runs several nodes; an option wins
over it, and every failure names the socket that was asked.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ADMIN_SOCKET: Final = Path("/run/edge/admin.sock")
SOCKET_VARIABLE: Final = "EDGE_SOCKET"

PATH: Final = click.Path(path_type=Path)


def socket_option(function: Callable[..., None]) -> Callable[..., None]:
    """`--socket PATH`."""
    return click.option("--socket", "path", type=PATH, default=ADMIN_SOCKET, show_default=True, envvar=SOCKET_VARIABLE, show_envvar=True, help="The node's admin socket.")(function)  # fmt: skip # noqa: E501


def json_option(function: Callable[..., None]) -> Callable[..., None]:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="The whole answer, for programs.")(function)  # fmt: skip # noqa: E501


@contextmanager
def answering(places: Sequence[str] = ()) -> Iterator[None]:
    """Turn what may go wrong into words on standard error and an exit code."""
    from edge.asking import NodeRefused, Unreachable
    from edge.status import clean
    from edge.telling import faults

    _make_sure_of_output()
    try:
        yield
        sys.stdout.flush()
    except NodeRefused as refused:
        told: Mapping[str, Any] = {"detail": str(refused), **refused.document}
        _end(1, *faults(told, places))
    except Unreachable as error:
        _end(3, clean(str(error)))
    except BrokenPipeError:
        # What is still buffered has no reader; left there, it would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _end(1, f"standard output: {error.strerror or error}")


def _make_sure_of_output() -> None:
    """Have a standard output, though it was closed, and one that takes every name."""
    if sys.__stdout__ is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the end
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _end(code: int, *lines: str) -> None:
    first, *rest = lines
    click.echo(f"edge: {first}", err=True)
    for line in rest:
        click.echo(f"  {line}", err=True)
    sys.exit(code)


def print_result(result: Mapping[str, Any] | str) -> None:
    """Print a document as JSON, or text as it is."""
    from json import dumps

    click.echo(result if isinstance(result, str) else dumps(result, indent=2))
