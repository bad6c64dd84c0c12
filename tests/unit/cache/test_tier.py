"""What the store needs of its disk tier: one disk has it, and so have shards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.cache.disk import Disk
from edge.cache.shards import Shards
from edge.cache.tier import DiskStatistics, Tier, summed

ONE = DiskStatistics(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, is_shut=False)


def test_what_many_hold_is_the_sum_of_what_each_holds() -> None:
    both = summed([ONE, replace(ONE, rows=100, is_shut=True)])
    assert both == DiskStatistics(101, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, is_shut=True)
    assert summed([ONE]) == ONE
    assert summed([]) == DiskStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, is_shut=False)
    assert type(summed([ONE]).is_shut) is bool


def deeds_of(kind: type) -> set[str]:
    """The public methods; mypy compares how they are called."""
    return {name for name, deed in vars(kind).items() if callable(deed) and name[0] != "_"}


@pytest.mark.parametrize("kind", [Disk, Shards])
def test_a_disk_and_shards_do_what_a_tier_does(kind: type) -> None:
    assert deeds_of(Tier) <= deeds_of(kind)


def test_shards_do_all_that_a_disk_does() -> None:
    assert deeds_of(Shards) == deeds_of(Disk)
