"""What is told of a shield that has not purged travels between processes as it is."""

from __future__ import annotations

import msgspec
import pytest

from edge.late import Late, late_lines


def test_it_arrives_as_it_was() -> None:
    late = Late("http://s.example:80", "no answer within 5 s")
    document = msgspec.to_builtins(late)
    assert document == {"url": late.url, "why": late.why, "owed": True}
    assert msgspec.convert(document, type=Late) == late


@pytest.mark.parametrize("found", [None, [], 7, [7], {}])
def test_where_no_shield_is_late_nothing_is_said(found: object) -> None:
    assert late_lines({"late": found}) == []


def test_a_shield_that_is_late_is_named_on_a_line_that_is_safe_to_print() -> None:
    told = late_lines({"late": [{"url": "http://a:80\x1b", "why": "no\nanswer", "owed": True}]})
    assert told[0] == "purged here, but a shield has not acknowledged it:"
    assert all(line.isprintable() for line in told)
