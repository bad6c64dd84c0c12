"""An order that goes to shields is there what it is here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge.cache.key import KeyPolicy
from edge.cache.scope import host_name, prefix_name, tag_name, url_name
from edge.purging.dispatch import document
from edge.purging.draft import Order
from edge.purging.orders import order_from_json
from edge.routing.site import HostTable

SITES: HostTable[Any] = HostTable([(b"*", SimpleNamespace(key=KeyPolicy()))])
HOST = b"shop.example"
AUTHORITIES = st.sampled_from([HOST, HOST + b":8443", HOST + b":8080"])
TARGETS = st.from_regex(rb"/[a-z0-9]{0,5}(/[a-z]{1,3}){0,3}(\?[a-z]=[0-9])?", fullmatch=True)
TAGS = st.text("abcü-", min_size=1, max_size=5).map(str.encode)


def names(host: bytes | None) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.builds(url_name, AUTHORITIES, TARGETS),
        st.builds(prefix_name, AUTHORITIES, TARGETS.map(lambda each: each.partition(b"?")[0])),
        st.just(host_name(HOST)),
        st.builds(tag_name, TAGS, st.just(host)),
    )


@given(st.data(), st.booleans(), st.sampled_from([None, HOST]))
def test_it_is_read_as_what_it_was(data: st.DataObject, soft: bool, host: bytes | None) -> None:
    told = data.draw(st.lists(names(host), min_size=1, max_size=5, unique=True))
    read = order_from_json(document(Order(tuple(told), soft=soft), host), SITES)
    assert (set(read.names), read.soft, read.on) == (set(told), soft, host)
    assert not read.everything


def test_everything_is_everything() -> None:
    read = order_from_json(document(Order(everything=True, soft=True), None), SITES)
    assert (read.everything, read.soft, read.on) == (True, True, None)


def test_what_json_cannot_tell_purges_more_and_never_less() -> None:
    order = Order((tag_name(b"a"), tag_name(b"\xff")))
    assert msgspec.json.decode(document(order, None)) == {"all": True}
    order = Order((tag_name(b"\xff", HOST),))
    told = {"on": HOST.decode(), "host": [HOST.decode()]}
    assert msgspec.json.decode(document(order, HOST)) == told
