"""What has to be true of purges, said of what anyone outside the node can see.

The model knows nothing of numbers, tables or flights. It knows when the origin *looked* at a page
(what it will answer is settled then, however late it answers), when a purge was asked for and when
it was acknowledged, and when a client's request began. Time is counted in *ticks*, one for each
move of the play. Every body names the look that made it (its ETag does, too), and the field
`X-Look` names the last look that vouched for it, be it a 304's or a HEAD's. So for each answer it
is known exactly what the origin had seen.

The laws, for a request that began after the acknowledgement of a purge that covers what it got:

- A: it never gets what the origin looked at before a *hard* purge, not even if the origin has said
  since that it is still the same.
- B: what no look has vouched for since a *soft* purge is served as stale only, and within the
  windows, which count from the purge, or from when it came if that was later.

And for all: a body is whole and the client's own page (C), and what is fresh and not purged is
found (D). A purge covers a page by its place, or by a tag or group that the origin gave it in the
last answer before the purge or in one that was on its way then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.stories.wire import Reply

_MAX_AGE_S: Final = 60


@dataclass(frozen=True)
class Page:
    """A page of the origin's. Its windows are in seconds."""

    host: str
    path: str
    size: int
    directives: str
    while_revalidate_s: int = 0
    if_error_s: int = 0
    kinds: tuple[str, ...] = ("one",)  # several: it varies on X-Kind

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.host}{self.path}"

    def __repr__(self) -> str:
        return f"PAGES[{PAGES.index(self)}]"


PAGES: Final = (
    Page(
        "site.example", "/a", 40, f"max-age={_MAX_AGE_S}, stale-while-revalidate=40, "
        "stale-if-error=100", while_revalidate_s=40, if_error_s=100,
    ),
    Page(
        "site.example", "/b/c", 40, f"max-age={_MAX_AGE_S}, stale-if-error=0",
        kinds=("one", "two"),
    ),
    Page("other.example", "/a", 40_000, "no-cache"),
)  # fmt: skip


class Scope(NamedTuple):
    """What a purge names; `what` is a URL, a path prefix, a host, a tag, or a host's group."""

    kind: str
    what: str = ""

    def has_place(self, page: Page) -> bool:
        """Whether it covers a page by where that is."""
        match self.kind:
            case "all":
                return True
            case "url":
                return self.what == page.url
            case "prefix":
                return f"{page.url}/".startswith(f"{self.what.rstrip('/')}/")
            case "host":
                return self.what == page.host
        return False

    def has_name(self, look: Look) -> bool:
        """Whether it covers what was looked at by a tag or a group."""
        if self.kind == "group":
            return self.what in {f"{look.page.host} {group}" for group in look.groups}
        return self.kind == "tag" and self.what in look.tags


@dataclass(eq=False)
class Look:
    """The origin has looked at a page, and will answer what it saw.

    `vouches_for` is the look whose body is meant, itself where it is a new one. The request came
    to the origin at `asked_at`, and after `asked_after` the node had not yet looked in its store
    for it. `landed_at` is when the node has certainly taken notice of the head.
    """

    number: int
    page: Page
    kind: str
    version: int
    tags: frozenset[str]
    groups: frozenset[str]
    looked_at: int
    asked_after: int
    status: int = 200
    method: str = "GET"
    replied_at: int | None = None
    told: float = 0.0  # the time of day at which that was
    landed_at: int | None = None
    is_doubtful: bool = False  # the node may not have heeded it
    lost_at: int | None = None  # when the node was killed: from then on it may have forgotten it
    vouches_for: Look = field(init=False)

    def __post_init__(self) -> None:
        self.vouches_for = self

    @property
    def body(self) -> bytes:
        """What a client gets of it."""
        told = f"{self.number}: {self.page.url} {self.kind} {self.version} "
        return told.encode().ljust(self.page.size, b".")


@dataclass(eq=False)
class Purged:
    """A purge; `done_at` is when it was acknowledged, and `when` the time of day then.

    `by_write` means what a write does to its own page, which is not written to the journal.
    """

    scopes: tuple[Scope, ...]
    is_soft: bool
    began_at: int
    done_at: int | None = None
    when: float = 0.0
    by_write: bool = False

    def may_cover(self, page: Page, looks: Iterable[Look]) -> bool:
        """Whether it covers a page of which these looks told."""
        looks = list(looks)
        return any(
            scope.has_place(page) or any(scope.has_name(look) for look in looks)
            for scope in self.scopes
        )


@dataclass(eq=False)
class Place:
    """Where a fresh page must be found until `until`, unless something has come in between."""

    last: Look
    until: float
    is_certain: bool = True


@dataclass(eq=False)
class Asking:
    """A client's request; `now` is the time of day at which it began."""

    page: Page
    kind: str
    method: str
    began_at: int
    now: float
    place: Place | None = None
    writes: list[Purged] = field(default_factory=list)


