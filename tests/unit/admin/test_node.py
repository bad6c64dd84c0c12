"""What the admin socket of a node answers, with two workers in memory behind real sockets."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edge.admin.call import Refused
from edge.admin.node import NodeControl
from edge.admin.switchboard import Switchboard
from edge.admin.worker import Control
from edge.cache.purge import Manner
from edge.listen.connection import ConnectionPolicy
from edge.process.leash import Reloaded
from edge.purging.late import Late
from edge.purging.recorder import Recording, settle_all
from edge.settings import Fault
from tests.stories.world import a_world, told
from tests.unit.desks import answered, at_desk, breaking_off, call_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from edge.admin.desk import Desk
    from edge.serving.visit import Parts
    from tests.stories.world import Client, Edge, ScriptedOrigin

URL = "http://site.example/a"


class House:
    """A node of workers in memory; the last of them owns every key."""

    def __init__(self, worlds: list[tuple[Edge, ScriptedOrigin, Client]], desks: list[Desk]):
        self.worlds, self.desks = worlds, desks
        self.edge = worlds[0][0]
        self.draining = False
        self.waited: list[bool] = []
        self.reloaded = Reloaded(1, done=False, later=("node.workers",))
        self.asked_for: list[bytes] = []
        control = NodeControl(
            self, self.edge.journal, self.edge.purging, Switchboard(desks), self.settle, "e.toml"
        )
        self.routes = {**control.routes(), **control.inner_routes()}

    async def settle(self) -> None:
        await settle_all(self.desks)

    def parts(self) -> Parts:
        return self.edge.exchange.parts

    def policy(self) -> ConnectionPolicy:
        return ConnectionPolicy()

    def owner(self, digest: bytes) -> int:
        self.asked_for.append(digest)
        return len(self.desks) - 1

    async def status(self) -> Mapping[str, Any]:
        return {"name": "edge1"}

    async def reload(self, *, wait: bool) -> Reloaded:
        self.waited.append(wait)
        return self.reloaded

    async def drain(self) -> None:
        self.draining = True

    async def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        return await answered(self.routes, call_of(method, path, body, **query))

    async def store(self, slot: int, target: str = "/a") -> None:
        """Have a worker store one answer."""
        edge, origin, client = self.worlds[slot]
        fields = {"Cache-Control": "max-age=60", "Cache-Tag": "front"}
        await told(origin, client.send("GET", target), 200, fields, b"body")
        await edge.settle()


def status_of(edge: Edge) -> dict[str, Any]:
    return {"store": msgspec.to_builtins(edge.store.statistics())}


@asynccontextmanager
async def a_house(directory: Path, workers: int = 2) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        worlds, desks = [], []
        for slot in range(workers):
            world = await stack.enter_async_context(a_world())
            edge = world[0]
            control = Control(
                edge.tools,
                lambda edge=edge: edge.exchange.parts,  # type: ignore[misc]
                ConnectionPolicy,
                lambda edge=edge: status_of(edge),  # type: ignore[misc]
                edge.store.settle,
            )
            routes = control.routes()
            desks.append(await stack.enter_async_context(at_desk(directory / str(slot), routes)))
            worlds.append(world)
        yield House(worlds, desks)


async def refused(house: House, *call: Any, **query: str) -> Refused:
    with pytest.raises(Refused) as error:
        await house.call(*call, **query)
    return error.value


async def test_a_purge_is_in_force_when_it_is_told(tmp_path: Path) -> None:
    async with a_house(tmp_path, 1) as house:
        await house.store(0)
        done = await house.call("POST", "/v1/purge", {"tag": ["front", "x"], "soft": True})
        assert (done["number"], done["soft"], done["scopes"]) == (1, True, 2)
        listed = await house.call("GET", "/v1/purges")
        assert listed["latest"] == 1
        (purge,) = listed["purges"]
        assert (purge["manner"], purge["scopes"]) == ("soft", ("tag front", "tag x"))
        assert (purge["who"], purge["confined"]) == ("uid 7, pid 42", False)
        explained = await house.call("GET", "/v1/explain", url=URL)
        assert explained["verdict"]["reason"] == "soft-purged"


async def test_shields_purge_first_and_are_named_where_they_have_not(tmp_path: Path) -> None:
    ahead: list[tuple[bytes, int]] = []
    late = Late("http://s.example:80", "no answer within 5 s")
    async with a_house(tmp_path, 1) as house:

        async def send_ahead(order: bytes, /, *, later: bool = False) -> tuple[Late, ...]:
            if later:
                return ()
            latest = (await house.call("GET", "/v1/purges"))["latest"]
            ahead.append((order, latest))
            return (late,)

        house.edge.purging.send_ahead = send_ahead
        done = await house.call("POST", "/v1/purge", {"tag": ["front"]})
        assert (done["number"], done["late"]) == (1, (msgspec.to_builtins(late),))
        assert ahead == [(b'{"tag": ["front"]}', 0)]
        local = await house.call("POST", "/v1/purge", {"tag": ["front"], "local": True})
        assert (local["number"], local["late"]) == (2, ())
        await house.call("POST", "/v1/purge", {"tag": ["front"], "dry_run": True})
        assert len(ahead) == 1
        told = await house.call("POST", "/v1/ahead", {"all": True})
        assert told == {"late": (msgspec.to_builtins(late),)}
        assert len(ahead) == 2
        assert await house.call("POST", "/v1/ahead", {"all": True}, when="later") == {"late": ()}


async def test_an_order_for_one_host_is_confined_to_it(tmp_path: Path) -> None:
    async with a_house(tmp_path, 1) as house:
        await house.call("POST", "/v1/purge", {"tag": ["front"], "on": "site.example"})
        (purge,) = (await house.call("GET", "/v1/purges"))["purges"]
        assert (purge["confined"], purge["scopes"]) == (True, ("tag front on site.example",))


async def test_a_refused_order_purges_nothing(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        error = await refused(house, "POST", "/v1/purge", {"tag": ["x"], "host": ["*.example"]})
        assert (error.status, error.members["faults"][0]["path"]) == (422, "host[0]")
        assert (await house.call("GET", "/v1/purges"))["latest"] == 0


async def test_a_purge_that_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        await house.edge.journal.close()
        error = await refused(house, "POST", "/v1/purge", {"all": True})
        assert (error.status, error.title) == (503, "purge not recorded")
        assert (await refused(house, "POST", "/v1/record", recording())).status == 503


def recording() -> bytes:
    """A worker's purge of everything."""
    made = Recording(b"", True, Manner.HARD, "198.51.100.1", 5.0, ("everything",), 1, b"")
    return msgspec.msgpack.encode(made)


