"""The client side of HTTP/1.1: a connection to an origin (see `h1` for what both sides share)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11

from edge.errors import ExchangeError, Failure, ProtocolError
from edge.wire.direct import PlainExchange
from edge.wire.fields import tokens
from edge.wire.gate import ResponseGate
from edge.wire.grammar import RESPONSE_LIMITS, Limits
from edge.wire.h1 import OVER, WHOLE, H1Side
from edge.wire.message import Chunk, End, Headers, Message, RequestHead, ResponseHead
from edge.wire.serial import divided

if TYPE_CHECKING:
    from edge.wire.message import Pair


class ClientEngine(H1Side):
    """A connection to an origin: sends requests, yields responses."""

    _gate: ResponseGate
    _bad = Failure.BAD_RESPONSE

    def __init__(self, limits: Limits = RESPONSE_LIMITS) -> None:
        gate = ResponseGate(limits)
        super().__init__(h11.CLIENT, gate, limits)
        self._plain = PlainExchange(gate)
        self._offered: list[bytes] = []

    @property
    def reusable(self) -> bool:
        """Both messages were whole, nothing came behind, and nothing forbids another request."""
        return (
            self._is_at_rest()
            and not (self._broken or self._fault or self._gate.ended)
            and self._gate.buffered == 0
        )

    def _is_at_rest(self) -> bool:
        if self._plain.is_mine:
            return self._plain.is_at_rest
        ours, theirs = self._h11.our_state, self._h11.their_state
        return ours is theirs and ours in (h11.DONE, h11.IDLE)

    @property
    def finished(self) -> bool:
        """Nothing more will be read or made: close the connection, or leave it to the tunnel."""
        if self._broken or self._upgraded or self._fault is not None:
            return True
        if self._reading or self.reusable:
            return False
        mine = self._plain.is_mine
        return self._plain.ended if mine else self._h11.our_state in (h11.DONE, *OVER)

    def _read(self) -> Message | None:
        if not self._plain.is_mine:
            return super()._read()
        message = self._plain.read()
        if message is None and self._plain.handed_over:
            self._hand_over()
            return super()._read()
        self._reading = not isinstance(message, End)
        return self._counted(message) if isinstance(message, Chunk) else message

    def _hand_over(self) -> None:
        """Have h11 know what it would if it had written the request, and read its answer."""
        request = self._plain.request
        assert request is not None
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        self._h11.send(_request(request, []))  # what is to be written has been
        if self._plain.ended:
            self._h11.send(WHOLE)
        self._h11.receive_data(self._plain.handed_over)

    def _head(self, event: h11.Event) -> ResponseHead:
        assert isinstance(event, h11.Response | h11.InformationalResponse)
        pairs = [(name.lower(), value) for name, value in event.headers.raw_items()]
        head = ResponseHead(
            event.status_code, Headers(pairs), bytes(event.reason), event.http_version
        )
        if head.status == 101:
            self._check_upgrade(head)
            self._upgraded, self._reading = True, False
        return head

    def _check_upgrade(self, head: ResponseHead) -> None:
        chosen = tokens((head.headers.joined(b"upgrade") or b"").lower())
        if not chosen or any(protocol not in self._offered for protocol in chosen):
            raise ProtocolError(Failure.BAD_RESPONSE, "101 to a protocol that was not offered")

    def send(self, stream: int, message: Message) -> None:
        """Queue `message`; raises `ExchangeError(INTERNAL)` where it breaks our own framing."""
        if not self._plain.is_mine or not isinstance(message, Chunk | End):
            super().send(stream, message)
        elif self._broken or not self._plain.end(message):
            self._broken = True
            raise ExchangeError(Failure.INTERNAL, "more than the request that was sent")

    def _send_head(self, head: RequestHead | ResponseHead) -> None:
        if not isinstance(head, RequestHead):
            raise ExchangeError(Failure.INTERNAL, "a client sends requests")
        if self._gate.buffered:  # a response to nothing would pass for the answer to this
            raise ProtocolError(Failure.BAD_RESPONSE, "bytes before the request", retry=True)
        if self._gate.ended:
            raise ProtocolError(Failure.CLOSED_EARLY, "closed before the request", retry=True)
        if not self.reusable:
            raise ExchangeError(Failure.INTERNAL, "the connection cannot carry a request")
        judged, lines = divided(head.headers.pairs)
        judged = [pair for pair in judged if pair[0] != b"host"]
        written = self._plain.begin(head, lines) if not judged else None
        self._gate.expect(head.method)
        self._offered = tokens((head.headers.joined(b"upgrade") or b"").lower()) if judged else []
        if written is None:
            self._plain.leave()
            self._begin_cycle()
            return self._emit(lambda: _request(head, judged), lines)
        self._begin_counting()
        self._queue.append(written)
        self._queued_bytes += len(written)
        return None


def _request(head: RequestHead, judged: list[Pair]) -> h11.Request:
    fields = [*judged, (b"host", head.authority)]
    return h11.Request(method=head.method, target=head.target, headers=fields)
