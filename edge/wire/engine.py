"""What every HTTP version must be to the rest of the node: bytes to messages, messages to bytes.

Theory of operation
-------------------
An engine is one connection's protocol state and nothing else: no socket, no clock, no task. A
driver owns the transport and moves bytes; the exchange (or the fetch) owns the meaning and moves
messages; the engine stands between and knows the version. So the same engine runs over TCP, TLS,
a socket pair or a test's two lists, and a version is added without touching anything above.

One turn of a driver is: `receive` what was read, walk `messages`, `send` what answers them, write
what `outgoing` gives. Three rules make that safe whatever the peer does.

- **Errors have a turn.** `receive` never raises for what the peer sent. `messages` raises
  `ProtocolError` when the bad message's turn comes, after everything good before it has been
  yielded and answered; a fault in a pipelined request never spoils the answer to an earlier one.
  After the error an engine that serves can still `send` one final response, which it marks as the
  connection's last.
- **Back-pressure is two numbers.** `window` says how many body bytes may be sent now; `consumed`
  tells the engine how many of those it yielded have found a reader. `readable` is their sum in
  one bit: is more input wanted? A driver that reads only while `readable` holds bounded memory.
- **An end is said, never guessed.** `End` means that the message's framing was satisfied. Input
  that stops inside a message is an error, and a message given up is sent as `Reset`, whose bytes
  on the wire are such that no peer can take what came before for a whole.

What an engine refuses to decide: whether a message is wise (the exchange), where it goes
(routing), how long to wait for it (the driver's deadlines). Limits on bytes are its own, because
only it sees the bytes.

Turned down: callbacks per event (they own the control flow that the driver needs for
cancellation), and an asynchronous engine (it could not be fuzzed byte by byte, nor used by the
synchronous half of an exchange).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.wire.message import Message


class Engine(Protocol):
    """One connection's protocol state, as server or as client."""

    def receive(self, data: bytes) -> None:
        """Take what was read from the peer; `b""` means that no more will come."""

    def messages(self) -> Iterator[tuple[int, Message]]:
        """The messages which that made, each with its stream; raises `ProtocolError` in turn."""

    def send(self, stream: int, message: Message) -> None:
        """Queue `message`; raises `ExchangeError(INTERNAL)` where it breaks our own framing."""

    def outgoing(self) -> list[bytes | memoryview]:
        """Take what is queued, in order; body data are the very objects that were sent."""

    def window(self, stream: int) -> int:
        """Body bytes that may be sent now without queueing more than the high-water mark."""

    def consumed(self, stream: int, size: int) -> None:
        """Tell that a reader took `size` of the body bytes yielded so far."""

    def readable(self) -> bool:
        """Is more input wanted now?"""

    @property
    def finished(self) -> bool:
        """Nothing more will be read or made: write what `outgoing` holds, then close."""
