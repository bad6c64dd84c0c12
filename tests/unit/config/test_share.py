from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge.config import for_proxy
from edge.config.share import share_of

CONFIG = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h", sets=["store.dir=/tmp/x"])
COUNTS = st.integers(1, 1 << 20)


def test_the_only_worker_has_everything() -> None:
    assert share_of(CONFIG, 1) is CONFIG


@given(st.integers(2, 256), COUNTS, COUNTS, COUNTS, st.integers(1, 1 << 40))
def test_the_parts_cover_the_whole_and_nobody_is_left_without(
    workers: int, connections: int, to_origin: int, idle: int, memory: int
) -> None:
    (origin,) = CONFIG.origins.values()
    whole = replace(
        CONFIG,
        limits=replace(CONFIG.limits, connections=connections),
        origins={"o": replace(origin, max_connections=to_origin, max_idle=idle)},
        store=replace(CONFIG.store, memory=memory),
    )
    part = share_of(whole, workers)
    pairs = [
        (part.limits.connections, connections),
        (part.origins["o"].max_connections, to_origin),
        (part.origins["o"].max_idle, idle),
    ]
    for one, all_of_it in pairs:
        assert one >= 1
        assert all_of_it <= one * workers < all_of_it + workers
    assert memory - workers < part.store.memory * workers <= memory


def test_who_keeps_no_connection_idle_goes_on_keeping_none() -> None:
    (origin,) = CONFIG.origins.values()
    part = share_of(replace(CONFIG, origins={"o": replace(origin, max_idle=0)}), 3)
    assert part.origins["o"].max_idle == 0


def test_the_rest_is_the_nodes() -> None:
    part = share_of(CONFIG, 4)
    assert (part.node, part.sites, part.cache) == (CONFIG.node, CONFIG.sites, CONFIG.cache)
    assert part.store == replace(CONFIG.store, memory=CONFIG.store.memory // 4)
    assert part.store.dir == Path("/tmp/x")


SHIELDED = for_proxy(
    ["127.0.0.1:0"], "http://a.example", hostname="h",
    sets=['shield={nodes=["http://s"],secret={env="A"}}'],
)  # fmt: skip


@given(st.integers(2, 256), st.integers(1, 2_000))
def test_no_more_are_at_work_than_is_said_unless_a_worker_would_have_none(
    workers: int, at_work: int
) -> None:
    (origin,) = SHIELDED.origins.values()
    assert SHIELDED.shield is not None
    whole = replace(
        SHIELDED,
        origins={"o": replace(origin, at_work=at_work)},
        shield=replace(SHIELDED.shield, at_work=at_work),
    )
    parts = [share_of(whole, workers, slot) for slot in range(workers)]
    at_origin = [part.origins["o"].at_work for part in parts]
    assert sum(at_origin) == max(at_work, workers)
    assert max(at_origin) - min(at_origin) <= 1
    assert at_origin == [part.shield.at_work for part in parts if part.shield]
