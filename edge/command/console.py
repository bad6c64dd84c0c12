"""What the commands that ask a running node share: its socket, how they end, what they print.

Exit codes: 0 done; 1 the node refused, or the user did, or not every node that was to do it has;
2 asked for wrongly; 3 no node answered, or not to the end; 4 standard output did not take the
answer, and what was to be done is done. Results go to standard output, with --json a refusal too,
and everything else to standard error. A reader who closes the pipe has had what it wanted: that
is 0, and nothing is said.

The socket may also be named in `EDGE_SOCKET`, as where a host runs several nodes; an option wins
over it, and every failure names the socket that was asked. A program of another name has the same
commands, by `renamed`, with a socket and a variable of its own.
"""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edge.command.asking import Node


def admin_socket(name: str) -> Path:
    """Where a node of the program `name` is asked, unless it is said."""
    return Path(f"/run/{name}/admin.sock")


def socket_variable(name: str) -> str:
    """The environment variable that says where a node of the program `name` is asked."""
    return f"{name.upper().replace('-', '_')}_SOCKET"


ADMIN_SOCKET: Final = admin_socket("edge")
SOCKET_VARIABLE: Final = socket_variable("edge")

PATH: Final = click.Path(path_type=Path)


def program() -> str:
    """The name of the program that runs: that of its outermost group of commands."""
    context = click.get_current_context(silent=True)
    root = context.find_root().command if context else None
    return root.name if isinstance(root, click.Group) and root.name else "edge"


def renamed(command: click.Command, name: str) -> click.Command:
    """A command of `edge` as one of the program `name`: with examples, a socket, and a variable
    for the socket of its own."""
    other = copy(command)
    if other.help is not None:
        words = re.sub(r"(?<![\w/.-])edge (?=[a-z])", f"{name} ", other.help)
        other.help = words.replace(str(ADMIN_SOCKET), str(admin_socket(name)))
    other.params = [_renamed(param, name) for param in command.params]
    if isinstance(command, click.Group) and isinstance(other, click.Group):
        other.commands = {key: renamed(each, name) for key, each in command.commands.items()}
    return other


def _renamed(param: click.Parameter, name: str) -> click.Parameter:
    if not isinstance(param, click.Option) or param.name != "path":
        return param
    other, socket, variable = copy(param), admin_socket(name), socket_variable(name)
    if param.envvar is not None:
        other.default, other.envvar = socket, variable
    words = (param.help or "").replace(SOCKET_VARIABLE, variable)
    other.help = words.replace(str(ADMIN_SOCKET), str(socket))
    return other


def socket_option(function: Callable[..., None]) -> Callable[..., None]:
    """`--socket PATH`."""
    return click.option("--socket", "path", type=PATH, default=ADMIN_SOCKET, show_default=True, envvar=SOCKET_VARIABLE, show_envvar=True, help="The node's admin socket.")(function)  # fmt: skip # noqa: E501


def json_option(function: Callable[..., None]) -> Callable[..., None]:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="The whole answer, for programs.")(function)  # fmt: skip # noqa: E501


def node_at(path: Path) -> Node:
    """The node to ask, with a word on standard error where it is silent for long."""
    from edge.command.asking import Node
    from edge.command.status import clean

    def say() -> None:
        click.echo(clean(f"{program()}: still waiting for the node at {path}"), err=True)

    return Node(path, on_silence=say)


@dataclass(slots=True)
class Deed:
    """What a command has brought about, in words, once it has; and what of it has failed."""

    done: str = ""
    lacking: tuple[str, ...] = ()

    def fail(self, *lines: str) -> None:
        """Say what has not been brought about, and end with 1."""
        self.lacking = lines


@contextmanager
def answering(places: Sequence[str] = (), *, as_json: bool = False) -> Iterator[Deed]:
    """Turn what may go wrong into words on standard error and an exit code.

    What was done is to be noted before it is printed: it is done even if no one can be told.
    """
    from edge.command.asking import NodeRefused, Unreachable
    from edge.command.status import clean
    from edge.command.telling import faults

    _make_sure_of_output()
    deed, code = Deed(), 4
    try:
        try:
            yield deed
        except NodeRefused as refused:
            code = 1
            problem = {"status": refused.status, "detail": str(refused), **refused.document}
            _say(*faults(problem, places))
            if as_json:
                print_result(problem)
            sys.stdout.flush()
            sys.exit(code)
        sys.stdout.flush()
        if deed.lacking:
            _say(*deed.lacking)
            sys.exit(1)
    except Unreachable as error:
        _say(clean(str(error)))
        sys.exit(3)
    except BrokenPipeError:
        _give_up_output()
        sys.exit(0)
    except OSError as error:
        done = f"{deed.done}; " if deed.done else ""
        _say(clean(f"{done}standard output: {error.strerror or error}"))
        _give_up_output()
        sys.exit(code)


def _give_up_output() -> None:
    """What is still buffered has no reader; left there, it would fail again at exit."""
    with suppress(OSError, ValueError):  # it is none of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _make_sure_of_output() -> None:
    """Have a standard output, though it was closed, and one that takes every name."""
    if sys.__stdout__ is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the end
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _say(*lines: str) -> None:
    first, *rest = lines
    click.echo(f"{program()}: {first}", err=True)
    for line in rest:
        click.echo(f"  {line}", err=True)


def print_result(result: Mapping[str, Any] | str) -> None:
    """Print a document as JSON, or text as it is."""
    from json import dumps

    click.echo(result if isinstance(result, str) else dumps(result, indent=2))


def print_notes(document: Mapping[str, Any]) -> None:
    """Tell on standard error what a node remarks beside its answer."""
    from edge.command.status import clean

    notes = document.get("notes")
    for note in notes if isinstance(notes, list) else []:
        click.echo(clean(f"note: {note}"), err=True)
