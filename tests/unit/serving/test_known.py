"""What is known of a plain request that has been seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from msgspec import UNSET

from edge.errors import ExchangeError, Failure
from edge.listen.lane import After
from edge.serving.admission import Admitted, admit
from edge.serving.known import Known, cookie_lines
from edge.wire.message import Headers, RequestHead
from tests.unit.edgeparts import parts_of

if TYPE_CHECKING:
    from edge.wire.message import Pair

PEER: Final = b"192.0.2.1"
ARMED: Final = (
    'site.experiment=[{name="e",cookie={name="ab",http_only=false},'
    "arms={a={weight=1},b={weight=1}}}]"
)


def head(*fields: Pair, method: bytes = b"GET", **told: Any) -> RequestHead:
    return RequestHead(method, b"http", b"site.example", b"/a?b", Headers(fields), **told)


def known(*fields: Pair, sets: tuple[str, ...] = (), **told: Any) -> Known:
    asked = head(*fields, **told)
    return Known(asked, admit(parts_of(*sets), asked, PEER))


def test_the_words_for_the_log_are_made_once() -> None:
    one = known(method=b"HEAD")
    assert (one.method, one.host, one.target) == ("HEAD", "site.example", "/a?b")


def test_a_connection_is_parked_unless_the_client_ends_it() -> None:
    assert known().after is After.PARK
    assert known((b"connection", b"close")).after is After.CLOSE


@pytest.mark.parametrize(
    ("field", "plain", "whole"),
    [
        ((b"accept", b"a"), True, True),
        ((b"cache-control", b"no-cache"), False, True),
        ((b"range", b"bytes=0-1"), True, False),
        ((b"if-none-match", b'"1"'), True, False),
    ],
)
def test_what_a_request_asks_for_beyond_the_plain_is_known(
    field: Pair, *, plain: bool, whole: bool
) -> None:
    one = known(field)
    assert (one.plain, one.whole) == (plain, whole)


def test_where_the_key_is_told_no_two_answers_need_be_the_same() -> None:
    trusting = 'node.trusted_proxies=["192.0.2.0/24"]'
    assert not known((b"cache-status-key", b"?1"), sets=(trusting,)).plain
    assert known((b"cache-status-key", b"?1")).plain


def test_what_is_not_admitted_here_is_not_plain() -> None:
    refused = ExchangeError(Failure.LOOP)
    one = Known(head(), None, refused=refused)
    assert (one.plain, one.refused, one.arms, one.cookies) == (False, refused, UNSET, b"")


def test_kinds_of_answers_are_told_apart() -> None:
    requests = [
        known(method=method, *fields)  # noqa: B026
        for method in (b"GET", b"HEAD")
        for fields in ((), ((b"connection", b"close"),))
    ]
    forms = {one.form_of(status) for one in requests for status in (200, 304)}
    assert len(forms) == 8
    assert known().form_of(200) == known().form_of(404)


def test_a_new_visitors_arms_are_told_in_the_head_and_in_the_log() -> None:
    one = known(sets=(ARMED,))
    assert one.arms == ("*/e=a;new",)
    line = b"set-cookie: ab=a; Max-Age=2592000; Path=/; SameSite=Lax\r\n"
    line += b"cache-control: private\r\n"  # or who caches before us would give it to others
    assert one.cookies == line
    plain = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    assert one.told(plain) == plain[:-2] + line + b"\r\n"


def test_who_has_its_cookie_is_told_nothing() -> None:
    one = known((b"cookie", b"ab=b"), sets=(ARMED,))
    assert (one.arms, one.cookies) == (("*/e=b",), b"")
    assert one.told(b"head\r\n\r\n") == b"head\r\n\r\n"


def test_every_new_arm_has_a_line_of_its_own() -> None:
    two = ",".join(
        f'{{name="e{n}",cookie={{name="c{n}"}},arms={{a={{weight=1}},b={{weight=1}}}}}}'
        for n in range(2)
    )
    asked = head((b"cookie", b"c0=a"))
    made: Admitted = admit(parts_of(f"site.experiment=[{two}]"), asked, PEER)
    assert cookie_lines(made.arms, b"https").count(b"set-cookie: ") == 1
    newcomer = admit(parts_of(f"site.experiment=[{two}]"), head(), PEER)
    lines = cookie_lines(newcomer.arms, b"https").split(b"\r\n")
    assert [line.partition(b"=")[0] for line in lines] == [
        b"set-cookie: c0",
        b"set-cookie: c1",
        b"cache-control: private",  # one for all of them
        b"",
    ]
    assert all(b"; Secure" in line for line in lines[:2])
