"""The store as a weapon: poisoning, deception and strangers' purges, against a real node."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.live.hostile_harness import (
    Asked,
    Node,
    Origin,
    Wire,
    ask_for,
    free_port,
    get,
    is_plainly_served,
    plain,
    request,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.live

WHOLE = b"0123456789" * 100
MODIFIED = "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT"


class Places:
    """An origin whose targets are each answered by what a test put there."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._places: dict[str, Callable[[Asked], bytes]] = {}
        self._number = 0
        origin.handle = self._handle

    def put(self, answer: Callable[[Asked], bytes], path: str = "", end: str = "") -> str:
        """A new target, which begins with a segment of its own."""
        self._number += 1
        target = f"/{self._number}{path or '/x'}{end}"
        self._places[target.split("?")[0]] = answer
        return target

    def _handle(self, asked: Asked, wire: Wire) -> None:
        answer = self._places.get(asked.target.split("?")[0])
        raw = answer(asked) if answer else plain(asked.target.encode())
        head, mark, _ = raw.partition(b"\r\n\r\n")
        wire.send(head + mark if asked.method == "HEAD" else raw)

    def count(self, target: str) -> int:
        return len(self.origin.asked_for(target))


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    with Origin() as origin:
        yield Places(origin)
        assert not origin.trouble


