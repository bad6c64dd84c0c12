"""Where requests go, and what is changed on the way: routes, rewriting, fields."""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator, Mapping  # noqa: TC003
from dataclasses import dataclass, field
from typing import Literal

from edge.config import notation as n
from edge.config.notation import wait
from edge.routing.rewrite import FieldEdits, PathRewrite, Redirect, check_prefix, check_to_origin
from edge.routing.site import Glob
from edge.settings import Complaint, setting

MOST_ORIGINS = 64
WAYS = ("nearest", "first", "pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanarySettings:
    """`route.canary`: other origins for a share of what is fetched."""

    to: tuple[str, ...] = field(
        metadata=setting(
            "Origins to try in order, then those of the route.",
            fewest=1,
            most_members=MOST_ORIGINS,
        )
    )
    weight: float = field(
        metadata=setting("Share of the fetches in a hundred.", least=0.0, most=100.0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """`route`, of a site or a rule: which origins requests go to. One of the three orders."""

    nearest: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "Origins, nearest to the client first; in this order where its place is unknown.",
            most_members=MOST_ORIGINS,
        ),
    )
    first: tuple[str, ...] = field(
        default=(),
        metadata=setting("Origins in order: the first that is well.", most_members=MOST_ORIGINS),
    )
    pool: tuple[str, ...] = field(
        default=(),
        metadata=setting("Origins in turn, all alike.", most_members=MOST_ORIGINS),
    )
    via: Literal["shield"] | None = field(
        default=None, metadata=setting("Ask the shield, which asks the origins.")
    )
    retries: int = field(
        default=1,
        metadata=setting(
            "Tries elsewhere after the first, of what may be repeated.", least=0, most=10
        ),
    )
    budget: float = field(
        default=10.0, metadata=wait("For a GET or HEAD to be answered, where another try is left.")
    )
    canary: CanarySettings | None = field(
        default=None, metadata=setting("Other origins for a share of what is fetched.")
    )

    @property
    def named(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Every origin that is named, and where."""
        for way in WAYS:
            for index, name in enumerate(getattr(self, way)):
                yield (way, index), name
        for index, name in enumerate(self.canary.to if self.canary else ()):
            yield ("canary", "to", index), name

    def check(self) -> Iterator[Complaint]:
        """Not one order, but none or several."""
        given = [way for way in WAYS if getattr(self, way)]
        if not given:
            yield Complaint((), None, 'names no origin; write first = ["NAME"]')
        elif len(given) > 1:
            message = f"stands beside {given[0]}; a route has one order"
            yield Complaint((given[1],), list(getattr(self, given[1])), message)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldsSettings:
    """`request`, of a site or a rule: changes to the fields of what is asked of the origin."""

    set: Mapping[str, str] = field(
        default_factory=dict,
        metadata=setting(
            "Fields to set, in place of any of that name.",
            n.FIELD_VALUE,
            names=n.FIELD_NAME,
            most_members=64,
        ),
    )
    remove: tuple[str, ...] = field(
        default=(), metadata=setting("Fields to take out.", n.FIELD_NAME, most_members=64)
    )

    def check(self) -> Iterator[Complaint]:
        """Fields that are not a site's to change."""
        yield from field_faults(self.set, self.remove, "set")


def field_faults(
    put: Mapping[str, str], removed: tuple[str, ...], key: str
) -> Iterator[Complaint]:
    """What may not be changed of the fields of a request; `put` stands under `key`."""
    if None in put.values() or None in removed:
        return
    pairs = tuple(
        (n.lower().encode("ascii", "replace"), v.encode("ascii")) for n, v in put.items()
    )
    for words in check_to_origin(FieldEdits(put=pairs)):
        yield Complaint((key,), None, words)
    names = frozenset(name.encode("ascii", "replace") for name in removed)
    for words in check_to_origin(FieldEdits(remove=names)):
        yield Complaint(("remove",), None, words)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersSettings:
    """`headers`, of a site or a rule: changes to the fields of answers."""

    set: Mapping[str, str] = field(
        default_factory=dict,
        metadata=setting(
            "Fields to set, in place of any of that name.",
            n.FIELD_VALUE,
            names=n.FIELD_NAME,
            most_members=64,
        ),
    )
    remove: tuple[str, ...] = field(
        default=(), metadata=setting("Fields to take out.", n.FIELD_NAME, most_members=64)
    )
    keep: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "Which of Server and X-Powered-By, taken out otherwise, to let through.",
            n.FIELD_NAME,
            most_members=64,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteSettings:
    """`rewrite`, of a site or a rule: what is asked of the origin in place of the path.

    What is stored, listed and purged goes by the URL that clients use.
    """

    strip: str | None = field(
        default=None, metadata=setting("Beginning of the path to take away.", n.PATH_PREFIX)
    )
    add: str | None = field(
        default=None, metadata=setting("What to put before it then.", n.PATH_PREFIX)
    )
    to: str | None = field(
        default=None,
        metadata=setting("The path; each `*` is what the rule's `*` stood for.", n.GLOB),
    )

    def check(self) -> Iterator[Complaint]:
        """Two ways at once, or none."""
        if self.to is not None and (self.strip is not None or self.add is not None):
            yield Complaint(("to",), self.to, "stands beside strip or add; write one of them")
        elif self.to is None and self.strip is None and self.add is None:
            yield Complaint((), None, 'changes nothing; write strip = "/prefix"')
        for name in ("strip", "add"):
            prefix = getattr(self, name)
            for words in check_prefix(prefix.encode("ascii")) if prefix else ():
                yield Complaint((name,), None, words)


def rewrite_faults(told: RewriteSettings | None, path: str) -> Iterator[Complaint]:
    """What is wrong with the path that is written anew; `path` is the pattern that took it."""
    if told is None or told.to is None:
        return
    try:
        PathRewrite.parse(path.encode("ascii"), told.to.encode("ascii"))
    except ValueError as error:
        yield Complaint(("rewrite", "to"), told.to, str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectSettings:
    """`rule.redirect`: answering with another URL."""

    to: str = field(
        metadata=setting(
            "Path or URL; each `*` is what the rule's `*` stood for.", n.REDIRECT_TARGET
        )
    )
    status: int = field(
        default=308, metadata=setting("301, 302, 303, 307 or 308.", n.REDIRECT_STATUS)
    )
    query: bool = field(default=True, metadata=setting("Keep the query."))


def redirect_faults(told: RedirectSettings | None, path: str) -> Iterator[Complaint]:
    """What is wrong with where clients are sent; `path` is the pattern that took theirs."""
    if told is None or told.to is None or told.status is None:
        return
    source = Glob.parse(path.encode("ascii"))
    try:
        Redirect.parse(told.to.encode("ascii"), status=told.status, source=source)
    except ValueError as error:
        yield Complaint(("redirect", "to"), told.to, str(error))
