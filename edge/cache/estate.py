"""The directory of a node's store: the journal of purges, and a folder for each shard.

    lock     held by the node, and by all processes forked from it, while any of them lives
    shards   how many there are, written once
    birth    as old as what is stored in all of them
    purges   the journal (see `journal`), which names the birth that it is for
    dictionaries  what workers have learned for each other, emptied by each start (`coding.shelf`)
    shard-0, shard-1, …   each a disk tier of its own, with its own lock (see `home`, `disk`)

*The number of shards* is that of the workers when the store is made, and stays: where a key lies
must not depend on how many workers there are today. If the number is lost, nobody knows where to
look, and a removal might miss what it is about; so nothing that is stored is used then.

*Births.* What is stored can be judged only with all purges since. So three must agree: estate,
journal and shard. A node that finds no journal of the estate's birth renews that birth, on the
disk, and then begins a journal for the new one; each shard that has another birth than the estate
is emptied, for good and on the disk, before it takes the new one (see `home`). A node that is
killed before the renewal, or before there is a journal, finds none that fits when it starts again,
and renews again; one killed later finds shards of another birth, and they are emptied then. So at
no moment does a shard have the birth of the journal and rows that are older than it. An estate
without a birth, as a new one is, has no journal either.

*An older layout*, with the database in this directory itself, is moved into the first shard as it
is, by renaming; that shard has its birth, and so keeps what it holds, only if it is the only one.
What is found of that layout later (an older version has been here since, or a move was cut short)
is removed, and the birth with it: nobody knows which of the two holds the newer answers.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from typing import TYPE_CHECKING, Final

from edge.cache.home import (
    BIRTH,
    BODIES,
    CLEAN,
    SPOOL,
    cannot_empty,
    check_is_ours,
    lock,
    make_private,
    read_birth,
    sync_directory,
    write_whole,
)
from edge.cache.rows import DATABASE
from edge.cache.space import RESERVE

if TYPE_CHECKING:
    from pathlib import Path

SHARDS: Final = "shards"

_COUNT: Final = re.compile(rb"[1-9]\d{0,3}")
_FOLDER: Final = re.compile(r"shard-(\d{1,4})")
_OLDER: Final = (BODIES, SPOOL, DATABASE)


class Estate:
    """The store's directory. Everything here blocks. `birth` is "" while none is known."""

    def __init__(self, directory: Path) -> None:
        self.birth = ""
        self.shards = 0
        self._directory = directory.absolute()
        self._lock = -1

    def enter(self, workers: int) -> None:
        """Make the directory ready for a node of that many workers, and hold it; raises
        `NotAStore`, `StoreBusy`, or OSError."""
        check_is_ours(self._directory, (BIRTH, SHARDS, self.shard(0).name, BODIES, SPOOL))
        for path in (self._directory, self.shard(0)):
            make_private(path)
        self._lock = lock(self._directory)
        try:
            self.shards = self._settle(workers)
        finally:
            if not self.shards:
                self.leave()
        self.birth = read_birth(self._directory)

    def leave(self) -> None:
        """Let others have it, once all forked processes have left too; may be called again."""
        held, self._lock = self._lock, -1
        if held >= 0:
            os.close(held)

    def shard(self, number: int) -> Path:
        """The directory of a shard."""
        return self._directory / f"shard-{number}"

    def renew_birth(self) -> str:
        """A new birth id, on the disk by now: whatever the shards have is of no use any more.

        Raises OSError, and then there is the old one.
        """
        made = secrets.token_hex(16)
        try:
            write_whole(self._directory / BIRTH, made)
        except OSError as error:
            raise cannot_empty(self._directory, error) from error
        self.birth = made
        return made

    def _settle(self, workers: int) -> int:
        """How many shards there are. Settled for good, if they were not yet."""
        known, older = self._count(), self._older()
        shards = known or max(workers, self._folders())
        if older and not known and not os.listdir(self.shard(0)):
            self._move_in(older, keep=shards == 1)
        elif older or not known:
            self._forget_birth()
            self._remove(older)
        if not known:
            write_whole(self._directory / SHARDS, str(shards))
        return shards

    def _count(self) -> int:
        """The number of shards; 0 where it is not known."""
        try:
            found = (self._directory / SHARDS).read_bytes()
        except FileNotFoundError:
            return 0
        return int(found) if _COUNT.fullmatch(found.strip()) else 0

    def _folders(self) -> int:
        """How many shards there must have been, at the least."""
        found = map(_FOLDER.fullmatch, os.listdir(self._directory))
        return max(1 + int(match[1]) for match in found if match is not None)

    def _older(self) -> list[str]:
        """What an older layout has left here: bodies first, so that they tell a move cut short."""
        found = sorted(os.listdir(self._directory))
        if set(_OLDER).isdisjoint(found):
            return []
        return [name for name in found if name in (BODIES, SPOOL, CLEAN, RESERVE)] + [
            name for name in found if name.startswith(DATABASE)
        ]

    def _move_in(self, older: list[str], *, keep: bool) -> None:
        """Make a shard of it, whose contents are of use only if they are to be kept."""
        shard = self.shard(0)
        for name in older:
            (self._directory / name).rename(shard / name)
        sync_directory(shard)
        birth = read_birth(self._directory)
        if keep and birth:
            write_whole(shard / BIRTH, birth)

    def _forget_birth(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._directory / BIRTH).unlink()
        sync_directory(self._directory)

    def _remove(self, names: list[str]) -> None:
        for path in (self._directory / name for name in names):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
