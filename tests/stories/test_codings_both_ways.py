"""The lane's law, and the hop's, where answers are coded: no way answers in its own way."""

from __future__ import annotations

from gzip import compress
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from edge.explain.question import Question
from tests.stories import test_both_ways, test_by_hop, test_explain
from tests.stories.test_both_ways import rename
from tests.stories.test_codings import ON, TEXT
from tests.stories.test_explain import FRESHNESS, PAUSES, PURGES, SELECTIVE, fetching, pending

if TYPE_CHECKING:
    from tests.stories.test_both_ways import Act

LAW: Final = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
CODINGS: Final = ("br", "gzip", "zstd", "gzip, br", "identity;q=0, br", "gzip;q=0.1, identity", "")
TAGS: Final = (b'"1-br.00000000"', b'"1-gzip.00000000", "7"', b'"1"')


@st.composite
def steps(draw: st.DrawFn, came: str) -> Any:
    """Something that is stored, as a rule in a coding; `came` is the origin's own, if any."""
    headers = {
        "Cache-Control": draw(st.sampled_from(FRESHNESS)),
        "Content-Type": draw(st.sampled_from(("text/html", "text/html", "image/png"))),
    }
    if came:
        headers["Content-Encoding"] = came
    for name, values in (
        ("ETag", ('"1"', '"1"', 'W/"1"')),
        ("Vary", ("Accept-Encoding", "Accept-Language")),
        ("xkey", ("front",)),
    ):
        if draw(st.booleans()):
            headers[name] = draw(st.sampled_from(values))
    asked = {"Accept-Encoding": draw(st.sampled_from(CODINGS))}
    return fetching(headers, asked=asked if draw(st.booleans()) else None)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """A request from who accepts something."""
    fields = [(b"Accept-Encoding", draw(st.sampled_from(CODINGS)).encode())]
    tagged = [(b"If-None-Match", tag) for tag in TAGS] + [(b"If-Range", tag) for tag in TAGS]
    fields += draw(st.lists(st.sampled_from((*SELECTIVE, *tagged)), max_size=2))
    method = draw(st.sampled_from((b"GET",) * 4 + (b"HEAD",)))
    return Question(b"http://site.example/a", method, tuple(fields))


@st.composite
def acts(draw: st.DrawFn, came: str = "") -> list[Act]:
    """Something is stored; then there are requests, and what may change their answers."""
    chosen: list[Act] = [draw(steps(came))]
    other = st.one_of(PAUSES, PURGES, steps(came), st.just(rename), pending())
    for _ in range(draw(st.integers(1, 4))):
        chosen += [draw(questions())] * draw(st.sampled_from((1, 2, 3)))
        chosen += [draw(other)] * draw(st.integers(0, 1))
    return [*chosen, *[draw(questions())] * draw(st.sampled_from((1, 2, 3)))]


def page(*fields: tuple[bytes, bytes]) -> Question:
    return Question(b"http://site.example/a", b"GET", fields)


HTML: Final = {"Cache-Control": "max-age=60", "Content-Type": "text/html", "ETag": '"1"'}
GZIPPED: Final = {**HTML, "Content-Encoding": "gzip"}
BR: Final = (b"Accept-Encoding", b"br")
BOTH: Final = (b"Accept-Encoding", b"gzip, br")


@LAW
@given(acts=acts())
@example(
    acts=[fetching(HTML), page(BR), page(BR), page(BR), page((b"If-None-Match", TAGS[0]), BR)]
)
def test_the_lane_answers_alike(acts: list[Act]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_explain, "BODY", TEXT)
        event(f"{test_both_ways.play([ON], acts)} answered at once")


@LAW
@given(acts=acts("gzip"))
@example(acts=[fetching(GZIPPED), page(BR), page(BR), page(BR), page(BOTH), page(BOTH), page(BR)])
def test_the_lane_answers_alike_where_the_origin_codes(acts: list[Act]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_explain, "BODY", compress(TEXT))
        event(f"{test_both_ways.play([ON], acts)} answered at once")


def test_the_lane_answers_at_once_what_is_made() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_explain, "BODY", TEXT)
        told: list[Act] = [fetching(HTML), page(BR), *[page(BR)] * 5]
        assert test_both_ways.play([ON], told) == 5
        told += [page((b"If-None-Match", TAGS[0]), BR)] * 2
        assert test_both_ways.play([ON], told) == 7


@LAW
@given(acts=acts())
@example(
    acts=[fetching(HTML), page(BR), page(BR), page(BR), page((b"If-None-Match", TAGS[0]), BR)]
)
def test_another_worker_answers_alike(acts: list[Act]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_explain, "BODY", TEXT)
        copies, glances = test_by_hop.play([ON], acts)
        event(f"{copies} by copies, {glances} by glances")


@LAW
@given(acts=acts("gzip"))
@example(acts=[fetching(GZIPPED), page(BR), page(BR), page(BR), page(BOTH), page(BOTH), page(BR)])
def test_another_worker_answers_alike_where_the_origin_codes(acts: list[Act]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_explain, "BODY", compress(TEXT))
        copies, glances = test_by_hop.play([ON], acts)
        event(f"{copies} by copies, {glances} by glances")


def test_what_is_made_of_the_origins_coding_answers_at_once_and_by_no_copies() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_explain, "BODY", compress(TEXT))
        told: list[Act] = [fetching(GZIPPED), page(BR), *[page(BR)] * 5]
        assert test_both_ways.play([ON], told) == 5
        assert test_by_hop.play([ON], told)[0] == 0
        told += [page(BOTH)] * 4
        assert test_by_hop.play([ON], told)[0] > 0


def test_copies_of_what_is_made_answer_at_once() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_explain, "BODY", TEXT)
        told: list[Act] = [fetching(HTML), page(BR), *[page(BR)] * 4]
        assert test_by_hop.play([ON], told) == (3, 1)  # a glance brings the copy
        told += [page((b"If-None-Match", TAGS[0]), BR)] * 2
        assert test_by_hop.play([ON], told) == (5, 1)


def test_copies_of_what_does_not_shrink_answer_at_once() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_explain, "BODY", Random(1).randbytes(2000))
        told: list[Act] = [
            fetching(HTML, asked={"Accept-Encoding": "br"}),
            *[page(BR)] * 4,
            page(),
        ]
        assert test_by_hop.play([ON], told) == (4, 1)
        told += [page(BR, (b"Range", b"bytes=0-9")), page((b"If-None-Match", b'"1"'), BR)]
        assert test_by_hop.play([ON], told) == (5, 2)
