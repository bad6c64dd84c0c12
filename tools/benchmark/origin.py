"""The origin where nginx is not installed: `python -m tools.benchmark.origin PORT`.

It also gives small objects with tags, which nginx does not: those of `/tagged/t1/t2/t3/NUMBER` are
`t1`, `t2` and `t3`.
"""

from __future__ import annotations

import sys

import trio

from tools.benchmark.objects import LIFETIME_S, body_at, etag
from tools.benchmark.plain import content, head
from tools.benchmark.texts import TEXTS

TAGGED = "/tagged/"
TEXT = "/text/"
TAGGED_BODY = content("tagged", 200)
COUNTED = "/requests"


def answer_to(request: bytes, number: int = 1) -> bytes:
    """The whole answer to a request, which is the `number`th."""
    target = request.split(b" ", 2)[1].decode("ascii")
    if target == COUNTED:
        body = b"Active connections: 1\nserver accepts handled requests\n 1 1 %d\n" % number
        return head(len(body), lifetime_s=0) + body
    if target.startswith(TEXT):
        body = TEXTS[target.split("/")[2]]
        plain = b"content-type: text/plain\r\netag: " + etag(len(body))
        return _with(head(len(body), lifetime_s=LIFETIME_S), plain) + body
    if not target.startswith(TAGGED):
        body = body_at(target)
        return _with(head(len(body), lifetime_s=LIFETIME_S), b"etag: " + etag(len(body))) + body
    tags = target.split("/")[2:-1]
    return _with(head(len(TAGGED_BODY)), f"surrogate-key: {' '.join(tags)}".encode()) + TAGGED_BODY


def _with(head: bytes, line: bytes) -> bytes:
    return head.removesuffix(b"\r\n") + line + b"\r\n\r\n"


class Counted:
    """Answers, and how many there were."""

    def __init__(self) -> None:
        self._number = 0

    async def answer(self, stream: trio.SocketStream) -> None:
        """Answer until the client leaves."""
        data = b""
        try:
            while more := await stream.receive_some():
                data += more
                while (end := data.find(b"\r\n\r\n")) >= 0:
                    self._number += 1
                    await stream.send_all(answer_to(data, self._number))
                    data = data[end + 4 :]
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(stream)


async def serve(port: int) -> None:
    """Serve until killed."""
    await trio.serve_tcp(Counted().answer, port, host="127.0.0.1")


if __name__ == "__main__":
    try:
        trio.run(serve, int(sys.argv[1]))
    except* KeyboardInterrupt:
        sys.exit(1)  # a terminal's Ctrl-C reaches everyone
