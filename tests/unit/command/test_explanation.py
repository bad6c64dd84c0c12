"""Explanations in words, whatever stands in their documents."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings

from edge.command.explanation import explained
from edge.command.status import clean
from tests.unit.documents import documents


def test_a_verdict_comes_first() -> None:
    text = explained({"site": "shop", "key": {"host": "h"}, "verdict": "hit"})
    assert [line.split() for line in text.splitlines()] == [
        ["verdict", "hit"], ["site", "shop"], ["key"], ["host", "h"],
    ]  # fmt: skip
    assert explained({"site": "shop"}) == "site  shop\n"


# What would be done with a request.

NOW = 1_795_247_942.0
EXPLAINED = {
    "verdict": {"outcome": "stale", "reason": "stale-while-revalidate", "status": 200,
                "says": "answered from the store: stale for 1 s"},
    "coding": {"coding": "br", "why": None, "says": "br (of br, gzip), being made",
               "state": "begun", "bytes": None, "of_bytes": 9},
    "request": {"method": "GET", "url": "http://a.example/x", "from": "10.0.0.1", "trusted": True,
                "notes": [], "client": "192.0.2.9", "target": "/x", "dropped": ["cookie"],
                "rewritten": [], "at": NOW},
    "site": {"name": "shop", "host": "*.example", "rule": {"index": 0, "match": "path /x"},
             "rules": 2, "cache": {"ttl": 90.0, "max_stale": 86400.0, "bypass": False,
                                   "heuristic_fraction": 0.2, "targets": ["a", "b"],
                                   "default_ttl": 0.0}},
    "key": {"url": "http://a.example/x", "digest": "00", "parts": {
        "scheme": "http", "cookie my_id_s": "de", "cookie none": None}},
    "variant": {"fields": {"x-v": None}, "stored": 2, "purged": 1,
                "variants": [{"x-v": "a"}, {"x-v": "b", "y": None}]},
    "stored": {"state": "live", "status": 200, "bytes": 2048, "where": "disk", "etag": None,
               "asked_at": NOW - 1, "stored_at": NOW + 60, "hits": 0, "purge": 3,
               "other_variants": 0},
    "freshness": {"age_s": 3.1, "by_date_s": 0.4, "by_age_field_s": 0.0, "resident_s": 2.7,
                  "arrived_s": 0.4, "lifetime_s": 2.0, "source": "max-age", "ended_early_s": 0.0,
                  "ttl_s": -1.1, "stale_while_revalidate_s": 60.0, "stale_if_error_s": 86400.0,
                  "always_validate": False, "keep_until": NOW + 7200},
    "purges": {"latest": 16, "floor": 0, "tags": ["front"], "scopes": [], "unnamed": 0,
               "covering": [{"number": 16, "manner": "soft", "scope": "tag front",
                             "when": NOW - 180, "who": "uid 0, pid 7"},
                            {"number": 15, "manner": "hard", "scope": "everything",
                             "when": None, "who": None}, 7]},
    "decision": ["the site is shop", "so: stale-while-revalidate"],
    "flight": {"aloft_s": 0.25, "overtaken": False, "lonely": True, "troubled": False},
    "route": {"goes": "behind",
              "arms": [{"experiment": "ab", "arm": "new", "by": "cookie", "keyed": True},
                       {"experiment": "b", "arm": "old", "by": "chance", "keyed": False}],
              "place": {"country": "DE", "continent": "EU", "subdivision": None, "at": [50.1, 8]},
              "via": {"name": "shield", "servers": [{"server": "http://s", "state": "up"}],
                      "first": "http://s", "without": "origin"},
              "origins": [{"name": "eu", "alive": True,
                           "servers": [{"server": "http://a", "state": "up"},
                                       {"server": "http://b", "state": "ejected"}]},
                          {"name": "us", "servers": []}],
              "origin": "eu", "host": "o", "conditions": {}},
}  # fmt: skip
IN_WORDS = """\
verdict  stale: answered from the store: stale for 1 s [stale-while-revalidate, status 200]
decision
  the site is shop
  so: stale-while-revalidate
coding   br (of br, gzip), being made
request
  for      GET http://a.example/x
  from     10.0.0.1, a trusted proxy
  client   192.0.2.9
  target   /x
  dropped  cookie
site
  name  shop
  host  *.example
  rule  1 of 2: path /x (the first match wins)
  cache
    ttl = 90s
    max_stale = 1d
    bypass = false
    heuristic_fraction = 0.2
    targets = a, b
    default_ttl = 0s
key
  url     http://a.example/x
  parts
    scheme          http
    cookie my_id_s  de
    cookie none     -
  digest  00
variant
  stored  2, of which purged: 1
  asked for
    x-v  -
  there is
    x-v: a
    x-v: b; y: -
