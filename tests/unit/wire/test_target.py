"""Targets and authorities: vectors, and the laws that the store's keys rest on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import Failure, ProtocolError
from edge.wire.target import (
    Authority,
    Target,
    edit_query,
    has_hidden_delimiter,
    normalise,
    parse_authority,
    parse_request_target,
    split_target,
)

VECTORS = Path(__file__).parents[2] / "vectors"
AUTHORITIES = tomllib.loads((VECTORS / "authorities.toml").read_text("utf-8"))["authority"]
TARGETS = tomllib.loads((VECTORS / "targets.toml").read_text("utf-8"))

pieces = st.sampled_from(
    b"/ / . .. a Z ~ ; : % %% %4 1 %2e %2E %2f %41 %7e %25 %zz %c3%a4 ..; // ?".split()
)
paths = st.lists(pieces, max_size=12).map(lambda parts: b"/" + b"".join(parts))


def normal_or_none(path: bytes) -> bytes | None:
    try:
        return normalise(path)
    except ProtocolError:
        return None


# --- authority ----------------------------------------------------------------


@pytest.mark.parametrize("case", AUTHORITIES, ids=lambda case: ascii(case["value"]))
def test_authorities_are_read_as_the_vectors_say(case: dict[str, Any]) -> None:
    value = case["value"].encode()
    if "canonical" in case:
        assert parse_authority(value).canonical(b"http") == case["canonical"].encode()
        return
    with pytest.raises(ProtocolError) as refused:
        parse_authority(value)
    assert refused.value.failure is Failure.BAD_HOST


@given(st.sampled_from([c["canonical"].encode() for c in AUTHORITIES if "canonical" in c]))
def test_a_canonical_authority_is_its_own_canonical_form(value: bytes) -> None:
    assert parse_authority(value).canonical(b"http") == value


@pytest.mark.parametrize(
    ("port", "scheme", "canonical"),
    [
        (None, b"https", b"a"),
        (443, b"https", b"a"),
        (443, b"http", b"a:443"),
        (80, b"https", b"a:80"),
        (80, b"ws", b"a:80"),
    ],
)
def test_only_the_schemes_own_port_is_dropped(
    port: int | None, scheme: bytes, canonical: bytes
) -> None:
    assert Authority(b"a", port).canonical(scheme) == canonical


def test_a_host_longer_than_any_name_is_refused() -> None:
    with pytest.raises(ProtocolError):
        parse_authority(b"a" * 261)


# --- request target -----------------------------------------------------------


@pytest.mark.parametrize("case", TARGETS["request"], ids=lambda case: ascii(case["target"]))
def test_request_targets_mean_what_the_vectors_say(case: dict[str, Any]) -> None:
    method, target = case.get("method", "GET").encode(), case["target"].encode()
    hosts, version = [host.encode() for host in case["hosts"]], case.get("version", "1.1").encode()
    if "means" in case:
        meaning = parse_request_target(method, target, hosts, b"http", version)
        assert list(meaning) == [part.encode() for part in case["means"]]
        return
    with pytest.raises(ProtocolError) as refused:
        parse_request_target(method, target, hosts, b"http", version)
    assert refused.value.failure is Failure[case["failure"]]


def test_the_absolute_form_must_name_the_connections_scheme() -> None:
    secure = parse_request_target(b"GET", b"https://a/", [b"a:443"], b"https")
    assert secure == (b"https", b"a", b"/")
    with pytest.raises(ProtocolError) as refused:
        parse_request_target(b"GET", b"http://a/", [b"a"], b"https")
    assert refused.value.status == 421


# --- path ---------------------------------------------------------------------


@pytest.mark.parametrize("case", TARGETS["path"], ids=lambda case: ascii(case["path"]))
def test_paths_are_normalised_as_the_vectors_say(case: dict[str, Any]) -> None:
    path = case["path"].encode()
    if "normal" in case:
        assert normalise(path) == case["normal"].encode(), case.get("why")
        return
    with pytest.raises(ProtocolError) as refused:
        normalise(path)
    assert refused.value.failure is Failure.BAD_MESSAGE


@given(paths)
def test_normalising_twice_is_normalising_once(path: bytes) -> None:
    normal = normal_or_none(path)
    if normal is not None:
        assert normalise(normal) == normal


@given(paths)
def test_a_normal_path_has_no_dot_segments_and_no_escaped_unreserved(path: bytes) -> None:
    normal = normal_or_none(path) or b"/"
    assert normal.startswith(b"/")
    assert not {b".", b".."} & set(normal.split(b"/"))
    assert not re.search(rb"%(2D|2E|3\d|[46][1-9A-F]|[57][0-9A]|5F|7E)", normal, re.IGNORECASE)


@given(paths)
def test_without_dot_segments_a_normal_path_decodes_to_what_the_path_did(path: bytes) -> None:
    normal = normal_or_none(path)
    if normal is not None and not {b".", b".."} & set(unquote_to_bytes(path).split(b"/")):
        assert unquote_to_bytes(normal) == unquote_to_bytes(path)


@given(paths)
def test_delimiters_are_neither_made_nor_lost(path: bytes) -> None:
    normal = normal_or_none(path)
    if normal is not None and b"." not in unquote_to_bytes(path):
        assert re.sub(rb"[^/;:]", b"", normal) == re.sub(rb"[^/;:]", b"", path)


@pytest.mark.parametrize(
    "path",
    [
        *(b"/a;b.css", b"/a/..;/b", b"/a//b", b"/a%2Fb", b"/a%5C..%5Cb", b"/a%3Bb", b"/a%3Fb"),
        *(b"/a%23b", b"/a%0Ab", b"/a%1F", b"/a%7F", b"/%252e", b"/50%", b"/%zz", b"/%4"),
    ],
)
def test_a_path_that_origins_may_cut_elsewhere_is_told(path: bytes) -> None:
    assert has_hidden_delimiter(normalise(path))


@pytest.mark.parametrize(
    "path", [b"/", b"/a/b.css", b"/%C3%A4", b"/a%20b", b"/a=b,c:d@e", b"/%5B"]
)
def test_a_path_that_all_cut_alike_is_told(path: bytes) -> None:
    assert not has_hidden_delimiter(normalise(path))


@given(st.binary(max_size=30))
def test_a_target_split_and_joined_is_the_same(target: bytes) -> None:
    parts = split_target(target)
    assert parts.joined() == target
    assert b"?" not in parts.path


def test_an_empty_query_is_not_a_missing_one() -> None:
    assert split_target(b"/a?") == Target(b"/a", b"")
    assert split_target(b"/a") == Target(b"/a", None)


# --- query --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "rules", "edited"),
    [
        (None, {"sort": True}, None),
        (b"", {"drop": (b"a",)}, b""),
        (b"b=1&&a", {}, b"b=1&&a"),
        (b"b=1&&a", {"drop": (b"x",)}, b"b=1&&a"),
        (b"a=1&utm_source=2&b=3&gclid=4", {"drop": (b"utm_*", b"gclid")}, b"a=1&b=3"),
        (b"utm_a&utm_b", {"drop": (b"utm_*",)}, None),
        (b"utm%5Fa=1&utm%5fb=1&%75tm_c&a", {"drop": (b"utm_*",)}, b"a"),
        (b"UTM_a=1", {"drop": (b"utm_*",)}, b"UTM_a=1"),
        (b"a=1;utm_b=2&utm_c=3;a=4", {"drop": (b"utm_*",)}, b"a=1;utm_b=2"),
        (b"a=1&b=2&ab=3", {"keep": (b"a",)}, b"a=1"),
        (b"a=1", {"keep": ()}, None),
        (b"id=1&id_x=2&c=3", {"keep": (b"id*",), "drop": (b"*_x",)}, b"id=1"),
        (b"a.b=1&aXb=2", {"drop": (b"a.b",)}, b"aXb=2"),
        (b"xaybz=1&xbya=2&xaz=3", {"drop": (b"*a*b*",)}, b"xbya=2&xaz=3"),
        (b"axb=1&ab=2&b=3", {"drop": (b"a*b",)}, b"b=3"),
        (b"b=2&a=9&b=1&a=%7e", {"sort": True}, b"a=9&a=%7e&b=2&b=1"),
        (b"b&&a", {"sort": True}, b"&a&b"),
    ],
)
def test_queries_are_edited_by_the_names_of_their_parameters(
    query: bytes | None, rules: dict[str, Any], edited: bytes | None
) -> None:
    assert edit_query(query, **rules) == edited


parameters = st.sampled_from(b"a b ab a=1 a=2 b=3 %61=4 c;a =".split())
queries = st.lists(parameters, min_size=1).map(lambda parts: b"&".join(parts))
globs = st.lists(st.sampled_from(b"a b ab a* *b *".split()), max_size=3).map(tuple)


@given(queries, globs, globs, st.booleans())
def test_editing_a_query_twice_is_editing_it_once(
    query: bytes, keep: tuple[bytes, ...], drop: tuple[bytes, ...], sort: bool
) -> None:
    once = edit_query(query, keep=keep or None, drop=drop, sort=sort)
    assert edit_query(once, keep=keep or None, drop=drop, sort=sort) == once


@given(queries)
def test_sorting_orders_names_and_leaves_each_names_values_in_their_order(query: bytes) -> None:
    def name(part: bytes) -> bytes:
        return unquote_to_bytes(part.partition(b"=")[0])

    ordered = sorted(query.split(b"&"), key=name)  # stable
    assert edit_query(query, sort=True) == b"&".join(ordered)
