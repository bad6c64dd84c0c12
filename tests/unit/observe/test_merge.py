from __future__ import annotations

from functools import reduce
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.observe.merge import merged


def test_numbers_are_added_and_words_are_the_first_ones() -> None:
    one = {"store": {"entries": 1, "words": "a"}, "seconds": 0.5}
    other = {"store": {"entries": 2, "words": "b"}, "seconds": 1.0}
    assert merged([one, other]) == {"store": {"entries": 3, "words": "a"}, "seconds": 1.5}


def test_a_yes_of_one_is_the_nodes_and_no_number() -> None:
    assert merged([{"full": False}, {"full": True}]) == {"full": True}
    assert merged([{"full": False}, {"full": False}]) == {"full": False}


def test_what_is_no_sum_is_the_least_or_the_most() -> None:
    parts = [{"swept_to": 7, "failures_in_a_row": 1}, {"swept_to": 3, "failures_in_a_row": 2}]
    assert merged(parts) == {"swept_to": 3, "failures_in_a_row": 2}


def test_what_only_some_have_is_taken_from_those() -> None:
    assert merged([{"disk": None, "a": 1}, {"disk": {"rows": 2}}]) == {"disk": {"rows": 2}, "a": 1}
    assert merged([{"disk": None}, {"disk": None}]) == {"disk": None}
    assert merged([]) == {}


LEAVES = st.integers(-100, 100) | st.just(None)
SHAPES = st.recursive(
    st.sampled_from(["int", "bool", "least", "most"]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def filled(draw: Any, shape: Any, name: str = "n") -> tuple[str, Any]:
    """A document of this shape."""
    if isinstance(shape, dict):
        return name, dict(filled(draw, inner, key) for key, inner in shape.items())
    if shape == "bool":
        return name, draw(st.none() | st.booleans())
    names = {"int": name, "least": "swept_to", "most": "failures_in_a_row"}
    return names[shape], draw(LEAVES)


@st.composite
def documents(draw: Any) -> list[dict[str, Any]]:
    shape = draw(SHAPES.filter(lambda shape: isinstance(shape, dict)))
    return [filled(draw, shape)[1] for _ in range(draw(st.integers(1, 4)))]


@given(documents(), st.randoms())
def test_the_order_is_of_no_matter_and_parts_may_be_merged_before(
    parts: list[dict[str, Any]], random: Any
) -> None:
    whole = merged(parts)
    assert reduce(lambda one, other: merged([one, other]), parts) == whole
    random.shuffle(parts)
    assert merged(parts) == whole
