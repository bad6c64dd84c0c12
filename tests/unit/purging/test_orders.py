"""What is said and what is purged: the two spelt alike, and nobody else's host among it."""

from __future__ import annotations

import json
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cache.key import forwarded_target, key_of
from edge.cache.scope import DEPTH, host_name, names_of, prefix_name, tag_name, told, url_name
from edge.config import load_config, policies
from edge.errors import ProtocolError
from edge.purging.draft import FAULTS_TOLD, NOTES_TOLD, shown
from edge.purging.orders import (
    MOST_SCOPES_IN_ORDER,
    Order,
    OrderRefused,
    order_from_json,
    order_from_purge,
)
from edge.routing.site import HostTable, host_of
from edge.wire.message import Headers, RequestHead
from edge.wire.target import parse_request_target

if TYPE_CHECKING:
    from edge.serving.terms import Site

SETTINGS = """
[node]
listen = ["127.0.0.1:80"]
[origin.o]
servers = ["http://o.example"]
[[site]]
hosts = ["shop.example", "[::1]"]
route = { first = ["o"] }
query = { drop = ["utm_*"], sort = true }
[[site]]
hosts = ["plain.example"]
route = { first = ["o"] }
[[site]]
hosts = ["kept.example", "*.kept.example"]
route = { first = ["o"] }
query = { keep = ["id"] }
tags = ["x-words"]
purge_reach = "node"
"""
SITES: HostTable[Site] = policies.sites(load_config(SETTINGS, hostname="h"))


def order(**members: object) -> Order:
    return order_from_json(json.dumps(members).encode(), SITES)


def refused(document: bytes | None = None, **members: object) -> list[tuple[str, str, str]]:
    with pytest.raises(OrderRefused) as caught:
        order_from_json(json.dumps(members).encode() if document is None else document, SITES)
    return [(fault.path, fault.value, fault.message) for fault in caught.value.faults]


def one_fault(**members: object) -> str:
    ((_, _, message),) = refused(None, **members)
    return message


def site_of(host: bytes) -> Site:
    site = SITES.find(host)
    assert site is not None
    return site


def purge(
    target: bytes = b"/a", *fields: tuple[bytes, bytes], host: bytes = b"shop.example"
) -> Order:
    request = RequestHead(b"PURGE", b"http", host, target, Headers(fields))
    return order_from_purge(request, site_of(host))


def purge_refused(target: bytes, *fields: tuple[bytes, bytes]) -> list[tuple[str, str]]:
    with pytest.raises(OrderRefused) as caught:
        purge(target, *fields)
    return [(fault.path, fault.message) for fault in caught.value.faults]


# --- an operator's order ------------------------------------------------------


def test_an_order_names_each_of_its_scopes_once_in_the_order_given() -> None:
    given_ = order(
        url=["http://shop.example/a", "http://shop.example/a"],
        prefix=["http://shop.example/blog"],
        host=["shop.example"],
        tag=["front", "grün", "front"],
        soft=True,
    )
    assert given_ == Order(
        names=(
            url_name(b"shop.example", b"/a"),
            prefix_name(b"shop.example", b"/blog/"),
            host_name(b"shop.example"),
            tag_name(b"front"),
            tag_name("grün".encode()),
        ),
        soft=True,
    )


def test_everything_is_purged_by_all_alone() -> None:
    assert order(all=True, url=[], tag=[]) == Order(everything=True)
    assert order(all=True, soft=True, dry_run=True) == Order(
        everything=True, soft=True, dry_run=True
    )
    assert refused(all=True, tag=["a"]) == [
        ("all", "true", "purges everything: leave out url, prefix, host and tag")
    ]


