"""An edge before a shield before an origin: what HTTP says holds over both.

The edge and the shield have two workers each; the origin answers by script, and what it was asked
is all that it was asked.
"""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import brotli
import pytest

from edge.coding.decoders import Decoder
from edge.coding.negotiate import Coding
from tests.live import tiers
from tests.live.harness import Answer, Client, Reply, ScriptedOrigin, eventually
from tests.live.hostile_harness import ROOT
from tests.live.tiers import order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.live.hostile_harness import Node

pytestmark = pytest.mark.live

FRESH = "cache-control: max-age=60"
TAG = 'etag: "one"'


@dataclass(frozen=True)
class World:
    """The three of them."""

    origin: ScriptedOrigin
    shield: Node
    edge: Node

    def ask(
        self,
        target: str,
        *fields: str,
        method: str = "GET",
        body: bytes = b"",
        of: Node | None = None,
    ) -> Answer:
        """The edge's answer, or that of another node."""
        with Client((of or self.edge).port) as client:
            return client.ask(method, target, fields, body)


@contextmanager
def a_world(
    tmp_path: Path, *, site: str = "", shield_site: str = "", **told: Any
) -> Iterator[World]:
    with ScriptedOrigin() as origin:
        origins = {"a": [origin.url]}
        with (
            tiers.shield(tmp_path, origins, site=shield_site) as shield,
            tiers.edge(tmp_path, "edge1", origins, behind=shield, site=site, **told) as node,
        ):
            yield World(origin, shield, node)
        assert origin.unexpected == []


def tiers_of(answer: Answer) -> list[str]:
    """Who handled it, and how, nearest to the origin first."""
    members = (answer.field("cache-status") or "").split(", ")
    return [re.sub(r"; (ttl|fwd-status|detail)=[^;]*", "", each) for each in members]


