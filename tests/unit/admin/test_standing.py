"""Orders about servers and experiments as the admin socket takes them, with workers behind."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edge.admin.call import Refused
from edge.admin.standing import StandingControl
from edge.admin.switchboard import Switchboard
from edge.observe.tally import FOUND, LOOKED_UP, Tallies
from edge.surroundings import overseer as overseeing
from edge.surroundings.board import Board
from edge.surroundings.heeding import Heeding
from edge.surroundings.orderbook import FILE, OrderBook
from edge.surroundings.overseer import Overseer
from edge.surroundings.standing import NamedExperiment, NamedServer, Roll, Standing, found
from edge.upstream.origin import parse_origin
from edge.upstream.probe import Checkable, CheckPolicy
from tests.unit.desks import answered, at_desk, call_of
from tests.unit.standin import replying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

EU1 = NamedServer("eu", "http://eu-1.example", 3.0)
EU2 = NamedServer("eu", "http://eu-2.example")
CHECKOUT = NamedExperiment("shop.example/checkout", (("new", 10.0), ("control", 90.0)))
SEARCH = NamedExperiment("shop.example/search", (("a", 1.0), ("b", 1.0)))
ROLL = Roll((EU1, EU2), (CHECKOUT, SEARCH))
NOW = 1_000.0


def view(server: NamedServer, **changes: Any) -> dict[str, Any]:
    seen = {"state": "up", "at_work": 2, "weight": 3.0, "latency_s": 0.25, "failures": 0}
    return {"name": server.origin, "id": server.id, **seen, **changes}


class House:
    """A keeper's part for servers and experiments, with two workers that go by its board."""

    def __init__(self, root: Path, switchboard: Switchboard) -> None:
        self.board = Board(3)
        self.tallies = Tallies(1)
        self.overseer = Overseer(
            self.board, OrderBook(root, print), now=lambda: NOW, random=lambda: 0.5,
            tell=lambda *_: None,
        )  # fmt: skip
        check = Checkable(EU1.id, parse_origin(EU1.url), CheckPolicy(every_s=1e6))
        self.overseer.take_up(ROLL, (check,))
        self.workers = [Heeding(self.board, seat, seat) for seat in range(2)]
        control = StandingControl(self.overseer, switchboard, self.tallies, lambda: NOW)
        self.routes = control.routes()
        self.words: list[str | None] = []

    async def get(self, path: str) -> Any:
        return await answered(self.routes, call_of("GET", path))

    async def post(self, path: str, body: object) -> dict[str, Any]:
        call = call_of("POST", path, body)
        reply: Any = await self.routes[call.path][call.method](call)
        self.words.append(reply.words)
        document: dict[str, Any] = json.loads(json.dumps(reply.document))
        return document

    async def refusal(self, path: str, body: object) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.post(path, body)
        return caught.value


@asynccontextmanager
async def a_house(tmp_path: Path) -> AsyncIterator[House]:
    first = {"servers": [view(EU1), view(EU2, state="ejected", latency_s=0.0)]}
    second = {"servers": [view(EU1, state="warming", at_work=5, latency_s=0.75)]}
    async with (
        at_desk(tmp_path / "0", {b"/v1/status": {b"GET": replying(first)}}) as one,
        at_desk(tmp_path / "1", {b"/v1/status": {b"GET": replying(second)}}) as two,
        trio.open_nursery() as nursery,
    ):
        house = House(tmp_path, Switchboard([one, two]))
        for each in house.workers:
            nursery.start_soon(each.run)
        yield house
        nursery.cancel_scope.cancel()