@pytest.mark.parametrize("members", [{}, {"all": False}, {"tag": []}, {"dry_run": True}])
def test_an_order_for_nothing_is_refused(members: dict[str, object]) -> None:
    assert one_fault(**members).startswith("purges nothing: name a url")


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://shop.example", b"shop.example", b"/"),
        ("http://shop.example?b=2&a=1", b"shop.example", b"/?a=1&b=2"),
        ("HTTPS://SHOP.Example:443/%7Ea/../%62", b"shop.example", b"/b"),
        ("http://shop.example:8080/a", b"shop.example:8080", b"/a"),
        ("http://shop.example./a", b"shop.example", b"/a"),
        ("http://shop.example.:81/a", b"shop.example:81", b"/a"),
        ("http://shop.example/a?utm_x=1", b"shop.example", b"/a"),
        ("http://sub.kept.example/a?x=1&id=2&id=1", b"sub.kept.example", b"/a?id=2&id=1"),
        ("http://plain.example/a?b&&a", b"plain.example", b"/a?b&&a"),
        ("http://plain.example/a?", b"plain.example", b"/a?"),
        ("http://plain.example//a%2fb;c", b"plain.example", b"//a%2Fb;c"),
        ("http://[::1]:81/a", b"[::1]:81", b"/a"),
        ("http://plain.example/a?b@c/../d\\", b"plain.example", b"/a?b@c/../d\\"),
    ],
)
def test_a_url_is_purged_as_its_site_keys_it(url: str, authority: bytes, target: bytes) -> None:
    found = order(url=[url])
    assert found.names[0] == url_name(authority, target)
    assert found.notes == ()


def test_a_default_port_that_is_written_out_is_purged_with_and_without() -> None:
    names = (url_name(b"shop.example", b"/a"), url_name(b"shop.example:443", b"/a"))
    assert order(url=["https://shop.example:443/a"]).names == names
    assert order(url=["http://shop.example:443/a"]).names == names
    folders = (prefix_name(b"shop.example", b"/"), prefix_name(b"shop.example:80", b"/"))
    assert order(prefix=["http://shop.example:80"]).names == folders


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("shop.example/page", "is no URL; write it like http://shop.example/page"),
        ("//shop.example/page", "is no URL; write it like http://shop.example/page"),
        ("ftp://shop.example/page", "is no URL; write it like http://shop.example/page"),
        ("", "is no URL; write it like http://shop.example/page"),
        ("http:/shop.example", "is no URL; write it like http://shop.example/page"),
        ("http://", "no host is called nothing; write it like http://shop.example/page"),
        ("http:///a", "no host is called nothing; write it like http://shop.example/page"),
        ("http://[::1/a", "no host is called [::1; write it like http://shop.example/page"),
        ("http://a:b/", "no host is called a:b; write it like http://shop.example/page"),
        ("http://*.a/", "no host is called *.a; write it like http://shop.example/page"),
        (
            "http://a.example\\b.example/",
            "no host is called a.example\\b.example; write it like http://shop.example/page",
        ),
        (
            "http://a.example@b.example/",
            "a URL is purged without user info; leave out what stands before the @",
        ),
        (
            "http://a.example\\@b.example/",
            "a URL is purged without user info; leave out what stands before the @",
        ),
        ("http://a.example/#b", "a URL is purged without its #fragment; leave it out"),
        ("http://a.example#@b", "a URL is purged without its #fragment; leave it out"),
        (
            "http://a.example/a b",
            "has white space or a control character; escape it (a space is %20)",
        ),
        (
            "http://a.example/\0",
            "has white space or a control character; escape it (a space is %20)",
        ),
        (
            "http://a.example/a\n",
            "has white space or a control character; escape it (a space is %20)",
        ),
        (
            "http://a.example/\\b",
            "a path that cannot be read one way, so nothing is stored under it",
        ),
        (
            "http://a.example/%00",
            "a path that cannot be read one way, so nothing is stored under it",
        ),
        (
            "http://a.example/grün?ß",
            "write it as it is asked for: http://a.example/gr%C3%BCn?%C3%9F",
        ),
        ("http://a.example/" + "ü" * 200, "is not ASCII; percent-encode it, as it is asked for"),
        ("http://grün.example/", "write the host as it is asked for, in ASCII (xn--…)"),
        ("grün.example/", "write the host as it is asked for, in ASCII (xn--…)"),
        ("http://a.example。b/", "write the host as it is asked for, in ASCII (xn--…)"),
    ],
)
def test_a_url_that_names_nothing_is_refused_with_the_way_out(url: str, message: str) -> None:
    assert refused(url=[url]) == [("url[0]", shown(url), message)]


