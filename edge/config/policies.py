"""From what stands in the settings to the policies that the code reads.

A policy type lives beside the code that reads it and knows nothing of files; here is the one place
where the two vocabularies meet. Everything is made once, when settings are read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from edge.answer import FieldRules
from edge.cache.freshness import FreshnessPolicy
from edge.cache.key import KeyPolicy
from edge.cache.ruling import CachePolicy
from edge.cache.tags import DEFAULT_FIELDS
from edge.cache.vary import VaryPolicy
from edge.guard.address import Networks
from edge.listen.connection import ConnectionPolicy
from edge.routing.site import Glob, HostTable, Match, Rule, first_rule
from edge.standing import NamedServer
from edge.upstream.origin import Origin, parse_origin
from edge.wire.grammar import RESPONSE_LIMITS, Limits
from edge.wire.target import split_target

if TYPE_CHECKING:
    from edge.config.root import Config
    from edge.config.site import (
        CacheSettings,
        HeadersSettings,
        MatchSettings,
        OriginSettings,
        SiteSettings,
    )
    from edge.standing import NamedExperiment
    from edge.upstream.probe import Checkable
    from edge.wire.message import RequestHead

HIDDEN = frozenset({"server", "x-powered-by"})  # taken out unless a site lets them through


@dataclass(frozen=True, slots=True)
class Site:
    """A site as the exchange sees it; `origin` is a name, `host` what is sent in Host's place."""

    name: str
    origin: str
    host: bytes | None
    key: KeyPolicy
    cache: CachePolicy
    fields: FieldRules
    purge_from: Networks
    purge_reach: Literal["host", "node"]
    rules: tuple[Rule[CachePolicy], ...]

    def policy_for(self, request: RequestHead) -> CachePolicy:
        """The caching policy of the first rule that takes `request`, else the site's own."""
        if not self.rules:
            return self.cache
        path = split_target(request.target).path
        rule = first_rule(self.rules, request.method, request.authority, path)
        return rule.terms if rule else self.cache


def sites(config: Config) -> HostTable[Site]:
    """Every site by its hosts."""
    made = [(site, _site(config, site)) for site in config.sites]
    pairs = ((host, site) for told, site in made for host in told.hosts)
    return HostTable((host.encode("ascii"), site) for host, site in pairs)


def _site(config: Config, told: SiteSettings) -> Site:
    origin = told.route.first[0]
    host = config.origins[origin].host
    tags = _bytes(told.tags)
    return Site(
        name=told.hosts[0],
        origin=origin,
        host=host.encode("ascii") if host else None,
        key=_key_policy(told),
        cache=cache_policy(told.cache, tags),
        fields=field_rules(told.headers, tags if told.strip_tags else ()),
        purge_from=Networks.parse(told.purge_from),
        purge_reach=told.purge_reach,
        rules=tuple(_rule(rule.match, rule.cache, tags) for rule in told.rules),
    )


def _key_policy(told: SiteSettings) -> KeyPolicy:
    return KeyPolicy(
        query_keep=_bytes(told.query.keep) or None,  # an unset list is no rule
        query_drop=_bytes(told.query.drop),
        query_sort=told.query.sort,
        headers=_bytes(told.key.headers),
        cookies=_bytes(told.key.cookies),
    )


def _rule(told: MatchSettings, cache: CacheSettings, tags: tuple[bytes, ...]) -> Rule[CachePolicy]:
    match = Match(
        path=Glob.parse(told.path.encode("ascii")) if told.path is not None else None,
        methods=frozenset(_bytes(told.methods)),
        hosts=HostTable((host, True) for host in _bytes(told.hosts)) if told.hosts else None,
    )
    by_path = match.path is not None and match.path.is_open
    extension = match.path.extension if match.path else None
    terms = replace(cache_policy(cache, tags), by_path=by_path, by_extension=extension)
    return Rule(match, terms)


