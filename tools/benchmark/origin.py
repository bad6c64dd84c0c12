"""The origin where nginx is not installed: `python -m tools.benchmark.origin PORT`.

It also gives small objects with tags, which nginx does not: those of `/tagged/t1/t2/t3/NUMBER` are
`t1`, `t2` and `t3`.
"""

from __future__ import annotations

import sys

import trio

from tools.benchmark.plain import content, head

TAGGED = b"GET /tagged/"
TAGGED_BODY = content("tagged", 200)
BODIES = {False: content("1k", 1024), True: content("1m", 1 << 20)}
ANSWERS = {large: head(len(body)) + body for large, body in BODIES.items()}


def answer_to(request: bytes) -> bytes:
    """The whole answer to a request."""
    if not request.startswith(TAGGED):
        return ANSWERS[request.startswith(b"GET /1m ")]
    tags = request.split(b" ", 2)[1].split(b"/")[2:-1]
    field = b"surrogate-key: %b\r\n\r\n" % b" ".join(tags)
    return head(len(TAGGED_BODY)).removesuffix(b"\r\n") + field + TAGGED_BODY


async def answer(stream: trio.SocketStream) -> None:
    """Answer until the client leaves."""
    data = b""
    try:
        while more := await stream.receive_some():
            data += more
            while (end := data.find(b"\r\n\r\n")) >= 0:
                await stream.send_all(answer_to(data))
                data = data[end + 4 :]
    except trio.BrokenResourceError:
        pass
    await trio.aclose_forcefully(stream)


async def serve(port: int) -> None:
    """Serve until killed."""
    await trio.serve_tcp(answer, port, host="127.0.0.1")


if __name__ == "__main__":
    try:
        trio.run(serve, int(sys.argv[1]))
    except* KeyboardInterrupt:
        sys.exit(1)  # a terminal's Ctrl-C reaches everyone
