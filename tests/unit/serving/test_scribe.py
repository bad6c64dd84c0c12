"""How what is answered at once is cut into parts; `test_quick` and stories tell what it says."""

from __future__ import annotations

import pytest

from edge.serving.scribe import JOINED_BYTES
from tests.unit.sent import joined
from tests.unit.serving.test_quick import Desk


@pytest.mark.parametrize(("size", "parts"), [(4, 1), (JOINED_BYTES, 1), (JOINED_BYTES + 1, 2)])
def test_a_large_body_is_not_copied_behind_its_head(size: int, parts: int) -> None:
    desk = Desk()
    desk.keep(body=b"b" * size)
    for _ in range(2):  # by the longer way, then made ready
        answered = desk.ask()
        assert answered is not None
        assert len(answered[0]) == parts
        assert joined(answered[0]).endswith(b"\r\n\r\n" + b"b" * size)


def test_a_part_of_a_body_has_a_head_of_its_own() -> None:
    desk = Desk()
    desk.keep(body=b"0123456789")
    answered = desk.ask(b"/a", b"Range: bytes=2-4")
    assert answered is not None
    assert joined(answered[0]).startswith(b"HTTP/1.1 206 Partial Content\r\n")
    assert joined(answered[0]).endswith(b"\r\n\r\n234")
