"""A/B tests by cookie: `[[site.experiment]]`."""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator, Mapping  # noqa: TC003
from dataclasses import dataclass, field
from typing import Literal

from edge.config import notation as n
from edge.config.notation import span
from edge.config.route import MOST_ORIGINS, field_faults
from edge.routing.rewrite import check_prefix
from edge.settings import Complaint, setting
from edge.settings.kinds import DAY_S
from edge.wire.cookies import CookieTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieSettings:
    """`experiment.cookie`: how a visitor's arm is remembered, by the visitor."""

    name: str = field(metadata=setting("Its name.", n.COOKIE_NAME))
    ttl: float | None = field(
        default=30 * DAY_S,
        metadata=span('How long it is kept; "none" is until the browser is closed.'),
    )
    path: str = field(default="/", metadata=setting("Its Path.", n.COOKIE_PATH))
    domain: str | None = field(
        default=None, metadata=setting("Its Domain; the host alone if none.", n.HOST)
    )
    same_site: Literal["Lax", "Strict", "None"] = field(
        default="Lax", metadata=setting("Its SameSite.")
    )
    http_only: bool = field(default=True, metadata=setting("Keep it from scripts."))
    secure: Literal["auto", "always", "never"] = field(
        default="auto",
        metadata=setting('Keep it to https; "auto" is where https gave it.'),
    )

    @property
    def terms(self) -> CookieTerms:
        """How visitors are told their arm."""
        return CookieTerms(
            name=self.name.encode("ascii"),
            ttl_s=self.ttl,
            path=self.path.encode("ascii"),
            domain=self.domain.encode("ascii") if self.domain else b"",
            same_site=self.same_site.encode("ascii"),
            http_only=self.http_only,
            secure={"always": True, "never": False}.get(self.secure),
        )

    def check(self) -> Iterator[Complaint]:
        """What browsers would refuse."""
        if self.name and self.path and self.same_site:  # else there is a fault already
            for where, words in self.terms.check():
                yield Complaint((where,), None, words)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSettings:
    """`experiment.arms.NAME`: what the visitors of an arm get; an arm without anything, the same.

    Answers are stored by arm only where some arm has a route, a prefix or fields.
    """

    weight: float = field(
        metadata=setting(
            "What share of new visitors it has, beside the others'.", least=0.0, most=1_000_000.0
        )
    )
    route: tuple[str, ...] = field(
        default=(),
        metadata=setting("Origins in order, in place of the route's.", most_members=MOST_ORIGINS),
    )
    prefix: str | None = field(
        default=None,
        metadata=setting("What to put before the path for the origin.", n.PATH_PREFIX),
    )
    header: Mapping[str, str] = field(
        default_factory=dict,
        metadata=setting(
            "Fields for the origin.", n.FIELD_VALUE, names=n.FIELD_NAME, most_members=16
        ),
    )

    def check(self) -> Iterator[Complaint]:
        """What cannot be done for an arm's visitors."""
        for words in check_prefix(self.prefix.encode("ascii")) if self.prefix else ():
            yield Complaint(("prefix",), None, words)
        yield from field_faults(self.header, (), "header")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSettings:
    """`[[site.experiment]]`: visitors are divided among arms, and stay in them by a cookie.

    The first arm is the control: who is held out gets it.
    """

    name: str = field(metadata=setting("Its name.", n.LABEL))
    cookie: CookieSettings = field(metadata=setting("How a visitor's arm is remembered."))
    arms: Mapping[str, ArmSettings] = field(
        metadata=setting(
            "Its arms; the first is the control.", names=n.LABEL, fewest=2, most_members=16
        )
    )
    path: str | None = field(
        default=None,
        metadata=setting("Pattern of the paths that it is about; all if none.", n.GLOB),
    )
    visitor: str | None = field(
        default=None,
        metadata=setting(
            "Cookie that tells visitors apart, for the same arm wherever they come; "
            "by chance if none.",
            n.COOKIE_NAME,
        ),
    )
    key: str | None = field(
        default=None,
        metadata=setting("What visitors are hashed with on all nodes; the name if none."),
    )
    hold_out: tuple[Literal["bots", "cookieless"], ...] = field(
        default=(),
        metadata=setting(
            "Who gets the control and no cookie: known crawlers, and clients without cookies.",
            most_members=2,
        ),
    )

    def check(self) -> Iterator[Complaint]:
        """Weights that leave nobody."""
        weights = [arm.weight for arm in self.arms.values()]
        if weights and None not in weights and not any(weights):
            yield Complaint(("arms",), None, "leave new visitors no arm; give one a weight")
        if self.visitor is not None and self.visitor == self.cookie.name:
            yield Complaint(("visitor",), self.visitor, "is the experiment's own cookie")