async def test_servers_are_listed_with_orders_checks_and_what_each_worker_sees(
    tmp_path: Path,
) -> None:
    async with a_house(tmp_path) as house:
        house.overseer.standing = found(
            house.overseer.standing, EU1.id, is_up=False, why="refused", now=NOW - 12
        )
        await house.post("/v1/origins/drain", {"servers": ["eu", "http://eu-2.example"]})
        await house.post("/v1/origins/weight", {"servers": [EU1.url], "weight": 7})
        one, two = (await house.get("/v1/origins"))["servers"]
    assert one == {
        "id": EU1.id,
        "origin": "eu",
        "server": "http://eu-1.example",
        "drained": False,
        "weight": 7.0,
        "settings_weight": 3.0,
        "at_work": 7,
        "latency_s": 0.5,
        "check": {"state": "down", "for_s": 12.0, "why": "refused"},
        "workers": [
            {
                "worker": 0, "state": "up", "at_work": 2, "weight": 3.0, "latency_s": 0.25,
                "failures": 0,
            },
            {
                "worker": 1, "state": "warming", "at_work": 5, "weight": 3.0,
                "latency_s": 0.75, "failures": 0,
            },
        ],
    }  # fmt: skip
    assert (two["drained"], two["check"], two["latency_s"]) == (True, None, None)
    assert [each["state"] for each in two["workers"]] == ["ejected"]


async def test_a_server_that_no_check_has_found_yet_is_unknown(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        one, _ = (await house.get("/v1/origins"))["servers"]
        assert one["check"] == {"state": "unknown", "for_s": None, "why": ""}


async def test_an_order_about_servers_is_told_when_all_workers_go_by_it(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        told = await house.post("/v1/origins/drain", {"servers": ["eu"]})
        assert all(each.standing.server(EU1.id).drained for each in house.workers)
        assert (told["version"], told["behind"]) == (2, [])
        assert [each["drained"] for each in told["servers"]] == [True, True]
        told = await house.post("/v1/origins/up", {"servers": ["eu", "http://eu-1.example"]})
        assert [(each["id"], each["drained"]) for each in told["servers"]] == [(EU1.id, False)]
        await house.post("/v1/origins/weight", {"servers": [EU1.url], "weight": 2.5})
        assert house.workers[0].standing.weight_of(EU1) == 2.5
        await house.post("/v1/origins/weight", {"servers": [EU1.url], "weight": None})
        assert house.workers[0].standing.weight_of(EU1) == 3.0
    assert house.words == [
        f"{EU1.id}, {EU2.id}: drained",
        f"{EU1.id}: in use again",
        f"{EU1.id}: has weight 2.5",
        f"{EU1.id}: has the settings' weight",
    ]


async def test_a_worker_that_does_not_go_by_an_order_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overseeing, "OBEYED_S", 1.0)
    async with a_house(tmp_path) as house:
        house.board.sit(2, 7, 4711, 1)
        told = await house.post("/v1/origins/drain", {"servers": [EU1.url]})
        assert told["behind"] == [{"worker": 7, "pid": 4711}]
        assert house.words == [f"{EU1.id}: drained; not yet for worker 7 (pid 4711)"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/origins/drain", {"servers": ["us"]}, 422, '"us" is no origin; there is eu'),
        ("/v1/origins/up", {"servers": []}, 422, "name an origin, a server by its URL, or both"),
        ("/v1/origins/weight", {"servers": ["eu"], "weight": 0}, 422, "drain it"),
        ("/v1/origins/weight", {"servers": ["eu"]}, 400, "write it like"),
        ("/v1/origins/drain", {"server": "eu"}, 400, 'write it like {"servers": ["eu"]}'),
        ("/v1/origins/drain", b"", 400, "write it like"),
        ("/v1/origins/drain", b"\xff", 400, "write it like"),
        ("/v1/experiments/ramp", {"experiment": "x", "arm": "new", "weight": 1}, 422, "no exp"),
        ("/v1/experiments/ramp", {"experiment": "search", "arm": "c", "weight": 1}, 422, "no arm"),
        (
            "/v1/experiments/ramp",
            {"experiment": "search", "arm": "a", "share": 1},
            422,
            "no share",
        ),
        (
            "/v1/experiments/ramp",
            {"experiment": "search", "arm": "a", "share": 0.5, "weight": 2},
            400,
            "weight and share are both given",
        ),
        ("/v1/experiments/stop", {"experiment": "search", "arm": "c"}, 422, "no arm"),
        ("/v1/experiments/resume", {"experiment": "search", "more": 1}, 400, "write it like"),
    ],
)
async def test_what_cannot_be_ordered_is_refused_in_words_and_changes_nothing(
    tmp_path: Path, path: str, body: object, status: int, said: str
) -> None:
    async with a_house(tmp_path) as house:
        before = house.overseer.standing, house.board.version
        error = await house.refusal(path, body)
        assert error.status == status
        assert said in str(error)
        assert (house.overseer.standing, house.board.version) == before
        assert not (tmp_path / FILE).exists()


