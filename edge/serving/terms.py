"""What a site, and the rule of it that a request falls under, says about the request.

Everything here is made once, when settings are read. `Terms` is whole: what a rule does not say it
has from its site, so nobody who goes by terms has to ask the site again. A rule for a type of
answer cannot be known to match before there is one, so it is in the caching policy, and comes
before the rules behind it (`CachePolicy.by_type`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from edge.cache.ruling import CachePolicy
from edge.guard.address import Networks
from edge.routing.geo import NOWHERE
from edge.routing.route import Route
from edge.routing.site import Rule, rules_for
from edge.serving.answer import FieldRules
from edge.wire.target import split_target

if TYPE_CHECKING:
    from edge.cache.key import KeyPolicy
    from edge.coding.policy import CompressPolicy
    from edge.routing.experiment import Experiment
    from edge.routing.geo import Place
    from edge.routing.rewrite import FieldEdits, PathRewrite, PrefixRewrite, Redirect
    from edge.wire.message import RequestHead

MOST_MIXED: Final = 256  # terms that were made for requests that several rules may yet take

Part = Literal["country", "continent", "subdivision"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a request. `fields` are those of its answer, `edits` those of the request to
    the origin; `rewrite` makes what the origin is asked for of the path. `compress` says how
    answers are coded for clients; None leaves them as they came."""

    cache: CachePolicy = field(default_factory=CachePolicy)
    route: Route = field(default_factory=lambda: Route(()))
    fields: FieldRules = field(default_factory=FieldRules)
    edits: FieldEdits | None = None
    rewrite: PathRewrite | PrefixRewrite | None = None
    redirect: Redirect | None = None
    by: bytes = b""
    compress: CompressPolicy | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A site as the exchange sees it. `tells` is what of the client's place the origin is told,
    and `keys` what of it is in the key.

    `needs_place`: where a client is matters to more than the choice of an origin. `own_cookies`
    are those that this node gives, and nobody behind it need see. `own_fields` are request fields
    that the site itself sets for its origins, by an arm or a rule: what a client sends under their
    names would be another's answer, stored for everyone. `splits_keys`: answers for one URL may
    stand under several keys.
    """

    name: str
    key: KeyPolicy
    terms: Terms
    rules: tuple[Rule[Terms], ...] = ()
    experiments: tuple[Experiment, ...] = ()
    tells: tuple[Part, ...] = ()
    keys: tuple[Part, ...] = ()
    purge_from: Networks = field(default_factory=Networks)
    purge_reach: Literal["host", "node"] = "host"
    needs_place: bool = field(init=False)
    own_cookies: frozenset[bytes] = field(init=False)
    own_fields: frozenset[bytes] = field(init=False)
    splits_keys: bool = field(init=False)
    _mixed: dict[tuple[int, ...], Terms] = field(
        default_factory=dict, compare=False, hash=False, repr=False
    )

    def __post_init__(self) -> None:
        """What follows from the settings alone is worked out once."""
        for name, value in (
            ("needs_place", self._needs_place()),
            ("own_cookies", frozenset([each.cookie.name for each in self.experiments])),
            ("own_fields", self._own_fields()),
            ("splits_keys", self._splits_keys()),
        ):
            object.__setattr__(self, name, value)

    def _needs_place(self) -> bool:
        by_rule = (rule.match.countries or rule.match.continents for rule in self.rules)
        by_arm = (
            each.takes is not None and (each.takes.countries or each.takes.continents)
            for each in self.experiments
        )
        return bool(self.tells or self.keys) or any(by_rule) or any(by_arm)

    def _own_fields(self) -> frozenset[bytes]:
        edits = [self.terms.edits, *(rule.terms.edits for rule in self.rules)]
        by_terms = {name for each in edits if each is not None for name, _ in each.put}
        arms = [arm for each in self.experiments for arm in each.arms]
        return frozenset(by_terms | {name for arm in arms for name, _ in arm.fields})

    def _splits_keys(self) -> bool:
        by_arm = any(arm.changes for each in self.experiments for arm in each.arms)
        by_request = bool(self.key.headers or self.key.cookies or self.keys)
        return by_arm or by_request or any(rule.terms.by for rule in self.rules)

    def rules_for(self, request: RequestHead, place: Place = NOWHERE) -> tuple[Rule[Terms], ...]:
        """The rules that hold for a request."""
        path = split_target(request.target).path
        method, authority, headers = request.method, request.authority, request.headers
        return rules_for(self.rules, method, authority, path, headers, place)

    def terms_for(self, request: RequestHead, place: Place = NOWHERE) -> Terms:
        """The terms of the first rule that takes `request`, else the site's own."""
        if not self.rules:
            return self.terms
        taken = self.rules_for(request, place)
        if not taken:
            return self.terms
        if len(taken) == 1 and taken[0].types is None:
            return taken[0].terms
        numbers = tuple([id(rule) for rule in taken])  # which live as long as this site
        return self._mixed.get(numbers) or self._mix(numbers, taken)

    def _mix(self, numbers: tuple[int, ...], taken: tuple[Rule[Terms], ...]) -> Terms:
        """Terms by the type of the answer, and those of the last rule where none of them fits."""
        last = taken[-1]
        terms = self.terms if last.types is not None else last.terms
        by_type = tuple((each.types, each.terms.cache) for each in taken if each.types is not None)
        if len(self._mixed) >= MOST_MIXED:
            self._mixed.clear()
        mixed = replace(terms, cache=replace(terms.cache, by_type=by_type))
        self._mixed[numbers] = mixed
        return mixed