def test_a_star_in_a_url_is_a_star_and_is_remarked_upon() -> None:
    found = order(url=["http://shop.example/*", "http://shop.example/a?*"])
    assert found.names == (
        url_name(b"shop.example", b"/*"),
        url_name(b"shop.example", b"/a?*"),
    )
    (note,) = found.notes
    assert note.startswith("in a url or prefix * is a character like any other")
    folder = order(prefix=["http://shop.example/a/*"])
    assert folder.names == (prefix_name(b"shop.example", b"/a/*/"),)
    assert folder.notes == (note,)


def test_hosts_that_no_site_serves_are_remarked_upon_a_few_times() -> None:
    assert order(host=["a.b"]).notes == ("no site serves a.b",)
    many = order(url=[f"http://h{n}.example/" for n in range(NOTES_TOLD + 5)])
    assert len(many.names) == NOTES_TOLD + 5
    assert len(many.notes) == NOTES_TOLD


def test_a_prefix_has_no_query_and_is_not_deeper_than_what_is_stored() -> None:
    assert one_fault(prefix=["http://shop.example/a?b"]).startswith("a prefix has no query")
    deepest = "http://shop.example" + "/a" * DEPTH
    assert order(prefix=[deepest]).names == order(prefix=[deepest + "/"]).names
    assert "a shorter prefix" in one_fault(prefix=[deepest + "/b"])


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("shop.example", b"shop.example"),
        ("SHOP.example.", b"shop.example"),
        ("shop.example:8080", b"shop.example:8080"),
        ("192.0.2.1", b"192.0.2.1"),
        ("::1", b"[::1]"),
        ("[::1]", b"[::1]"),
        ("2001:DB8::1", b"[2001:db8::1]"),
        ("[::1]:81", b"[::1]:81"),
        ("localhost", b"localhost"),
    ],
)
def test_a_host_may_be_a_name_or_an_address_with_a_port(host: str, authority: bytes) -> None:
    assert order(host=[host]).names == (host_name(authority),)


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("*.shop.example", "a host is purged by its own name"),
        ("*", "a host is purged by its own name"),
        ("http://shop.example", "give the host alone, like shop.example"),
        ("shop.example/", "give the host alone, like shop.example"),
        ("u@shop.example", "give the host alone, like shop.example"),
        ("shop.example:443", "80 and 443 go without saying"),
        ("[::1]:80", "80 and 443 go without saying"),
        ("", "is empty; write it like shop.example"),
        ("a b", "has white space or a control character, which no host has"),
        ("[", "no host is called [; write it like shop.example"),
        ("a,b", "no host is called a,b"),
        ("::g", "no host is called ::g"),
        (":::", "no host is called [:::]"),
        ("shop.example ", "has white space"),
        ("grün.example", "write the host as it is asked for"),
    ],
)
def test_a_host_that_is_none_is_refused_with_the_way_out(host: str, start: str) -> None:
    assert one_fault(host=[host]).startswith(start)


@pytest.mark.parametrize("tag", ["", " a", "a\0", "a, b", "a\n", "a" * 1025])
def test_a_tag_that_no_answer_can_have_is_refused(tag: str) -> None:
    ((path, value, _),) = refused(tag=["good", tag])
    assert (path, value) == ("tag[1]", shown(tag))