stored
  state               live
  status              200
  size                2.0 KiB
  where               disk
  asked at            2026-11-21T07:59:01Z (1 s ago)
  stored at           2026-11-21T08:00:02Z (in 60 s)
  hits                0
  looked up at purge  3
freshness
  age                     3.1 s = 0.4 s on arrival (the larger of Date 0.4, Age 0) + 2.7 s here
  ttl                     -1.1 s = lifetime 2 s (max-age) - age 3.1 s
  stale while revalidate  60 s
  stale if error          86400 s (24h)
  kept until              2026-11-21T09:59:02Z (in 2 h)
purges
  covering
    purge 16 (soft): tag front; 2026-11-21T07:56:02Z (3 m ago), uid 0, pid 7
    purge 15 (hard): everything
    7
  latest  16
  tags    front
flight
  under way  for 0.2 s
  lonely     yes
route
  goes    behind the answer
  arms
    ab: new, by cookie; in the key
    b: old, by chance; not in the key
  place   DE, EU, at 50.1, 8
  via
    shield: http://s up
    first http://s; when none answers, the origins are asked
  origins
    eu: http://a up, http://b ejected
    us: -
  origin  eu
  host    o
"""


def test_a_verdict_comes_first_then_how_it_came_about_then_the_rest_in_units() -> None:
    assert explained(EXPLAINED) == IN_WORDS


def test_a_shield_that_is_not_gone_around_is_told_so() -> None:
    via: dict[str, Any] = {"name": "shield", "servers": [], "first": None, "without": "fail"}
    assert explained({"route": {"via": via, "more": 1}}).splitlines() == [
        "route",
        "  via",
        "    shield: -",
        "    first -; when none answers, the request fails",
        "  more  1",
    ]


def test_what_is_fetched_or_refused_is_told_in_one_sentence() -> None:
    says = {"says": "fetched from the origin: nothing", "outcome": "fetch", "reason": "uri-miss"}
    assert explained({"verdict": says}) == (
        "verdict  fetched from the origin: nothing [uri-miss]\n"
    )
    hit = {"says": "fresh", "outcome": "hit", "reason": "hit", "status": None}
    assert explained({"verdict": hit}) == "verdict  hit: fresh\n"
    assert explained({"verdict": {**hit, "more": 1}}) == "verdict\n  says  hit: fresh\n  more  1\n"


def test_a_site_without_a_rule_for_a_request_says_so() -> None:
    site = {"name": "a", "rule": None, "rules": 3}
    assert "rule  none of 3 takes it; the site's own terms hold" in explained({"site": site})
    assert "rule" not in explained({"site": {**site, "rules": 0}})
    assert "rule  1: a (" in explained({"site": {"rule": {"index": 0, "match": "a"}}})
    assert "rule  -: a (" in explained({"site": {"rule": {"match": "a"}}})


def test_a_lifetime_that_a_purge_ended_is_told_with_what_it_took() -> None:
    age = {"age_s": 605.0, "arrived_s": 0.0, "lifetime_s": 3600.0, "ended_early_s": 3000.0,
           "source": "max-age", "always_validate": True, "stale_if_error_s": 0.0}  # fmt: skip
    assert explained({"freshness": age}).splitlines()[1:] == [
        "  age               605 s (10m) = 0 s on arrival (the larger of Date 0, Age 0) "
        "+ 605 s here",
        "  ttl               -5 s = lifetime 600 s (max-age 3600 s, ended 3000 s early by a soft "
        "purge) - age 605 s",
        "  always validated  yes",
    ]


def test_a_long_lifetime_has_all_its_digits() -> None:
    age = {"age_s": 1.0, "arrived_s": 0.0, "lifetime_s": 31_536_000.0, "source": "max-age"}
    ttl = explained({"freshness": age}).splitlines()[-1]
    assert ttl == "  ttl  31535999 s (365d) = lifetime 31536000 s (max-age) - age 1 s"
    assert "ttl = 1234567s" in explained({"site": {"cache": {"ttl": 1_234_567.0}}})
    assert "ttl = 0.25s" in explained({"site": {"cache": {"ttl": 0.25}}})


def test_a_sum_that_lacks_a_part_is_left_out() -> None:
    assert explained({"freshness": {"age_s": 5.0, "source": "max-age"}}) == ""
    assert explained({"freshness": {"lifetime_s": 5.0, "new": "x"}}) == "freshness\n  new  x\n"


def test_a_moment_is_told_by_its_time_alone_where_now_is_not_known() -> None:
    text = explained({"stored": {"stored_at": NOW, "asked_at": "soon"}})
    assert text == "stored\n  stored at  2026-11-21T07:59:02Z\n"


@settings(max_examples=200)
@given(documents)
def test_whatever_a_node_explains_has_lines_that_are_safe_to_print(
    document: dict[str, Any],
) -> None:
    assert all(line == clean(line) for line in explained(document).splitlines())
