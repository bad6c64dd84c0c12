"""An edge before a shield, which the `origin` of these stories is, until it is passed over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio

from tests.stories.world import settings, told

if TYPE_CHECKING:
    from tests.stories.world import Asked, Client, Edge, ScriptedOrigin

VARIABLE = "TEST_SHIELD_SECRET"
SHIELDED = (
    'shield.nodes=["http://shield.example"]',
    f'shield.secret={{env="{VARIABLE}"}}',
    'site.route.via="shield"',
)
ALONE = (*SHIELDED, "shield.without=fail")
FRESH = {"Cache-Control": "max-age=60"}
STRANGER = {"Cache-Status": "shield1; detail=proof-expired", "Connection": "close"}
ARMED = (
    'site.experiment=[{name="c",cookie={name="ab"},'
    'arms={old={weight=1,prefix="/old"},new={weight=0}}}]'
)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0123456789abcdef0123456789abcdef")


def claimed_key(asked: Asked) -> str | None:
    """What a shield is told to key by beside the URL."""
    found = re.search(r"key=:([^:]*):", asked.headers["edge-proof"])
    return found and found[1]


@pytest.mark.parametrize(
    ("sets", "fields"),
    [
        ((*ALONE, 'site.key.headers=["x-device"]'), ({"X-Device": "a"}, {"X-Device": "b"})),
        ((*ALONE, 'site.key.cookies=["lang"]'), ({"Cookie": "lang=a"}, {"Cookie": "lang=b"})),
    ],
)
async def test_what_the_edge_keys_by_the_shield_is_told(
    origin: ScriptedOrigin, client: Client, fields: tuple[dict[str, str], ...]
) -> None:
    keys = set()
    for each in fields:
        pending = client.send("GET", "/a", each)
        asked = await origin.next_request()
        keys.add(claimed_key(asked))
        await asked.reply(200, FRESH)
        await pending.response()
    assert len(keys) == 2
    assert None not in keys


@settings(*ALONE, ARMED)
async def test_a_target_that_an_arm_makes_too_long_is_the_clients_fault_and_not_ours(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    reply = await client.get("/" + "a" * 8188)
    assert reply.status == 414
    assert reply.cache == "fwd=uri-miss; detail=target-too-long"
    assert origin.unasked
    assert not [kind for kind, _ in edge.complaints if kind == "internal"]


@settings(*ALONE)
async def test_a_delete_that_is_sent_again_has_another_proof(
    origin: ScriptedOrigin, client: Client
) -> None:
    """Its first may have been read, and is used."""
    await told(origin, client.send("GET", "/a"), 200, FRESH)
    pending = client.send("DELETE", "/a")
    first = await origin.next_request()
    first.close()
    with trio.move_on_after(60):
        second = await origin.next_request()
        assert second.headers["edge-proof"] != first.headers["edge-proof"]
        await second.reply(204)
    assert (await pending.response()).status in (204, 502)


@settings(*SHIELDED)
async def test_where_no_shield_takes_the_proof_the_origin_is_asked(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    pending = client.send("GET", "/a")
    first = await origin.next_request()
    assert "edge-proof" in first.headers
    await first.reply(403, STRANGER, b"no")
    second = await origin.next_request()
    assert "edge-proof" not in second.headers
    await second.reply(200, FRESH, b"from the origin")
    assert (await pending.response()).body == b"from the origin"
    ((kind, words),) = edge.complaints
    assert (kind, words) == ("shield-refused", "shield http://shield.example:80: proof-expired")


@settings(*ALONE, 'cache.stale_if_error="1h"')
async def test_where_no_shield_takes_the_proof_and_none_may_be_done_without_stale_stands_in(
    edge: Edge, origin: ScriptedOrigin, client: Client
) -> None:
    await told(origin, client.send("GET", "/a"), 200, {"Cache-Control": "max-age=5"}, b"kept")
    edge.advance(10)
    reply = await told(origin, client.send("GET", "/a"), 403, STRANGER, b"no")
    assert (reply.status, reply.body) == (200, b"kept")
    assert edge.complaints


@settings(*SHIELDED, 'site.route.budget="4s"')
async def test_a_shield_that_hangs_is_given_up_for_the_origin(
    origin: ScriptedOrigin, client: Client
) -> None:
    began = trio.current_time()
    pending = client.send("GET", "/a")
    hangs = await origin.next_request()
    assert "edge-proof" in hangs.headers
    second = await origin.next_request()
    assert "edge-proof" not in second.headers
    assert trio.current_time() - began == pytest.approx(4.0, abs=0.5)
    await second.reply(200, FRESH, b"from the origin")
    reply = await pending.response()
    assert (reply.status, reply.body) == (200, b"from the origin")


@settings('origin.far.servers=["http://far.example"]', 'site.route={first=["default","far"]}')
async def test_an_origin_that_hangs_is_given_up_for_the_next(
    origin: ScriptedOrigin, client: Client
) -> None:
    began = trio.current_time()
    pending = client.send("GET", "/a")
    await origin.next_request()  # and is not answered
    await (await origin.next_request()).reply(200, FRESH, b"far")
    assert (await pending.response()).body == b"far"
    assert trio.current_time() - began == pytest.approx(10.0, abs=0.5)  # the budget


@settings(*SHIELDED)
async def test_all_that_the_edge_lets_in_it_sends_on(
    origin: ScriptedOrigin, client: Client
) -> None:
    """A shield has room for what the edge adds: 98 fields of a client are 130 at most."""
    pending = client.send("GET", "/a", {f"x-{number}": "v" for number in range(98)})
    asked = await origin.next_request()
    assert 98 < len(asked.headers.pairs) <= 130
    await asked.reply(200, FRESH)
    assert (await pending.response()).status == 200