@pytest.mark.parametrize(
    ("document", "value", "said"),
    [
        (b"", "", "this body is empty"),
        (b" ", " ", "this body is empty"),
        (b"[]", "[]", "this is a list"),
        (b"null", "null", "this is null"),
        (b'"x"', '"x"', "this is a string"),
        (b"{", "{", "this ends too early"),
        (b'{"tag":["\xff"]}', '{"tag":["\\xff"]}', "this is not UTF-8"),
        (b'{"tag":["\\ud800"]}', '{"tag":["\\ud800"]}', "half of a surrogate pair"),
        (b'{"tag":["\\udc00........"]}', '{"tag":["\\udc00........"]}', "half of a surrogate"),
        (b'{"tag":["a\0"]}', '{"tag":["a\\x00"]}', "this is none: invalid character"),
        (b'{"tag":[NaN]}', '{"tag":[NaN]}', "invalid character"),
        (b"tag=front", "tag=front", "this is none: "),
        (b'{"a":' + b"[" * 100_000, '{"a":' + "[" * 55 + "…", "this is too deep"),
        (b"1" * 5_000, "1" * 60 + "…", "this is a number"),
        (b'{"a":1e999}', '{"a":1e999}', "this has a number out of range"),
    ],
)
def test_what_is_no_json_object_is_refused(document: bytes, value: str, said: str) -> None:
    ((path, told_value, message),) = refused(document)
    assert (path, told_value) == ("", value)
    assert message.startswith(
        'an order is a JSON object like {"url": ["http://shop.example/page"]}'
    )
    assert said in message


def test_unknown_doubled_and_mistaken_members_are_told_all_at_once() -> None:
    document = (
        b'{"urls": [1], "tag": ["a"], "tag": ["b"], "host": "shop.example", "url": [7, null, "x"],'
        b' "soft": 1, "all": null, "\\u202e\\u0000": {}, "prefix": {"a": 1}}'
    )
    known = "is unknown; there is url, prefix, host, tag, all, soft, dry_run, local, on"
    assert refused(document) == [
        ("urls", "[…]", known),
        ("tag", "[…]", "is there twice; give it once, with all its values"),
        ("\\u202e\\x00", "{…}", known),
        ("all", "null", "must be true or false"),
        ("soft", "1", "must be true or false"),
        ("prefix", "{…}", 'must be a list of strings, like "prefix": ["…"]'),
        ("host", "shop.example", 'must be a list of strings, like "host": ["…"]'),
        ("url[0]", "7", "must be a string"),
        ("url[1]", "null", "must be a string"),
        ("url[2]", "x", "is no URL; write it like http://shop.example/page"),
    ]


def test_the_first_faults_are_told_and_the_others_counted() -> None:
    with pytest.raises(OrderRefused) as caught:
        order(tag=[""] * 50)
    assert (len(caught.value.faults), caught.value.more) == (FAULTS_TOLD, 50 - FAULTS_TOLD)
    assert str(caught.value).startswith("tag[0]: ")
    assert str(caught.value).endswith("; and 30 more")
    with pytest.raises(OrderRefused, match=r"^purges nothing: name"):
        order()


def test_too_many_scopes_are_refused_and_as_many_as_may_be_are_quick() -> None:
    tags = [f"tag-{n}" for n in range(MOST_SCOPES_IN_ORDER)]
    document = json.dumps({"tag": tags}).encode()
    began = perf_counter()
    assert len(order_from_json(document, SITES).names) == MOST_SCOPES_IN_ORDER
    assert perf_counter() - began < 5.0  # a fifth of a second, on a machine with time to spare
    ((path, _, message),) = refused(tag=[*tags, "one more"])
    assert path == ""
    assert message.startswith("100001 scopes; an order has at most 100000: split it")


