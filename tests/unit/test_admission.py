"""What can be said of a request before the store is asked."""

from __future__ import annotations

from typing import Any

import pytest

from edge.admission import Admitted, admit
from edge.errors import ExchangeError, Failure
from edge.wire.message import Headers, RequestHead
from tests.unit.edgeparts import parts_of

CLIENT = b"198.51.100.1"
TRUSTING = 'node.trusted_proxies=["198.51.100.0/24"]'
PURGING = 'site.purge_from=["203.0.113.0/24"]'


def admitted(
    *pairs: tuple[bytes, bytes], sets: tuple[str, ...] = (), peer: bytes = CLIENT, **head: Any
) -> Admitted:
    told = {"method": b"GET", "scheme": b"http", "authority": b"site.example", "target": b"/a"}
    return admit(parts_of(*sets), RequestHead(**{**told, **head}, headers=Headers(pairs)), peer)


def refusal(*pairs: tuple[bytes, bytes], **more: Any) -> Failure:
    with pytest.raises(ExchangeError) as caught:
        admitted(*pairs, **more)
    return caught.value.failure


def test_the_target_is_the_one_that_is_keyed_and_forwarded() -> None:
    one = admitted(target=b"/x/../%7ea?b=1&utm=2", sets=('site.query.drop=["utm"]',))
    assert one.request.target == b"/~a?b=1"
    assert one.key.url == b"http://site.example/~a?b=1"


def test_an_asterisk_is_a_target_as_it_is() -> None:
    assert admitted(method=b"OPTIONS", target=b"*").request.target == b"*"


def test_a_path_that_can_be_read_in_two_ways_is_refused() -> None:
    assert refusal(target=b"/a%00") is Failure.BAD_MESSAGE


def test_hop_by_hop_fields_are_seen_by_nothing_behind() -> None:
    one = admitted((b"connection", b"x-kind"), (b"x-kind", b"1"), (b"accept", b"a"))
    assert one.request.headers.pairs == ((b"accept", b"a"),)


def test_a_host_of_no_site_and_a_circle_are_refused() -> None:
    assert refusal(sets=('site.hosts=["other.example"]',)) is Failure.MISDIRECTED
    assert refusal((b"cdn-loop", b"edge1")) is Failure.LOOP
    assert refusal((b"via", b"1.1 edge1")) is Failure.LOOP


@pytest.mark.parametrize("trusted", [True, False])
def test_only_who_is_trusted_is_believed(*, trusted: bool) -> None:
    one = admitted(
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-for", b"203.0.113.5"),
        (b"cache-status-key", b"?1"),
        sets=(TRUSTING,) if trusted else (),
    )
    scheme = b"https" if trusted else b"http"
    assert one.request.scheme == one.forwarding.scheme == scheme
    assert one.key.url.startswith(scheme + b"://")
    assert one.client == (b"203.0.113.5" if trusted else CLIENT)
    assert one.forwarding.chain == ((b"203.0.113.5",) if trusted else ())
    assert one.tells_key is trusted


def test_a_trusted_proxy_that_says_nothing_speaks_by_its_own_scheme() -> None:
    one = admitted(sets=(TRUSTING,))
    assert (one.request.scheme, one.tells_key) == (b"http", False)


def test_the_first_rule_that_fits_gives_the_policy() -> None:
    rules = 'site.rule=[{match={path="/live/*"},cache={bypass=true}}]'
    assert admitted(target=b"/live/x", sets=(rules,)).policy.bypass
    assert not admitted(sets=(rules,)).policy.bypass


def test_purge_is_a_method_only_for_whom_the_site_names() -> None:
    one = admitted(method=b"PURGE", sets=(PURGING,), peer=b"203.0.113.7")
    assert one.site.purge_from
    assert refusal(method=b"PURGE", sets=(PURGING,)) is Failure.METHOD_REFUSED
    assert refusal(method=b"PURGE") is Failure.METHOD_REFUSED


def test_to_purge_at_a_host_of_no_site_tells_nothing_of_sites() -> None:
    sets = (PURGING, 'site.hosts=["other.example"]')
    assert refusal(method=b"PURGE", sets=sets, peer=b"203.0.113.7") is Failure.METHOD_REFUSED


def test_who_purges_through_a_proxy_is_whom_it_names() -> None:
    sets = (PURGING, TRUSTING)
    through = (b"x-forwarded-for", b"203.0.113.7")
    assert admitted(through, method=b"PURGE", sets=sets).client == b"203.0.113.7"
    forged = refusal(through, (b"forwarded", b"for=192.0.2.9"), method=b"PURGE", sets=sets)
    assert forged is Failure.METHOD_REFUSED
    assert refusal(through, method=b"PURGE", sets=(PURGING,)) is Failure.METHOD_REFUSED


def test_a_proxy_that_may_purge_does_not_lend_that_to_its_clients() -> None:
    both = (TRUSTING, 'site.purge_from=["198.51.100.0/24"]')
    assert admitted(method=b"PURGE", sets=both).client == CLIENT
    unknown = refusal((b"x-forwarded-for", b"unknown"), method=b"PURGE", sets=both)
    assert unknown is Failure.METHOD_REFUSED


@pytest.mark.parametrize("method", [b"PURGEKEYS", b"BAN"])
def test_other_methods_of_plugins_purge_where_that_is_allowed_and_else_are_as_any(
    method: bytes,
) -> None:
    assert admitted(method=method, sets=(PURGING,), peer=b"203.0.113.7").purges
    assert not admitted(method=method, sets=(PURGING,)).purges
    assert not admitted(method=method).purges
    assert not admitted(sets=(PURGING,), peer=b"203.0.113.7").purges