async def test_a_workers_purge_is_recorded_and_its_number_told(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        assert await house.call("POST", "/v1/record", recording()) == {"number": 1}
        assert house.edge.purges.current().latest == 1


async def test_settling_is_of_all_workers_and_refused_where_one_is_dead(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        assert await house.call("POST", "/v1/settle") == {}
        async with breaking_off(tmp_path / "dead", b"") as dead:
            house.desks.append(dead)
            error = await refused(house, "POST", "/v1/settle")
    assert error.status == 503
    assert "worker 2 ended before all that it had stored was on disk" in str(error)


async def test_a_dry_run_counts_what_all_workers_hold_and_purges_nothing(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        await house.store(0)
        await house.store(1, "/a")
        await house.store(1, "/b")
        lines = await house.call("POST", "/v1/purge", {"tag": ["front"], "dry_run": True})
        last = json.loads(lines.splitlines()[-1])
        assert (last["matches"], last["of"], last["done"]) == (3, 3, True)
        assert (await house.call("GET", "/v1/purges"))["latest"] == 0


async def test_the_owner_of_the_key_is_asked_about_a_request(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        await house.store(1)
        got = await house.call("GET", "/v1/get", url=URL)
        assert got.startswith(b"HTTP/1.1 200 ")
        assert got.endswith(b"\r\n\r\nbody")
        explained = await house.call("GET", "/v1/explain", url=URL)
        assert explained["verdict"]["outcome"] == "hit"
        assert len(house.asked_for) == 2
        assert len(set(house.asked_for)) == 1


async def test_where_nothing_can_be_admitted_anyone_tells_why(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        explained = await answered(
            house.routes, call_of("GET", "/v1/explain", url=URL, field="CDN-Loop: edge1")
        )
        assert explained["verdict"]["status"] == 508
        assert house.asked_for == []


async def test_what_all_have_stored_is_listed_up_to_the_limit(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        await house.store(0)
        await house.store(1, "/b")
        assert len((await house.call("GET", "/v1/ls")).splitlines()) == 2
        assert len((await house.call("GET", "/v1/ls", limit="1")).splitlines()) == 1
        assert await house.call("GET", "/v1/ls", prefix="http://other.example/") == b""


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/explain", {"url": "shop.example"}),
        ("/v1/get", {"url": URL, "nonsense": "1"}),
        ("/v1/ls", {"nonsense": "1"}),
        ("/v1/ls", {"limit": "-1"}),
    ],
)
async def test_a_question_that_is_none_is_a_400(
    tmp_path: Path, path: str, query: dict[str, str]
) -> None:
    async with a_house(tmp_path) as house:
        assert (await refused(house, "GET", path, **query)).status == 400


@pytest.mark.parametrize(
    ("body", "waits"),
    [(None, False), ({}, False), ({"wait": False}, False), ({"wait": True}, True)],
)
async def test_settings_are_taken_at_once_or_waited_for(
    tmp_path: Path, body: object, *, waits: bool
) -> None:
    async with a_house(tmp_path) as house:
        told = await house.call("POST", "/v1/reload", body)
        assert told == {
            "taken": True, "done": False, "later": ("node.workers",), "replaced": False,
            "because": (),
        }  # fmt: skip
        assert house.waited == [waits]


@pytest.mark.parametrize("body", [b"{", b"[]", {"wait": 1}, {"wiat": True}, {"wait": "yes"}])
async def test_a_reload_asked_for_wrongly_is_a_400_and_reads_nothing(
    tmp_path: Path, body: object
) -> None:
    async with a_house(tmp_path) as house:
        assert (await refused(house, "POST", "/v1/reload", body)).status == 400
        assert house.waited == []


async def test_every_fault_of_settings_is_told(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        house.reloaded = Reloaded(1, True, (Fault(3, "cache.ttl", '"x"', "is not a duration"),))
        error = await refused(house, "POST", "/v1/reload")
    assert error.status == 422
    (fault,) = error.members["faults"]
    assert (fault["file"], fault["line"], fault["path"]) == ("e.toml", 3, "cache.ttl")


async def test_draining_begins_and_the_status_is_told(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        assert await house.call("GET", "/v1/status") == {"name": "edge1"}
        assert await house.call("POST", "/v1/drain") == {"draining": True}
        assert house.draining