@pytest.mark.parametrize("value", ["", "http://ü/" + "ü" * 100, 7, None, [[]], "http://a" * 99])
def test_a_hundred_thousand_faults_are_read_in_linear_time(value: object) -> None:
    kinds = ("url", "prefix", "host", "tag") if value == "" else ("url", "prefix", "host")
    document = json.dumps({kind: [value] * (100_000 // len(kinds)) for kind in kinds}).encode()
    began = perf_counter()
    assert len(refused(document)) == FAULTS_TOLD
    assert perf_counter() - began < 10.0  # half a second, on a machine with time to spare


def test_an_order_for_one_host_names_nothing_of_another() -> None:
    within = order_from_json(
        b'{"on": "Shop.example", "tag": ["a"], "host": ["shop.example"], "local": true,'
        b' "url": ["http://shop.example:8080/"], "prefix": ["https://shop.example/b"]}',
        SITES,
    )
    assert (within.on, within.local) == (b"shop.example", True)
    assert within.names[-1] == tag_name(b"a", b"shop.example")
    beyond = (
        b'{"on": "shop.example", "host": ["plain.example"], "url": ["http://no.example/"],'
        b' "prefix": ["http://plain.example/"]}'
    )
    faults = refused(beyond)
    assert [place for place, _, _ in faults] == ["url[0]", "prefix[0]", "host[0]"]
    assert {why for _, _, why in faults} == {
        "is not on shop.example, as the order says of all of it"
    }


@pytest.mark.parametrize("on", ["7", "null", '"a b"', '""', '"*"', '["shop.example"]'])
def test_a_host_that_is_none_is_no_bound(on: str) -> None:
    document = f'{{"on": {on}, "tag": ["a"]}}'.encode()
    assert [(place, why[:10]) for place, _, why in refused(document)] == [("on", "is no host")]


def test_everything_is_not_on_one_host() -> None:
    ((place, _, why),) = refused(b'{"on": "shop.example", "all": true}')
    assert (place, why) == ("on", "one host and everything: purge the host")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    ["url", "prefix", "host", "tag", "all", "soft", "dry_run", "local", "on", "x"]
)


@given(
    st.binary(max_size=60) | st.dictionaries(MEMBERS, JSON).map(lambda d: json.dumps(d).encode())
)
def test_any_document_is_an_order_or_refused(document: bytes) -> None:
    try:
        found = order_from_json(document, SITES)
    except OrderRefused as error:
        faults, found = error.faults, Order()
    else:
        faults = []
    assert (found.everything or bool(found.names)) is not bool(faults)
    assert len(faults) <= FAULTS_TOLD
    assert all(f"{fault.path}{fault.value}".isprintable() for fault in faults)


# --- the laws -----------------------------------------------------------------

HOSTS = st.sampled_from(
    ["shop.example", "sub.kept.example", "plain.example", "[::1]", "[0:0::1]", "no.example"]
)
CASES = st.sampled_from([str.upper, str.lower, str.title])
PORTS = st.sampled_from(["", ":", ":80", ":443", ":8080"])
PIECES = st.sampled_from(
    [
        "/",
        "//",
        "/.",
        "/..",
        "/a",
        "/A",
        "/%61",
        "%2e",
        "%2f",
        "%2F",
        "/b;c",
        "*",
        "%zz",
        "%",
        "~",
        "@",
        ":",
        "[",
        "\\",
    ]
)
QUERIES = st.lists(
    st.sampled_from(["a=1", "utm_x=2", "id=3", "b", "", "%61=4", "?", "/../", "*"]), max_size=4
)


@st.composite
def urls(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """`(scheme, authority, target, url)`"""
    host = draw(CASES)(draw(HOSTS))
    dot = "." if not host.startswith("[") and draw(st.booleans()) else ""
    authority = host + dot + draw(PORTS)
    path = "/" + "".join(draw(st.lists(PIECES, max_size=6)))
    query = "?" + "&".join(draw(QUERIES)) if draw(st.booleans()) else ""
    scheme = draw(st.sampled_from(["http", "https"]))
    return scheme, authority, path + query, f"{scheme}://{authority}{path}{query}"


def stored(
    scheme: str, authority: str, target: str, connection: bytes = b"http"
) -> tuple[str, set[bytes]] | None:
    """The URL and the names of the entry that a request makes; None where it is refused."""
    hosts = [authority.encode()]
    try:
        _, host, raw = parse_request_target(b"GET", target.encode(), hosts, connection)
        site = SITES.find(host)
        forwarded = forwarded_target(raw, site.key) if site else forwarded_target(raw)
    except ProtocolError:
        return None
    key = key_of(scheme.encode(), host, forwarded, RequestHead(b"GET", b"http", host, raw))
    return key.url.decode(), set(names_of(key.url, [b"front"], []))


@given(urls(), st.sampled_from([b"http", b"https"]))
@settings(max_examples=200)
def test_the_order_for_a_url_covers_what_that_url_stored(
    url: tuple[str, str, str, str], connection: bytes
) -> None:
    scheme, authority, target, text = url
    entry = stored(scheme, authority, target, connection)
    if entry is None:
        assert len(refused(url=[text])) == 1
        return
    for told_so in (text, entry[0]):
        found = order(url=[told_so])
        assert not entry[1].isdisjoint(found.names)
        hosts = {host_of(told(name)[1].partition("/")[0].encode()) for name in found.names}
        assert len(hosts) == 1


@given(urls())
@settings(max_examples=200)
def test_a_purge_request_covers_what_a_get_for_the_same_url_stored(
    url: tuple[str, str, str, str],
) -> None:
    scheme, authority, target, _ = url
    entry = stored(scheme, authority, target)
    if entry is None:
        return
    _, host, raw = parse_request_target(b"GET", target.encode(), [authority.encode()], b"http")
    if (site := SITES.find(host)) is None:
        return
    exactly = Headers([(b"x-purge-method", b"exact")])
    found = order_from_purge(RequestHead(b"PURGE", b"http", host, raw, exactly), site)
    assert not entry[1].isdisjoint(found.names)


SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab", "", "a%2Fb", "c;d", "*x"]), max_size=5)


@given(SEGMENTS, SEGMENTS, st.booleans(), st.sampled_from(["", "?", "?a", "?/a/b"]))
@settings(max_examples=200)
def test_a_prefix_covers_its_descendants_by_segments_and_nothing_else(
    folder: list[str], path: list[str], slash: bool, query: str
) -> None:
    prefix = "/" + "/".join(folder) + ("/" if slash and folder else "")
    target = "/" + "/".join(path)
    entry = stored("http", "plain.example", target + query)
    assert entry is not None
    found = order(prefix=[f"http://plain.example{prefix}"])
    directory = prefix if prefix.endswith("/") else prefix + "/"
    below = (target if target.endswith("/") else target + "/").startswith(directory)
    assert (not entry[1].isdisjoint(found.names)) is below


WEIRD = st.lists(
    st.sampled_from(
        [
            *("http://", "a.example", "b.example", "@", "\\", "/", "//", ":", "80", "?", "#", "*"),
            *(".", "..", "%2e", "%2f", "%40", "%00", "[", "]", "::1", "x", "\t", "\0", " "),
            *("。", "／"),  # a dot and a slash to those who fold Unicode
        ]
    ),
    min_size=1,
    max_size=8,
).map("".join)


@given(WEIRD, st.sampled_from(["url", "prefix"]))
@settings(max_examples=200)
def test_an_order_never_reaches_another_host_than_the_one_it_names_first(
    text: str, kind: str
) -> None:
    text = f"http://a.example{text}"
    try:
        found = order(**{kind: [text]})
    except OrderRefused:
        return
    authority = text[len("http://") :].partition("/")[0].partition("?")[0]
    theirs = set(names_of(b"http://b.example/", [], [])) | set(
        names_of(b"http://b.example/x", [], [])
    )
    if not authority.endswith("b.example"):
        assert theirs.isdisjoint(found.names)
    for name in found.names:
        assert name[1:].startswith(
            authority.lower().encode().removesuffix(b":").removesuffix(b".")[:9]
        )


# --- plugins ------------------------------------------------------------------

URL = url_name(b"shop.example", b"/a")


@pytest.mark.parametrize(
    ("target", "fields", "expected"),
    [
        (b"/a", (), Order((URL,))),
        (b"/x/../%61?utm_source=1", (), Order((URL,))),
        (b"/a", ((b"fastly-soft-purge", b"1"),), Order((URL,), soft=True)),
        (b"/a", ((b"fastly-soft-purge", b" 1 "),), Order((URL,), soft=True)),
        (b"/a", ((b"fastly-soft-purge", b"0"),), Order((URL,))),
        (b"/a", ((b"x-purge-method", b"default"),), Order((URL,))),
        (b"/a", ((b"x-purge-method", b"EXACT"),), Order((URL,))),
        (b"/*", ((b"x-purge-method", b"exact"),), Order((url_name(b"shop.example", b"/*"),))),
        (b"/a?*", (), Order((url_name(b"shop.example", b"/a?*"),))),
        (b"/.*", ((b"x-purge-method", b"regex"),), Order((prefix_name(b"shop.example", b"/"),))),
        (
            b"/b/../wp-1.2/.*",
            ((b"x-purge-method", b"Regex"), (b"fastly-soft-purge", b"1")),
            Order((prefix_name(b"shop.example", b"/wp-1.2/"),), soft=True),
        ),
    ],
)
def test_a_purge_is_for_its_url_or_the_folder_of_its_pattern(
    target: bytes, fields: tuple[tuple[bytes, bytes], ...], expected: Order
) -> None:
    assert purge(target, *fields) == expected


@pytest.mark.parametrize(
    ("field", "value", "tags"),
    [
        (b"surrogate-key", b"a b,c", [b"a", b"b,c"]),
        (b"cache-tag", b"a b, c", [b"a b", b"c"]),
        (b"xkey", b"a b,c", [b"a", b"b", b"c"]),
        (b"xkey-purge", b"a b", [b"a", b"b"]),
        (b"key", b"content-1, location-2", [b"content-1", b"location-2"]),
        (b"cache-tags", b"node:1|node_list config:x.y", [b"node:1", b"node_list", b"config:x.y"]),
        (b"purge-cache-tags", b"node:1", [b"node:1"]),
        (b"x-cache-tags", b"a,b", [b"a", b"b"]),
    ],
)
def test_a_purge_with_tags_is_for_those_of_its_host_and_not_for_its_url(
    field: bytes, value: bytes, tags: list[bytes]
) -> None:
    names = tuple(tag_name(tag, b"shop.example") for tag in tags)
    assert purge(b"/", (field, value)) == Order(names)
    assert purge(b"/", (field, value), (b"fastly-soft-purge", b"1")) == Order(names, soft=True)


def test_a_purge_is_soft_if_all_of_its_tags_are_and_else_hard() -> None:
    soft, hard = (b"xkey-softpurge", b"a"), (b"xkey-purge", b"b")
    a, b = tag_name(b"a", b"shop.example"), tag_name(b"b", b"shop.example")
    assert purge(b"/", soft) == Order((a,), soft=True)
    assert purge(b"/", soft, hard) == Order((b, a))


def test_the_fields_of_a_site_are_read_in_its_own_way_and_its_reach_heeded() -> None:
    expected = Order((tag_name(b"a"), tag_name(b"b")))
    assert (
        purge(b"/", (b"x-words", b"a"), (b"surrogate-key", b"b"), host=b"kept.example") == expected
    )
    assert purge(b"/", (b"x-words", b"a")) == Order((url_name(b"shop.example", b"/"),))


def test_tags_of_one_host_are_those_of_none_other() -> None:
    names = set(purge(b"/", (b"xkey", b"front"), host=b"plain.example").names)
    theirs = names_of(b"http://shop.example/", [b"front"], [])
    own = names_of(b"http://plain.example:8080/", [b"front"], [])
    assert names.isdisjoint(theirs)
    assert names <= set(own)
    assert names == set(purge(b"/", (b"xkey", b"front"), host=b"plain.example:81").names)


@pytest.mark.parametrize(
    ("target", "fields", "path", "said"),
    [
        (b"/", [(b"x-magento-tags-pattern", b".*")], "x-magento-tags-pattern", "in xkey"),
        (b"/", [(b"x-cache-tags-pattern", b"a")], "x-cache-tags-pattern", "in xkey"),
        (b"/", [(b"x-litespeed-purge", b"*")], "x-litespeed-purge", "in xkey"),
        (b"/", [(b"x-cache-tags", b"(^|,)(a|b)(,|$)")], "x-cache-tags", "in xkey"),
        (b"/", [(b"xkey", b"")], "xkey", "names no tag"),
        (b"/", [(b"xkey-purge", b" ,")], "xkey-purge", "names no tag"),
        (b"/", [(b"cache-tag", b"a\x7f")], "cache-tag", "control character"),
        (b"/", [(b"x-purge-method", b"tags")], "target", "in xkey"),
        (b"/", [(b"x-purge-method", b"ban")], "target", "X-Purge-Method is default"),
        (b"/a.*", [(b"x-purge-method", b"regex")], "target", "with /.* at its end"),
        (b"/a/", [(b"x-purge-method", b"regex")], "target", "with /.* at its end"),
        (b"/(a|b)/.*", [(b"x-purge-method", b"regex")], "target", "with /.* at its end"),
        (b"/a/.*?b", [(b"x-purge-method", b"regex")], "target", "with /.* at its end"),
        (b"/a" * 17 + b"/.*", [(b"x-purge-method", b"regex")], "target", "a shorter prefix"),
        (b"/a/.*", [], "target", "below /a/ send X-Purge-Method: regex and /a/.* as path"),
        (b"/%2E*", [], "target", "below / send X-Purge-Method: regex and /.* as path"),
        (b"/a*", [(b"x-purge-method", b"default")], "target", "X-Purge-Method: exact"),
        (b"/\\a", [], "target", "cannot be read one way"),
    ],
)
def test_a_purge_that_cannot_be_had_is_refused_with_what_to_send_instead(
    target: bytes, fields: list[tuple[bytes, bytes]], path: str, said: str
) -> None:
    faults = purge_refused(target, *fields)
    assert faults[0][0] == path
    assert said in faults[0][1]


FIELDS = st.sampled_from(
    [
        *(b"xkey", b"surrogate-key", b"cache-tag", b"cache-tags", b"xkey-purge", b"x-cache-tags"),
        *(b"xkey-softpurge", b"x-purge-method", b"fastly-soft-purge", b"x-ban-url", b"other"),
    ]
)
VALUES = st.binary(max_size=12) | st.sampled_from([b"regex", b"exact", b"tags", b"1", b"a, b|c"])
TARGETS = st.binary(max_size=20) | st.sampled_from([b"*", b"/.*", b"/a/.*", b"/a*?", b"/%"])


@given(TARGETS, st.lists(st.tuples(FIELDS, VALUES), max_size=4))
@settings(max_examples=200)
def test_any_purge_is_an_order_for_its_own_host_or_refused(
    target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    try:
        found = purge(target, *fields)
    except OrderRefused:
        return
    assert found.names
    assert not found.everything
    assert all(name[1:].startswith(b"shop.example") for name in found.names)


def test_a_purge_for_no_host_is_refused() -> None:
    with pytest.raises(OrderRefused, match="a PURGE needs a Host"):
        order_from_purge(RequestHead(b"PURGE", b"http", b"", b"/"), site_of(b"shop.example"))


@pytest.mark.parametrize("method", [b"PURGEKEYS", b"BAN"])
def test_other_methods_of_plugins_take_tags_and_nothing_else(method: bytes) -> None:
    fields = Headers([(b"xkey-purge", b"news front")])
    tagged = RequestHead(method, b"http", b"shop.example", b"/", fields)
    names = order_from_purge(tagged, site_of(b"shop.example")).names
    assert names == (tag_name(b"news", b"shop.example"), tag_name(b"front", b"shop.example"))
    bare = RequestHead(method, b"http", b"shop.example", b"/.*", Headers())
    with pytest.raises(OrderRefused) as caught:
        order_from_purge(bare, site_of(b"shop.example"))
    assert caught.value.faults[0].path == "method"


def test_a_port_that_goes_without_saying_is_purged_with_and_without() -> None:
    names = purge(b"/a", host=b"shop.example:443").names
    assert names == (url_name(b"shop.example", b"/a"), url_name(b"shop.example:443", b"/a"))
