from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.status import clean
from edge.telling import explained, faults, late, looked, matched, purged, purges, span, stored


def test_a_purge_is_told_with_its_number_and_its_milliseconds() -> None:
    document = {"number": 17, "soft": False, "scopes": 1}
    assert purged(document, "url", 2.34) == "purge 17: 1 url, 2.3 ms"
    soft = {"number": 18, "soft": True, "scopes": 3}
    assert purged(soft, "prefix", 2.0) == "purge 18: 3 prefixes, soft, 2.0 ms"
    assert purged(document, "all", 0.04) == "purge 17: everything, 0.0 ms"
    assert purged(soft, "all", 1) == "purge 18: everything, soft, 1.0 ms"


def test_a_count_is_told_while_it_runs_and_when_it_is_done() -> None:
    line = {"looked_at": 10, "of": 20, "matches": 3, "bytes": 2048}
    assert looked(line) == "looked at 10 of 20: 3 match"
    assert matched(line) == "3 of 20 stored objects match, 2.0 KiB; nothing was purged"


def test_a_stored_object_is_one_line() -> None:
    line = stored(
        {
            "url": "http://a.example/\x1b[2J",
            "variant": [["accept-encoding", "gzip"], ["accept-language", "de"]],
            "status": 200,
            "bytes": 1536,
            "age_s": 12.4,
            "ttl_s": -600,
            "hits": None,
            "state": "soft-purged",
        }
    )
    assert line == (
        "   1.5 KiB    12s   -10m       - soft-purged "
        "http://a.example/?[2J [accept-encoding: gzip; accept-language: de]"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (-180, "-3m"), (7200, "2h"), (172_800, "2d")],
)
def test_a_time_is_told_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert span(seconds) == text
    assert span("soon") == "soon"


def test_purges_are_told_with_who_and_when_and_what() -> None:
    lines = [
        *purges(
            {
                "purges": [
                    {
                        "number": 17, "when": 1795240936.6, "who": "uid 0, pid 123",
                        "manner": "soft", "everything": False,
                        "scopes": ["tag front", "tag b"], "count": 5,
                    },
                    {"number": 18, "when": None, "everything": True},
                    {"number": 19, "when": 1e300, "scopes": ["tag c"], "count": 1},
                    "strange",
                ]
            }
        )
    ]  # fmt: skip
    assert lines[0].split() == ["number", "when", "manner", "who", "what"]
    assert lines[1].split(maxsplit=3)[:3] == ["17", "2026-11-21T06:02:16Z", "soft"]
    assert lines[1].endswith("uid 0, pid 123 tag front, tag b, and 3 more")
    assert lines[2].endswith("everything")
    assert lines[3].endswith(" tag c")
    assert len(lines) == 4


def test_purges_are_cut_to_a_terminal_and_to_nothing_else() -> None:
    long = {"number": 1, "who": "w" * 60, "scopes": [f"url a.example/{n}" for n in range(20)]}
    document = {"purges": [{**long, "count": 20}]}
    assert all(len(line) <= 100 for line in purges(document, 100))
    row = [*purges(document, 100)][1]
    assert " " + "w" * 39 + "… url a.example/0," in row
    assert row.endswith("…")
    whole = [*purges(document)][1]
    assert "w" * 60 + " url" in whole
    assert whole.endswith("a.example/19")
    assert [*purges(document, 0)][1] == "…"


@pytest.mark.parametrize("document", [{}, {"purges": []}, {"purges": 7}, {"purges": [7]}])
def test_no_purges_are_told_in_words(document: dict[str, Any]) -> None:
    assert [*purges(document)] == ["nothing has been purged"]


def test_a_verdict_comes_first() -> None:
    text = explained({"site": "shop", "key": {"host": "h"}, "verdict": "hit"})
    assert [line.split() for line in text.splitlines()] == [
        ["verdict", "hit"], ["site", "shop"], ["key"], ["host", "h"],
    ]  # fmt: skip
    assert explained({"site": "shop"}) == "site  shop\n"


def test_every_fault_is_told_at_the_place_its_name_came_from() -> None:
    document = {
        "detail": "5 tags are bad",
        "faults": [
            {"path": "tag[0]", "value": "a b", "message": "has a space"},
            {"path": "tag[1]", "value": "a\x1b", "message": '"a\x1b" has a control'},
            {"path": "tag[9]", "value": "x", "message": "is bad"},
            {"path": "soft", "value": None, "message": "is no switch"},
            {"message": ""},
            "strange",
        ],
    }
    assert [*faults(document, ["", "tags.txt:7"])] == [
        "the node refused: 6 faults",
        'tag[0]: "a b" has a space',
        'tags.txt:7: "a?" has a control',
        'tag[9]: "x" is bad',
        "soft: is no switch",
        "is wrong",
        "strange",
    ]


