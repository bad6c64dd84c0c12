"""The disk tier's quota: what may push what out, and that files stay within it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from edge.cache.body import SpoolFull

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cache.conftest import MakeEntry, OpenDisk

MIB = 1 << 20


def used(directory: Path) -> int:
    """Bytes that the directory's files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("expected", [None, 50 * MIB])
async def test_a_body_too_large_for_the_quota_does_not_cost_the_whole_store(
    expected: int | None, open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk(quota_bytes=16 * MIB) as disk:
        for number in range(200):
            disk.save(make_entry(b"%d" % number, 60_000), bytes(60_000))
        await disk.flush()
        spool = disk.spool(expected)
        with pytest.raises(SpoolFull):
            while True:
                await spool.write(bytes(256 * 1024))
        spool.close()
        if expected is None:
            assert disk.statistics().rows > 40
        else:
            assert (disk.statistics().rows, disk.statistics().evicted) == (200, 0)


async def test_many_bodies_at_once_do_not_cost_the_whole_store(
    open_disk: OpenDisk, make_entry: MakeEntry
) -> None:
    async with open_disk(quota_bytes=16 * MIB) as disk:
        for number in range(200):
            disk.save(make_entry(b"%d" % number, 60_000), bytes(60_000))
        await disk.flush()
        spools = [disk.spool(8 * MIB) for _ in range(10)]
        for spool in spools:
            with suppress(SpoolFull):
                for _ in range(32):
                    await spool.write(bytes(256 * 1024))
        assert disk.statistics().rows > 40
        for spool in spools:
            spool.close()


async def test_rows_that_outlive_their_neighbours_do_not_pass_the_quota(
    open_disk: OpenDisk, make_entry: MakeEntry, tmp_path: Path
) -> None:
    async with open_disk(quota_bytes=2 * MIB) as disk:
        loved = {make_entry(b"%d" % number).key.digest for number in range(0, 6000, 2)}
        disk.hot = loved.__contains__
        for number in range(6000):
            disk.save(make_entry(b"%d" % number, 100), bytes(100))
        await disk.flush()
        assert disk.statistics().evicted > 1000
        assert used(tmp_path / "store") <= 2 * MIB