@pytest.fixture(scope="module")
def node(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node"), places.origin.url) as node:
        yield node
        assert is_plainly_served(node.port)
        assert " internal" not in node.complaints()


def always(raw: bytes) -> Callable[[Asked], bytes]:
    return lambda asked: raw


def echo(asked: Asked) -> bytes:
    """A page made of every field it was asked with, fresh for a minute."""
    return plain(repr(asked.fields).encode())


# What is not in the key does not change the answer.


@pytest.mark.parametrize(
    "name",
    [
        "x-forwarded-host", "x-forwarded-scheme", "x-forwarded-port", "x-forwarded-prefix",
        "x-forwarded-server", "x-host", "x-original-url", "x-rewrite-url", "true-client-ip",
        "x-http-method-override", "x-http-method", "x-method-override", "x-real-ip",
        "cf-connecting-ip", "x-client-ip", "x-cluster-client-ip", "front-end-https",
        "x-forwarded-ssl", "x-geo-country", "x_forwarded_host", "x-forwarded_host", "forwarded",
        "x-forwarded-proto", "x-forwarded-for", "fastly-client-ip", "x-forwarded",
    ],
)  # fmt: skip
def test_an_unkeyed_field_of_a_client_never_reaches_what_others_get(
    name: str, places: Places, node: Node
) -> None:
    target = places.put(echo)
    raw = request(target, connection="close").replace(
        b"\r\n\r\n", f"\r\n{name}: evil.example\r\n\r\n".encode()
    )
    say(node.port, raw)
    assert b"evil" not in get(node.port, target).body


def test_targets_that_differ_never_share_an_answer(places: Places, node: Node) -> None:
    root = places.put(always(b""))
    same = ["/a/b", "/a%2fb", "/a%2Fb/", "/a//b", "/a/b/", "/a;b", "/a%3bb", "/a?b", "/a%3fb",
            "/a/b?x=1&y=2", "/a/b?y=2&x=1", "/a/b?x=1%26y=2", "/a/b?x=1&y=2&", "/a/b?", "/A/b",
            "/a%00b", "/a%5cb", "/a\\b", "/a/b?x=%41%2f", "/a/b?x=A/", "/a%252fb"]  # fmt: skip
    for _ in range(2):
        for each in same:
            answer = get(node.port, root + each)
            assert answer.status == 400 or answer.body.startswith(root.encode()), each
    for each in same:
        answer = get(node.port, root + each)
        if answer.status == 200:
            (asked,) = places.origin.asked_for(answer.body.decode())
            assert asked.target.encode() == answer.body


def test_one_hosts_answers_are_not_anothers(places: Places, node: Node) -> None:
    target = places.put(lambda asked: plain((asked.field("host") or "").encode()))
    hosts = ["example.com", "example.com:81", "example.net", "xexample.com", "example.com.", "com"]
    for _ in range(2):
        for host in hosts:
            answer = get(node.port, target, host=host)
            assert answer.status != 200 or answer.body == host.encode()


def test_values_are_not_joined_into_a_variants_key(places: Places, node: Node) -> None:
    def answer(asked: Asked) -> bytes:
        body = f"{asked.field('x-a')}|{asked.field('x-b')}"
        return plain(body.encode(), "Cache-Control: max-age=60", "Vary: X-A, X-B")

    target = places.put(answer)
    pairs = [("1", "2"), ("1, 2", ""), ("", "1, 2"), ("1|2", ""), ("1\t2", ""), ("12", ""),
             ("1;x-b=2", ""), ("None", "None")]  # fmt: skip
    for _ in range(2):
        for a, b in pairs:
            got = get(node.port, target, x_a=a, x_b=b)
            assert got.body == f"{a}|{b}".encode()
        assert get(node.port, target).body == b"None|None"


def test_a_field_that_connection_takes_away_selects_no_variant(places: Places, node: Node) -> None:
    target = places.put(
        lambda asked: plain(
            (asked.field("x-lang") or "none").encode(), "Cache-Control: max-age=60", "Vary: X-Lang"
        )
    )
    raw = request(target, connection="close, x-lang", x_lang="evil")
    assert b"evil" not in say(node.port, raw).data
    assert get(node.port, target, x_lang="evil").body == b"evil"
    assert get(node.port, target).body == b"none"


# What is private stays so.


@pytest.mark.parametrize("directive", ["private", "no-store", "private, max-age=60"])
@pytest.mark.parametrize("path", ["/me/a.css", "/me/a.js?x", "/me%2Fa.css", "/me/;a.css"])
def test_a_private_page_under_a_public_name_is_not_kept(
    directive: str, path: str, places: Places, node: Node
) -> None:
    target = places.put(always(plain(b"mine", f"Cache-Control: {directive}")), path)
    for count in (1, 2):
        assert get(node.port, target, cookie="id=1").body == b"mine"
        assert places.count(target) == count


@pytest.mark.parametrize(
    "fields",
    [{"cookie": "id=1"}, {"authorization": "Basic YTpi"}],
    ids=["cookie", "authorization"],
)
def test_an_answer_to_credentials_without_licence_is_not_kept(
    fields: dict[str, str], places: Places, node: Node
) -> None:
    target = places.put(always(plain(b"mine", MODIFIED)))
    assert get(node.port, target, **fields).body == b"mine"
    assert not get(node.port, target).is_hit
    assert places.count(target) == 2


def test_authorization_needs_more_than_a_lifetime(places: Places, node: Node) -> None:
    target = places.put(always(plain(b"mine")))
    get(node.port, target, authorization="Basic YTpi")
    assert not get(node.port, target).is_hit
    public = places.put(always(plain(b"ours", "Cache-Control: public, max-age=60")))
    get(node.port, public, authorization="Basic YTpi")
    assert get(node.port, public).is_hit


def test_a_cookie_with_a_lifetime_is_kept_by_no_one(places: Places, node: Node) -> None:
    raw = plain(b"mine", "Cache-Control: max-age=60", "Set-Cookie: id=secret")
    target = places.put(always(raw))
    get(node.port, target)
    assert not get(node.port, target).is_hit


def test_followers_of_a_private_answer_get_their_own(places: Places, node: Node) -> None:
    def answer(asked: Asked) -> bytes:
        time.sleep(0.3)
        return plain((asked.field("cookie") or "").encode(), "Cache-Control: private")

    target = places.put(answer)
    got: dict[str, bytes] = {}

    def ask(cookie: str) -> None:
        got[cookie] = get(node.port, target, cookie=cookie).body

    threads = [threading.Thread(target=ask, args=(f"id={number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {f"id={number}": f"id={number}".encode() for number in range(20)}
    assert places.count(target) == 20


def test_revalidation_in_the_background_carries_no_credentials(places: Places, node: Node) -> None:
    again = threading.Event()

    def answer(asked: Asked) -> bytes:
        if places.count(target) > 1:
            again.set()
        fields = "Cache-Control: public, max-age=0, stale-while-revalidate=60", 'ETag: "1"'
        return plain(repr(asked.fields).encode(), *fields)

    target = places.put(answer)
    get(node.port, target)
    assert (
        b"secret"
        not in get(node.port, target, cookie="id=secret", authorization="Bearer secret").body
    )
    assert again.wait(5)
    assert b"secret" not in places.origin.asked_for(target)[1].head


# What is odd leaves nothing behind.


@pytest.mark.parametrize("status", [400, 405, 413, 414, 431, 501])
def test_an_error_that_an_odd_request_provokes_is_not_kept(
    status: int, places: Places, node: Node
) -> None:
    def answer(asked: Asked) -> bytes:
        if asked.field("x-odd"):
            return b"HTTP/1.1 %d No\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n" % (
                status
            )
        return plain(b"good")

    target = places.put(answer)
    assert get(node.port, target, x_odd="\x80" * 100).status == status
    assert get(node.port, target).body == b"good"


def test_a_head_makes_no_empty_page(places: Places, node: Node) -> None:
    target = places.put(always(plain(WHOLE)))
    head = ask_for(node.port, target, "HEAD")
    assert head is not None
    assert head.status == 200
    assert get(node.port, target).body == WHOLE
    head = ask_for(node.port, target, "HEAD")
    assert head is not None
    assert head.field("content-length") == str(len(WHOLE))
    assert get(node.port, target).body == WHOLE


@pytest.mark.parametrize(
    "value",
    ["bytes=0-9", "bytes=-5", "bytes=990-", "bytes=5000-", "bytes=0-0,-1", "bytes=9-1", "x=1-2",
     "bytes=" + "0-1," * 500 + "5-6", "bytes=+0-9", "bytes=0-9" + "9" * 5000],
)  # fmt: skip
def test_a_range_on_a_cold_key_never_becomes_the_whole(
    value: str, places: Places, node: Node
) -> None:
    def answer(asked: Asked) -> bytes:
        if asked.field("range") == "bytes=0-9":
            head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/1000\r\n"
            return head + b"Cache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n" + WHOLE[:10]
        return plain(WHOLE)

    target = places.put(answer)
    part = get(node.port, target, range=value)
    assert part.status in (200, 206, 400, 416)
    if part.status == 206 and part.field("content-range"):
        assert part.body in WHOLE
    assert len(part.body) < 10 * len(WHOLE)
    assert get(node.port, target).body == WHOLE


@pytest.mark.parametrize(
    "fields",
    [{"if_none_match": '"1"'}, {"if_none_match": "*"},
     {"if_modified_since": "Sat, 01 Jan 2028 00:00:00 GMT"}, {"if_match": '"0"'},
     {"if_unmodified_since": "Mon, 01 Jan 1990 00:00:00 GMT"}, {"if_range": '"1"'}],
    ids=str,
)  # fmt: skip
def test_a_condition_on_a_cold_key_never_becomes_the_whole(
    fields: dict[str, str], places: Places, node: Node
) -> None:
    def answer(asked: Asked) -> bytes:
        if asked.field("if-match") or asked.field("if-unmodified-since"):
            return b"HTTP/1.1 412 No\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n"
        if asked.field("if-none-match") or asked.field("if-modified-since"):
            return b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nCache-Control: max-age=60\r\n\r\n'
        return plain(WHOLE, "Cache-Control: max-age=60", 'ETag: "1"', MODIFIED)

    target = places.put(answer)
    assert get(node.port, target, **fields).status in (200, 304, 412)
    whole = get(node.port, target)
    assert (whole.status, whole.body) == (200, WHOLE)


def test_a_body_on_a_get_changes_no_ones_page(places: Places, node: Node) -> None:
    target = places.put(lambda asked: plain(b"got " + asked.body))
    answer = ask_for(node.port, target, "GET", b"evil")
    assert answer is None or answer.status in (200, 400)
    assert get(node.port, target).body == b"got "


def test_many_variants_do_not_grow_without_bound(places: Places, node: Node) -> None:
    raw = plain(bytes(10_000), "Cache-Control: max-age=60", "Vary: X-Any")
    target = places.put(always(raw))
    for number in range(200):
        get(node.port, target, x_any=str(number))
    hits = sum(get(node.port, target, x_any=str(number)).is_hit for number in range(0, 200, 2))
    assert hits <= 32


def test_a_purge_from_outside_is_refused(places: Places, node: Node) -> None:
    target = places.put(always(plain(b"kept")))
    get(node.port, target)
    for method in ("PURGE", "BAN", "PURGEALL", "REFRESH"):
        answer = ask_for(node.port, target, method)
        assert answer is not None
        assert answer.status in (405, 501) or method != "PURGE"
    assert places.count(target) <= 4
    for url in ("/*", target + "*", "*"):
        answer = ask_for(node.port, url, "PURGE")
        assert answer is None or answer.status in (400, 405)


# Rules by path.

SETTINGS = """
[node]
name = "edge"
listen = ["127.0.0.1:{port}"]
error_log = "{directory}/error.log"

[store]
dir = "{directory}/store"

[origin.one]
servers = ["{origin}"]

[[site]]
hosts = ["*"]
route = {{ first = ["one"] }}

[[site.rule]]
match = {{ path = "*.css" }}
cache = {{ ttl = "1d" }}

[[site.rule]]
match = {{ path = "/static/*" }}
cache = {{ ttl = "1d" }}

[[site.rule]]
match = {{ path = "/account/*" }}
cache = {{ bypass = true }}
"""


@pytest.fixture(scope="module")
def ruled(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory: Path = tmp_path_factory.mktemp("ruled")
    port, file = free_port(), directory / "edge.toml"
    file.write_text(SETTINGS.format(port=port, directory=directory, origin=places.origin.url))
    with Node(directory, "", file=file, port=port) as node:
        yield node


@pytest.mark.parametrize(
    ("path", "fields", "kept"),
    [
        ("/a.css", ("Content-Type: text/css",), True),
        ("/a.css", ("Content-Type: text/html",), False),
        ("/a.css", ("Content-Type: application/json",), False),
        ("/a.css", (), False),
        ("/a.css", ("Content-Type: text/css", "Cache-Control: private"), False),
        ("/a.css", ("Content-Type: text/css", "Cache-Control: no-store"), False),
        ("/a.css", ("Content-Type: text/css", "Set-Cookie: a=b"), False),
        ("/profile;a.css", ("Content-Type: text/html",), False),
        ("/profile%00a.css", ("Content-Type: text/html",), False),
    ],
)
def test_a_rule_by_name_never_overrules_what_the_answer_is(
    path: str, fields: tuple[str, ...], kept: bool, places: Places, ruled: Node
) -> None:
    target = places.put(always(plain(b"page", *(fields or ("X-None: 1",)))), path)
    for each in (target, target.replace(".css", "%2ecss")):
        get(ruled.port, each, cookie="id=1")
        assert get(ruled.port, each).is_hit == kept


@pytest.mark.parametrize(
    "target",
    ["/static/../account/me", "/static/%2e%2e/account/me", "/static/.%2E/account/me",
     "/account/me?x=/static/", "/account/me#/static/"],
)  # fmt: skip
def test_a_rule_by_path_looks_at_the_path_that_is_forwarded(
    target: str, places: Places, ruled: Node
) -> None:
    places.origin.clear()
    places._places["/account/me"] = always(plain(b"mine", "X-None: 1"))
    for _ in range(2):
        data = say(ruled.port, request(target, connection="close")).data
        assert data[9:12] in (b"200", b"400")
        assert b"; hit" not in data
    assert all(asked.target.startswith("/account/me") for asked in places.origin.asked)


def test_an_encoded_slash_does_not_leave_its_folder(places: Places, ruled: Node) -> None:
    data = say(ruled.port, request("/static/..%2faccount/me", connection="close")).data
    assert data[9:12] in (b"200", b"400")
    assert b"mine" not in data
