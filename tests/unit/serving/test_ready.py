"""Heads with two places left open: filled in, they are what would be written anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.cache.entry import Entry, Key, Seq, Source, Terms, Times
from edge.cache.freshness import current_age
from edge.cache.ranges import Span
from edge.observe.record import Outcome
from edge.serving.ready import AGES, TTLS, Made, Ready, Template
from edge.wire.message import Headers

T = 1_800_000_000.0
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


@given(st.floats(0, 50), st.lists(st.floats(0, 3), max_size=20), st.integers(0, 9))
def test_a_head_that_was_filled_before_is_right_for_as_long_as_it_is_used(
    arrived_old: float, pauses: list[float], age_field: int
) -> None:
    entry = an_entry(T - arrived_old, age_field)
    ready, made = Ready(object(), entry), Made(None, False, (), Outcome.HIT, "hit")
    template = Template.of(lambda age, ttl: b"%d %d" % (age, ttl))
    assert template is not None
    now = T - 1
    for pause in [0.0, *pauses]:
        now += pause
        if not made.since <= now < made.until:
            ready.fill(made, template, now)
        age = current_age(entry, now)
        ttl = int((entry.terms.lifetime_s - age) // 1)
        assert (made.filled, made.ttl) == (b"%d %d" % (int(age), ttl), ttl)


def test_what_is_not_kept_for_its_lifetime_is_not_ready_for_it() -> None:
    assert T + 59 < Ready(object(), an_entry(T, 0)).fresh_until < T + 60
    assert Ready(object(), an_entry(T, 0, keep_until=T + 5)).fresh_until == T + 5


def an_entry(date: float, age_field: int, keep_until: float = T + 90) -> Entry:
    return Entry(
        key=Key(b"", b""), status=200, headers=Headers(), times=Times(T, T), date=date,
        age_field=age_field, terms=Terms(60.0, Source.MAX_AGE), variant=(), length=0,
        fetched_at=Seq(0), keep_until=keep_until,
    )  # fmt: skip


def test_the_content_is_the_body_or_pieces_of_it_in_order() -> None:
    body = b"0123456789"
    whole = Made(None, True, (Span(0, 10),), Outcome.HIT, "hit")
    (content,) = whole.content(body)
    assert content is body
    parts = Made(None, False, (b"head", Span(2, 4), b"tail"), Outcome.HIT, "hit")
    assert b"".join(parts.content(body)) == b"head23tail"
    assert Made(None, False, (), Outcome.HIT, "hit").content(body) == []
    assert whole.content(None) == []
