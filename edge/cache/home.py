"""The directory of one shard: that it is one or nothing yet, ours alone, and of which birth.

The *birth id* says with which purges the contents can be judged: those of the journal that names
the same one (see `estate`). Contents of another birth, or of none, are of no use. So `adopt` moves
them away, for good and on the disk, before it writes the birth that it was given; a process that
is killed before that finds the old birth, or none, and does it again.

The mark *clean* is there between an orderly end and the next start: no orphans to look for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING, Final

from edge.cache.rows import DATABASE, DATABASE_FILES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BIRTH: Final = "birth"
BODIES: Final = "bodies"
CLEAN: Final = "clean"
LOCK: Final = "lock"
SPOOL: Final = "spool"
SIGNS: Final = (BIRTH, DATABASE, BODIES, SPOOL)  # any of them tells a shard's directory

PATIENCE_S = 2.0  # for a lock: the processes of a node that was killed may be just dying
PAUSE_S: Final = 0.02


class NotAStore(OSError):  # noqa: N818 - it says what the directory is
    """This directory has other things in it."""


class StoreBusy(OSError):  # noqa: N818 - it says what the directory is
    """Another process has this directory as its store."""


class Home:
    """The directory of one shard. Everything here blocks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = -1

    def enter(self) -> None:
        """Make the directory ready and hold it; raises `NotAStore`, `StoreBusy`, or OSError."""
        check_is_ours(self._directory, SIGNS)
        for name in ("", SPOOL, BODIES):
            make_private(self._directory / name)
        self._lock = lock(self._directory)

    def leave(self) -> None:
        """Let others have it."""
        os.close(self._lock)

    def adopt(self, birth: str) -> None:
        """Have contents of this birth, or none; raises OSError, and then nobody may read them.

        The database goes among the orphans, and so its bodies become orphans: that takes the same
        time for any number of rows. To be called before the database is opened.
        """
        assert birth, "without one, nothing that is stored could be used again"
        if read_birth(self._directory) == birth:
            return
        try:
            move_away(self._directory, DATABASE_FILES, f"gone-{secrets.token_hex(8)}")
            write_whole(self._directory / BIRTH, birth)
        except OSError as error:
            raise cannot_empty(self._directory, error) from error

    def take_clean(self) -> bool:
        """Whether the last end was an orderly one; only the first to ask is told so."""
        try:
            (self._directory / CLEAN).unlink()
        except OSError:
            return False
        return True

    def mark_clean(self) -> None:
        """This is an orderly end; raises OSError."""
        (self._directory / CLEAN).touch(0o600)


def check_is_ours(directory: Path, signs: Iterable[str]) -> None:
    """Raise `NotAStore` for a directory with other things in it: what we do not know we delete."""
    try:
        found = set(os.listdir(directory)) - {"lost+found"}
    except FileNotFoundError:
        return
    if found and found.isdisjoint(signs):
        raise NotAStore(f"{directory}: neither empty nor a store; name another directory")


def make_private(directory: Path) -> None:
    """Have this directory, for its owner alone; raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def lock(directory: Path) -> int:
    """A descriptor that holds `directory`, until all copies of it are closed, those in forked
    processes too; raises `StoreBusy` where another process does not let go in time."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(directory / LOCK, flags, 0o600)
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError as error:
            if time.monotonic() >= give_up_at:
                os.close(descriptor)
                raise StoreBusy(f"{directory}: another process uses this store") from error
        time.sleep(PAUSE_S)


def read_birth(directory: Path) -> str:
    """The birth id that is kept there; "" where there is none, or none that can be read."""
    try:
        known = (directory / BIRTH).read_bytes()
        return known.decode("ascii") if len(known) == 32 and known.isalnum() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def write_whole(path: Path, text: str) -> None:
    """Put `text` in a file, whole and on the disk; raises OSError, and then all is as before."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = memoryview(text.encode())
        while data:  # a disk that is all but full takes a part of it
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Have what was renamed in it stay so through a loss of power; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_away(directory: Path, names: Iterable[str], token: str) -> None:
    """Put these files of a shard, where they are there, among its orphans; raises OSError.

    They are gone for good, at once and whatever happens then; the sweep gives back their space.
    """
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (directory / name).rename(directory / SPOOL / f"{token}-{name}")
    sync_directory(directory)


def cannot_empty(directory: Path, error: OSError) -> OSError:
    """Why there is no store, in words: what it has cannot be judged, and cannot be left out."""
    message = f"{directory}: what was purged from it is not known, and it cannot be emptied"
    way_out = "make room on its disk, or remove the directory"
    return OSError(f"{message} ({error.strerror or error}); {way_out}")
