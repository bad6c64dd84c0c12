"""Transports over TLS; what they share with the others is tested in `test_transport`."""

from __future__ import annotations

import pytest
import trio

from tests.unit.upstream.test_transport import close, tls


async def test_tls_that_just_stops_is_no_end_of_input() -> None:
    here, there = await tls()
    await there.send_all(b"a body until the close")
    there.close()  # no closure alert: anyone could have cut this
    assert await here.receive_some() == b"a body until the close"
    with pytest.raises(trio.BrokenResourceError):
        await here.receive_some()
    close(here)


async def test_a_tls_surplus_in_a_record_of_its_own_is_seen() -> None:
    here, there = await tls()
    await there.send_all(b"response")
    await there.send_all(b"surplus")
    assert await here.receive_some() == b"response"
    assert here.readable_now()
    close(here, there)


async def test_many_small_parts_share_a_tls_record() -> None:
    here, there = await tls()
    await here.send_parts([b"a", b"b", b"c"])
    assert await there.receive_some() == b"abc"
    close(here, there)