def cache_policy(told: CacheSettings, tags: tuple[bytes, ...] = DEFAULT_FIELDS) -> CachePolicy:
    """On what terms answers are kept and used again; `tags` are the fields that name tags."""
    freshness = FreshnessPolicy(
        ttl_s=told.ttl,
        default_ttl_s=told.default_ttl,
        stale_while_revalidate_s=told.stale_while_revalidate,
        stale_if_error_s=told.stale_if_error,
        max_stale_s=told.max_stale,
        heuristic=told.heuristic,
        heuristic_fraction=told.heuristic_fraction,
        heuristic_max_s=told.heuristic_max,
        heuristic_error_max_s=told.heuristic_error_max,
    )
    vary = VaryPolicy(
        unordered=_bytes(told.vary.unordered),
        languages=_bytes(told.vary.languages),
        sort_languages=told.vary.sort_languages,
    )
    return CachePolicy(
        bypass=told.bypass,
        freshness=freshness,
        honour_request_directives=told.honour_request_directives,
        set_cookie=told.set_cookie,
        must_revalidate_allows_authorization=told.must_revalidate_allows_authorization,
        store_post=told.store_post,
        targets=_bytes(told.targets),
        vary=vary,
        tags=tags,
    )


def field_rules(told: HeadersSettings, hidden: tuple[bytes, ...] = ()) -> FieldRules:
    """What is done to the fields of every answer of a site, which has more fields to hide."""
    put = tuple((n.lower().encode("ascii"), v.encode("ascii")) for n, v in told.set.items())
    removed = (HIDDEN - set(told.keep)) | set(told.remove)
    return FieldRules(frozenset((*_bytes(tuple(removed)), *hidden)), put)


def origins(config: Config) -> dict[str, Origin]:
    """Every origin by its name."""
    return {name: _origin(told) for name, told in config.origins.items()}


def _origin(told: OriginSettings) -> Origin:
    return replace(
        parse_origin(told.servers[0]),
        ca=str(told.ca) if told.ca else None,
        connect_s=told.timeouts.connect,
        first_byte_s=told.timeouts.first_byte,
        between_bytes_s=told.timeouts.between_bytes,
        total_s=told.timeouts.total,
        idle_s=told.timeouts.idle,
        max_connections=told.max_connections,
        max_idle=min(told.max_idle, told.max_connections),
    )


def servers(config: Config) -> tuple[NamedServer, ...]:
    """Every server of every origin, as operators call it."""
    return tuple(NamedServer(name, origin.url) for name, origin in origins(config).items())


def checked_servers(config: Config) -> tuple[Checkable, ...]:
    """The servers that are to be checked: by the settings that there are, none."""
    return ()


def experiments(config: Config) -> tuple[NamedExperiment, ...]:
    """The experiments of all sites: by the settings that there are, none."""
    return ()


def connection_policy(config: Config) -> ConnectionPolicy:
    """What a client's connection may cost."""
    return ConnectionPolicy(
        limits=request_limits(config),
        head_s=config.timeouts.head,
        idle_s=config.timeouts.idle,
        body_grace_s=config.timeouts.body_grace,
        body_rate=config.timeouts.body_rate,
        send_s=config.timeouts.send,
        request_body_bytes=config.limits.request_body,
        linger_s=config.timeouts.linger,
        tunnel_idle_s=config.timeouts.tunnel_idle,
    )


def request_limits(config: Config) -> Limits:
    """What a client may send beside bodies."""
    told = config.limits
    return Limits(told.head, told.target, told.fields, trailer_bytes=told.trailer)


def response_limits(config: Config) -> Limits:
    """What an origin may send beside bodies."""
    told = config.limits
    return replace(RESPONSE_LIMITS, head_bytes=told.response_head, fields=told.response_fields)


def trusted(config: Config) -> Networks:
    """The networks whose word about clients is believed."""
    return Networks.parse(config.node.trusted_proxies)


def _bytes(words: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(word.encode("ascii") for word in words)
