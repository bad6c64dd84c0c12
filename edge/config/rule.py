"""Other terms for some requests: `[[site.rule]]`."""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator, Mapping  # noqa: TC003
from dataclasses import dataclass, field

from edge.config import notation as n
from edge.config.cache import CacheSettings
from edge.config.route import (
    FieldsSettings,
    HeadersSettings,
    RedirectSettings,
    RewriteSettings,
    RouteSettings,
    redirect_faults,
    rewrite_faults,
)
from edge.settings import Complaint, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSettings:
    """`site.rule.match`: the requests a rule is for; what is left out matches all."""

    path: str | None = field(
        default=None,
        metadata=setting("Pattern of the path as clients ask for it; `*` is any text.", n.GLOB),
    )
    methods: tuple[str, ...] = field(
        default=(), metadata=setting("Methods.", n.METHOD, most_members=64)
    )
    hosts: tuple[str, ...] = field(
        default=(), metadata=setting("Hosts, as in site.hosts.", n.HOST, most_members=64)
    )
    header: Mapping[str, str] = field(
        default_factory=dict,
        metadata=setting(
            "Patterns of request fields; all have to fit.",
            n.PATTERN,
            names=n.CLIENT_FIELD,
            most_members=16,
        ),
    )
    cookie: Mapping[str, str] = field(
        default_factory=dict,
        metadata=setting(
            "Patterns of cookies; all have to fit.",
            n.PATTERN,
            names=n.COOKIE_NAME,
            most_members=16,
        ),
    )
    country: tuple[str, ...] = field(
        default=(),
        metadata=setting("Countries of the client.", n.COUNTRY, most_members=256),
    )
    continent: tuple[str, ...] = field(
        default=(), metadata=setting("Continents of the client.", n.CONTINENT, most_members=7)
    )
    content_type: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "Media types of answers, like image/*; such a rule sets nothing but cache.",
            n.MEDIA_TYPE,
            most_members=64,
        ),
    )

    @property
    def by_place(self) -> bool:
        """Whether the client's place counts."""
        return bool(self.country or self.continent)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSettings:
    """`[[site.rule]]`: other terms for some requests; the first that matches holds."""

    match: MatchSettings = field(metadata=setting("The requests that the rule is for."))
    route: RouteSettings | None = field(
        default=None, metadata=setting("Where they go, if not where the site's go.")
    )
    request: FieldsSettings = field(
        default_factory=FieldsSettings,
        metadata=setting("Changes to their fields, after the site's."),
    )
    headers: HeadersSettings = field(
        default_factory=HeadersSettings,
        metadata=setting("Changes to their answers' fields, after the site's."),
    )
    rewrite: RewriteSettings | None = field(
        default=None, metadata=setting("What is asked of the origin, in place of the site's.")
    )
    redirect: RedirectSettings | None = field(
        default=None, metadata=setting("Answer with another URL.")
    )
    cache: CacheSettings = field(
        default_factory=CacheSettings,
        metadata=setting("Terms that differ from the site's.", inherits=True),
    )

    def check(self) -> Iterator[Complaint]:
        """What cannot be done with what the rule matches."""
        if self.match.content_type:
            for name in ("route", "rewrite", "redirect"):
                if getattr(self, name) is not None:
                    message = "cannot wait for the answer's type; write a rule without it"
                    yield Complaint((name,), None, message)
            for name in ("request", "headers"):
                told = getattr(self, name)
                if told is not None and (told.set or told.remove):
                    message = "cannot wait for the answer's type; write a rule without it"
                    yield Complaint((name,), None, message)
        stars = (self.match.path or "").count("*")
        for name, faults in (("rewrite", rewrite_faults), ("redirect", redirect_faults)):
            told = getattr(self, name)
            to = told.to if told is not None else None
            if to is not None and to.count("*") > stars:
                message = f"has more * than match.path, which has {stars}"
                yield Complaint((name, "to"), to, message)
            else:
                yield from faults(told, self.match.path or "/*")
