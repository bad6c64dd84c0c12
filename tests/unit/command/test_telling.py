from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from edge.command.status import clean
from edge.command.telling import (
    faults,
    looked,
    matched,
    purged,
    purges,
    span,
    stored,
    unacknowledged,
)
from tests.unit.documents import documents


def test_a_purge_is_told_with_its_number_and_its_milliseconds() -> None:
    document = {"number": 17, "soft": False, "scopes": 1}
    assert purged(document, "url", 2.34) == "purge 17: 1 url, 2.3 ms"
    soft = {"number": 18, "soft": True, "scopes": 3}
    assert purged(soft, "prefix", 2.0) == "purge 18: 3 prefixes, soft, 2.0 ms"
    assert purged(document, "all", 0.04) == "purge 17: everything, 0.0 ms"
    assert purged(soft, "all", 1) == "purge 18: everything, soft, 1.0 ms"


@pytest.mark.parametrize("found", [None, [], 7, [7], {}])
def test_where_no_shield_is_late_nothing_is_said(found: object) -> None:
    assert unacknowledged({"late": found}) == []


def test_a_shield_that_is_late_is_named_on_a_line_that_is_safe_to_print() -> None:
    told = unacknowledged(
        {"late": [{"url": "http://a:80\x1b", "why": "no\nanswer", "owed": True}]}
    )
    assert told[0] == "purged here, but a shield has not acknowledged it:"
    assert all(line.isprintable() for line in told)


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


def test_a_coded_variant_has_its_coding_behind_it() -> None:
    line = {"url": "http://a.example/x", "variant": [["cookie", "a"]], "coding": "br"}
    assert stored(line).endswith(" http://a.example/x [cookie: a] (br)")
    assert stored({**line, "variant": [], "coding": None}).endswith(" http://a.example/x")
    assert stored({**line, "coding": "\x1b"}).endswith("[cookie: a] (?)")


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


@settings(max_examples=200)
@given(documents)
def test_whatever_a_node_says_has_a_line_that_is_safe_to_print(document: dict[str, Any]) -> None:
    lines = [stored(document), *purges(document), *faults(document, ["a"])]
    lines += [purged(document, "tag", 1.0), looked(document), matched(document)]
    lines += [*purges(document, 80), *unacknowledged({"late": [document]})]
    assert all(line == clean(line) for line in lines)
