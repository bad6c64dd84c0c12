"""From what stands in the settings to the policies that the code reads.

A policy type lives beside the code that reads it and knows nothing of files; here is the one place
where the two vocabularies meet. Everything is made once, when settings are read.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from edge.cache.freshness import FreshnessPolicy
from edge.cache.key import KeyPolicy
from edge.cache.ruling import CachePolicy
from edge.cache.tags import DEFAULT_FIELDS
from edge.cache.vary import VaryPolicy
from edge.coding.negotiate import Coding
from edge.coding.policy import DEFAULT_TYPES, CompressPolicy
from edge.guard.address import Networks
from edge.listen.connection import ConnectionPolicy
from edge.routing.experiment import Arm, Experiment
from edge.routing.rewrite import ANY_PATH, FieldEdits, PathRewrite, PrefixRewrite, Redirect
from edge.routing.route import Canary, Order, Route
from edge.routing.site import Glob, HostTable, Match, Rule, TypeMatch
from edge.routing.visitors import VisitorId
from edge.serving.answer import FieldRules
from edge.serving.terms import Site, Terms
from edge.surroundings.standing import NamedExperiment, Standing
from edge.wire.grammar import RESPONSE_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge.config.cache import CacheSettings
    from edge.config.compress import CompressSettings
    from edge.config.experiment import ArmSettings, ExperimentSettings
    from edge.config.root import Config
    from edge.config.route import (
        FieldsSettings,
        HeadersSettings,
        RedirectSettings,
        RewriteSettings,
        RouteSettings,
    )
    from edge.config.rule import MatchSettings, RuleSettings
    from edge.config.site import SiteSettings
    from edge.wire.message import Pair

NOTHING_ORDERED = Standing()
HIDDEN = frozenset({"server", "x-powered-by"})  # taken out unless a site lets them through


def sites(config: Config, standing: Standing = NOTHING_ORDERED) -> HostTable[Site]:
    """Every site by its hosts, with its experiments as they have been ordered to stand.

    Raises ValueError with a sentence for the operator.
    """
    made = [(site, _site(site, standing)) for site in config.sites]
    pairs = ((host, site) for told, site in made for host in told.hosts)
    return HostTable((host.encode("ascii"), site) for host, site in pairs)


def _site(told: SiteSettings, standing: Standing) -> Site:
    tags = _bytes(told.tags)
    hidden = tags if told.strip_tags else ()
    terms = Terms(
        cache=cache_policy(told.cache, tags),
        route=route(told.route),
        fields=field_rules(told.headers, hidden),
        edits=_edits(told.request),
        rewrite=_rewrite(told.rewrite, None),
        compress=compress_policy(told.compress) if told.compress is not None else None,
    )
    return Site(
        name=told.hosts[0],
        key=_key_policy(told),
        terms=terms,
        rules=_rules(told.rules, terms, tags, hidden),
        experiments=tuple(
            _standing(named_experiment(told, each), each, standing) for each in told.experiments
        ),
        tells=told.place,
        keys=told.key.place,
        purge_from=Networks.parse(told.purge_from),
        purge_reach=told.purge_reach,
    )


def _key_policy(told: SiteSettings) -> KeyPolicy:
    return KeyPolicy(
        query_keep=_bytes(told.query.keep) or None,  # an unset list is no rule
        query_drop=_bytes(told.query.drop),
        query_sort=told.query.sort,
        headers=_bytes(told.key.headers),
        cookies=_bytes(told.key.cookies),
    )


def _rules(
    told: Sequence[RuleSettings],
    site: Terms,
    tags: tuple[bytes, ...],
    hidden: tuple[bytes, ...],
) -> tuple[Rule[Terms], ...]:
    """The rules in order; from the first on that reads what is not in the URL, each with what
    tells its answers from others under one URL."""
    made: list[Rule[Terms]] = []
    hangs_on_sender = False
    for each in told:
        rule = _rule(each, site, tags, hidden)
        beyond_url = rule.match.reads_beyond_url or bool(rule.match.methods)
        hangs_on_sender |= beyond_url and rule.types is None
        if hangs_on_sender:
            rule = replace(rule, terms=replace(rule.terms, by=_by(rule.terms, site)))
        made.append(rule)
    return tuple(made)


def _rule(
    told: RuleSettings, site: Terms, tags: tuple[bytes, ...], hidden: tuple[bytes, ...]
) -> Rule[Terms]:
    match = _match(told.match)
    by_path = match.path is not None and match.path.is_open
    extension = match.path.extension if match.path else None
    cache = replace(cache_policy(told.cache, tags), by_path=by_path, by_extension=extension)
    own = _edits(told.request)
    terms = Terms(
        cache=cache,
        route=route(told.route) if told.route is not None else site.route,
        fields=_fields_after(site.fields, told.headers, hidden),
        edits=site.edits.then(own) if site.edits and own else own or site.edits,
        rewrite=_rewrite(told.rewrite, told.match.path) if told.rewrite else site.rewrite,
        redirect=_redirect(told.redirect, match.path),
        compress=site.compress,
    )
    types = TypeMatch.parse(_bytes(told.match.content_type)) if told.match.content_type else None
    return Rule(match, terms, types)


def _by(terms: Terms, site: Terms) -> bytes:
    """What tells answers by these terms from others under the same URL: nothing where the origin
    is asked as it is without any rule, and the same where it is asked the same."""
    what = _asked_of_origin(terms)
    if what == _asked_of_origin(site):
        return b""
    return b"#" + blake2b(repr(what).encode(), digest_size=8).hexdigest().encode("ascii")


def _asked_of_origin(terms: Terms) -> tuple[object, ...]:
    """Which origins are asked for what, in one spelling whatever the process."""
    route, edits = terms.route, terms.edits or FieldEdits()
    ahead = route.canary.names if route.canary is not None else ()
    return route.names, route.order, ahead, terms.rewrite, sorted(edits.remove), edits.put


def _match(told: MatchSettings) -> Match:
    def globs(patterns: Mapping[str, str]) -> tuple[tuple[bytes, Glob], ...]:
        return tuple(
            (name.encode("ascii"), Glob.parse(pattern.encode("ascii")))
            for name, pattern in patterns.items()
        )

    return Match(
        path=Glob.parse(told.path.encode("ascii")) if told.path is not None else None,
        methods=frozenset(_bytes(told.methods)),
        hosts=HostTable((host, True) for host in _bytes(told.hosts)) if told.hosts else None,
        headers=globs({name.lower(): pattern for name, pattern in told.header.items()}),
        cookies=globs(told.cookie),
        countries=frozenset(told.country),
        continents=frozenset(told.continent),
    )


def route(told: RouteSettings) -> Route:
    """Where requests go by these settings."""
    order = next(order for order in Order if getattr(told, order.value))
    canary = told.canary
    return Route(
        names=tuple(dict.fromkeys(getattr(told, order.value))),
        order=order,
        by_shield=told.via == "shield",
        tries=told.retries + 1,
        budget_s=told.budget,
        canary=Canary(canary.to, canary.weight / 100) if canary is not None else None,
    )


def _edits(told: FieldsSettings) -> FieldEdits | None:
    if not told.set and not told.remove:
        return None
    return FieldEdits(frozenset(_bytes(told.remove)), _pairs(told.set))


def _rewrite(told: RewriteSettings | None, path: str | None) -> PathRewrite | PrefixRewrite | None:
    """Raises ValueError with a sentence for the operator."""
    if told is None:
        return None
    if told.to is not None:
        return PathRewrite.parse((path or "/*").encode("ascii"), told.to.encode("ascii"))
    strip, add = (told.strip or "").encode("ascii"), (told.add or "").encode("ascii")
    return PrefixRewrite.parse(strip, add)


def _redirect(told: RedirectSettings | None, path: Glob | None) -> Redirect | None:
    """Raises ValueError with a sentence for the operator."""
    if told is None:
        return None
    return Redirect.parse(
        told.to.encode("ascii"),
        status=told.status,
        keep_query=told.query,
        source=path or ANY_PATH,
    )


def _experiment(told: ExperimentSettings, named: NamedExperiment) -> Experiment:
    visitor = told.visitor
    return Experiment(
        name=told.name.encode("ascii"),
        cookie=told.cookie.terms,
        arms=tuple(_arm(name, arm) for name, arm in told.arms.items()),
        id=named.id,
        takes=Match(path=Glob.parse(told.path.encode("ascii"))) if told.path is not None else None,
        visitor=VisitorId("cookie", visitor.encode("ascii")) if visitor is not None else None,
        key=(told.key or told.name).encode(),
        hold_out=frozenset(told.hold_out),
    )


def named_experiment(site: SiteSettings, told: ExperimentSettings) -> NamedExperiment:
    """An experiment as orders name it."""
    arms = tuple((name, arm.weight) for name, arm in told.arms.items())
    return NamedExperiment(f"{site.hosts[0]}/{told.name}", arms)


def _standing(named: NamedExperiment, told: ExperimentSettings, standing: Standing) -> Experiment:
    """An experiment as it has been ramped or stopped since."""
    made = _experiment(told, named)
    weights = {name.encode("ascii"): w for name, w in standing.weights_of(named).items()}
    stopped = standing.stopped_on(named)
    return made.altered(weights, stopped.encode("ascii") if stopped is not None else None)


def _arm(name: str, told: ArmSettings) -> Arm:
    return Arm(
        name=name.encode("ascii"),
        weight=told.weight,
        route=tuple(dict.fromkeys(told.route)),
        prefix=(told.prefix or "").encode("ascii"),
        fields=_pairs(told.header),
    )


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


def compress_policy(told: CompressSettings) -> CompressPolicy:
    """In what codings answers go to clients, and which do."""
    return CompressPolicy(
        codings=tuple(Coding(name) for name in told.codings),
        min_bytes=told.min,
        most_bytes=told.max,
        types=TypeMatch.parse(_bytes(told.types) or DEFAULT_TYPES),
        ask=told.ask,
        recompress_after=told.recompress_after,
        recompress_within_s=told.recompress_within,
        recompress_most_bytes=told.recompress_max,
        dictionaries=told.dictionaries,
    )


def field_rules(told: HeadersSettings, hidden: tuple[bytes, ...] = ()) -> FieldRules:
    """What is done to the fields of every answer of a site, which has more fields to hide."""
    removed = (HIDDEN - set(told.keep)) | set(told.remove)
    return FieldRules(frozenset((*_bytes(tuple(removed)), *hidden)), _pairs(told.set))


def _fields_after(
    site: FieldRules, told: HeadersSettings, hidden: tuple[bytes, ...]
) -> FieldRules:
    """The site's changes with a rule's behind them, which win."""
    own = {name for name, _ in _pairs(told.set)}
    removed = (site.remove | set(_bytes(told.remove))) - set(_bytes(told.keep)) - own
    kept = tuple(pair for pair in site.put if pair[0] not in own | set(_bytes(told.remove)))
    return FieldRules(frozenset(removed | set(hidden)), kept + _pairs(told.set))


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


def _pairs(fields: Mapping[str, str]) -> tuple[Pair, ...]:
    """Fields as they stand in messages: names in lower case."""
    return tuple((n.lower().encode("ascii"), v.encode("ascii")) for n, v in fields.items())


def _bytes(words: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(word.encode("ascii") for word in words)
