"""A body on its way to the disk: a growing file that is read while it is written.

The file lies in the store's own directory, so that a finished body is renamed into place and never
written twice. It is made at the first write and unlinked by `close`, unless the tier has taken it
over by then; a file that a killed process leaves behind is removed when the store is next opened.
Space is asked for before it is written to (see `space`); where the tier cannot make any, or the
disk says that it is full, `write` raises `SpoolFull` and what was there stays readable.

Nothing is synced. A crash of the process loses nothing that was written, since the kernel has it;
a loss of power may, and then the body's checks no longer fit, which is found when it is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING, Final

from edge.cache.body import SpoolFull
from edge.errors import ExchangeError, Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from edge.cache.space import Space
    from edge.cache.threads import Workers

NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)


class FileSpool:
    """One growing file at `path`; fulfils `body.Spool`.

    `make_room(more, size)` has the tier evict until `more` bytes fit of a body of `size` or more,
    if it may take so much. `expected` is the body's length, where it is known.
    `failed(error)` tells the tier of an error of the file system.
    """

    def __init__(
        self,
        path: Path,
        space: Space,
        workers: Workers,
        make_room: Callable[[int, int], Awaitable[None]],
        failed: Callable[[OSError], None],
        expected: int | None = None,
    ) -> None:
        self.path = path
        self._space = space
        self._workers = workers
        self._make_room = make_room
        self._failed = failed
        self._expected = expected or 0
        self._descriptor = -1
        self._size = 0  # readable bytes
        self._promised = 0  # readable, or being written
        self._held = 0  # counted in `space.spooled`
        self._epoch = 0  # how often it was made empty
        self._written_epoch = 0  # the epoch of the last write, by the threads' count
        self._lock = (
            threading.Lock()
        )  # between writing and truncating, which come from two threads
        self._users = 0
        self._closed = False
        self._taken = False

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._size

    async def write(self, data: bytes) -> None:
        """Append all of `data`; raises `SpoolFull`, then with the file as it was."""
        start, stop = self._size, self._size + len(data)
        await self._hold(stop)
        self._promised = stop
        epoch = self._epoch
        self._users += 1
        try:
            await self._workers.run(lambda: self._write(data, start, epoch))
            if epoch == self._epoch:
                self._size = stop
        except OSError as error:
            self._failed(error)
            raise SpoolFull(str(error)) from error
        finally:
            self._users -= 1
            self._promised = self._size
            self._finish_close()

    def read_nowait(self, offset: int, most: int) -> bytes | None:
        """Up to `most` bytes from `offset` if the page cache has them."""
        most = min(most, self._size - offset)
        if most <= 0:
            return b""
        return read_cached(self._descriptor, offset, most)

    async def read(self, offset: int, most: int) -> bytes:
        """Up to `most` bytes from `offset`; raises BODY_LOST."""
        most = min(most, self._size - offset)
        if most <= 0:
            return b""
        self._users += 1
        try:
            return await self._workers.run(lambda: os.pread(self._descriptor, most, offset))
        except OSError as error:
            self._failed(error)
            raise ExchangeError(Failure.BODY_LOST, f"spool: {error}") from error
        finally:
            self._users -= 1
            self._finish_close()

    def reset(self) -> None:
        """Make it empty; its blocks are given back soon."""
        self._size = self._promised = 0
        self._epoch += 1
        epoch = self._epoch
        if self._descriptor >= 0 and not self._closed:
            self._users += 1
            self._workers.post(lambda: self._truncate(epoch))

    def take_over(self) -> Path:
        """The file is the tier's now; its space stays counted here until `release`."""
        self._taken = True
        return self.path

    def release(self) -> None:
        """The tier counts the file's space itself from now on, or has removed the file."""
        self._space.spooled -= self._held
        self._held = 0

    @property
    def held(self) -> int:
        """What is counted for it in `space.spooled`."""
        return self._held

    def close(self) -> None:
        """Remove the file unless it was taken over; open readers' calls are let finish."""
        if not self._closed:
            self._closed = True
            self._finish_close()

    async def _hold(self, size: int) -> None:
        """Have room for `size` bytes in all, or raise `SpoolFull`."""
        more = size - self._held
        if more <= 0:
            return
        if not self._space.fits(more):
            await self._make_room(more, max(size, self._expected))
        if self._closed or not self._space.fits(more):
            raise SpoolFull("no room in the store")
        self._space.spooled += more
        self._held = size

    def _write(self, data: bytes, start: int, epoch: int) -> None:
        self._space.sample()
        with self._lock:
            if self._descriptor < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o600)
            self._written_epoch = epoch
            view = memoryview(data)
            while view:
                count = os.pwrite(self._descriptor, view, start)
                start += count
                view = view[count:]

    def _truncate(self, epoch: int) -> None:
        with self._lock:
            if self._written_epoch < epoch and self._descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, 0)
        self._workers.call_loop(self._truncated)

    def _truncated(self) -> None:
        self._users -= 1
        if not self._taken:
            self._space.spooled -= self._held - self._promised
            self._held = self._promised
        self._finish_close()

    def _finish_close(self) -> None:
        if not self._closed or self._users:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            self._released()
        else:
            self._workers.post(lambda: self._discard(descriptor))

    def _discard(self, descriptor: int) -> None:
        os.close(descriptor)
        if not self._taken:
            with contextlib.suppress(OSError):  # the next start finds it
                os.unlink(self.path)
        self._workers.call_loop(self._released)

    def _released(self) -> None:
        if not self._taken:
            self._space.spooled -= self._held
            self._held = 0


def read_cached(descriptor: int, offset: int, most: int) -> bytes | None:
    """Up to `most` bytes from `offset` of a file, or None where the disk must be waited for."""
    if not NOWAIT:
        return None
    buffer = bytearray(most)
    try:
        count = os.preadv(descriptor, [buffer], offset, NOWAIT)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS):
            return None  # the thread that tries again says why
        return None
    if not count:
        return None
    return bytes(memoryview(buffer)[:count])
