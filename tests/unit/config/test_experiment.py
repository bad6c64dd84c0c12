from __future__ import annotations

from typing import Any

import pytest

from edge.config import ArmSettings, CookieSettings, ExperimentSettings, SiteSettings
from edge.config.route import RouteSettings
from edge.wire.cookies import CookieTerms

COOKIE = CookieSettings(name="ab")
ARMS = {"a": ArmSettings(weight=1.0), "b": ArmSettings(weight=0.0)}


def experiment(**told: Any) -> ExperimentSettings:
    return ExperimentSettings(**{"name": "e", "cookie": COOKIE, "arms": ARMS, **told})


def keys(told: ExperimentSettings | CookieSettings | ArmSettings | SiteSettings) -> list[Any]:
    return [each.keys for each in told.check()]


def test_a_cookie_has_the_terms_that_were_written() -> None:
    assert COOKIE.terms == CookieTerms(
        b"ab", ttl_s=30 * 86_400.0, path=b"/", domain=b"", same_site=b"Lax", http_only=True,
        secure=None,
    )  # fmt: skip
    told = CookieSettings(
        name="ab", ttl=None, path="/x", domain="shop.example", same_site="None", http_only=False,
        secure="always",
    )  # fmt: skip
    assert told.terms == CookieTerms(
        b"ab", ttl_s=None, path=b"/x", domain=b"shop.example", same_site=b"None",
        http_only=False, secure=True,
    )  # fmt: skip
    assert CookieSettings(name="ab", secure="never").terms.secure is False
    assert not keys(told)


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"ttl": 0.0}, "ttl"),
        ({"ttl": 401 * 86_400.0}, "ttl"),
        ({"domain": "*.shop.example"}, "domain"),
        ({"same_site": "None"}, "secure"),
        ({"same_site": "None", "secure": "never"}, "secure"),
        ({"name": "__Secure-a"}, "secure"),
        ({"name": "__Host-a", "secure": "always", "path": "/x"}, "path"),
        ({"name": "__Host-a", "secure": "always", "domain": "a.example"}, "domain"),
    ],
    ids=str,
)
def test_what_browsers_would_refuse_is_told_where_it_stands(
    told: dict[str, Any], where: str
) -> None:
    assert keys(CookieSettings(**{"name": "ab", **told})) == [(where,)]


def test_a_cookie_with_a_fault_already_is_not_judged() -> None:
    assert not keys(CookieSettings(name=None, ttl=0.0))  # type: ignore[arg-type]


def test_what_cannot_be_done_for_an_arms_visitors_is_told() -> None:
    good = ArmSettings(weight=1.0, route=("a",), prefix="/b", header={"X-A": "1"})
    assert not keys(good)
    assert keys(ArmSettings(weight=1.0, prefix="/b/..")) == [("prefix",)]
    assert keys(ArmSettings(weight=1.0, header={"Host": "x"})) == [("header",)]


def test_some_arm_takes_new_visitors_in() -> None:
    assert not keys(experiment())
    idle = {name: ArmSettings(weight=0.0) for name in ARMS}
    assert keys(experiment(arms=idle)) == [("arms",)]


def test_visitors_are_not_known_by_the_cookie_that_tells_their_arm() -> None:
    assert keys(experiment(visitor="ab")) == [("visitor",)]
    assert not keys(experiment(visitor="uid"))


def test_experiments_of_a_site_are_told_apart_by_name_and_by_cookie() -> None:
    def site(*experiments: ExperimentSettings) -> SiteSettings:
        return SiteSettings(
            hosts=("a",), route=RouteSettings(first=("o",)), experiments=experiments
        )

    second = CookieSettings(name="second")
    assert not keys(site(experiment(), experiment(name="f", cookie=second)))
    assert keys(site(experiment(), experiment(cookie=second))) == [("experiment", 1, "name")]
    assert keys(site(experiment(), experiment(name="f"))) == [("experiment", 1, "cookie", "name")]
