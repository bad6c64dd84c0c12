from __future__ import annotations

from dataclasses import fields

from edge.cache.freshness import FreshnessPolicy
from edge.cache.ruling import CachePolicy
from edge.cache.vary import VaryPolicy
from edge.config import CacheSettings, VarySettings
from edge.config.policies import cache_policy
from edge.settings.schema import declared


def test_the_defaults_are_those_of_the_policies() -> None:
    assert cache_policy(CacheSettings()) == CachePolicy()


def test_every_field_of_the_cache_policies_is_a_setting() -> None:
    told = {each.name for each in declared(CacheSettings)}
    told |= {each.name for each in declared(VarySettings)}
    read = {f.name for f in (*fields(CachePolicy), *fields(VaryPolicy))}
    read |= {f.name.removesuffix("_s") for f in fields(FreshnessPolicy)}
    # its own fields; what a rule's match says, and the site
    not_told = {"freshness", "by_path", "by_extension", "by_type", "tags"}
    assert read - told == not_told
    assert told <= read
