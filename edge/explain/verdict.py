"""What a node would do with a request, and why, without doing it.

The verdict is what the next real request would get and what the log would say of it, as long as
nothing changes before. It is worked out by the functions that the exchange acts by:
`serving.admission` before the store is asked, `serving.finding` after it, `serving.answer` for the
status; only their order is written down a second time, and a property test holds the two together.
What an origin will say is not known here, so where one is asked the status is None, and if it
fails a stale answer may yet serve. Nor is a body on disk read: one that has rotted makes a miss of
what is called a hit.

Explaining changes nothing: nothing is counted, promoted or dropped, no flight starts, and no
connection is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Final, assert_never

from edge.cache import decision
from edge.cache.purge import Manner, Verdict
from edge.cache.reasons import Reason
from edge.cache.ruling import Fetch, Refuse, Revalidate, Serve, ServeStale
from edge.cache.scope import told
from edge.cache.validation import conditional
from edge.errors import ExchangeError, Failure
from edge.explain import coding, particulars
from edge.explain.particulars import Case
from edge.explain.question import Question, QuestionRefused, asked, plain, worded
from edge.guard.address import certain_client
from edge.listen.connection import ConnectionPolicy
from edge.observe.record import Outcome
from edge.purging.orders import OrderRefused, order_from_purge
from edge.serving import answer, finding
from edge.serving.admission import PURGE, Admitted, admit
from edge.serving.finding import Alone, Joins
from edge.serving.visit import OUTCOMES
from edge.wire.hop import hops_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.cache.held import Held
    from edge.cache.purge import Purge
    from edge.cache.ruling import OnRequest
    from edge.guard.address import Networks
    from edge.serving.visit import Parts, Tools
    from edge.wire.message import ResponseHead

__all__ = ["Outlook", "Question", "QuestionRefused", "asked", "explain"]

_POLICY: Final = ConnectionPolicy()
_NAMES: Final = {
    Outcome.HIT: "hit",
    Outcome.STALE: "stale",
    Outcome.BYPASS: "bypass",
    Outcome.MISS: "fetch",
}
_SECTIONS: Final = (
    "coding", "request", "site", "key", "variant", "stored", "freshness", "purges", "decision",
    "flight", "route",
)  # fmt: skip
_MOST_SCOPES: Final = 20


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the next such request gets: hit, stale, revalidate, fetch, bypass, redirect, refuse or
    purge.

    `reason` is a slug of the log; `status` is None where an origin has yet to say it. `goes` is
    how it goes to the origin: alone, leads, joins, or behind an answer; b"" where it does not.
    """

    outcome: str
    reason: str
    says: str
    status: int | None = None
    goes: str = ""

    def document(self) -> dict[str, Any]:
        """As the verdict of an explanation."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "says": self.says,
            "status": self.status,
        }


def _forgotten(_number: int) -> Purge | None:
    return None


async def explain(
    question: Question,
    tools: Tools,
    parts: Parts,
    policy: ConnectionPolicy = _POLICY,
    recall: Callable[[int], Purge | None] = _forgotten,
) -> dict[str, Any]:
    """What would be done with `question` now, as a document for JSON; times are in seconds.

    `policy` is that of connections, for its limits; `recall` gives the purge of a number, while
    the journal has it.
    """
    try:
        head = question.head(policy.limits, parts.trusted)
        admitted = admit(parts.settled(), head, question.from_address)
    except ExchangeError as error:
        return _without_case(question, parts, _turned_down(question, parts, error))
    resource = await tools.store.look(admitted.key, tools.now())
    purges = tools.purges.current()
    found = finding.select(
        resource, admitted.request, admitted.policy, purges, judge=finding.look_at
    )
    case = Case(question, head, admitted, parts, tools, resource, found, purges, tools.now())
    outlook = _with_purge(_outlook(case, policy), case, recall)
    return {
        "verdict": outlook.document(),
        "coding": await coding.of(case, outlook.outcome, outlook.goes),
        **particulars.of(case, outlook.goes, outlook.reason, recall),
    }


def _without_case(question: Question, parts: Parts, outlook: Outlook) -> dict[str, Any]:
    """The document of a request that is refused before anything is known of it."""
    asked_for = particulars.of_question(question, parts)
    rest = dict.fromkeys(_SECTIONS)
    return {"verdict": outlook.document(), **rest, "request": asked_for}


# --- the verdict, in the order of the exchange


def _outlook(case: Case, policy: ConnectionPolicy) -> Outlook:
    if hops_left(case.head) == 0:
        says = "answered here, with nothing: Max-Forwards is 0, so the request ends at this node"
        return Outlook("bypass", Reason.METHOD.slug, says, 200)
    if case.admitted.purges:
        return _of_purge(case.admitted)
    if case.admitted.redirect is not None:
        return _sent_on(case.admitted.redirect)
    reason = decision.may_use_store(case.head, case.admitted.policy)
    if reason is not None:
        return _alone(case, policy, reason)
    admitted = case.admitted
    ruling = finding.rule(
        admitted.request,
        case.found,
        admitted.key.digest,
        case.tools.flights,
        admitted.policy,
        case.now,
    )
    return _of_ruling(case, policy, ruling)


def _of_ruling(case: Case, policy: ConnectionPolicy, ruling: OnRequest | ServeStale) -> Outlook:
    match ruling:
        case Refuse():
            return _refused(ExchangeError(Failure.NOT_IN_STORE))
        case Serve() | Revalidate(background=True) | ServeStale():
            return _served(case, policy, ruling)
        case Fetch(because=Reason.REQUEST):
            return _alone(case, policy, ruling.because)
        case Revalidate() | Fetch():
            return _forward(case, policy, ruling.because)
        case _:
            assert_never(ruling)


def _sent_on(head: ResponseHead) -> Outlook:
    where = plain(head.headers.get(b"location") or b"")
    says = f"answered here, by the rule that takes it, with where to go instead: {where}"
    return Outlook("redirect", Reason.REDIRECT.slug, says, head.status)


def _of_purge(admitted: Admitted) -> Outlook:
    reason = Reason.PURGE.slug
    try:
        order = order_from_purge(admitted.request, admitted.site)
    except OrderRefused as error:
        return Outlook("purge", reason, f"nothing would be purged: {error}", 400)
    words = [" ".join(told(name)) for name in order.names[:_MOST_SCOPES]]
    more = len(order.names) - len(words)
    named = ", ".join(words) + (f", and {more} more" if more else "")
    return Outlook("purge", reason, f"would purge{' softly' * order.soft}: {named}", 200)


def _alone(case: Case, policy: ConnectionPolicy, because: Reason) -> Outlook:
    declared = case.head.headers.get(b"content-length")
    if declared is not None and int(declared) > policy.request_body_bytes:
        return _refused(ExchangeError(Failure.BODY_TOO_LARGE))
    outcome = _NAMES[OUTCOMES.get(because, Outcome.MISS)]
    says = f"passed to the origin for this client alone: {_why(case, because)}"
    return Outlook(outcome, because.slug, says, goes="alone")


def _forward(case: Case, policy: ConnectionPolicy, because: Reason) -> Outlook:
    admitted = case.admitted
    way = finding.way(admitted, case.found, case.tools.flights, case.purges)
    if isinstance(way, Alone):
        return _alone(case, policy, because)
    entries = [held.entry for held in case.found.variants]
    question = conditional(admitted.request, entries, admitted.policy.vary)
    outcome = "revalidate" if _VALIDATING & {name for name, _ in question.headers} else "fetch"
    goes = "joins" if isinstance(way, Joins) else "leads"
    says = f"{_HOW[outcome, goes]}: {_why(case, because)}"
    return Outlook(outcome, because.slug, says, goes=goes)


def _served(
    case: Case, policy: ConnectionPolicy, ruling: Serve | Revalidate | ServeStale
) -> Outlook:
    held, request = case.found.held, case.admitted.request
    assert held is not None
    composed = answer.from_entry(request, held.entry, _length(held), case.parts.salt)
    if finding.is_far_ahead(composed, held):
        return _alone(case, policy, Reason.PARTIAL)
    because = ruling.because
    goes = "" if isinstance(ruling, Serve) else "behind"
    outcome = _NAMES[OUTCOMES.get(because, Outcome.MISS)]
    says = f"answered from the store: {_why(case, because)}"
    return Outlook(outcome, because.slug, says, composed.head.status, goes)


def _length(held: Held) -> int | None:
    """The body's length as far as it is known."""
    length = held.entry.length
    return held.fill.length if length is None and held.fill is not None else length


