"""Every way an exchange can fail: whose fault it is, which status tells it, may one try again.

Three parties can be at fault. A *client* error is answered with a 4xx (or 505) and the
connection is closed, because what follows a bad message cannot be trusted. An *upstream* error
becomes a stale answer where the directives allow one, else a 502, 503 or 504. An error of *ours*
is a 500 and a line in the error log. The table below is the only place that maps a failure to a
status; foreign exceptions are translated to it once, where they enter, with their cause kept.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Side(Enum):
    """Whose fault a failure is."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    US = "us"


class Failure(Enum):
    """One way to fail: (name in logs, side, status)."""

    # What the client sent.
    BAD_MESSAGE = ("bad-message", Side.CLIENT, 400)
    BAD_HOST = ("bad-host", Side.CLIENT, 400)
    NO_PROOF = ("no-proof", Side.CLIENT, 403)  # of an edge, to a shield: see `wire.proof`
    BAD_PROOF = ("bad-proof", Side.CLIENT, 403)
    PROOF_EXPIRED = ("proof-expired", Side.CLIENT, 403)
    PROOF_USED = ("proof-used", Side.CLIENT, 403)  # an unsafe method's, which counts once
    NOT_FROM_HERE = ("not-from-here", Side.CLIENT, 403)  # another network than the edges'
    METHOD_REFUSED = ("method-refused", Side.CLIENT, 405)
    HEAD_TIMEOUT = ("head-timeout", Side.CLIENT, 408)
    BODY_TIMEOUT = ("body-timeout", Side.CLIENT, 408)
    BODY_TOO_LARGE = ("body-too-large", Side.CLIENT, 413)
    TARGET_TOO_LONG = ("target-too-long", Side.CLIENT, 414)
    BAD_EXPECTATION = ("bad-expectation", Side.CLIENT, 417)
    MISDIRECTED = ("no-such-site", Side.CLIENT, 421)
    HEAD_TOO_LARGE = ("head-too-large", Side.CLIENT, 431)
    BAD_VERSION = ("bad-version", Side.CLIENT, 505)
    LOOP = ("loop", Side.CLIENT, 508)
    CLIENT_LEFT = ("client-left", Side.CLIENT, 499)  # never sent: there is no one to send it to
    SEND_TIMEOUT = ("send-timeout", Side.CLIENT, 499)

    # What the origin did, or did not do.
    NAME_UNKNOWN = ("name-unknown", Side.UPSTREAM, 502)
    CONNECT_REFUSED = ("connect-refused", Side.UPSTREAM, 502)
    CONNECT_TIMEOUT = ("connect-timeout", Side.UPSTREAM, 504)
    TLS_FAILED = ("tls-failed", Side.UPSTREAM, 502)
    CLOSED_EARLY = ("closed-early", Side.UPSTREAM, 502)  # before a whole response head came
    BAD_RESPONSE = ("bad-response", Side.UPSTREAM, 502)
    BODY_TRUNCATED = ("body-truncated", Side.UPSTREAM, 502)
    SHIELD_REFUSED = ("shield-refused", Side.UPSTREAM, 502)  # it takes us for no edge of its own
    FIRST_BYTE_TIMEOUT = ("first-byte-timeout", Side.UPSTREAM, 504)
    BETWEEN_BYTES_TIMEOUT = ("between-bytes-timeout", Side.UPSTREAM, 504)
    TOTAL_TIMEOUT = ("total-timeout", Side.UPSTREAM, 504)
    OVERLOADED = ("overloaded", Side.UPSTREAM, 503)  # nothing that it takes came free in time
    NOT_IN_STORE = ("only-if-cached", Side.CLIENT, 504)  # RFC 9111 §5.2.1.7

    # What we did.
    BODY_LOST = ("body-lost", Side.US, 500)  # a stored body failed its check while being read
    OWNER_GONE = ("owner-gone", Side.US, 503)  # the worker that stores what was asked for
    DRAINING = ("draining", Side.US, 503)
    INTERNAL = ("internal", Side.US, 500)

    def __init__(self, slug: str, side: Side, status: int) -> None:
        self.slug: Final = slug
        self.side: Final = side
        self.status: Final = status


class ExchangeError(Exception):
    """An exchange that cannot go on as it was meant to.

    `retry` says that trying again is safe: nothing of the request can have been acted upon.
    `detail` is for the log only; a client never sees it.
    """

    def __init__(self, failure: Failure, detail: str = "", *, retry: bool = False) -> None:
        super().__init__(f"{failure.slug}: {detail}" if detail else failure.slug)
        self.failure = failure
        self.detail = detail
        self.retry = retry

    @property
    def side(self) -> Side:
        """Whose fault it is."""
        return self.failure.side

    @property
    def status(self) -> int:
        """The status that tells the client."""
        return self.failure.status


class ProtocolError(ExchangeError):
    """Bytes that are not the HTTP message they should be: the only error a parser raises.

    A server engine raises it with a client's failure (400, 413, 414, 431, 505), a client engine
    with `BAD_RESPONSE`, `CLOSED_EARLY` or `BODY_TRUNCATED`.
    """

    def anew(self) -> ProtocolError:
        """The same, not raised yet. For who keeps one: what was raised holds the frames that it
        went through, and with them whoever keeps it, until all objects are looked through."""
        return ProtocolError(self.failure, self.detail, retry=self.retry)


def let_go(error: BaseException) -> None:
    """Let an error that goes no further, and its causes, let go of the frames that they went
    through: those hold whoever keeps the error, until all objects are looked through."""
    at: BaseException | None = error
    while at is not None:
        at.__traceback__ = None
        at = at.__cause__ or at.__context__
