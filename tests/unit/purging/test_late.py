"""What is told of a shield that has not purged travels between processes as it is."""

from __future__ import annotations

import msgspec

from edge.purging.late import Late


def test_it_arrives_as_it_was() -> None:
    late = Late("http://s.example:80", "no answer within 5 s")
    document = msgspec.to_builtins(late)
    assert document == {"url": late.url, "why": late.why, "owed": True}
    assert msgspec.convert(document, type=Late) == late