_VALIDATING: Final = {b"if-none-match", b"if-modified-since"}
_HOW: Final = {
    ("fetch", "leads"): "fetched from the origin",
    ("fetch", "joins"): "joins the fetch under way",
    ("revalidate", "leads"): "validated with the origin",
    ("revalidate", "joins"): "joins the validation under way",
}


# --- in words


def _turned_down(question: Question, parts: Parts, error: ExchangeError) -> Outlook:
    """A request that no one looks anything up for; who may not purge is told who may."""
    outlook = _refused(error)
    if question.method != PURGE or error.failure is not Failure.METHOD_REFUSED:
        return outlook
    head = question.head(_POLICY.limits, parts.trusted)
    site = parts.sites.find(head.authority)
    if site is None:
        return replace(outlook, says="refused: no site has this host, and so none has PURGE")
    client = certain_client(question.from_address, head.headers, parts.trusted)
    who = "cannot be told for certain" if client is None else f"is {plain(client)}"
    known = _networks(site.purge_from)
    known = f"site.purge_from ({known})" if known else "site.purge_from, which is empty"
    return replace(outlook, says=f"refused: PURGE is known only to {known}, and this client {who}")


def _networks(networks: Networks) -> str:
    """Networks as they are written in settings."""
    words = ["unix"] if networks.unix else []
    for version, shift, prefixes in networks.prefixes:
        kind, bits = (IPv4Network, 32) if version == 4 else (IPv6Network, 128)
        words += [str(kind((prefix << shift, bits - shift))) for prefix in sorted(prefixes)]
    return ", ".join(words)


