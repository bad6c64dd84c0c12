"""Orders while they are read: each scope once, and faults told without end neither in words nor
in work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.purging.draft import FAULTS_TOLD, NOTES_TOLD, Draft, Fault, Order, OrderRefused, shown


class Costly:
    """Words that are not to be asked for."""

    def __str__(self) -> str:
        raise AssertionError


def test_a_draft_becomes_an_order_with_each_scope_once() -> None:
    draft = Draft()
    for name in (b"tb", b"ta", b"tb"):
        draft.add(name)
    draft.note("a remark")
    draft.note("a remark")
    draft.note("no site serves", b"a.example")
    assert draft.order(soft=True, dry_run=True) == Order(
        names=(b"tb", b"ta"),
        soft=True,
        notes=("a remark", "no site serves a.example"),
        dry_run=True,
    )


def test_a_draft_with_a_fault_becomes_none() -> None:
    draft = Draft()
    draft.check()
    draft.add(b"ta")
    draft.refuse("tag[1]", "\n", "is no tag")
    with pytest.raises(OrderRefused, match=r"^tag\[1\]: is no tag$") as caught:
        draft.order(everything=True)
    assert caught.value.faults == [Fault("tag[1]", "\\n", "is no tag")]
    assert caught.value.more == 0


def test_faults_beyond_those_told_are_counted_and_never_put_in_words() -> None:
    draft = Draft()
    for _ in range(FAULTS_TOLD):
        draft.refuse("", b"\xff", "is wrong")
    draft.refuse("", 7, Costly())
    with pytest.raises(OrderRefused, match=r"^is wrong; .*; and 1 more$") as caught:
        draft.check()
    assert (len(caught.value.faults), caught.value.more) == (FAULTS_TOLD, 1)


def test_remarks_are_bounded() -> None:
    draft = Draft()
    for n in range(NOTES_TOLD + 1):
        draft.note(f"remark {n}")
    assert len(draft.order().notes) == NOTES_TOLD


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (7, "7"),
        ([1], "[…]"),
        ({"a": 1}, "{…}"),
        ("\u202e\0\ud800ü", "\\u202e\\x00\\ud800ü"),
        (b"a\xff", "a\\xff"),
        ("a" * 60, "a" * 60),
        ("a" * 61, "a" * 60 + "…"),
    ],
)
def test_values_are_shown_as_json_has_them_and_safe_to_print(value: object, text: str) -> None:
    assert shown(value) == text


@given(st.text(max_size=100) | st.binary(max_size=100) | st.none() | st.floats() | st.booleans())
def test_what_is_shown_is_short_and_printable(value: object) -> None:
    text = shown(value)
    assert text.isprintable()
    assert len(text) <= 1 + 60 * len("\\U0010ffff")
