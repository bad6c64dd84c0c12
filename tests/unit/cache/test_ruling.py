"""Policies declare their settings; rulings make entries."""

from __future__ import annotations

from dataclasses import fields

import pytest

from edge.cache.freshness import FreshnessPolicy
from edge.cache.ruling import CachePolicy

SETTINGS = [
    field
    for policy in (CachePolicy, FreshnessPolicy)
    for field in fields(policy)
    if field.metadata
]


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_every_setting_says_what_it_is_in_one_sentence_and_its_unit(setting: object) -> None:
    metadata = getattr(setting, "metadata")  # noqa: B009  (a Field has no useful static type)
    assert metadata["says"].endswith(".")
    assert metadata["unit"] in ("s", "bytes", None)
    if metadata["unit"] == "s":
        assert metadata["min"] == 0 < metadata["max"]


def test_what_routing_fills_in_is_no_setting() -> None:
    told = {setting.name for setting in SETTINGS}
    assert {field.name for field in fields(CachePolicy)} - told == {
        "freshness",
        "vary",
        "by_path",
        "by_extension",
    }


def test_the_defaults_are_those_of_the_documents() -> None:
    policy = CachePolicy()
    assert policy.freshness.max_stale_s == 3600
    assert policy.set_cookie == "safe"
    assert not policy.honour_request_directives
    assert not policy.must_revalidate_allows_authorization
