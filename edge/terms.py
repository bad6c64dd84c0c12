"""What a site, and the rule of it that a request falls under, says about the request.

Everything here is made once, when settings are read. `Terms` is whole: what a rule does not say it
has from its site, so nobody who goes by terms has to ask the site again. A rule for a type of
answer cannot be known to match before there is one, so it is in the caching policy, and comes
before the rules behind it (`CachePolicy.by_type`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from edge.answer import FieldRules
from edge.cache.key import KeyPolicy
from edge.cache.ruling import CachePolicy
from edge.guard.address import Networks
from edge.routing.geo import NOWHERE
from edge.routing.route import Route
from edge.routing.site import Rule
from edge.wire.target import split_target

if TYPE_CHECKING:
    from edge.routing.experiment import Experiment
    from edge.routing.geo import Place
    from edge.routing.rewrite import FieldEdits, PathRewrite, Redirect
    from edge.wire.message import RequestHead

MOST_MIXED: Final = 256  # terms that were made for requests that several rules may yet take

Part = Literal["country", "continent", "subdivision"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a request. `fields` are those of its answer, `edits` those of the request to
    the origin; `rewrite` makes what the origin is asked for of the path."""

    cache: CachePolicy = field(default_factory=CachePolicy)
    route: Route = field(default_factory=lambda: Route(()))
    fields: FieldRules = field(default_factory=FieldRules)
    edits: FieldEdits | None = None
    rewrite: PathRewrite | None = None
    redirect: Redirect | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A site as the exchange sees it. `tells` is what of the client's place the origin is told,
    and `keys` what of it is in the key."""

    name: str
    key: KeyPolicy
    terms: Terms
    rules: tuple[Rule[Terms], ...] = ()
    experiments: tuple[Experiment, ...] = ()
    tells: tuple[Part, ...] = ()
    keys: tuple[Part, ...] = ()
    purge_from: Networks = field(default_factory=Networks)
    purge_reach: Literal["host", "node"] = "host"
    _mixed: dict[tuple[int, ...], Terms] = field(
        default_factory=dict, compare=False, hash=False, repr=False
    )

    @property
    def needs_place(self) -> bool:
        """Whether it matters to anything but the choice of an origin where a client is."""
        by_rule = (rule.match.by_place for rule in self.rules)
        return bool(self.tells or self.keys) or any(by_rule)

    def terms_for(self, request: RequestHead, place: Place = NOWHERE) -> Terms:
        """The terms of the first rule that takes `request`, else the site's own."""
        if not self.rules:
            return self.terms
        taken = self.matching(request, place)
        if not taken:
            return self.terms
        if len(taken) == 1 and self.rules[taken[0]].match.types is None:
            return self.rules[taken[0]].terms
        return self._mixed.get(taken) or self._mix(taken)

    def matching(self, request: RequestHead, place: Place = NOWHERE) -> tuple[int, ...]:
        """Which rules hold: those for types of answers, up to the first that is for any."""
        path, taken = split_target(request.target).path, []
        for index, rule in enumerate(self.rules):
            if rule.match.takes(
                request.method, request.authority, path, request.headers, place
            ):
                taken.append(index)
                if rule.match.types is None:
                    break
        return tuple(taken)

    def _mix(self, taken: tuple[int, ...]) -> Terms:
        rules = [self.rules[index] for index in taken]
        last = rules[-1]
        terms = self.terms if last.match.types is not None else last.terms
        by_type = tuple(
            (rule.match.types, rule.terms.cache) for rule in rules if rule.match.types is not None
        )
        if len(self._mixed) >= MOST_MIXED:
            self._mixed.clear()
        mixed = replace(terms, cache=replace(terms.cache, by_type=by_type))
        self._mixed[taken] = mixed
        return mixed
