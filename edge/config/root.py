"""The whole of a node's settings, from a file or from the command line alone.

What stands here is the file as its operator sees it; `policies` makes from it the policy types
that live beside the code reading them. A setting whose feature is not built is not in the schema,
so it is refused as unknown and never ignored; `unbuilt` says why to those who try it.
"""

from __future__ import annotations

import difflib

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator, Mapping, Sequence  # noqa: TC003
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar

from edge.config.cache import CacheSettings
from edge.config.node import LimitsSettings, NodeSettings, StoreSettings, TimeoutsSettings
from edge.config.notation import NOT_HERE
from edge.config.origin import OriginSettings, ShieldSettings  # noqa: TC001
from edge.config.route import RouteSettings  # noqa: TC001
from edge.config.site import SiteSettings  # noqa: TC001
from edge.settings import Complaint, assign, bind, parse, setting
from edge.settings.lines import lines_of

PROXY_ORIGIN = "default"  # what `edge proxy` calls its one origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a node is told."""

    unbuilt: ClassVar[Mapping[str, str]] = {
        "tls": f"TLS towards clients: {NOT_HERE}",
        "fleet": f"fleets: {NOT_HERE}",
        "edges": "these are a shield's settings; give them to origin-shield",
    }

    node: NodeSettings = field(metadata=setting("Who the node is."))
    store: StoreSettings = field(
        default_factory=StoreSettings, metadata=setting("Where answers are kept.")
    )
    cache: CacheSettings = field(
        default_factory=CacheSettings,
        metadata=setting("Terms for every site; a site's and a rule's go first.", inherits=True),
    )
    limits: LimitsSettings = field(
        default_factory=LimitsSettings, metadata=setting("What a message may cost.")
    )
    timeouts: TimeoutsSettings = field(
        default_factory=TimeoutsSettings, metadata=setting("How long a client may take.")
    )
    shield: ShieldSettings | None = field(
        default=None, metadata=setting("The tier between this node and the origins.")
    )
    origins: Mapping[str, OriginSettings] = field(
        metadata=setting("Write [origin.NAME] with its servers.", key="origin", fewest=1)
    )
    sites: tuple[SiteSettings, ...] = field(
        metadata=setting("Write [[site]] with its hosts and route.", key="site", fewest=1)
    )

    def check(self) -> Iterator[Complaint]:
        """Origins and shields that are not there, places nobody knows, hosts of two sites."""
        owners: dict[str, int] = {}
        yield from self._shield()
        for index, site in enumerate(self.sites):
            yield from self._strangers(index, site)
            yield from self._placeless(index, site)
            yield from self._private(index, site)
            for at, host in enumerate(site.hosts):
                if host is not None and owners.setdefault(host, index) != index:
                    message = f"is a host of sites[{owners[host]}] already; take one out"
                    yield Complaint(("site", index, "hosts", at), host, message)

    def _shield(self) -> Iterator[Complaint]:
        """An origin of the name that shields have in logs and orders."""
        if self.shield is not None and "shield" in self.origins:
            message = "is what the shields are called here; give the origin another name"
            yield Complaint(("origin", "shield"), None, message)

    def _strangers(self, index: int, site: SiteSettings) -> Iterator[Complaint]:
        """Whom a site's routes name that is not there."""
        for keys, route in _routes(site):
            for at, name in route.named:
                if name is not None and name not in self.origins:
                    message = f"names no origin; {_near(name, self.origins)}"
                    yield Complaint(("site", index, *keys, *at), name, message)
            if route.via == "shield" and self.shield is None:
                message = "goes nowhere: there is no [shield] with its nodes"
                yield Complaint(("site", index, *keys, "via"), route.via, message)
        for number, experiment in enumerate(site.experiments):
            for arm, told in experiment.arms.items():
                for place, name in enumerate(told.route):
                    if name is not None and name not in self.origins:
                        message = f"names no origin; {_near(name, self.origins)}"
                        where = ("experiment", number, "arms", arm, "route", place)
                        yield Complaint(("site", index, *where), name, message)

    def _private(self, index: int, site: SiteSettings) -> Iterator[Complaint]:
        """What would make a visitor's private affair of all that a shield is asked."""
        if not any(route.via == "shield" for _, route in _routes(site)):
            return
        for keys, fields in _told_to_origins(site):
            for name in fields:
                if name.lower() in ("authorization", "cookie"):
                    message = "keeps the shield from storing; set it in the shield's own settings"
                    yield Complaint(("site", index, *keys), name, message)

    def _placeless(self, index: int, site: SiteSettings) -> Iterator[Complaint]:
        """What a site rests on the places of clients, where nobody can tell them."""
        node = self.node
        if node.geo is not None:
            return
        message = "rests on the places of clients; give node.geo"
        for keys, route in _routes(site):
            if route.nearest and node.at is None:
                yield Complaint(("site", index, *keys, "nearest"), None, f"{message}, or node.at")
        if site.place:
            yield Complaint(("site", index, "place"), list(site.place), message)
        if site.key.place:
            yield Complaint(("site", index, "key", "place"), list(site.key.place), message)
        for number, rule in enumerate(site.rules):
            if rule.match.by_place:
                yield Complaint(("site", index, "rule", number, "match"), None, message)


