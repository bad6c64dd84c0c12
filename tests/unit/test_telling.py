from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.status import clean
from edge.telling import explained, faults, looked, matched, purged, purges, span, stored


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
    assert lines[1].endswith("uid 0, pid 123           tag front, tag b, and 3 more")
    assert lines[2].endswith("everything")
    assert lines[3].endswith(" tag c")
    assert len(lines) == 4


@pytest.mark.parametrize("document", [{}, {"purges": []}, {"purges": 7}])
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
        "5 tags are bad",
        'tag[0]: "a b" has a space',
        'tags.txt:7: "a?" has a control',
        'tag[9]: "x" is bad',
        "soft: is no switch",
        "is wrong",
        "strange",
    ]


def test_a_refusal_without_words_has_some() -> None:
    assert [*faults({"title": "Busy"})] == ["Busy"]
    assert [*faults({"faults": 7})] == ["the node refused"]


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
names = st.sampled_from(
    ["url", "variant", "bytes", "age_s", "ttl_s", "hits", "state", "number", "when", "who",
     "scopes", "count", "everything", "purges", "faults", "path", "value", "message", "detail"]
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
    assert all(line == clean(line) for line in lines)
