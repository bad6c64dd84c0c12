"""A worker has its purges recorded by the keeper of the journal, which is another process.

What is acknowledged here is on disk and in force in every process, as if it had been recorded in
this one: the keeper publishes a purge's number in shared memory before it answers.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import trio

from edge.admin.desk import Desk, Unanswered
from edge.cache.entry import Seq
from edge.cache.journal import JournalError
from edge.cache.purge import Manner, Purge
from edge.purging.late import Late

PATIENCE_S: Final = 60.0  # for a disk, however busy; it may be done all the same
AT_ONCE: Final = 8  # a worker's purges on their way to the keeper; the others wait here


class Recording(msgspec.Struct, frozen=True):
    """A purge to be recorded, as `journal.Journal.purge` takes it."""

    digests: bytes
    everything: bool
    manner: Manner
    who: str
    when: float
    words: tuple[str, ...]
    count: int
    area: bytes


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Recording)


def recording_of(body: bytes) -> Recording:
    """The recording that a worker has sent; raises `msgspec.MsgspecError`."""
    return _DECODER.decode(body)


class RemoteRecorder:
    """Fulfils `execution.Recorder`, with the keeper behind `desk`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._places = trio.CapacityLimiter(AT_ONCE)

    async def purge(
        self,
        *,
        digests: bytes,
        everything: bool,
        manner: Manner,
        who: str,
        when: float,
        words: tuple[str, ...],
        count: int,
        area: bytes,
    ) -> Purge:
        """The purge, on disk and in force; raises `JournalError`, and then it is not known to
        be."""
        recording = Recording(digests, everything, manner, who, when, words, count, area)
        told = await self._ask(b"/v1/record", _ENCODER.encode(recording))
        number = Seq(told["number"])
        return Purge(number, when, who, manner, everything, digests, count, words, area)

    async def send_ahead(self, order: bytes, *, later: bool = False) -> tuple[Late, ...]:
        """Have the shields carry out an order (a JSON document) first, or `later`: those that
        have not; raises `JournalError`, and then it is not known which."""
        told = await self._ask(b"/v1/ahead?when=later" if later else b"/v1/ahead", order)
        return msgspec.convert(told["late"], type=tuple[Late, ...])

    async def settle(self) -> None:
        """Return when what every worker had stored is on disk; raises `JournalError`."""
        await self._ask(b"/v1/settle", b"")

    async def _ask(self, target: bytes, body: bytes) -> dict[str, Any]:
        try:
            with trio.fail_after(PATIENCE_S):
                async with self._places:
                    status, document = await self._desk.document(b"POST", target, body)
        except (Unanswered, trio.TooSlowError) as error:
            why = str(error) or f"within {PATIENCE_S:.0f} s"
            raise JournalError(f"the keeper of the journal did not answer ({why})") from error
        if status != 200:
            raise JournalError(str(document.get("detail")))
        return document


async def settle_all(desks: list[Desk]) -> None:
    """Return when what every worker had stored is on disk; raises `JournalError`."""
    failed: list[str] = []
    async with trio.open_nursery() as nursery:
        for slot, desk in enumerate(desks):
            nursery.start_soon(_settle, slot, desk, failed)
    if failed:
        raise JournalError(f"{'; '.join(failed)}: purge again, by more than tags")


async def _settle(slot: int, desk: Desk, failed: list[str]) -> None:
    try:
        status, document = await desk.document(b"POST", b"/v1/settle")
    except Unanswered:
        failed.append(f"worker {slot} ended before all that it had stored was on disk")
    else:
        if status != 200:
            failed.append(f"worker {slot}: {document.get('detail')}")
