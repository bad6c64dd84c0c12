"""What a worker answers its keeper: each route once done and once refused, in memory."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from edge.admin.call import Refused
from edge.admin.worker import Control
from edge.listen.connection import ConnectionPolicy
from tests.stories.world import a_world, told
from tests.unit.desks import answered, call_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from tests.stories.world import Client, Edge, ScriptedOrigin

URL = "http://site.example/a"


class Desk:
    """A control over a worker in memory."""

    def __init__(self, edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
        self.edge, self.origin, self.client = edge, origin, client
        self.settled = 0
        self.routes = Control(
            edge.tools,
            lambda: edge.exchange.parts,
            ConnectionPolicy,
            status=lambda: {"flights": 0},
            settle=self._settle,
        ).routes()

    async def _settle(self) -> None:
        self.settled += 1
        await self.edge.store.settle()

    async def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """The document of a reply, or all that a stream brings."""
        return await answered(self.routes, call_of(method, path, body, **query))

    async def store(self, tag: str = "front") -> None:
        """Have one answer stored."""
        fields = {"Cache-Control": "max-age=60", "Cache-Tag": tag}
        await told(self.origin, self.client.send("GET", "/a"), 200, fields, b"body")


@asynccontextmanager
async def a_desk(directory: Path | None = None) -> AsyncIterator[Desk]:
    async with a_world((), directory) as (edge, origin, client):
        yield Desk(edge, origin, client)


async def test_a_worker_purges_nothing(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        await desk.store()
        with pytest.raises(Refused) as refused:
            await desk.call("POST", "/v1/purge", {"tag": ["front"]})
        assert refused.value.status == 403
        with pytest.raises(Refused) as refused:
            await desk.call("POST", "/v1/purge", {"host": ["*.example"], "dry_run": True})
        assert refused.value.status == 422
        assert desk.edge.purges.current().latest == 0


async def test_a_purge_that_is_in_force_is_explained(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        await desk.store()
        await desk.edge.purge(tag=["front"], soft=True)
        explained = await desk.call("GET", "/v1/explain", url=URL)
        assert explained["verdict"]["reason"] == "soft-purged"
        assert b"soft-purged" in await desk.call("GET", "/v1/ls")


@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_dry_run_counts_and_purges_nothing(
    autojump_clock: MockClock, tmp_path: Path, *, on_disk: bool
) -> None:
    async with a_desk(tmp_path / "store" if on_disk else None) as desk:
        await desk.store()
        lines = await desk.call("POST", "/v1/purge", {"tag": ["front"], "dry_run": True})
        last = json.loads(lines.splitlines()[-1])
        assert (last["matches"], last["of"], last["done"]) == (1, 1, True)
        assert desk.edge.purges.current().latest == 0


async def test_what_is_stored_is_told_as_it_is(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        await desk.store()
        (line,) = (await desk.call("GET", "/v1/ls", prefix=URL, limit="5")).splitlines()
        assert json.loads(line)["tags"] == ["front"]
        assert await desk.call("GET", "/v1/ls", prefix="http://other.example/") == b""
        got = await desk.call("GET", "/v1/get", url=URL)
        assert got.startswith(b"HTTP/1.1 200 ")
        assert got.endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/explain", {"url": "shop.example"}),
        ("/v1/get", {"url": URL, "nonsense": "1"}),
        ("/v1/ls", {"nonsense": "1"}),
        ("/v1/ls", {"limit": "-1"}),
        ("/v1/ls", {"limit": "٣"}),
    ],
)
async def test_a_question_that_is_none_is_a_400(
    autojump_clock: MockClock, path: str, query: dict[str, str]
) -> None:
    async with a_desk() as desk:
        with pytest.raises(Refused) as refused:
            await desk.call("GET", path, **query)
        assert refused.value.status == 400


async def test_a_worker_tells_of_itself_and_has_on_disk_what_it_stored(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with a_desk(tmp_path / "store") as desk:
        await desk.store()
        assert await desk.call("GET", "/v1/status") == {"flights": 0}
        assert await desk.call("POST", "/v1/settle") == {}
        assert desk.settled == 1