def test_a_purge_with_faults_is_refused_in_one_line_and_a_line_a_fault() -> None:
    fault = {"path": "tag[0]", "value": "a", "message": "has a letter"}
    nothing = {"path": "", "value": "", "message": "purges nothing"}
    title = {"title": "not purged", "detail": "tag[0]: has a letter"}
    assert [*faults({**title, "faults": [fault] * 20, "more": 10})] == [
        "nothing was purged: 30 faults", *['tag[0]: "a" has a letter'] * 20, "… and 10 more",
    ]  # fmt: skip
    assert [*faults({**title, "faults": [nothing]})] == [
        "nothing was purged: 1 fault", "purges nothing",
    ]  # fmt: skip
    empty = {"path": "host[0]", "value": "", "message": "is empty"}
    assert [*faults({**title, "faults": [empty]})][1] == 'host[0]: "" is empty'


def test_settings_with_faults_are_told_by_file_and_line() -> None:
    fault = {"line": 9, "path": "cache.ttl", "value": '"5 mins"', "message": "is not a duration"}
    title = {"title": "settings not taken", "detail": "…"}
    listed = [{**fault, "file": "edge.toml"}, fault, {**fault, "line": None, "file": "edge.toml"},
              {"line": None, "path": "", "value": None, "message": "is no TOML"}]  # fmt: skip
    assert [*faults({**title, "faults": listed})] == [
        "settings not taken; the old ones stay",
        'edge.toml:9: cache.ttl: "5 mins" is not a duration',
        'line 9: cache.ttl: "5 mins" is not a duration',
        'edge.toml: cache.ttl: "5 mins" is not a duration',
        "is no TOML",
    ]


def test_a_refusal_without_words_has_some() -> None:
    assert [*faults({"title": "Busy"})] == ["Busy"]
    assert [*faults({"faults": 7})] == ["the node refused"]


# What would be done with a request.

NOW = 1_795_247_942.0
EXPLAINED = {
    "verdict": {"outcome": "stale", "reason": "stale-while-revalidate", "status": 200,
                "says": "answered from the store: stale for 1 s"},
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
    "route": {"goes": "behind", "origin": "a", "server": "http://o", "conditions": {}},
}  # fmt: skip
IN_WORDS = """\
verdict  stale: answered from the store: stale for 1 s [stale-while-revalidate, status 200]
decision
  the site is shop
  so: stale-while-revalidate
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
  goes    behind
  origin  a
  server  http://o
"""


def test_a_verdict_comes_first_then_how_it_came_about_then_the_rest_in_units() -> None:
    assert explained(EXPLAINED) == IN_WORDS


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


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
names = st.sampled_from(
    ["url", "variant", "bytes", "age_s", "ttl_s", "hits", "state", "number", "when", "who",
     "scopes", "count", "everything", "purges", "faults", "path", "value", "message", "detail",
     "verdict", "request", "site", "rule", "rules", "cache", "key", "parts", "variants", "fields",
     "stored", "freshness", "lifetime_s", "arrived_s", "covering", "flight", "route", "at", "line",
     "stored_at", "conditions", "more", "title", "outcome", "says", "index", "purged"]
)  # fmt: skip
documents = st.recursive(
    st.dictionaries(names, anything),
    lambda inner: st.dictionaries(names, anything | st.lists(inner | anything) | inner),
)


@settings(max_examples=200)
@given(documents)
def test_whatever_a_node_says_has_a_line_that_is_safe_to_print(document: dict[str, Any]) -> None:
    lines = [stored(document), *purges(document), *faults(document, ["a"])]
    lines += [purged(document, "tag", 1.0), looked(document), matched(document)]
    lines += [*purges(document, 80), *explained(document).splitlines()]
    assert all(line == clean(line) for line in lines)


@pytest.mark.parametrize("found", [None, [], 7, [7], {}])
def test_where_no_shield_is_late_nothing_is_said(found: object) -> None:
    assert late({"late": found}) == []


def test_a_shield_that_is_late_is_named_on_a_line_that_is_safe_to_print() -> None:
    told = late({"late": [{"url": "http://a:80\x1b", "why": "no\nanswer", "owed": True}]})
    assert told[0] == "purged here, but a shield has not acknowledged it:"
    assert all(line.isprintable() for line in told)
