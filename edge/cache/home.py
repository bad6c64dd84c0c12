"""The store's directory: that it is a store or nothing yet, ours alone, and whose contents it has.

The *birth id* is as old as the contents. What is kept elsewhere about them, the purges above all,
names it, and does not hold for the contents of another birth. So it is made anew only once the old
contents are gone for good, and it is on the disk before anyone is told of it.

The mark *clean* is there between an orderly end and the next start: no orphans to look for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from typing import TYPE_CHECKING, Final

from edge.cache.rows import DATABASE

if TYPE_CHECKING:
    from pathlib import Path

BIRTH: Final = "birth"
CLEAN: Final = "clean"
LOCK: Final = "lock"


class NotAStore(OSError):  # noqa: N818 - it says what the directory is
    """This directory has other things in it."""


class StoreBusy(OSError):  # noqa: N818 - it says what the directory is
    """Another process has this directory as its store."""


class Home:
    """The directory of one store. Everything here blocks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = -1

    def enter(self) -> None:
        """Make the directory ready and hold it; raises `NotAStore`, `StoreBusy`, or OSError."""
        _check_is_ours(self._directory)
        for name in ("", "spool", "bodies"):
            path = self._directory / name
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._lock = os.open(self._directory / LOCK, flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StoreBusy(f"{self._directory}: another process uses this store") from error

    def leave(self) -> None:
        """Let others have it."""
        os.close(self._lock)

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

    def birth(self) -> str:
        """The birth id, made if there is none; "" where it cannot be kept."""
        try:
            known = (self._directory / BIRTH).read_bytes()
            if len(known) == 32 and known.isalnum():
                return known.decode("ascii")
        except (OSError, UnicodeDecodeError):
            pass
        try:
            return self.renew_birth()
        except OSError:
            return ""

    def renew_birth(self) -> str:
        """A new birth id, on the disk by now; raises OSError, and then there is the old one."""
        made = secrets.token_hex(16)
        fresh = self._directory / f"{BIRTH}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, made.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.rename(self._directory / BIRTH)
        sync_directory(self._directory)
        return made


def sync_directory(directory: Path) -> None:
    """Have what was renamed in it stay so through a loss of power; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_away(directory: Path, names: tuple[str, ...], token: str) -> None:
    """Put these files of a store, where they are there, among its orphans; raises OSError.

    They are gone for good, at once and whatever happens then; the sweep gives back their space.
    """
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (directory / name).rename(directory / "spool" / f"{token}-{name}")
    sync_directory(directory)


def _check_is_ours(directory: Path) -> None:
    """Raise `NotAStore` for a directory with other things in it: what we do not know we delete."""
    try:
        found = set(os.listdir(directory)) - {"lost+found"}
    except FileNotFoundError:
        return
    if found and found.isdisjoint((BIRTH, DATABASE, "bodies", "spool")):
        raise NotAStore(f"{directory}: neither empty nor a store; name another directory")
