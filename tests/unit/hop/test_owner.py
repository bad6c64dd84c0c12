"""Who owns a key: one worker, and all workers know which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.hop.owner import Owners

DIGESTS = st.binary(min_size=16, max_size=16)


@given(digest=DIGESTS, workers=st.integers(1, 9), shards=st.integers(1, 40))
def test_every_key_has_one_owner_and_all_workers_agree(
    digest: bytes, workers: int, shards: int
) -> None:
    views = [Owners(slot, workers, shards) for slot in range(workers)]
    assert len({view.owner_of(digest) for view in views}) == 1
    assert sum(view.owns(digest) for view in views) == 1


@given(digest=DIGESTS, tail=st.binary(min_size=14, max_size=14))
def test_keys_of_one_lease_cell_have_one_owner(digest: bytes, tail: bytes) -> None:
    owners = Owners(0, 3, 8)
    assert owners.owner_of(digest) == owners.owner_of(digest[:2] + tail)


def test_the_shard_comes_first_and_then_the_slot() -> None:
    assert Owners(0, 2, 5).owner_of(b"\x01\x02" + bytes(14)) == (0x0102 % 5) % 2
