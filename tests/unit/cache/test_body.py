"""Twin of edge/cache/body.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.cache.body import Body, MemoryBody


@given(st.binary(max_size=50), st.integers(0, 60), st.integers(1, 60))
def test_a_body_in_memory_is_read_in_any_parts(data: bytes, offset: int, most: int) -> None:
    body = MemoryBody(data)
    assert body.length == len(data)
    assert body.read_nowait(offset, most) == data[offset : offset + most]


async def test_a_body_in_memory_is_a_body_and_gives_the_very_object_it_has() -> None:
    data = b"hello"
    body: Body = MemoryBody(data)
    assert await body.read(0, 10) is data
    assert await body.read(3, 10) == b"lo"
    assert await body.read(5, 10) == b""
    body.close()
