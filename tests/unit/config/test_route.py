from __future__ import annotations

import pytest

from edge.config import (
    CanarySettings,
    FieldsSettings,
    RedirectSettings,
    RewriteSettings,
    RouteSettings,
)
from edge.config.route import WAYS, field_faults, redirect_faults, rewrite_faults
from edge.routing.route import Order, Route


def test_a_route_has_the_orders_that_there_are() -> None:
    assert set(WAYS) == {order.value for order in Order}


def test_the_defaults_are_those_of_the_policy() -> None:
    told, made = RouteSettings(first=("a",)), Route(("a",))
    assert (told.retries + 1, told.budget) == (made.tries, made.budget_s)
    assert (told.via, told.canary) == (None, None)


@pytest.mark.parametrize(
    ("route", "keys"),
    [
        (RouteSettings(first=("a",)), []),
        (RouteSettings(pool=("a", "b")), []),
        (RouteSettings(), [()]),
        (RouteSettings(canary=CanarySettings(to=("a",), weight=1.0)), [()]),
        (RouteSettings(nearest=("a",), pool=("b",)), [("pool",)]),
        (RouteSettings(nearest=("a",), first=("b",), pool=("c",)), [("first",)]),
    ],
)
def test_a_route_has_one_order(route: RouteSettings, keys: list[tuple[str, ...]]) -> None:
    assert [each.keys for each in route.check()] == keys


def test_every_origin_that_is_named_is_told_with_where() -> None:
    canary = CanarySettings(to=("c", "a"), weight=1.0)
    told = RouteSettings(nearest=("a", "b"), canary=canary)
    assert list(told.named) == [
        (("nearest", 0), "a"),
        (("nearest", 1), "b"),
        (("canary", "to", 0), "c"),
        (("canary", "to", 1), "a"),
    ]


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        (FieldsSettings(set={"X-A": "1", "Authorization": "Basic x"}, remove=("cookie",)), []),
        (FieldsSettings(set={"Accept-Encoding": "gzip"}), [("set",)]),
        (FieldsSettings(set={"X_Forwarded_For": "x"}), [("set",)]),
        (FieldsSettings(remove=("if-none-match", "x-geo-country")), [("remove",)] * 2),
        (FieldsSettings(set={"Edge-Proof": "x"}, remove=("via",)), [("set",), ("remove",)]),
    ],
)
def test_fields_of_requests_that_are_not_a_sites_to_change(
    fields: FieldsSettings, keys: list[tuple[str, ...]]
) -> None:
    assert [each.keys for each in fields.check()] == keys


def test_fields_stand_under_the_key_that_they_were_written_under() -> None:
    (said,) = field_faults({"Host": "x"}, (), "header")
    assert said.keys == ("header",)


@pytest.mark.parametrize(
    ("rewrite", "keys"),
    [
        (RewriteSettings(strip="/a"), []),
        (RewriteSettings(add="/a"), []),
        (RewriteSettings(strip="/a", add="/b"), []),
        (RewriteSettings(to="/x/*"), []),
        (RewriteSettings(), [()]),
        (RewriteSettings(to="/x", strip="/a"), [("to",)]),
        (RewriteSettings(to="/x", add="/a"), [("to",)]),
        (RewriteSettings(strip="/"), [("strip",)]),
        (RewriteSettings(strip="/a/./b", add="/.."), [("strip",), ("add",)]),
    ],
)
def test_a_rewrite_is_by_prefix_or_by_pattern(
    rewrite: RewriteSettings, keys: list[tuple[str, ...]]
) -> None:
    assert [each.keys for each in rewrite.check()] == keys


@pytest.mark.parametrize(
    ("path", "to", "fault"),
    [
        ("/a/*", "/b/*", False),
        ("/a/*", "/b", False),
        ("/a/*/*", "/b/*/c/*", False),
        ("/a", "/b/*", True),
        ("/a/*", "/b/../*", True),
        ("/a/*", "*", True),
        ("/a%4*", "/b/*", True),
    ],
)
def test_a_path_is_made_of_what_the_stars_took(path: str, to: str, *, fault: bool) -> None:
    said = [each.keys for each in rewrite_faults(RewriteSettings(to=to), path)]
    assert said == [("rewrite", "to")] * fault


@pytest.mark.parametrize(
    ("path", "to", "fault"),
    [
        ("/a/*", "/b/*", False),
        ("/a/*", "https://b.example/*", False),
        ("/a/*", "https://b.example:8443/x", False),
        ("/a", "/b/*", True),
        ("/a/*", "https://b.example:99999/*", True),
        ("/a/*", "/b/../*", True),
    ],
)
def test_a_client_is_sent_to_a_path_or_a_url(path: str, to: str, *, fault: bool) -> None:
    said = [each.keys for each in redirect_faults(RedirectSettings(to=to), path)]
    assert said == [("redirect", "to")] * fault


def test_what_is_not_there_has_no_fault() -> None:
    assert not list(rewrite_faults(None, "/*"))
    assert not list(rewrite_faults(RewriteSettings(add="/a"), "/*"))
    assert not list(redirect_faults(None, "/*"))
