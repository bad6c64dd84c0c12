"""The edge's schema: every setting of a node, with its unit, bounds, default and a sentence.

It is a package because the schema alone is longer than a page: `notation` says how the edge's own
values are written, `node` and `site` declare, `root` gathers and loads. `policies` is not imported
here: it needs the code that it makes policies for, and `edge check` does not.
"""

from edge.config.node import LimitsSettings, NodeSettings, StoreSettings, TimeoutsSettings
from edge.config.notation import Address
from edge.config.root import Config, for_proxy, load_config
from edge.config.site import (
    CacheSettings,
    HeadersSettings,
    KeySettings,
    MatchSettings,
    OriginSettings,
    OriginTimeouts,
    QuerySettings,
    RouteSettings,
    RuleSettings,
    SiteSettings,
    VarySettings,
)

__all__ = [
    "Address",
    "CacheSettings",
    "Config",
    "HeadersSettings",
    "KeySettings",
    "LimitsSettings",
    "MatchSettings",
    "NodeSettings",
    "OriginSettings",
    "OriginTimeouts",
    "QuerySettings",
    "RouteSettings",
    "RuleSettings",
    "SiteSettings",
    "StoreSettings",
    "TimeoutsSettings",
    "VarySettings",
    "for_proxy",
    "load_config",
]
