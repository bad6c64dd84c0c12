from __future__ import annotations

import tomllib
from typing import Any

import pytest

from edge.settings.lines import Path, line_of, lines_of

TEXT = '''# a comment with = and [brackets]
top = 1
"quoted key" = { inner = 2, deep = { er = [3,
  4] } }
[a.b]
text = """
not = "a key"
""" # behind
list = [
  "x]",   # 10
  { y = 1 },
]
[[site]]
name = 'one'
[site.cache]
ttl = "1s"
[[site.rule]]
m = 1
[[site]]
name = "two"     # 20
dotted.key = 2.5
[[site.rule]]
[[site.rule]]
when = 1979-05-27T07:32:00Z
'''


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    found = {path} - {()}
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            found |= paths_of(inner, (*path, key))
    return found


def test_each_path_has_the_line_it_stands_on() -> None:
    lines = lines_of(TEXT)
    assert lines["top",] == 2
    assert lines["quoted key", "deep", "er", 1] == 4
    assert lines["a", "b", "text"] == 6
    assert lines["a", "b", "list", 0] == 10
    assert lines["a", "b", "list", 1, "y"] == 11
    assert lines["site", 0, "cache", "ttl"] == 16
    assert lines["site", 0, "rule", 0, "m"] == 18
    assert lines["site", 1, "name"] == 20
    assert lines["site", 1, "dotted", "key"] == 21
    assert lines["site", 1, "rule", 1, "when"] == 24


def test_the_scan_finds_exactly_the_paths_that_toml_has() -> None:
    assert set(lines_of(TEXT)) == paths_of(tomllib.loads(TEXT))


def test_what_is_missing_has_the_line_of_its_table() -> None:
    lines = lines_of(TEXT)
    assert line_of(("site", 1, "rule", 0, "match"), lines) == 22
    assert line_of(("nothing",), lines) is None


def test_windows_line_ends_count_as_one() -> None:
    assert lines_of("a = 1\r\n[b]\r\nc = 2\r\n")["b", "c"] == 3


def test_an_endless_key_is_cut() -> None:
    assert max(map(len, lines_of("a." * 5_000 + "b = 1"))) == 16


def test_dots_inside_brackets_join_keys_and_part_numbers() -> None:
    text = "a = { b.c = 1.5,\n d = [2.5, 3] }"
    assert set(lines_of(text.replace("\n", ""))) == paths_of(tomllib.loads(text.replace("\n", "")))
    assert lines_of(text)["a", "b", "c"] == 1
    assert lines_of(text)["a", "d", 1] == 2


@pytest.mark.parametrize("text", ["a = ,", "a = 1 = 2", "a = ]", "]", "[[[", 'a = "'])
def test_a_line_that_is_not_toml_hides_no_later_one(text: str) -> None:
    assert lines_of(f"{text}\n[b]\nc = 1")["b", "c"] == 3
