"""What is chosen is acceptable by RFC 9110 §12.5.3, and by weight the best there is."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.coding.negotiate import (
    LONGEST_BYTES,
    SILENT,
    Acceptance,
    Coding,
    acceptance,
    choose,
    known_coding,
    ranked,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "accept_encoding.toml"
CASES = tomllib.loads(VECTORS.read_text())["case"]
ORDER = (Coding.DCZ, Coding.BR, Coding.ZSTD, Coding.GZIP)
COMMON = ["identity", "br", "zstd", "gzip"]

names = st.sampled_from(
    ["br", "zstd", "gzip", "x-gzip", "identity", "dcz", "*", "deflate", "GZIP", "Br"]
)
weights = st.sampled_from(["", ";q=0", ";q=1", ";q=0.5", "; q=0.001", " ;q=0.999", ";q=0.0"])
members = st.tuples(names, weights)
fields = st.lists(members, max_size=7).map(lambda pairs: ", ".join(n + w for n, w in pairs))
orders = st.permutations(list(Coding)).flatmap(
    lambda some: st.integers(0, len(some)).map(lambda size: tuple(some[:size]))
)
offers = st.frozensets(st.sampled_from(list(Coding)))
junk = st.one_of(
    st.binary(max_size=80),
    st.lists(
        st.sampled_from(
            [b"gzip", b"br", b"*", b"identity", b";", b"q=", b"0", b"1.", b"5", b",", b'"', b" ",
             b"\xff", b"\x00", b"=", b"Q", b"\\"]
        ),
        max_size=40,
    ).map(b"".join),
)  # fmt: skip


def listed(field: str) -> list[tuple[str, float]]:
    """An independent and slow reading of a well-formed field."""
    pairs = []
    for member in field.lower().split(","):
        name, _, weight = member.partition(";")
        if name.strip():
            name = name.strip().replace("x-gzip", "gzip")
            pairs.append((name, float(weight.strip().removeprefix("q=") or 1)))
    return pairs


def weight_by_letter(field: str | None, coding: Coding) -> float:
    """RFC 9110 §12.5.3 read aloud; 0 is refused, and 0.0001 is identity that nobody mentioned."""
    if field is None:
        return 0.0 if coding is Coding.DCZ else 1.0
    pairs = listed(field)
    own = [weight for name, weight in pairs if name == coding.value]
    star = [weight for name, weight in pairs if name == "*"]
    if own:
        return min(own)
    if star and coding is not Coding.DCZ:
        return min(star)
    return 0.0001 if coding is Coding.IDENTITY else 0.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["says"]))
def test_vectors(case: dict[str, Any]) -> None:
    field = case.get("accept")
    available = [Coding(name) for name in case.get("available", COMMON)]
    chosen = choose(acceptance(None if field is None else field.encode()), ORDER, available)
    assert chosen == (Coding(case["chosen"]) if "chosen" in case else None)


@given(field=st.none() | fields, order=orders, available=offers)
def test_what_is_chosen_is_acceptable_and_at_hand(
    field: str | None, order: tuple[Coding, ...], available: frozenset[Coding]
) -> None:
    chosen = choose(acceptance(None if field is None else field.encode()), order, available)
    possible = available & {*order, Coding.IDENTITY}
    best = max((weight_by_letter(field, coding) for coding in possible), default=0.0)
    if chosen is None:
        assert best == 0.0
    else:
        assert chosen in possible
        assert weight_by_letter(field, chosen) > 0.0
        if field is not None:
            assert weight_by_letter(field, chosen) == best


@given(field=fields, order=orders, available=offers)
def test_of_equal_weights_the_sites_first_is_chosen(
    field: str, order: tuple[Coding, ...], available: frozenset[Coding]
) -> None:
    chosen = choose(acceptance(field.encode()), order, available)
    if chosen is not None:
        places = (*order, Coding.IDENTITY)
        weight = weight_by_letter(field, chosen)
        equals = [c for c in places if c in available and weight_by_letter(field, c) == weight]
        assert chosen is equals[0]


@given(value=junk, order=orders, available=offers)
def test_junk_never_raises_and_chooses_only_what_it_names(
    value: bytes, order: tuple[Coding, ...], available: frozenset[Coding]
) -> None:
    chosen = choose(acceptance(value), order, available)
    if chosen not in (None, Coding.IDENTITY):
        assert chosen.token in value.lower() or (b"*" in value and chosen is not Coding.DCZ)


@given(value=junk)
def test_junk_refuses_identity_only_in_so_many_words(value: bytes) -> None:
    if not acceptance(value).accepts(Coding.IDENTITY):
        assert b"q=0" in value.lower()


def test_a_value_beyond_the_bound_allows_nothing_but_identity() -> None:
    fits = b"gzip" + b" " * (LONGEST_BYTES - 4)
    assert acceptance(fits).accepts(Coding.GZIP)
    assert ranked(acceptance(fits + b" "), ORDER) == (Coding.IDENTITY,)


@pytest.mark.parametrize("piece", [b",", b"gzip;q=0,", b'"', b'"\\', b"gzip;", b" \t", b"*;q=0.,"])
def test_no_value_takes_long(piece: bytes) -> None:
    value = (piece * LONGEST_BYTES)[: LONGEST_BYTES - 8]
    before = time.perf_counter()
    for number in range(100):
        acceptance(value + b"%d" % number)  # none of them remembered
        acceptance(value * 100 + b"%d" % number)
    assert time.perf_counter() - before < 1.0  # measured: 20 ms


def test_a_client_that_says_nothing_is_sent_identity_and_may_be_sent_anything() -> None:
    assert acceptance(None) is SILENT
    assert SILENT.is_silent
    assert not acceptance(b"*").is_silent
    assert all(SILENT.accepts(coding) for coding in Coding if coding is not Coding.DCZ)
    assert ranked(SILENT, ORDER)[0] is Coding.IDENTITY


def test_identity_stands_where_the_site_puts_it() -> None:
    order = (Coding.BR, Coding.IDENTITY, Coding.GZIP)
    assert ranked(acceptance(b"*"), order) == order


def test_known_codings() -> None:
    assert known_coding(b"X-GZIP") is Coding.GZIP
    assert known_coding(b"zstd") is Coding.ZSTD
    assert known_coding(b"deflate") is None


def test_a_tables_worth_of_weights() -> None:
    told = acceptance(b"br;q=0.25, zstd;q=0, *;q=0.001")
    assert told == Acceptance(identity=2, br=500, zstd=0, gzip=2, dcz=0)
    assert [told.weight(coding) for coding in Coding] == [2, 500, 0, 2, 0]


def test_tokens_are_the_names() -> None:
    assert [coding.token for coding in Coding] == [b"identity", b"br", b"zstd", b"gzip", b"dcz"]
