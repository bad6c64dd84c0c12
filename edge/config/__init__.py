"""The edge's schema: every setting of a node, with its unit, bounds, default and a sentence.

It is a package because the schema alone is longer than a page: `notation` says how the edge's own
values are written, `node`, `cache`, `compress`, `origin`, `route`, `rule`, `experiment` and `site`
declare, `root` gathers and loads. `policies` is not imported here: it needs the code that it makes
policies for, and `edge check` does not.
"""

from edge.config.cache import CacheSettings, VarySettings
from edge.config.compress import CompressSettings
from edge.config.experiment import ArmSettings, CookieSettings, ExperimentSettings
from edge.config.node import LimitsSettings, NodeSettings, StoreSettings, TimeoutsSettings
from edge.config.notation import Address
from edge.config.origin import (
    CheckSettings,
    EjectSettings,
    OriginSettings,
    OriginTimeouts,
    ShieldSettings,
)
from edge.config.root import Config, for_proxy, load_config
from edge.config.route import (
    CanarySettings,
    FieldsSettings,
    HeadersSettings,
    RedirectSettings,
    RewriteSettings,
    RouteSettings,
)
from edge.config.rule import MatchSettings, RuleSettings
from edge.config.site import KeySettings, QuerySettings, SiteSettings

__all__ = [
    "Address", "ArmSettings", "CacheSettings", "CanarySettings", "CheckSettings",
    "CompressSettings", "Config", "CookieSettings", "EjectSettings", "ExperimentSettings",
    "FieldsSettings", "HeadersSettings",
    "KeySettings", "LimitsSettings", "MatchSettings", "NodeSettings", "OriginSettings",
    "OriginTimeouts", "QuerySettings", "RedirectSettings", "RewriteSettings", "RouteSettings",
    "RuleSettings", "ShieldSettings", "SiteSettings", "StoreSettings", "TimeoutsSettings",
    "VarySettings", "for_proxy", "load_config",
]  # fmt: skip
