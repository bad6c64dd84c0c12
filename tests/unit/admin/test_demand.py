"""What callers ask for, read; and what cannot be read, refused with the way out."""

from __future__ import annotations

import pytest

from edge.admin.call import Refused
from edge.admin.demand import AT_ONCE_BYTES, listed, ordered, questioned
from edge.config import for_proxy, policies
from tests.unit.desks import call_of

SITES = policies.sites(for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h"))


async def test_an_order_is_read() -> None:
    order = await ordered(call_of("POST", "/v1/purge", {"tag": ["a"], "dry_run": True}), SITES)
    assert (len(order.names), order.dry_run) == (1, True)


async def test_a_large_order_is_read_all_the_same() -> None:
    tags = [f"tag-{number}" for number in range(AT_ONCE_BYTES // 4)]
    assert len((await ordered(call_of("POST", "/", {"tag": tags}), SITES)).names) == len(tags)


@pytest.mark.parametrize("size", [1, AT_ONCE_BYTES])
async def test_an_order_that_is_none_is_refused_with_every_fault(size: int) -> None:
    with pytest.raises(Refused) as refused:
        await ordered(call_of("POST", "/", {"tag": ["x"], "host": ["*.a"] * size}), SITES)
    assert refused.value.status == 422
    assert refused.value.members["faults"][0]["path"] == "host[0]"


def test_a_question_is_read_or_refused() -> None:
    question = questioned(call_of("GET", "/v1/explain", url="http://a.example/x"))
    assert question.url == b"http://a.example/x"
    with pytest.raises(Refused) as refused:
        questioned(call_of("GET", "/v1/explain", url="a.example"))
    assert refused.value.status == 400


def test_a_listing_has_a_prefix_and_a_limit_or_neither() -> None:
    assert listed(call_of("GET", "/v1/ls")) == ("", None)
    assert listed(call_of("GET", "/v1/ls", prefix="http://a", limit="0")) == ("http://a", 0)


@pytest.mark.parametrize(
    "query", [{"nonsense": "1"}, {"limit": "-1"}, {"limit": "٣"}, {"limit": "9" * 10}]
)
def test_a_listing_that_is_none_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        listed(call_of("GET", "/v1/ls", **query))
    assert refused.value.status == 400
