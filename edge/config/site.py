"""What is told of a site: `[[site]]`, and what of its requests counts."""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator  # noqa: TC003
from dataclasses import dataclass, field
from typing import Literal

from edge.config import notation as n
from edge.config.cache import CacheSettings
from edge.config.compress import CompressSettings  # noqa: TC001
from edge.config.experiment import ExperimentSettings  # noqa: TC001
from edge.config.route import (
    FieldsSettings,
    HeadersSettings,
    RewriteSettings,
    RouteSettings,
    rewrite_faults,
)
from edge.config.rule import RuleSettings  # noqa: TC001
from edge.settings import Complaint, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """`site.query`: what of the query is forwarded, and so keyed."""

    keep: tuple[str, ...] = field(
        default=(), metadata=setting("Parameters to keep; others are dropped.", n.PARAMETER)
    )
    drop: tuple[str, ...] = field(default=(), metadata=setting("Parameters to drop.", n.PARAMETER))
    sort: bool = field(default=False, metadata=setting("Sort parameters by name."))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """`site.key`: what else tells one stored answer from another."""

    headers: tuple[str, ...] = field(
        default=(), metadata=setting("Request fields to key by.", n.CLIENT_FIELD, most_members=32)
    )
    cookies: tuple[str, ...] = field(
        default=(), metadata=setting("Cookies to key by.", n.COOKIE_NAME, most_members=32)
    )
    place: tuple[Literal["country", "continent", "subdivision"], ...] = field(
        default=(), metadata=setting("What of the client's place to key by.", most_members=3)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """`[[site]]`: some hosts, their origin, and their rules."""

    hosts: tuple[str, ...] = field(
        metadata=setting("Hosts: exact, `*.` before a name, or `*`.", n.HOST, fewest=1)
    )
    route: RouteSettings = field(metadata=setting("Where the site's requests go."))
    query: QuerySettings = field(
        default_factory=QuerySettings, metadata=setting("What of the query counts.")
    )
    key: KeySettings = field(
        default_factory=KeySettings, metadata=setting("What else the key is made of.")
    )
    headers: HeadersSettings = field(
        default_factory=HeadersSettings, metadata=setting("Changes to answers' fields.")
    )
    request: FieldsSettings = field(
        default_factory=FieldsSettings, metadata=setting("Changes to the fields of requests.")
    )
    rewrite: RewriteSettings | None = field(
        default=None, metadata=setting("What is asked of the origin in place of the path.")
    )
    place: tuple[Literal["country", "continent", "subdivision"], ...] = field(
        default=(),
        metadata=setting(
            "What the origin is told of the client's place, in X-Geo-Country and the like; "
            "answers may vary on these fields.",
            most_members=3,
        ),
    )
    cache: CacheSettings = field(
        default_factory=CacheSettings,
        metadata=setting("Terms that differ from the node's.", inherits=True),
    )
    compress: CompressSettings | None = field(
        default=None,
        metadata=setting("Compress answers for clients that accept it; without this, none is."),
    )
    tags: tuple[str, ...] = field(
        default=("surrogate-key", "cache-tag", "xkey"),
        metadata=setting(
            "Fields of answers whose words are tags to purge by, each with its own separators.",
            n.FIELD_NAME,
            most_members=16,
        ),
    )
    strip_tags: bool = field(
        default=False, metadata=setting("Take these fields out of what clients are sent.")
    )
    purge_from: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "Who may send PURGE requests to the public port; to others it is no method.",
            n.NETWORK,
        ),
    )
    purge_reach: Literal["host", "node"] = field(
        default="host",
        metadata=setting(
            "What a PURGE with tags covers: the host that it is sent to, or all hosts; "
            "whoever may PURGE can then empty the whole node."
        ),
    )
    experiments: tuple[ExperimentSettings, ...] = field(
        default=(),
        metadata=setting("A/B tests by cookie.", key="experiment", most_members=16),
    )
    rules: tuple[RuleSettings, ...] = field(
        default=(), metadata=setting("Other terms for some requests.", key="rule")
    )

    def check(self) -> Iterator[Complaint]:
        """A path that cannot be written anew, and experiments that cannot be told apart."""
        yield from rewrite_faults(self.rewrite, "/*")
        for index, told in enumerate(self.experiments):
            before = self.experiments[:index]
            if any(told.name and told.name == other.name for other in before):
                message = "is another experiment's name already"
                yield Complaint(("experiment", index, "name"), told.name, message)
            cookie = told.cookie.name if told.cookie else None
            if any(cookie and cookie == other.cookie.name for other in before if other.cookie):
                message = "is another experiment's cookie already"
                yield Complaint(("experiment", index, "cookie", "name"), cookie, message)
