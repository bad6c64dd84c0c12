from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.command.status import WIDTH, as_text, ask, clean, overview, size, told
from tests.unit.standin import replying, standing_in

if TYPE_CHECKING:
    from pathlib import Path


def test_a_status_is_told_in_words_and_units() -> None:
    text = as_text(
        {
            "version": "0.1.0",
            "uptime_s": 12.0,
            "hit_ratio": 0.756,
            "store": {"memory_bytes": 1536, "disk_bytes": 3 * 2**40, "objects": 4, "on": True},
            "origins": {"e\x1bu": {"open": 1, "last_error": None}},
            "listen": ["[::]:80", "0.0.0.0:80"],
        }
    )
    assert text.splitlines() == [
        "version    0.1.0",
        "uptime     12 s",
        "hit ratio  75.6%",
        "store",
        "  memory   1.5 KiB",
        "  disk     3.0 TiB",
        "  objects  4",
        "  on       yes",
        "origins",
        "  e?u",
        "    open        1",
        "    last error  -",
        "listen     [::]:80, 0.0.0.0:80",
    ]


def test_sentences_and_tables_in_a_list_have_lines_of_their_own() -> None:
    text = as_text(
        {
            "age": ["12 s since it was made", "+ 3 s on the way"],
            "rules": [{"path": "/a", "then": {"ttl_s": 5}}, {}, {"path": "/b"}],
            "none": [],
        }
    )
    assert text.splitlines() == [
        "age",
        "  12 s since it was made",
        "  + 3 s on the way",
        "rules",
        "  - path  /a",
        "    then",
        "      ttl  5 s",
        "  - ",
        "  - path  /b",
        "none  -",
    ]


def test_times_in_a_table_are_in_the_unit_of_the_table() -> None:
    text = as_text({"first_byte_s": {"count": 3, "sum": 61.5, "p50": 0.0004, "p99": 0.25}})
    assert text.splitlines() == [
        "first byte",
        "  count  3",
        "  sum    61.500 s",
        "  p50    0.4 ms",
        "  p99    250 ms",
    ]


def test_names_that_differ_in_their_unit_alone_are_told_apart() -> None:
    text = as_text({"removed": 57, "removed_bytes": 51_712, "removed_s": 2, "left": 0})
    assert text.splitlines() == [
        "removed rows  57",
        "removed size  50.5 KiB",
        "removed time  2 s",
        "left          0",
    ]


def test_what_is_empty_is_a_dash() -> None:
    assert as_text({"fault": "", "origins": {}, "a": ()}) == "fault    -\norigins  -\na        -\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**30, "1.0 GiB"), (2**50, "1024.0 TiB")],
)
def test_a_size_is_told_in_the_unit_that_suits_it(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"), [(False, "no"), (7, "7"), (0.5, "0.5"), (None, "-"), ("a\x9bb", "a?b")]
)
def test_a_value_without_a_unit_is_told_as_it_is(value: object, text: str) -> None:
    assert told("value", value) == text


def test_an_overview_has_a_table_on_its_line_and_tables_that_are_alike_as_rows() -> None:
    text = overview(
        {
            "name": "fra1",
            "workers": [
                {"slot": 0, "up_s": 2.5, "fine": True},
                {"slot": 1, "up_s": 2, "fine": False},
            ],
            "errors": {},
            "first_byte_s": {"count": 3, "p50": 0.25},
            "store": {"filling": 0, "disk": {"rows": 4, "kept_bytes": 2048}, "places": {"a": 1}},
            "origins": {"e\x1bu": {"open": 1, "idle": 20}, "us": {"open": 0, "idle": 0}},
        }
    )
    assert text.splitlines() == [
        "name        fra1",
        "workers",
        "  slot       up  fine",
        "  0     2.500 s   yes",
        "  1         2 s    no",
        "errors      -",
        "first byte  count 3, p50 250 ms",
        "store       filling 0",
        "  disk    rows 4, kept 2.0 KiB",
        "  places  a 1",
        "origins",
        "       open  idle",
        "  e?u     1    20",
        "  us      0     0",
    ]


def test_an_overview_keeps_to_its_width() -> None:
    wide = {f"a rather long name {n}": n for n in range(12)}
    lines = overview({"many": wide, "rows": {"a": wide, "b": wide}}).splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert lines[0].startswith("many  a rather long name 0 0, ")
    assert lines[1].startswith("      a rather long name ")
    assert "  a  a rather long name 0 0, " in "\n".join(lines)


@pytest.mark.parametrize(("moment", "text"), [(1.7e9, "2023-11-14T22:13:20Z"), (1e300, "1e+300")])
def test_a_moment_has_a_date(moment: float, text: str) -> None:
    assert overview({"built_unix": moment}) == f"built  {text}\n"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.dictionaries(st.text(), json, max_size=4))
def test_whatever_a_node_says_has_a_text_that_is_safe_to_print(document: dict[str, Any]) -> None:
    for text in (as_text(document), overview(document)):
        assert all(line == clean(line) for line in text.split("\n"))


def test_tables_in_tables_without_end_are_told_on_one_line() -> None:
    document: dict[str, Any] = {}
    for _ in range(500):
        document = {"a": document}
    assert len(as_text(document).splitlines()) == 17
    assert len(overview(document).splitlines()) == 16


def test_the_status_is_asked_of_a_node(tmp_path: Path) -> None:
    with standing_in(tmp_path / "a.sock", {"GET /v1/status": replying({"version": "1"})}):
        assert ask(tmp_path / "a.sock") == {"version": "1"}
