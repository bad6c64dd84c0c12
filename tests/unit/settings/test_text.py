from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.config import (
    Address,
    CacheSettings,
    Config,
    HeadersSettings,
    MatchSettings,
    NodeSettings,
    OriginSettings,
    QuerySettings,
    RouteSettings,
    RuleSettings,
    SiteSettings,
    StoreSettings,
    load_config,
)
from edge.settings import as_markdown, as_text, reference, render

spans = st.integers(0, 10**9).map(lambda ms: ms / 1_000)
caches = st.builds(
    CacheSettings,
    bypass=st.booleans(),
    ttl=st.none() | spans,
    max_stale=spans,
    heuristic_fraction=st.floats(0, 1),
    set_cookie=st.sampled_from(["safe", "rfc"]),
)
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=9)
rules = st.builds(
    RuleSettings,
    match=st.builds(MatchSettings, path=st.none() | st.just("/a*"), methods=st.just(("GET",))),
    cache=caches,
)
sites = st.builds(
    SiteSettings,
    hosts=st.just(("a.example", "*.a.example")),
    route=st.just(RouteSettings(first=("eu",))),
    query=st.builds(QuerySettings, sort=st.booleans(), drop=st.just(("utm_*", 'q"'))),
    headers=st.builds(HeadersSettings, set=st.dictionaries(st.just("X-A"), values)),
    cache=caches,
    rules=st.lists(rules, max_size=2).map(tuple),
)
configs = st.builds(
    Config,
    node=st.builds(
        NodeSettings,
        name=st.just("n"),
        listen=st.just((Address("::", 0),)),
        access_log=st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=9),
    ),
    store=st.builds(StoreSettings, disk=st.integers(2**20, 2**49)),
    cache=caches,
    origins=st.just({"eu": OriginSettings(servers=("http://a",))}),
    sites=st.lists(sites, min_size=1, max_size=1).map(tuple),
)


@given(configs)
def test_rendered_settings_read_back_the_same(config: Config) -> None:
    assert load_config(render(config), hostname="other") == config


def test_the_reference_tells_every_setting_once_with_its_sentence() -> None:
    rows = list(reference(Config))
    paths = [row.path for row in rows]
    assert len(paths) == len(set(paths))
    assert {"cache.ttl", "site.cache", "origin.NAME.timeouts.connect", "site.rule.match.path"} <= {
        *paths
    }
    assert all(row.says.endswith(".") and row.kind and row.default for row in rows)


def test_the_reference_has_a_form_for_terminals_and_one_for_documents() -> None:
    assert 'cache.max_stale = "1h"\n    duration' in as_text(reference(Config))
    assert '| `cache.max_stale` | duration, 0s to 3650d | `"1h"` |' in as_markdown(
        reference(Config)
    )
