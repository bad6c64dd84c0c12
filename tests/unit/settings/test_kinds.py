from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge.settings.kinds import (
    COUNT,
    DURATION,
    NUMBER,
    PATH,
    SIZE,
    SWITCH,
    TEXT,
    YEARS_10_S,
    UnfitError,
    choice,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("10s", 10.0), ("1.5h", 5400.0), ("1d", 86_400.0), ("0s", 0.0)],
)
def test_a_duration_becomes_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "5 m", "-1s", "+1s", "1_0s", "٣s", "5m\n", "1e3s", ".5s", "5M", "9" * 5_000]
)
def test_what_only_looks_like_a_duration_is_none(text: str) -> None:
    assert parse_duration(text) is None
    assert parse_size(text) is None


@given(st.from_regex(r"[0-9]{1,8}(\.[0-9]{1,9})?(ms|s|m|h|d)", fullmatch=True))
def test_a_duration_written_reads_back_the_same(text: str) -> None:
    seconds = parse_duration(text)
    assert seconds is not None
    assume(seconds <= YEARS_10_S)  # the most that any setting takes
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**50) | st.integers(0, 2**40).map(lambda kib: 1024 * kib))
def test_a_size_written_reads_back_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_a_size_is_whole_bytes() -> None:
    assert parse_size("1.5KiB") == 1536
    assert parse_size("0.3B") is None


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ("5 mins", "5m"), ("2 Hours", "2h"), (30, "30s"), (1.5, "1.5s"), ("fast", "10s"),
        (True, "10s"), ([], "10s"), ("100msec", "100ms"), ("3days", "3d"),
    ],
)  # fmt: skip
def test_a_refused_duration_comes_with_the_text_to_write(raw: object, hint: str) -> None:
    with pytest.raises(UnfitError, match=f'try "{hint}"'):
        DURATION.read(raw)


@pytest.mark.parametrize(
    ("raw", "hint"), [("10 GB", "10GiB"), ("64k", "64KiB"), (512, "512B"), ("", "64KiB")]
)
def test_a_refused_size_comes_with_the_text_to_write(raw: object, hint: str) -> None:
    with pytest.raises(UnfitError, match=f'try "{hint}"'):
        SIZE.read(raw)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (COUNT, True), (COUNT, 1.0), (COUNT, "1"), (NUMBER, "1"), (NUMBER, float("inf")),
        (NUMBER, True), (NUMBER, 10**400), (SWITCH, 1), (TEXT, 1), (TEXT, ""), (TEXT, "a\x00"),
        (TEXT, "\udc80"), (TEXT, "a" * 5_000), (PATH, "\n"), (choice(("a", "b")), "c"),
        (choice(("a", "b")), []), (choice(("a", "b")), 16**5),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_unfit(kind: object, raw: object) -> None:
    with pytest.raises(UnfitError):
        kind.read(raw)  # type: ignore[attr-defined]


def test_a_kind_reads_what_it_wrote() -> None:
    for kind, value in ((COUNT, 3), (NUMBER, 0.5), (SWITCH, False), (TEXT, "é"), (DURATION, 0.1)):
        assert kind.read(kind.write(value)) == value