def test_both_tiers_store_and_say_so(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.origin.script("page", Reply.of(200, [FRESH], b"body"))
        first = world.ask("/page/")
        assert (first.status, first.body) == (200, b"body")
        assert tiers_of(first) == [
            "shield1; fwd=uri-miss; stored", "edge1; fwd=uri-miss; stored",
        ]  # fmt: skip
        for _ in range(8):
            again = world.ask("/page/")
            assert again.body == b"body"
            assert tiers_of(again)[-1] == "edge1; hit"


def test_the_edges_validation_is_answered_by_the_shield_from_its_store(tmp_path: Path) -> None:
    """What the edge has to ask about the shield may still have fresh."""
    with a_world(
        tmp_path, site='cache = { ttl = "0s" }', shield_site='cache = { ttl = "1h" }'
    ) as world:
        world.origin.script("page", Reply.of(200, [FRESH, TAG], b"body"))
        assert world.ask("/page/").body == b"body"
        for _ in range(6):
            again = world.ask("/page/")
            assert (again.status, again.body) == (200, b"body")
            assert "fwd=stale" in tiers_of(again)[-1]
            assert "fwd-status=304" in (again.field("cache-status") or "")
        assert len(world.origin.requests("page")) == 1
        validated = [each for each in log_of(world.shield) if each["status"] == 304]
        assert len(validated) >= 1


def log_of(node: Node) -> list[dict[str, Any]]:
    assert eventually(lambda: bool(node.access_log.read_text()))
    return [json.loads(line) for line in node.access_log.read_text().splitlines()]


def test_a_clients_condition_is_answered_by_either_tier(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.origin.script("page", Reply.of(200, [FRESH, TAG], b"body"))
        assert world.ask("/page/").status == 200
        told = world.ask("/page/", 'if-none-match: "one"')
        assert (told.status, told.field("etag")) == (304, '"one"')
        order(world.edge, "purge", "all", "--yes", "--local")  # the shield has it still
        told = world.ask("/page/", 'if-none-match: "one"')
        assert told.status == 304
        assert len(world.origin.requests("page")) == 1


def test_the_time_in_both_tiers_is_the_answers_age(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.origin.script(
            "page", Reply.of(200, ["cache-control: max-age=600", "age: 100"], b"x")
        )
        assert int(world.ask("/page/").field("age") or 0) >= 100
        assert eventually(lambda: int(world.ask("/page/").field("age") or 0) >= 102)
        order(world.edge, "purge", "all", "--yes", "--local")
        anew = world.ask("/page/")
        assert tiers_of(anew)[0].startswith("shield1; hit")
        assert int(anew.field("age") or 0) >= 102
        assert eventually(lambda: int(world.ask("/page/").field("age") or 0) >= 104)
        assert int(ttl_of(world.ask("/page/"))) <= 600 - 104
        assert len(world.origin.requests("page")) == 1


def ttl_of(answer: Answer) -> str:
    found = re.search(r"ttl=(-?\d+)", (answer.field("cache-status") or "").rpartition(", ")[2])
    assert found is not None
    return found[1]


BODY = bytes(range(256)) * 400  # 100 KiB


def test_ranges_pass_both_tiers_whoever_has_the_body(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.origin.script("file", Reply.of(200, [FRESH, TAG], BODY))
        for _ in range(2):  # of a body that nobody had, and from the edge's store
            part = world.ask("/file/", "range: bytes=1000-1999")
            assert (part.status, part.body) == (206, BODY[1000:2000])
            assert part.field("content-range") == f"bytes 1000-1999/{len(BODY)}"
            last = world.ask("/file/", "range: bytes=-10", 'if-range: "one"')
            assert (last.status, last.body) == (206, BODY[-10:])
        order(world.edge, "purge", "all", "--yes", "--local")
        part = world.ask("/file/", "range: bytes=5-6")  # from the shield's store
        assert (part.status, part.body) == (206, BODY[5:7])
        assert world.ask("/file/", "range: bytes=5-6", 'if-range: "two"').status == 200
        assert world.ask("/file/", f"range: bytes={len(BODY)}-").status == 416
        assert world.ask("/file/").body == BODY
        assert len(world.origin.requests("file")) == 1


def test_head_is_answered_by_what_get_has_stored_and_passes_where_nothing_is(
    tmp_path: Path,
) -> None:
    with a_world(tmp_path) as world:
        world.origin.script("page", Reply.of(200, [FRESH, TAG, f"content-length: {len(BODY)}"]))
        world.origin.script("page", Reply.of(200, [FRESH, TAG], BODY))
        for _ in range(2):
            head = world.ask("/page/", method="HEAD")
            assert (head.status, head.body) == (200, b"")
            assert head.field("content-length") == str(len(BODY))
            world.ask("/page/")
        asked = [each.method for each in world.origin.requests("page")]
        assert asked in (["HEAD", "GET"], ["GET"])
        assert tiers_of(world.ask("/page/", method="HEAD"))[-1] == "edge1; hit"


@pytest.mark.parametrize("trouble", ["503", "gone"])
def test_stale_serves_while_the_origin_is_in_trouble_through_both_tiers(
    tmp_path: Path, trouble: str
) -> None:
    stale = "cache-control: max-age=1, stale-if-error=600"
    with a_world(tmp_path) as world:
        world.origin.script("page", Reply.of(200, [stale], b"old"))
        assert world.ask("/page/").body == b"old"
        bad = Reply.of(503, [], b"in trouble") if trouble == "503" else Reply((), then="reset")
        world.origin.always("page", bad)
        assert eventually(lambda: has_failed(world))
        for _ in range(6):
            told = world.ask("/page/")
            assert (told.status, told.body) == (200, b"old")
            assert int(told.field("age") or 0) >= 1


def has_failed(world: World) -> bool:
    """Ask once more; whether the origin has been asked in its trouble."""
    assert world.ask("/page/").body == b"old"
    return len(world.origin.requests("page")) > 1


def test_what_only_a_shield_has_stale_serves_an_edge_that_has_nothing(tmp_path: Path) -> None:
    stale = "cache-control: max-age=1, stale-if-error=600"
    with a_world(tmp_path) as world:
        world.origin.script("page", Reply.of(200, [stale], b"old"))
        world.origin.always("page", Reply.of(503, [], b"no"))
        assert world.ask("/page/").body == b"old"
        assert eventually(lambda: int(world.ask("/page/").field("age") or 0) >= 2)
        order(world.edge, "purge", "all", "--yes", "--local")
        told = world.ask("/page/")
        assert (told.status, told.body) == (200, b"old")
        assert tiers_of(told)[-1].startswith("edge1; fwd=uri-miss")


def test_a_purge_by_tag_at_the_shield_and_then_at_the_edge_brings_what_is_new(
    tmp_path: Path,
) -> None:
    with a_world(tmp_path) as world:
        for body in (b"one", b"two"):
            world.origin.script("page", Reply.of(200, [FRESH, "cache-tag: front, news"], body))
        assert world.ask("/page/").body == b"one"
        command(world.shield, "purge", "tag", "news")
        assert world.ask("/page/").body == b"one"  # the edge has been told nothing
        order(world.edge, "purge", "tag", "news")
        assert world.ask("/page/").body == b"two"
        order(world.edge, "purge", "tag", "front", "--local")
        again = world.ask("/page/")
        assert again.body == b"two"
        assert tiers_of(again)[0].startswith("shield1; hit")
        assert len(world.origin.requests("page")) == 2


def command(node: Node, *args: str) -> None:
    told = subprocess.run(
        [*tiers.SHIELD, *args, "--socket", str(node.admin)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr


def test_targeted_fields_count_in_both_tiers_and_do_not_reach_clients_unless_they_should(
    tmp_path: Path,
) -> None:
    with a_world(tmp_path) as world:
        fields = ["cdn-cache-control: max-age=600", "cache-control: no-store"]
        world.origin.script("page", Reply.of(200, fields, b"for tiers"))
        for _ in range(6):
            told = world.ask("/page/")
            assert (told.status, told.body) == (200, b"for tiers")
            assert told.field("cache-control") == "no-store"
        assert tiers_of(told)[-1] == "edge1; hit"
        order(world.edge, "purge", "all", "--yes", "--local")
        assert tiers_of(world.ask("/page/"))[0].startswith("shield1; hit")
        assert len(world.origin.requests("page")) == 1


def test_a_post_is_done_once_and_makes_what_was_stored_unusable(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.origin.script("page", Reply.of(200, [FRESH], b"before"))
        assert world.ask("/page/").body == b"before"
        world.origin.script("page", Reply.of(200, [], b"done"))
        told = world.ask("/page/", method="POST", body=b"an order")
        assert (told.status, told.body) == (200, b"done")
        world.origin.script("page", Reply.of(200, [FRESH], b"after"))
        for _ in range(6):
            assert world.ask("/page/").body == b"after"
        asked = world.origin.requests("page")
        assert [each.method for each in asked] == ["GET", "POST", "GET"]
        assert asked[1].body == b"an order"


def test_a_post_that_may_have_had_an_effect_is_not_done_again(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.origin.script("order", Reply((), then="reset"), Reply.of(200, [], b"twice"))
        told = world.ask("/order/", method="POST", body=b"one")
        assert told.status == 502
        assert len(world.origin.requests("order")) == 1


@pytest.mark.parametrize("without", ["origin", "fail"])
def test_a_shield_of_another_secret_is_an_error_of_ours_and_not_of_the_client(
    tmp_path: Path, without: str
) -> None:
    stranger = "another secret, that nobody else has"
    with a_world(tmp_path, without=without, secret=stranger) as world:
        world.origin.script("page", Reply.of(200, [FRESH], b"from the origin"))
        told = world.ask("/page/")
        if without == "origin":
            assert (told.status, told.body) == (200, b"from the origin")
        else:
            assert told.status == 502
            assert b"403" not in told.body
            assert world.origin.requests("page") == []
        assert eventually(lambda: "bad-proof" in world.edge.complaints())
        if without == "fail":  # nor does a body that is gone make it a client's fault
            assert world.ask("/page/", method="POST", body=b"x").status == 502


def test_an_origins_403_is_the_clients(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        forged = "cache-status: shield1; detail=bad-proof"
        world.origin.always("page", Reply.of(403, [forged, "cache-control: no-store"], b"not you"))
        for _ in range(3):
            told = world.ask("/page/")
            assert (told.status, told.body) == (403, b"not you")
        assert len(world.origin.requests("page")) == 3


def test_the_client_the_scheme_and_the_id_reach_the_origin(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.origin.script("page", Reply.of(200, ["cache-control: no-store"], b"x"))
        told = world.ask("/page/", "x-forwarded-for: 203.0.113.9", "x-forwarded-proto: https")
        assert told.status == 200
        (asked,) = world.origin.requests("page")
        assert (asked.field("x-forwarded-for") or "").startswith("203.0.113.9")
        assert asked.field("x-forwarded-proto") == "https"
        assert asked.field("edge-proof") is None
        (at_edge,) = log_of(world.edge)
        (at_shield,) = log_of(world.shield)
        assert at_edge["id"] == at_shield["id"]
        assert at_edge["client"] == at_shield["client"] == "203.0.113.9"


def test_what_the_edge_lets_in_the_shield_lets_in_with_what_the_edge_adds(tmp_path: Path) -> None:
    """A shield of an edge's limits would refuse what has been let in, and only at a miss."""
    with a_world(tmp_path, site='rewrite = { add = "/page" }') as world:
        world.origin.always("page", Reply.of(200, [FRESH], b"body"))
        many = [f"x-{number}: v" for number in range(97)]
        wide = [f"x-wide: {'v' * 16_000}"]
        for fields, target in ((many, "/a"), (wide, "/" + "b" * 7_500)):
            answer = world.ask(target, *fields)
            assert (answer.status, answer.body) == (200, b"body")
            assert tiers_of(answer)[0].startswith("shield1; fwd=uri-miss")


def test_a_shield_compresses_for_its_edges_and_they_decode_and_code_anew(tmp_path: Path) -> None:
    coded, both = "compress = { ask = 'coded', recompress_after = 0 }", "compress = {}"
    text = b"".join(b"<p>The words of this line, number %d</p>\n" % n for n in range(500))
    with a_world(tmp_path, site=coded, shield_site=both) as world:
        kind = "content-type: text/html"
        world.origin.script("page", Reply.of(200, [FRESH, kind, TAG], text))
        first = world.ask("/page/", "accept-encoding: br")
        assert first.field("content-encoding") == "br"
        assert brotli.decompress(first.body) == text
        tag = first.field("etag")
        assert tag is not None
        assert tag.startswith('"one-br.')  # the shield's: the edge has not coded anything
        assert eventually(lambda: tiers_of(world.ask("/page/"))[-1] == "edge1; hit")
        plain = world.ask("/page/", "accept-encoding: identity")
        assert (plain.field("content-encoding"), plain.body) == (None, text)
        anew = world.ask("/page/", "accept-encoding: zstd")
        assert (anew.field("content-encoding"), undone(Coding.ZSTD, anew.body)) == ("zstd", text)
        tags = [("br", tag), ("identity", plain.field("etag")), ("zstd", anew.field("etag"))]
        assert len({named for _, named in tags}) == 3
        for accepted, named in tags:
            asked = f"accept-encoding: {accepted}", f"if-none-match: {named}"
            assert world.ask("/page/", *asked).status == 304
        assert len(world.origin.requests("page")) == 1


def undone(coding: Coding, body: bytes) -> bytes:
    decoder = Decoder(coding)
    plain = b"".join(decoder.pieces(body))
    decoder.finish()
    return plain
