"""Who a visitor is, as far as an experiment must know: by what name, and whether to be counted.

A visitor's id is whatever the site names: a cookie of its own, or a field that something trusted
in front of the node sets. It is hashed and goes nowhere. A client may claim any id, and so choose
its arm; that it can do by the arm's cookie anyway.

Crawlers are told by what they call themselves. That is enough for what is at stake: they keep no
cookies, so each of their requests would be a new visitor, and an index that shows one arm today
and another tomorrow helps no one. A browser that poses as a crawler sees the control.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from edge.wire.cookies import values_of
from edge.wire.fields import is_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.wire.message import Headers

AGENT_BYTES: Final = 512  # of a User-Agent; a crawler's name stands far before
HOLD_OUTS: Final = frozenset({"bots", "cookieless"})

# Most crawlers end in "bot" (Googlebot, bingbot, GPTBot …; Cubot makes telephones); the rest of
# the list is those of the large engines, previewers, monitors and libraries that do not.
_CRAWLER = re.compile(
    rb"(?<!cu)bot|crawl|spider|slurp|archiver|facebookexternalhit|mediapartners|bingpreview|"
    rb"google-|feedfetcher|lighthouse|headlesschrome|phantomjs|whatsapp/|pingdom|statuscake|"
    rb"uptime|monitor|curl/|wget/|python-|go-http-client|java/|okhttp/|libwww|scrapy|httpclient"
)


def is_crawler(user_agent: bytes | None) -> bool:
    """Whether a User-Agent is that of a crawler, a monitor or a library; one without is."""
    return not user_agent or _names_crawler(user_agent[:AGENT_BYTES])


@lru_cache(maxsize=1024)  # a client may fill it with its own names; it then only saves nothing
def _names_crawler(user_agent: bytes) -> bool:
    return _CRAWLER.search(user_agent.lower()) is not None


def is_held_out(headers: Headers, hold_out: frozenset[str]) -> bool:
    """Whether a request is one of those that `hold_out` (some of `HOLD_OUTS`) keeps apart.

    "cookieless" is a request without any Cookie: also the first of every visit, so only a site
    that gives cookies of its own will find anyone left.
    """
    if "bots" in hold_out and is_crawler(headers.get(b"user-agent")):
        return True
    return "cookieless" in hold_out and b"cookie" not in headers


@dataclass(frozen=True, slots=True)
class VisitorId:
    """Where a site's own id of a visitor stands: in a cookie, or in a field (lower case)."""

    kind: Literal["cookie", "header"]
    name: bytes

    def of(self, headers: Headers) -> bytes | None:
        """The id of the request's visitor, the first of several; None where there is none."""
        if self.kind == "header":
            return headers.get(self.name) or None
        return next(iter(values_of(headers, self.name)), None) or None

    def check(self) -> Iterator[str]:
        """What is wrong with it, in words for the operator."""
        if not is_token(self.name) or (self.kind == "header" and self.name != self.name.lower()):
            yield f"{self.name!r} is no name of a {self.kind}; use letters, digits, - and _"
