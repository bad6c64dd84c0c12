"""Heads with two places left open: filled in, they are what would be written anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.ready import AGES, TTLS, Template

AGE, TTL = st.integers(0, 1 << 40), st.integers(-(1 << 40), 1 << 40)
# What an origin may have written on purpose, to be taken for a place.
TEXT = st.lists(
    st.sampled_from(
        [b"a", b"%", b"%d", b"%%", b"1", b"-", *(b"%d" % n for n in (*AGES, *TTLS, 7))]
    ),
    max_size=4,
).map(b"".join)
PLACES = st.sampled_from(["at", "ta", "a", "t", "", "aa", "tta"])


@given(TEXT, TEXT, TEXT, PLACES, AGE, TTL)
def test_a_template_filled_in_is_what_would_be_written(
    first: bytes, middle: bytes, last: bytes, places: str, age: int, ttl: int
) -> None:
    def write(age: int, ttl: int) -> bytes:
        told = {"a": b"%d" % age, "t": b"%d" % ttl}
        return middle.join([first, *(told[place] for place in places), last])

    template = Template.of(write)
    if template is not None:
        assert template.filled(age, ttl) == write(age, ttl)


def test_a_usual_head_has_a_template() -> None:
    for form in (b"ttl=%(t)d, age: %(a)d 100%%", b"%(a)d %(t)d", b"age %(a)d", b"ttl=%(t)d", b"x"):
        template = Template.of(lambda age, ttl, form=form: form % {b"a": age, b"t": ttl})  # type: ignore[misc]
        assert template is not None
        assert template.filled(3, -4) == form % {b"a": 3, b"t": -4}


def test_what_is_not_plain_has_none() -> None:
    assert Template.of(lambda age, ttl: None) is None
    assert Template.of(lambda age, ttl: b"x" if age == AGES[0] else None) is None


def test_a_head_that_changes_elsewhere_too_has_none() -> None:
    assert Template.of(lambda age, ttl: b"%d %d %d" % (age, age, ttl)) is None
    assert Template.of(lambda age, ttl: b"%d %d" % (age, min(ttl, 0))) is None
