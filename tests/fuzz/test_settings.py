"""Any text gives settings, or faults that say where: never another exception."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import Config, load_config
from edge.settings import Fault, SettingsError, bind, parse
from edge.settings.lines import line_of, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = """
[node]
listen = ["0.0.0.0:80"]
[store]
disk = "200GiB"
[cache]
vary = { unordered = ["x-a"] }
[origin.eu]
servers = ["https://eu.example:8443"]
timeouts = { connect = "250ms" }
[[site]]
hosts = ["shop.example", "*.shop.example"]
route = { first = ["eu"] }
headers = { set = { "X-B" = "c" } }
[[site.rule]]
match = { path = "/static/*", methods = ["GET"] }
cache = { ttl = "1d" }
"""
SCRAPS = ["[", "]", "{", "}", "=", '"', "'", '"""', "\n", ".", ",", "#", "[[site]]", "none", "\\"]

values: Any = st.recursive(
    st.one_of(
        st.none().map(lambda _: {}),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["5m", "1KiB", "none", "*", "eu", "-", "http://a", 10**400]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def faults_of(read: Callable[[], Config]) -> tuple[Fault, ...]:
    """What is wrong, or nothing; any other exception is the finding."""
    try:
        read()
    except SettingsError as error:
        return error.faults or (Fault(None, "", None, "an error without a fault"),)
    return ()


def tells_or_gives(text: str) -> None:
    for fault in faults_of(lambda: load_config(text, hostname="h")):
        assert fault.path or fault.line or "nested" in fault.message
        assert "\n" not in str(fault)


@given(st.data())
@settings(max_examples=200)
def test_a_cut_and_patched_file_is_told_or_read(data: st.DataObject) -> None:
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 12)))
        scrap = data.draw(st.sampled_from(SCRAPS) | st.text(string.printable, max_size=6))
        text = text[:start] + scrap + text[stop:]
    tells_or_gives(text)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    for key, inner in items if isinstance(value, dict | list) else ():
        found += paths(inner, (*path, key)) if isinstance(inner, dict | list) else [(*path, key)]
    return found


@given(path=st.sampled_from(paths(parse(GOOD))), value=values, drop=st.booleans())
@settings(max_examples=200)
def test_any_value_anywhere_is_taken_or_told_with_a_path(
    path: tuple[str | int, ...], value: Any, *, drop: bool
) -> None:
    table: Any = parse(GOOD)
    table["node"]["name"] = "n"
    node = table
    for key in path[:-1]:
        node = node[key]
    if drop:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    assert all(fault.path for fault in faults_of(lambda: bind(Config, table, {})))


@given(st.text(max_size=200) | st.lists(st.sampled_from(SCRAPS), max_size=60).map("".join))
@settings(max_examples=200)
def test_the_scan_for_lines_never_fails(text: str) -> None:
    lines = lines_of(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
    assert line_of(("no", 1, "such"), {}) is None


def test_brackets_without_end_are_told() -> None:
    tells_or_gives("a = " + "[" * 100_000)
    tells_or_gives("a = " + "1" * 10_000)
    tells_or_gives("[" + "a." * 20_000 + "b]")
    tells_or_gives("cache = 0x" + "f" * 20_000)
