"""Settings that a running node is given: what has changed in them, and whether they can be had.

What can be found out without giving anything up is found out here, before any process goes by the
new settings: files that cannot be opened, addresses that somebody else has, certificates that are
none. So a fault changes nothing.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edge.admin.socket import AdminSocket
from edge.listen.tcp import bind
from edge.process.child import in_words
from edge.settings import Fault, SettingsError
from edge.surroundings.behind import Surroundings
from edge.surroundings.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from edge.config import Config
    from edge.process.trade import Trade

LATER: Final = ("node.workers", "store.dir")  # they wait for the next start
BECAUSE: Final = (
    *("node.name", "node.listen", "node.admin", "node.metrics"),
    *("node.access_log", "node.error_log"),
    *("store.disk", "store.memory", "store.free_floor", "store.object_memory", "store.variants"),
)
KEEPERS: Final = frozenset({"node.name", "node.admin", "node.metrics", "node.error_log"})


class Change:
    """A change of settings under way; `old` are those from before, while there is a way back."""

    __slots__ = ("asked", "because", "faults", "later", "old", "started")

    def __init__(
        self,
        asked: tuple[int, ...],
        later: list[str],
        because: list[str],
        old: tuple[Config, bytes],
    ) -> None:
        self.asked = asked
        self.later = later
        self.because = because
        self.old: tuple[Config, bytes] | None = old
        self.started = False
        self.faults: tuple[Fault, ...] = ()


def try_out(trade: Trade, config: Config, changed: Iterable[str]) -> None:
    """Make once what processes will make of the settings, and open what is new to them; raises
    OSError, ValueError."""
    if config.node.geo is not None:
        _try_database(config.node.geo)
    surroundings = Surroundings(now=time.time, chance=random.random, tell=_unheard, insists=True)
    placeless = replace(config, node=replace(config.node, geo=None))
    trade.parts(config, surroundings.made(placeless), b"")
    for name, target in (("error", config.node.error_log), ("access", config.node.access_log)):
        if f"node.{name}_log" in changed and target not in ("-", "off"):
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o640))
    if "node.metrics" in changed and config.node.metrics is not None:
        bind(config.node.metrics.host, config.node.metrics.port).close()
    if "node.admin" in changed and config.node.admin is not None:
        AdminSocket(config.node.admin, {}, lambda *_: None).close()


def _open_database(path: Path) -> None:
    Places(path, now=time.time, tell=_unheard).close()


def _try_database(path: Path, read: Callable[[Path], object] = _open_database) -> None:
    """Open a database of places in a process of its own: its reader is in C, and one that is
    damaged inside may end whoever reads it. Raises ValueError."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        said, code = b"", 1
        try:
            read(path)
            code = 0
        except (OSError, ValueError) as error:
            said = in_words(error).encode("utf-8", "replace")
        finally:
            os.write(there, said[:4096])
            os._exit(code)
    os.close(there)
    with open(here, "rb") as pipe:
        words = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    if status:
        raise ValueError(words or f"{path} breaks whoever reads it; get it anew")


def _unheard(_kind: str, _line: str) -> None:
    """There is no log yet."""


def faults_of(error: Exception) -> Iterable[Fault]:
    """What is wrong with settings, by what was raised for them."""
    if isinstance(error, SettingsError):
        return error.faults
    if isinstance(error, OSError | ValueError):
        return [Fault(None, "", None, in_words(error))]
    return [Fault(None, "", None, f"brings out a fault of this program: {error!r}")]


def changed(old: Config, new: Config, names: Iterable[str]) -> list[str]:
    """Those of the settings `names` that differ."""
    return [name for name in names if _value(old, name) != _value(new, name)]


def _value(config: Config, name: str) -> object:
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def store_directory(config: Config) -> Path:
    """The directory of the store; raises ValueError where there is none."""
    if config.store.dir is None:
        raise ValueError("store.dir: is not given; a node keeps its answers and purges there")
    return config.store.dir.absolute()
