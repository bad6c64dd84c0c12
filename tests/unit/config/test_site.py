from __future__ import annotations

from edge.cache.key import KeyPolicy
from edge.cache.tags import DEFAULT_FIELDS
from edge.config import RewriteSettings, RouteSettings, SiteSettings
from edge.config.policies import route
from edge.settings.schema import declared


def test_the_defaults_are_those_of_the_policies() -> None:
    told = {each.name: each for each in declared(SiteSettings)}
    assert tuple(name.encode() for name in told["tags"].default()) == DEFAULT_FIELDS
    assert not told["key"].default().headers
    assert KeyPolicy().query_keep is None


def test_a_site_is_its_hosts_and_its_route() -> None:
    needed = [each.name for each in declared(SiteSettings) if not each.has_default]
    assert needed == ["hosts", "route"]
    assert route(RouteSettings(first=("a",))).names == ("a",)


def test_a_sites_path_is_all_that_its_star_can_stand_for() -> None:
    def faults(to: str) -> list[tuple[str | int, ...]]:
        told = SiteSettings(
            hosts=("a",), route=RouteSettings(first=("o",)), rewrite=RewriteSettings(to=to)
        )
        return [each.keys for each in told.check()]

    assert faults("/x/*") == []
    assert faults("/x/*/*") == [("rewrite", "to")]