def _with_purge(outlook: Outlook, case: Case, recall: Callable[[int], Purge | None]) -> Outlook:
    """`outlook`; where it is owed to a purge of what is stored, with that purge."""
    how, _, why = outlook.says.partition(": ")
    held = case.held
    verdict = Verdict.LIVE if held is None else finding.look_at(held, case.purges)
    if held is None or verdict is Verdict.LIVE or why not in _OWED_TO_PURGES:
        return outlook
    is_soft = verdict is Verdict.STALE
    covers = particulars.covers(case, held)
    number = next((c.number for c in covers if (c.manner is Manner.SOFT) is is_soft), None)
    words = f"{how}: what is stored was {'soft-' * is_soft}purged"
    behind = "" if number is None else f" ({_purge_told(number, recall(number))})"
    return replace(outlook, says=words + behind)


def _purge_told(number: int, purge: Purge | None) -> str:
    """`purge 16, 2026-11-21T07:59:01Z, uid 0, pid 7`."""
    if purge is None:
        return f"purge {number}"
    when = datetime.fromtimestamp(purge.when, UTC).isoformat(timespec="seconds")
    return f"purge {number}, {when.replace('+00:00', 'Z')}, {plain(purge.who.encode())}"


def _refused(error: ExchangeError) -> Outlook:
    failure = error.failure
    why = _REFUSALS.get(failure, failure.slug)
    detail = f" ({worded(error.detail)})" if error.detail else ""
    return Outlook("refuse", failure.slug, f"refused: {why}{detail}", error.status)


_REFUSALS: Final = {
    Failure.BAD_MESSAGE: "it is no HTTP request that can be read in one way only",
    Failure.BAD_HOST: "its Host is none, or not one",
    Failure.METHOD_REFUSED: "this method is not for this client",
    Failure.BODY_TOO_LARGE: "its body is larger than limits.request_body",
    Failure.TARGET_TOO_LONG: "its target is longer than limits.target",
    Failure.BAD_EXPECTATION: "it expects something other than 100-continue",
    Failure.MISDIRECTED: "no site has this host",
    Failure.HEAD_TOO_LARGE: "its head is larger than limits.head, or has more than limits.fields",
    Failure.LOOP: "it has passed this node before",
    Failure.NOT_IN_STORE: "it wants only what is stored, and nothing stored may answer it",
}


def _why(case: Case, because: Reason) -> str:
    ttl = case.ttl
    words = _WHY[because]
    if ttl is None:
        return words
    left = f"{abs(ttl):.0f} s"
    return words.format(left=left, count=len(case.found.variants))


_WHY: Final = {
    Reason.HIT: "fresh for {left} more",
    Reason.STALE_WHILE_REVALIDATE: "stale for {left}, which is allowed while it is validated",
    Reason.STALE_ACCEPTED: "stale for {left}, which the request accepts (max-stale)",
    Reason.STALE_IF_ERROR: "stale for {left}, and the origin hung a moment ago",
    Reason.URI_MISS: "nothing usable is stored under its key",
    Reason.VARY_MISS: "none of the stored variants is for its fields",
    Reason.STALE: "what is stored is stale",
    Reason.NO_CACHE: "what is stored must not be used without asking (no-cache)",
    Reason.SOFT_PURGED: "what is stored was soft-purged",
    Reason.REQUEST: "its own Cache-Control wants it",
    Reason.METHOD: "its method is neither GET nor HEAD",
    Reason.BYPASS: "the site's settings bypass the store",
    Reason.BODY: "it has a body, which is not in the key",
    Reason.UPGRADE: "it asks for another protocol",
    Reason.PARTIAL: "its range begins far ahead of what has come",
}
_OWED_TO_PURGES: Final = {
    _WHY[reason] for reason in (Reason.URI_MISS, Reason.VARY_MISS, Reason.SOFT_PURGED)
}
