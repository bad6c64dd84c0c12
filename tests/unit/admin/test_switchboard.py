"""What workers are asked: one, or all in turn; a part is never taken for the whole."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edge.admin.call import Call, Refused, Reply, Streamed
from edge.admin.switchboard import Switchboard, node_state
from tests.unit.desks import at_desk, breaking_off, call_of, told_by
from tests.unit.standin import refusing, replying, streaming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edge.admin.call import Handler

BROKEN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b'Transfer-Encoding: chunked\r\n\r\nc\r\n{"url": "a"}\r\n'
)


@asynccontextmanager
async def workers(
    directory: Path, *tables: dict[str, Handler] | bytes
) -> AsyncIterator[Switchboard]:
    """Workers with these handlers of `GET /v1/ls`, or that say these bytes and are gone."""
    async with AsyncExitStack() as stack:
        desks = []
        for slot, table in enumerate(tables):
            path = directory / f"{slot}.sock"
            if isinstance(table, bytes):
                desk = breaking_off(path, table)
            else:
                routes: dict[bytes, dict[bytes, Handler]] = {}
                for route, handler in table.items():
                    method, _, where = route.partition(" ")
                    routes.setdefault(where.encode(), {})[method.encode()] = handler
                desk = at_desk(path, routes)
            desks.append(await stack.enter_async_context(desk))
        yield Switchboard(desks)


def state(entries: int, rows: int | None) -> dict[str, Any]:
    disk = None if rows is None else {"rows": rows}
    return {"store": {"memory": {"entries": entries}, "disk": disk}, "flights": 1}


def trying(*lines: dict[str, Any], of: int = 0) -> dict[str, Handler]:
    """A worker that tries out an order so."""
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    pieces = data[:7], data[7:]
    return {
        "POST /v1/purge": streaming(*pieces),
        "GET /v1/status": replying(state(of, None)),
    }


def listing(count: int) -> Handler:
    """A worker that lists what it has, as far as the limit goes."""

    async def ls(call: Call) -> Streamed:
        (limit,) = call.query.get("limit", [str(count)])
        return await streaming(*[b"{}\n"] * min(count, int(limit)))(call)  # type: ignore[return-value]

    return ls


async def test_one_worker_is_asked_with_all_that_was_asked(tmp_path: Path) -> None:
    async def echo(call: Call) -> Reply:
        return Reply(200, {"query": call.query})

    async with workers(tmp_path, {}, {"GET /v1/explain": echo}) as board:
        call = call_of("GET", "/v1/explain", url="http://a/?x=1&y=ä", **{"from": "\udcff"})
        told = await board.ask(1, call)
    assert told.document["query"] == {"url": ["http://a/?x=1&y=ä"], "from": ["\udcff"]}


async def test_the_head_of_an_answer_is_asked_for_as_the_answer(tmp_path: Path) -> None:
    async with workers(tmp_path, {"GET /v1/explain": replying({"a": 1})}) as board:
        assert (await board.ask(0, call_of("HEAD", "/v1/explain"))).document == {"a": 1}


@pytest.mark.parametrize("title", ["", "not stored"])
async def test_a_refusal_is_passed_on_as_it_stands(tmp_path: Path, title: str) -> None:
    error = Refused(404, title, "nothing there", {"faults": [1]})
    routes = {"GET /v1/explain": refusing(error), "GET /v1/get": refusing(error)}
    async with workers(tmp_path, routes) as board:
        with pytest.raises(Refused) as asked:
            await board.ask(0, call_of("GET", "/v1/explain"))
        with pytest.raises(Refused) as streamed:
            await told_by(board.message(0, call_of("GET", "/v1/get")))
    for refused in (asked.value, streamed.value):
        assert refused.reply().document == error.reply().document


async def test_a_worker_that_dies_is_told_of_by_its_number(tmp_path: Path) -> None:
    async with workers(tmp_path, {}, b"") as board:
        with pytest.raises(Refused, match="worker 1 does not answer") as refused:
            await board.ask(1, call_of("GET", "/v1/explain"))
    assert refused.value.status == 503


@pytest.mark.parametrize(
    ("limit", "lines"), [(None, 6), (0, 0), (1, 1), (3, 3), (4, 4), (6, 6), (99, 6)]
)
async def test_a_listing_is_of_all_workers_and_its_limit_for_all(
    tmp_path: Path, limit: int | None, lines: int
) -> None:
    tables = [{"GET /v1/ls": listing(count)} for count in (3, 0, 3)]
    async with workers(tmp_path, *tables) as board:
        told = await told_by(board.listing(call_of("GET", "/v1/ls"), limit))
    assert told == b"{}\n" * lines


async def test_a_listing_that_breaks_off_has_no_end(tmp_path: Path) -> None:
    async with workers(tmp_path, {"GET /v1/ls": listing(1)}, BROKEN) as board:
        with pytest.raises(Refused, match="worker 1 does not answer"):
            await told_by(board.listing(call_of("GET", "/v1/ls"), None))


async def test_who_reads_no_further_leaves_no_call_behind(tmp_path: Path) -> None:
    async def send(piece: bytes | memoryview) -> None:
        raise trio.BrokenResourceError

    async with workers(tmp_path, {"GET /v1/ls": listing(10_000)}) as board:
        with pytest.raises(trio.BrokenResourceError):
            await board.listing(call_of("GET", "/v1/ls"), None).produce(send)


async def test_a_trial_is_summed_over_the_workers(tmp_path: Path) -> None:
    one = trying(
        {"looked_at": 5, "matches": 1, "bytes": 10},
        {"looked_at": 9, "matches": 2, "bytes": 30, "done": True, "notes": ["n"]},
        of=9,
    )
    other = trying({"looked_at": 1, "matches": 1, "bytes": 5, "done": True, "notes": ["n"]}, of=4)
    async with workers(tmp_path, one, other) as board:
        told = await told_by(board.trial(b"{}"))
    first, last = map(json.loads, told.splitlines())
    assert (first["looked_at"], first["matches"], first["bytes"], first["of"]) == (5, 1, 10, 13)
    assert last == {
        "looked_at": 10, "matches": 3, "bytes": 35, "of": 13, "done": True, "notes": ["n"],
    }  # fmt: skip


async def test_a_trial_that_a_worker_did_not_end_has_no_last_line(tmp_path: Path) -> None:
    done = trying({"looked_at": 1, "matches": 1, "bytes": 5, "done": True})
    async with workers(tmp_path, done, b"") as board:
        with pytest.raises(Refused, match="worker 1 does not answer"):
            await told_by(board.trial(b"{}"))


async def test_who_does_not_tell_its_state_is_told_without(tmp_path: Path) -> None:
    status = {"GET /v1/status": replying(state(1, 7))}
    async with workers(tmp_path, status, b"", {}) as board:
        told = await board.states()
    assert told == [state(1, 7), None, None]
    assert node_state([*told, state(2, None)])["store"]["memory"] == {"entries": 3}
