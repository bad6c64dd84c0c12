"""What the admin socket answers: each route once done and once refused, on a node in memory."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from edge.call import Call, Caller, Refused, Reply, Streamed
from edge.control import AT_ONCE_BYTES, Control
from edge.listen.connection import ConnectionPolicy
from edge.settings import Fault, SettingsError
from tests.stories.world import a_world, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from tests.stories.world import Client, Edge, ScriptedOrigin

URL = "http://site.example/a"


class Desk:
    """A control over a node in memory, and what it was told to do."""

    def __init__(self, edge: Edge, origin: ScriptedOrigin, client: Client) -> None:
        self.edge, self.origin, self.client = edge, origin, client
        self.draining = False
        self.faults: list[Fault] = []
        self.routes = Control(
            edge.tools,
            lambda: edge.exchange.parts,
            ConnectionPolicy,
            edge.journal,
            status=lambda: {"name": "edge1"},
            reload=self._reload,
            drain=self._drain,
        ).routes()

    def _reload(self) -> list[str]:
        if self.faults:
            raise SettingsError(self.faults)
        return ["node.listen"]

    def _drain(self) -> None:
        self.draining = True

    async def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """The document of a reply, or all that a stream brings."""
        given = {name: [value] for name, value in query.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        call = Call(method.encode(), path.encode(), given, data, Caller(7, 7, 42))
        answer = await self.routes[call.path][call.method](call)
        if isinstance(answer, Reply):
            return answer.document
        assert isinstance(answer, Streamed)
        pieces: list[bytes] = []

        async def send(piece: bytes | memoryview) -> None:
            pieces.append(bytes(piece))

        await answer.produce(send)
        return b"".join(pieces)

    async def store(self, tag: str = "front") -> None:
        """Have one answer stored."""
        fields = {"Cache-Control": "max-age=60", "Cache-Tag": tag}
        await told(self.origin, self.client.send("GET", "/a"), 200, fields, b"body")


@asynccontextmanager
async def a_desk(directory: Path | None = None) -> AsyncIterator[Desk]:
    async with a_world((), directory) as (edge, origin, client):
        yield Desk(edge, origin, client)


async def test_a_purge_is_in_force_when_it_is_told(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        await desk.store()
        done = await desk.call("POST", "/v1/purge", {"tag": ["front", "x"], "soft": True})
        assert (done["number"], done["soft"], done["scopes"]) == (1, True, 2)
        listed = await desk.call("GET", "/v1/purges")
        assert listed["latest"] == 1
        (purge,) = listed["purges"]
        assert (purge["manner"], purge["scopes"]) == ("soft", ("tag front", "tag x"))
        assert (purge["who"], purge["confined"]) == ("uid 7, pid 42", False)
        explained = await desk.call("GET", "/v1/explain", url=URL)
        assert explained["verdict"]["reason"] == "soft-purged"
        assert b"soft-purged" in await desk.call("GET", "/v1/ls")


async def test_a_large_order_is_read_off_the_loop() -> None:
    async with a_desk() as desk:
        tags = [f"tag-{number}" for number in range(AT_ONCE_BYTES // 4)]
        assert (await desk.call("POST", "/v1/purge", {"tag": tags}))["scopes"] == len(tags)


async def test_a_refused_order_purges_nothing(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        with pytest.raises(Refused) as refused:
            await desk.call("POST", "/v1/purge", {"tag": ["front"], "host": ["*.example"]})
        assert refused.value.status == 422
        assert refused.value.members["faults"][0]["path"] == "host[0]"
        assert (await desk.call("GET", "/v1/purges"))["latest"] == 0


async def test_a_purge_that_cannot_be_recorded_is_refused(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        await desk.edge.journal.close()
        with pytest.raises(Refused) as refused:
            await desk.call("POST", "/v1/purge", {"all": True})
        assert refused.value.status == 503


@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_dry_run_counts_and_purges_nothing(
    autojump_clock: MockClock, tmp_path: Path, *, on_disk: bool
) -> None:
    async with a_desk(tmp_path / "store" if on_disk else None) as desk:
        await desk.store()
        lines = await desk.call("POST", "/v1/purge", {"tag": ["front"], "dry_run": True})
        last = json.loads(lines.splitlines()[-1])
        assert (last["matches"], last["of"], last["done"]) == (1, 1, True)
        assert (await desk.call("GET", "/v1/purges"))["latest"] == 0


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


async def test_settings_are_taken_or_every_fault_is_told(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        assert await desk.call("POST", "/v1/reload") == {"taken": True, "later": ["node.listen"]}
        desk.faults = [Fault(3, "cache.ttl", '"x"', "is not a duration")]
        with pytest.raises(Refused) as refused:
            await desk.call("POST", "/v1/reload")
        assert refused.value.status == 422
        assert refused.value.members["faults"][0]["line"] == 3


async def test_draining_begins_and_the_status_is_told(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        assert await desk.call("GET", "/v1/status") == {"name": "edge1"}
        assert await desk.call("POST", "/v1/drain") == {"draining": True}
        assert desk.draining