def _told_to_origins(
    site: SiteSettings,
) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, str]]]:
    """The fields that a site, its rules and its arms set for origins, and where they stand."""
    yield ("request", "set"), site.request.set
    for index, rule in enumerate(site.rules):
        yield ("rule", index, "request", "set"), rule.request.set
    for index, experiment in enumerate(site.experiments):
        for name, arm in experiment.arms.items():
            yield ("experiment", index, "arms", name, "header"), arm.header


def _routes(site: SiteSettings) -> Iterator[tuple[tuple[str | int, ...], RouteSettings]]:
    """The routes of a site and of its rules, and where they stand."""
    yield ("route",), site.route
    for index, rule in enumerate(site.rules):
        if rule.route is not None:
            yield ("rule", index, "route"), rule.route


def _near(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name[:64], list(known)[:1_024], n=1)
    return f'did you mean "{near[0]}"?' if near else f"add [origin.{name}]"


def node_name(hostname: str, listen: object) -> str:
    """A name that no other node has by default, and that says nothing of the machine's.

    It is made of the host's name and of what the node listens on, so that one node before another
    on the same host is not taken for a loop (RFC 8586), and a restart changes nothing.
    """
    seed = f"{hostname} {listen}".encode("utf-8", "replace")
    return f"edge-{blake2b(seed, digest_size=4).hexdigest()}"


def load_config(text: str, *, hostname: str) -> Config:
    """The settings of a file. Raises `SettingsError` with every fault in it, and nothing else."""
    table = parse(text)
    _name(table, hostname)
    return bind(Config, table, lines_of(text))


def for_proxy(
    listen: Sequence[str],
    to: str,
    *,
    hostname: str,
    options: Mapping[str, str | None] | None = None,
    sets: Sequence[str] = (),
) -> Config:
    """The settings of a node without a file: one origin, one site for every host.

    `options` are settings by their path (`store.dir`), None where not given; `sets` are
    `KEY=VALUE`, and win. Raises `SettingsError`.
    """
    table: dict[str, Any] = {
        "node": {"listen": list(listen)},
        "origin": {PROXY_ORIGIN: {"servers": [to]}},
        "site": [{"hosts": ["*"], "route": {"first": [PROXY_ORIGIN]}}],
    }
    for key, value in (options or {}).items():
        if value is not None:
            part, _, name = key.partition(".")
            table.setdefault(part, {})[name] = value
    for each in sets:
        key, _, value = each.partition("=")
        assign(table, key, value)
    _name(table, hostname)
    return bind(Config, table, {})


def _name(table: dict[str, Any], hostname: str) -> None:
    node = table.get("node")
    if isinstance(node, dict):
        node.setdefault("name", node_name(hostname, node.get("listen")))
