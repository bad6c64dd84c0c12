"""The rows of the fault table that hurt what stands behind a node: its origins, its shield."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.live import tiers
from tests.live.fault_load import Client, Load, Tally, check_all, popular, respond
from tests.live.fault_rows import Row, Stage
from tests.live.hostile_harness import Origin, wait_until
from tests.live.named_origin import NamedOrigin

if TYPE_CHECKING:
    from tests.live.tiers import Served

CHECK_S = 0.5
SLOW_START_S = 3.0
TERMS = f"""\
check = {{ path = "/u/", every = "{CHECK_S * 1000:.0f}ms", timeout = "400ms", down_after = 1 }}
slow_start = "{SLOW_START_S:.0f}s"
"""


def nearest(stage: Stage) -> Row:
    """kill -9 of the nearest of three origins under load, again and again."""
    times = 2 if stage.quick else 15
    row = Row(f"kill -9 of the nearest origin, {times} times")
    strays, slowest_s, early, late = 0, 0.0, 0.0, 1.0
    with ExitStack() as stack:
        origins = {name: stack.enter_context(NamedOrigin(name)) for name in ("eu", "us", "ap")}
        node = stack.enter_context(
            tiers.edge(
                stage.directory,
                "node",
                {name: [origin.url] for name, origin in origins.items()},
                route='nearest = ["eu", "us", "ap"]',
                node=f'geo = "{tiers.geodata(stage.directory)}"',
                more=dict.fromkeys(origins, TERMS),
            )
        )
        with tiers.Steady(node.port) as load:
            load.wait_sent_until(time.monotonic() + 1)
            for number in range(times):
                origins["eu"].kill()
                killed = time.monotonic()
                load.wait_sent_until(killed + 2 * CHECK_S)
                after = load.since(killed)
                strays += sum(each.origin != "us" for each in after)
                slowest_s = max(slowest_s, *(each.ended - each.sent for each in after))
                origins["eu"].start()
                back = load.wait_for("eu")
                load.wait_sent_until(back + SLOW_START_S + 1)
                early = max(early, _share(load.since(back), "eu", back, 0.5))
                late = min(late, _share(load.since(back), "eu", back + SLOW_START_S + 0.5, 0.5))
                stage.say(f"kill {number + 1} of {times}: {slowest_s:.2f} s at most")
        _count(row.tally, load.seen)
    row.demand(f"{len(load.faults)} of {len(load.seen)} requests failed (none)", not load.faults)
    row.demand(f"{strays} answered by another than the next nearest (none)", not strays)
    row.demand(f"answers in {slowest_s:.2f} s at most (2 s)", slowest_s < 2)
    row.demand(f"back with {early:.0%} at first (less than half)", early < 0.5)
    row.demand(f"and with {late:.0%} after its slow start (all)", late > 0.95)
    return row


def _share(seen: list[Served], name: str, begin: float, length_s: float) -> float:
    took = [each.origin for each in seen if 0 <= each.ended - begin < length_s]
    return took.count(name) / max(1, len(took))


def _count(tally: Tally, seen: list[Served]) -> None:
    tally.right += sum(not each.fault for each in seen)
    tally.failed += sum(bool(each.fault) for each in seen)


def shield(stage: Stage) -> Row:
    """kill -9 of the shield before an edge under load, its start, and a standstill."""
    times = 2 if stage.quick else 15
    row = Row(f"kill -9 of the shield, {times} times, and standstill")
    patience = 'timeouts = { connect = "1s", first_byte = "1s" }'
    with Origin(respond) as origin, ExitStack() as stack:
        origins = {"a": [origin.url]}
        place = stage.directory
        behind = stack.enter_context(tiers.shield(place, origins))
        node = stack.enter_context(
            tiers.edge(place, "edge1", origins, behind=behind, patience=patience)
        )
        kept = popular()
        row.tally.add(check_all(node.port, kept))
        # Half of it is asked of the shield; all of it may be stored.
        with Load(node.port, miss=0.5, uncacheable=0.0) as load:
            for number in range(times):
                time.sleep(0.7)
                tiers.kill_all(behind)
                time.sleep(0.7)
                behind.start()
                stage.say(f"kill {number + 1} of {times}")
            time.sleep(2.5)  # until the shield is tried again
        killed = load.tally
        with Load(node.port, miss=0.5, uncacheable=0.0) as load:
            time.sleep(0.5)
            tiers.freeze(behind)
            time.sleep(2 if stage.quick else 10)
            tiers.thaw(behind)
        stood = load.tally
        is_back = wait_until(lambda: _is_by_shield(node.port))
        row.tally.add(killed)
        row.tally.add(stood)
        row.tally.add(check_all(node.port, kept))
        row.demand(f"kills: {killed.failed} of {killed.sent} failed (none)", not killed.failed)
        row.demand(f"standstill: {stood.failed} of {stood.sent} failed (none)", not stood.failed)
        row.demand(f"{killed.lost} broken off (at most 2 a kill)", killed.lost <= 2 * times)
        row.demand("the shield is asked again", is_back)
    return row


def _is_by_shield(port: int) -> bool:
    answer = Client(port).ask(f"/m/again-{time.monotonic_ns()}")
    return answer is not None and "shield1" in (answer.field("cache-status") or "")
