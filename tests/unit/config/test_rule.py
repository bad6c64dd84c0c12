from __future__ import annotations

from typing import Any

import pytest

from edge.config import (
    FieldsSettings,
    HeadersSettings,
    MatchSettings,
    RedirectSettings,
    RewriteSettings,
    RouteSettings,
    RuleSettings,
    for_proxy,
)

TYPED = MatchSettings(content_type=("image/*",))


def keys(match: MatchSettings, **told: Any) -> list[tuple[str | int, ...]]:
    return [each.keys for each in RuleSettings(match=match, **told).check()]


@pytest.mark.parametrize(
    "told",
    [
        {"route": RouteSettings(first=("a",))},
        {"rewrite": RewriteSettings(add="/a")},
        {"redirect": RedirectSettings(to="/a")},
        {"request": FieldsSettings(set={"X-A": "1"})},
        {"request": FieldsSettings(remove=("x-a",))},
        {"headers": HeadersSettings(set={"X-A": "1"})},
        {"headers": HeadersSettings(remove=("x-a",))},
    ],
    ids=str,
)
def test_a_rule_by_the_answers_type_changes_nothing_but_caching(told: dict[str, Any]) -> None:
    (name,) = told
    assert keys(TYPED, **told) == [(name,)]
    assert keys(MatchSettings(), **told) == []


def test_a_rule_by_the_answers_type_may_say_on_what_terms_it_is_kept() -> None:
    assert keys(TYPED) == []
    told = 'site.rule=[{match={content_type=["IMAGE/*"]},cache={ttl="5s"}}]'
    (rule,) = for_proxy(["[::1]:0"], "http://a", hostname="h", sets=[told]).sites[0].rules
    assert (rule.match.content_type, rule.cache.ttl) == (("image/*",), 5.0)


@pytest.mark.parametrize(
    ("path", "to", "fault"),
    [("/a/*", "/b/*", False), ("/a/*", "/b", False), ("/a/*", "/b/*/*", True), (None, "/*", True)],
)
def test_there_is_a_star_in_the_match_for_each_that_is_written(
    path: str | None, to: str, *, fault: bool
) -> None:
    match = MatchSettings(path=path)
    assert keys(match, rewrite=RewriteSettings(to=to)) == [("rewrite", "to")] * fault
    assert keys(match, redirect=RedirectSettings(to=to)) == [("redirect", "to")] * fault


def test_a_template_that_no_request_could_be_given_is_found_out() -> None:
    match = MatchSettings(path="/a/*")
    assert keys(match, rewrite=RewriteSettings(to="/b/../*")) == [("rewrite", "to")]
    bad_port = RedirectSettings(to="https://b:99999/")
    assert keys(match, redirect=bad_port) == [("redirect", "to")]


def test_what_a_match_reads_of_the_place_is_told() -> None:
    assert not MatchSettings(path="/a", header={"x": "y"}).by_place
    assert MatchSettings(country=("DE",)).by_place
    assert MatchSettings(continent=("EU",)).by_place
