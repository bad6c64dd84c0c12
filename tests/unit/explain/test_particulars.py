"""The sections of an explanation; which verdict they come with is for test_verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.entry import Seq, Source, Terms, Times
from edge.cache.key import key_of
from edge.cache.purge import Cover, Manner
from edge.cache.reasons import Reason
from edge.cache.ruling import CachePolicy, Keep
from edge.cache.tags import DEFAULT_FIELDS
from edge.explain import particulars
from edge.explain.particulars import fields_of, lines, names_known
from edge.explain.question import Question
from edge.explain.verdict import explain
from edge.wire.message import Headers, RequestHead
from tests.stories.world import a_world, told

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from tests.stories.world import Edge

URL = b"http://site.example/a"
REQUEST = RequestHead(b"GET", b"http", b"site.example", b"/a")


async def explained(edge: Edge, *pairs: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    question = Question(**{"url": URL, "fields": pairs, **more})
    return await explain(question, edge.tools, edge.exchange.parts)


async def test_a_request_is_told_as_it_is_taken_and_as_it_leaves(
    autojump_clock: MockClock,
) -> None:
    async with a_world(['node.trusted_proxies=["127.0.0.0/8"]']) as (edge, _, _):
        document = await explained(
            edge,
            (b"Accept", b"a"),
            (b"X-Forwarded-For", b"192.0.2.9"),
            (b"Connection", b"close"),
            (b"Range", b"bytes=0-1"),
            url=b"http://site.example/x/../%7ea?b",
        )
        request = document["request"]
        assert (request["from"], request["trusted"]) == ("127.0.0.1", True)
        assert (request["client"], request["target"]) == ("192.0.2.9", "/~a?b")
        assert request["dropped"] == ["connection", "range"]
        assert request["rewritten"] == ["x-forwarded-for"]
        assert document["route"] == {
            "goes": "leads",
            "arms": [],
            "place": None,
            "via": None,
            "origins": [
                {
                    "name": "default",
                    "alive": True,
                    "servers": [{"server": "http://origin.example:80", "state": "up"}],
                }
            ],
            "origin": "default",
            "host": "site.example",
            "target": "/~a?b",
            "conditions": {},
        }


async def test_a_site_is_told_by_what_differs_from_the_usual(autojump_clock: MockClock) -> None:
    rule = '{match={path="*.css",methods=["GET","HEAD"]},cache={ttl="1m",targets=["x-control"]}}'
    whole = '{match={},cache={vary={unordered=["x-kind"]}}}'
    hosts = '{match={hosts=["other.example"]},cache={}}'
    async with a_world([f"site.rule=[{rule},{hosts},{whole}]"]) as (edge, _, _):
        css = (await explained(edge, url=b"http://site.example/a.css"))["site"]
        assert css["rule"] == {"index": 0, "match": "path *.css; methods GET, HEAD"}
        assert css["cache"] == {
            "ttl": 60.0, "targets": ["x-control"], "by_extension": "css",
        }  # fmt: skip
        other = (await explained(edge, url=b"http://other.example/"))["site"]
        assert other == {
            "name": "*", "host": "*", "rule": {"index": 1, "match": "hosts other.example"},
            "rules": 3, "cache": {}, "by_type": [],
        }  # fmt: skip
        rest = (await explained(edge))["site"]
        assert rest["rule"] == {"index": 2, "match": "everything"}
        assert rest["cache"] == {"vary.unordered": ["x-kind"]}


async def test_a_key_is_told_with_its_parts(autojump_clock: MockClock) -> None:
    sets = ['site.key.cookies=["a","b","none"]', 'site.key.headers=["x-kind"]']
    async with a_world(sets) as (edge, _, _):
        fields = ((b"Cookie", b"a=1; b=2; b="), (b"X-Kind", b"7:\xff"))
        key = (await explained(edge, *fields))["key"]
        broken = (await explained(edge, (b"Cookie", b"a=1; b"), (b"Cookie", b"c")))["key"]
        assert key["url"] == "http://site.example/a"
        assert len(key["digest"]) == 32
        assert key["parts"] == {
            "scheme": "http", "host": "site.example", "target": "/a",
            "header x-kind": "7:\\xff", "cookie a": "1", "cookie b": ["2", ""],
            "cookie none": None,
        }  # fmt: skip
        assert broken["parts"]["cookies"] == ["a=1; b", "c"]
        assert broken["parts"]["header x-kind"] is None


async def test_a_variant_is_told_in_the_fields_that_answers_vary_on(
    autojump_clock: MockClock,
) -> None:
    async with a_world() as (edge, origin, client):
        assert (await explained(edge))["variant"] is None
        fields = {"Cache-Control": "max-age=60", "Vary": "Accept-Encoding, Cookie"}
        for cookie in ("a=1", "a=2"):
            sent = client.send("GET", "/a", {"Cookie": cookie})
            await told(origin, sent, 200, fields, b"x")
            await edge.settle()
        document = await explained(edge, (b"Accept-Encoding", b"GZIP, br"))
        assert document["variant"] == {
            "fields": {"accept-encoding": "br,gzip", "cookie": None}, "stored": 2, "purged": 0,
            "variants": [
                {"accept-encoding": None, "cookie": "a=2"},
                {"accept-encoding": None, "cookie": "a=1"},
            ],
        }  # fmt: skip
        assert document["stored"] is None
        assert document["purges"]["scopes"] == []
        assert "the request selects none of them" in document["decision"]
        found = await explained(edge, (b"Cookie", b"a=2"))
        assert found["stored"]["other_variants"] == 1


async def test_what_varies_on_everything_is_for_no_one(autojump_clock: MockClock) -> None:
    async with a_world() as (edge, origin, client):
        await told(origin, client.send("GET", "/a"), 200, {"Cache-Control": "max-age=60"}, b"x")
        await edge.settle()
        key = key_of(b"http", b"site.example", b"/a", REQUEST)
        (held,) = (await edge.store.look(key)).variants
        assert fields_of(held.entry) == {}
        assert fields_of(replace(held.entry, vary_any=True)) == {"*": None}


async def test_what_is_stored_is_told_with_its_age_as_a_sum(autojump_clock: MockClock) -> None:
    async with a_world() as (edge, origin, client):
        fields = {"Cache-Control": "max-age=60", "Age": "5", "ETag": '"1"'}
        await told(origin, client.send("GET", "/a"), 200, fields, b"body")
        await edge.settle()
        edge.advance(10)
        document = await explained(edge)
        then = edge.now - 10
        assert document["stored"] == {
            "state": "live", "status": 200, "bytes": 4, "where": "memory", "etag": '"1"',
            "last_modified": None, "asked_at": then, "stored_at": then, "hits": 0, "purge": 0,
            "other_variants": 0,
        }  # fmt: skip
        age = document["freshness"]
        assert (age["age_s"], age["arrived_s"], age["resident_s"]) == (15.0, 5.0, 10.0)
        assert max(age["by_date_s"], age["by_age_field_s"]) == age["arrived_s"]
        assert (age["lifetime_s"], age["source"], age["ttl_s"]) == (60.0, "max-age", 45.0)
        assert age["keep_until"] > edge.now
        assert document["decision"][-2:] == ["it is fresh for 45 s more", "so: hit"]
        assert document["request"]["at"] == edge.now


async def test_a_body_on_disk_is_told_to_be_there(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_world((), tmp_path / "store") as (edge, origin, client):
        fields = {"Cache-Control": "max-age=60"}
        await told(origin, client.send("GET", "/a"), 200, fields, b"x" * 50_000)
        await edge.settle()
        assert (await explained(edge))["stored"]["where"] == "both"
        edge.store._ram.clear()
        assert (await explained(edge))["stored"]["where"] == "disk"


async def test_a_small_body_that_was_read_to_be_told_of_is_on_disk_as_in_a_listing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_world((), tmp_path / "store") as (edge, origin, client):
        fields = {"Cache-Control": "max-age=60"}
        await told(origin, client.send("GET", "/a"), 200, fields, b"x")
        await edge.settle()
        assert (await explained(edge))["stored"]["where"] == "both"
        edge.store._ram.clear()
        assert (await explained(edge))["stored"]["where"] == "disk"
        items = await edge.store.scan().next()
        assert items is not None
        assert (items[0].in_memory, items[0].on_disk) == (False, True)


async def test_what_has_been_purged_is_told_of(autojump_clock: MockClock) -> None:
    async with a_world() as (edge, origin, client):
        fields = {"Cache-Control": "max-age=60", "xkey": "front"}
        await told(origin, client.send("GET", "/a"), 200, fields, b"x")
        await edge.settle()
        await edge.purge(tag=["front"])
        document = await explained(edge)
        assert document["variant"]["purged"] == 1
        assert "the request selects one that has been purged" in document["decision"]
        assert document["purges"]["scopes"] == [
            "url site.example/a", "host site.example", "prefix site.example/",
            "prefix site.example/a/", "tag front",
        ]  # fmt: skip
        assert document["purges"]["unnamed"] == 0


async def test_scopes_that_the_fields_no_longer_tell_are_counted(
    autojump_clock: MockClock,
) -> None:
    async with a_world(['site.tags=["x-tag"]']) as (edge, origin, client):
        fields = {"Cache-Control": "max-age=60", "x-tag": "front"}
        await told(origin, client.send("GET", "/a"), 200, fields, b"x")
        await edge.settle()
    async with a_world() as (other, _, _):
        document = await explain(Question(URL), edge.tools, other.exchange.parts)
        assert document["purges"]["tags"] == []
        assert document["purges"]["unnamed"] == 2  # on every host, and on this one


async def test_what_the_last_answers_taught_is_told(autojump_clock: MockClock) -> None:
    async with a_world() as (edge, origin, client):
        await told(origin, client.send("GET", "/a"), 200, {"Cache-Control": "private"}, b"x")
        await edge.settle()
        flight = (await explained(edge))["flight"]
        assert flight == {
            "aloft_s": None, "overtaken": False, "lonely": True, "troubled": False,
        }  # fmt: skip


async def test_upgrades_and_refreshes_leave_as_they_would(autojump_clock: MockClock) -> None:
    async with a_world() as (edge, origin, client):
        fields = {"Cache-Control": "max-age=1, stale-while-revalidate=60", "ETag": '"1"'}
        await told(origin, client.send("GET", "/a"), 200, fields, b"x")
        await edge.settle()
        edge.advance(5)
        behind = await explained(edge, (b"Cookie", b"a=1"))
        assert behind["route"]["conditions"] == {"if-none-match": '"1"'}
        assert behind["request"]["dropped"] == ["cookie"]
        upgrade = await explained(edge, (b"Connection", b"upgrade"), (b"Upgrade", b"websocket"))
        assert upgrade["request"]["dropped"] == []


@pytest.mark.parametrize("value", [b"\x1b[2J\n", b"\xff\x00", "\u202etxt".encode()])
async def test_nothing_that_is_told_moves_a_cursor(
    value: bytes, autojump_clock: MockClock
) -> None:
    async with a_world() as (edge, _, _):
        fields = ((b"X", value.replace(b"\n", b"")), (b"Cookie", value.replace(b"\n", b"")))
        told_of = msgspec.json.encode(await explained(edge, *fields)).decode()
        assert told_of.isprintable()


words = st.text("abc", min_size=1, max_size=3).map(str.encode)


@given(tags=st.lists(words, max_size=4, unique=True), others=st.lists(words, max_size=4))
def test_the_names_that_are_known_are_those_that_were_given(
    tags: list[bytes], others: list[bytes]
) -> None:
    key = key_of(b"http", b"site.example", b"/a", REQUEST)
    headers = Headers([(b"xkey", b" ".join((*tags, *others)))])
    keep = Keep(Terms(1.0, Source.NONE), headers, 1.0, 1.0, 0, (), tuple(tags))
    assert keep.because is Reason.STORED
    entry = keep.entry(key, 200, Times(1.0, 1.0), Seq(0))
    named = {name[1:] for name in names_known(entry, DEFAULT_FIELDS) if name[:1] == b"t"}
    assert named == set(tags)
    assert CachePolicy().tags == DEFAULT_FIELDS


def test_what_is_very_long_is_cut() -> None:
    assert len(lines(b"x" * 100_000)) < 10_000


def test_a_host_of_which_too_much_was_purged_is_told_as_that() -> None:
    cover = particulars._cover(Cover(Seq(1), Manner.HARD, b"hsite.example", is_floor=True), None)
    assert cover["scope"] == "host site.example, or too much on it to be remembered"


async def test_where_it_goes_is_told_by_arm_and_rule(autojump_clock: MockClock) -> None:
    arms = 'arms={a={weight=1},b={weight=0,route=["other"],prefix="/b"}}'
    sets = [
        'origin.other={servers=["http://o-1","http://o-2"],host="inner.example"}',
        f'site.experiment=[{{name="e",cookie={{name="ab"}},{arms}}}]',
        'site.rewrite={add="/r"}',
    ]
    async with a_world(sets) as (edge, _, _):
        plain = (await explained(edge))["route"]
        assert (plain["origin"], plain["host"], plain["target"]) == (
            "default", "site.example", "/r/a",
        )  # fmt: skip
        armed = (await explained(edge, (b"Cookie", b"ab=b")))["route"]
        assert (armed["origin"], armed["host"], armed["target"]) == (
            "other", "inner.example", "/b/r/a",
        )  # fmt: skip
        assert armed["arms"] == [{"experiment": "e", "arm": "b", "by": "cookie", "keyed": True}]