class History:
    """All that has happened."""

    def __init__(self) -> None:
        self.tick = 0
        self.looks: list[Look] = []
        self.purges: list[Purged] = []
        self.failures: list[tuple[int, Page]] = []

    def judge(self, asking: Asking, reply: Reply | None) -> str | None:
        """What is wrong with an answer, None where nothing is; it is None if it broke off."""
        has_failed = any(
            at >= asking.began_at and page is asking.page for at, page in self.failures
        )
        if reply is None or reply.status >= 500:
            return None if has_failed else "C: an error that the origin did not make"
        if asking.method == "POST":
            return None if reply.status == 204 else f"C: {reply.status} to a write"
        if reply.status != 200:
            return f"C: {reply.status}"
        last = self.looks[int(reply.headers["x-look"])]
        body = self.looks[int(reply.headers["etag"].strip('"'))]
        if (body.page, body.kind) != (asking.page, asking.kind):
            return f"C: the page {body.page}, {body.kind}"
        if asking.method == "GET" and reply.body != body.body:
            return f"C: another body than {body.number}'s"
        return self._judge(asking, reply, body, last)

    def _judge(self, asking: Asking, reply: Reply, body: Look, last: Look) -> str | None:
        for purged in self.purges:
            if purged.done_at is None or purged.done_at >= asking.began_at:
                continue
            if not self._covers(purged, body, last):
                continue
            if not purged.is_soft:
                witness = body if asking.method == "GET" else last
                if witness.looked_at < purged.began_at:
                    return f"A: look {witness.number} in spite of {purged.scopes}"
            elif last.looked_at < purged.began_at:
                fault = self._judge_stale(asking, reply, max(purged.when, last.told))
                if fault is not None:
                    return f"B: look {last.number}, {purged.scopes}: {fault}"
        place = asking.place
        if place is not None and place.is_certain and not _is_fresh_hit(reply):
            return f"D: look {place.last.number} was to be found, but {reply.cache}"
        return None

    def _judge_stale(self, asking: Asking, reply: Reply, since: float) -> str | None:
        page, since_s = asking.page, asking.now - since
        if "detail=stale-while-revalidate" in reply.cache:
            in_time = since_s < page.while_revalidate_s
            return None if in_time else f"revalidated behind after {since_s} s"
        if "detail=stale-if-error" in reply.cache:
            if not any(failed is page for _, failed in self.failures):
                return "no error"
            in_time = since_s < max(page.if_error_s, page.while_revalidate_s)
            return None if in_time else f"instead of an error after {since_s} s"
        return f"{reply.cache}"

    def _covers(self, purged: Purged, body: Look, last: Look) -> bool:
        """Whether a purge certainly covers a body that `last` has vouched for."""
        looks = self._known(purged, body)
        if last.looked_at < purged.began_at and _is_after(last.landed_at, purged.began_at):
            looks.append([last])
        return any(
            scope.has_place(body.page) or any(map(scope.has_name, each))
            for each in map(self._in_all, looks)
            for scope in purged.scopes
        )

    def _known(self, purged: Purged, body: Look) -> list[list[Look]]:
        """By which looks the node may have known a body when it was purged."""
        known: list[Look] = []
        for look in self.vouching(body):
            if not _is_after(look.landed_at, purged.began_at):
                known = [*known, look] if _may_be_unknown(look, purged) else [look]
        for look in self.vouching(body):
            came = look.replied_at is not None and look.replied_at <= (purged.done_at or 0)
            if came and _is_after(look.landed_at, purged.began_at):
                known.append(look)
        return [known or [body]]

    def _in_all(self, looks: list[Look]) -> list[Look]:
        """One look with the names that all of them have."""
        one = looks[0]
        if len(looks) == 1:
            return [one]
        return [
            Look(
                one.number, one.page, one.kind, one.version,
                frozenset.intersection(*(look.tags for look in looks)),
                frozenset.intersection(*(look.groups for look in looks)),
                one.looked_at, one.asked_after,
            )
        ]  # fmt: skip

    def vouching(self, body: Look) -> list[Look]:
        """The looks that have vouched for a body and been told of, in the order of that."""
        looks = [look for look in self.looks if look.vouches_for is body]
        told = [look for look in looks if look.replied_at is not None]
        return sorted(told, key=lambda look: (look.replied_at, look.number))

    def may_be_overtaken(self, look: Look) -> list[Purged]:
        """The purges that may have come while an answer was under way."""
        return [
            purged
            for purged in self.purges
            if _is_after(purged.done_at, look.asked_after)
            and purged.may_cover(look.page, [look, look.vouches_for])
        ]


def _may_be_unknown(look: Look, purged: Purged) -> bool:
    """Whether the node may not have known of a look when it was told to purge."""
    was_lost = look.lost_at is not None and look.lost_at <= purged.began_at
    return look.is_doubtful or was_lost


def _is_after(tick: int | None, other: int) -> bool:
    """Whether something came after a tick; what has not come yet does."""
    return tick is None or tick > other


def ttl_of(reply: Reply) -> int:
    """The seconds of freshness that an answer has left, 0 where it does not say."""
    found = re.search(r"ttl=(-?\d+)", reply.cache)
    return int(found[1]) if found else 0


def _is_fresh_hit(reply: Reply) -> bool:
    return re.fullmatch(r"hit; ttl=\d+", reply.cache) is not None