async def test_an_order_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        (tmp_path / FILE).mkdir()
        error = await house.refusal("/v1/origins/drain", {"servers": ["eu"]})
        assert (error.status, error.title) == (503, "order not recorded")
        assert "nothing has changed" in str(error)


async def test_experiments_are_listed_with_what_was_counted(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        tally = house.tallies.take(0, 0.0)
        cell = tally.arm(CHECKOUT.id, "new")
        tally.add_arm(cell, 200, FOUND, 3, 9_000, 3)
        tally.add_arm(cell, 404, LOOKED_UP, 3, 3_000, 1)
        tally.add_visitors(cell, 2)
        one, two = (await house.get("/v1/experiments"))["experiments"]
    assert (one["id"], one["name"], one["stopped_on"]) == (CHECKOUT.id, "checkout", None)
    new, control = one["arms"]
    assert new == {
        "name": "new", "weight": 10.0, "settings_weight": 10.0, "share": 0.1, "requests": 4,
        "visitors": 2, "statuses": {"2xx": 3, "4xx": 1}, "hit_ratio": 0.75, "mean_s": 0.003,
        "p50_s": 0.005, "p99_s": 0.005,
    }  # fmt: skip
    assert (control["requests"], control["hit_ratio"], control["mean_s"]) == (0, None, None)
    assert [arm["share"] for arm in two["arms"]] == [0.5, 0.5]


async def test_an_experiment_is_ramped_by_weight_or_share_stopped_and_resumed(
    tmp_path: Path,
) -> None:
    async with a_house(tmp_path) as house:

        def standing() -> Standing:
            return house.workers[1].standing

        async def order(what: str, **asked: Any) -> list[float]:
            told = await house.post(f"/v1/experiments/{what}", {"experiment": "checkout", **asked})
            return [arm["share"] for arm in told["experiment"]["arms"]]

        assert await order("ramp", arm="new", weight=30) == [0.25, 0.75]
        assert standing().weights_of(CHECKOUT)["new"] == 30.0
        assert await order("ramp", arm="new", share=0.2) == [0.2, 0.8]
        assert standing().weights_of(CHECKOUT) == {"new": 22.5, "control": 90.0}
        assert await order("stop") == [0.0, 1.0]
        assert await order("stop", arm="new") == [1.0, 0.0]
        assert standing().stopped_on(CHECKOUT) == "new"
        assert await order("resume") == [0.2, 0.8]
        assert await order("ramp", arm="new") == [0.1, 0.9]
        assert standing() == house.overseer.standing
    assert house.words[2:5] == [
        "shop.example/checkout: stopped on control",
        "shop.example/checkout: stopped on new",
        "shop.example/checkout: new 20.00%, control 80.00%",
    ]


async def test_what_settings_took_out_while_it_was_ordered_about_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_house(tmp_path) as house:
        carry_out = house.overseer.carry_out

        async def carried(order: Any) -> Any:
            done = await carry_out(order)
            house.overseer.take_up(Roll(), ())
            return done

        monkeypatch.setattr(house.overseer, "carry_out", carried)
        told = await house.post("/v1/origins/drain", {"servers": ["eu"]})
        assert told["servers"] == []
        house.overseer.take_up(ROLL, ())
        error = await house.refusal("/v1/experiments/stop", {"experiment": "search"})
        assert (error.status, "taken search out meanwhile" in str(error)) == (409, True)
