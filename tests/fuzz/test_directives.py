"""Any bytes make directives; none raise, and none cost more than their length."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from edge.cache.directives import FOREVER_S, Directives, parse_cache_control, parse_targeted

ALPHABET = st.sampled_from(
    [
        *(b"max-age", b"no-store", b"private", b"no-cache", b"=", b'"', b"\\", b",", b";", b" "),
        *(b"60", b"-1", b"+5", b"1_0", b"9" * 20, b"(", b")", b":", b"?1", b"@1", b'%"%c3"'),
        *(b"\x0b", b"\x85", b"\xa0", b"\xff", b"\xe2\x84\xaa", b"\xc2\xb2", b"\n", b"1.5", b"*"),
        *(b"\t", b"\x00"),
    ]
)
PIECES = st.lists(ALPHABET, max_size=24).map(b"".join)
VALUES = st.lists(st.binary(max_size=60) | PIECES, max_size=4)


def check(directives: Directives) -> None:
    for name in ("max_age", "s_maxage", "stale_while_revalidate", "stale_if_error"):
        value = getattr(directives, name)
        assert value is None or (type(value) is int and 0 <= value <= FOREVER_S)
    for field in directives.private_fields | directives.no_cache_fields:
        assert field == field.lower()
        assert field


@given(VALUES)
@example([b'max-age="' + b"\\" * 30_000])
@example([b'"' * 30_001])
@example([b"=," * 30_000])
@example([b"private=" + b'"a,' * 10_000])
@example([b"max-age" * 10_000 + b" =5"])
def test_cache_control_takes_any_bytes(values: list[bytes]) -> None:
    check(parse_cache_control(values))


@given(VALUES)
@example([b"a=@99999999999999"])
@example([b'a=%"%ff"'])
@example([b"a=" + b"(" * 5_000])
@example([b"a=:" + b"=" * 99 + b":"])
@example([b"a;" * 5_000])
@example([b"a=1," * 10_000 + b"b"])
def test_targeted_fields_take_any_bytes(values: list[bytes]) -> None:
    directives = parse_targeted(values)
    if directives is not None:
        check(directives)
