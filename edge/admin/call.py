"""What is asked on the admin socket and what is answered, without how it travels.

A handler takes a `Call` and gives a `Reply`, or a `Streamed` one, or raises `Refused`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

Send: TypeAlias = Callable[[bytes | memoryview], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened the connection, as the kernel knows it (SO_PEERCRED)."""

    uid: int
    gid: int
    pid: int  # 0 for a process of another pid namespace

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"


@dataclass(frozen=True, slots=True)
class Call:
    """A whole request. In `query`, bytes that are not UTF-8 stand as surrogate escapes."""

    method: bytes
    path: bytes
    query: Mapping[str, list[str]]
    body: bytes
    caller: Caller


@dataclass(frozen=True, slots=True)
class Reply:
    """What a caller is told; `words` are for the error log's line about the call.

    None where the handler has told the log what there is to tell.
    """

    status: int
    document: Mapping[str, Any]
    allow: bytes = b""
    words: str | None = ""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A reply in pieces: `produce` is given a `send` that waits until its reader can take more.

    What it raises before its first piece becomes an answer of its own; later, a broken connection.
    """

    content_type: bytes
    produce: Callable[[Send], Awaitable[None]]


Handler: TypeAlias = Callable[[Call], Awaitable[Reply | Streamed]]
Routes: TypeAlias = Mapping[bytes, Mapping[bytes, Handler]]
Told: TypeAlias = Callable[[Caller, str, bool], None]
"""(who, a line on the call, whether it was done)"""


class Refused(Exception):  # noqa: N818 - a word of the caller's, not a fault of ours
    """A call that is not done: what RFC 9457 says of it. `words` are for the log, else `detail`.

    An empty title is the status's own; another one makes the problem a type of its own.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        members: Mapping[str, Any] | None = None,
        *,
        allow: bytes = b"",
        words: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title or HTTPStatus(status).phrase
        self.members = members or {}
        self.allow = allow
        self.words = words or detail

    def reply(self) -> Reply:
        """The problem as a reply."""
        own = self.title != HTTPStatus(self.status).phrase
        kind = f"urn:edge:{'-'.join(self.title.lower().split())}" if own else "about:blank"
        problem = {"type": kind, "title": self.title, "status": self.status, "detail": str(self)}
        return Reply(self.status, {**self.members, **problem}, self.allow, self.words)
