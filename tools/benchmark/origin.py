"""The origin where nginx is not installed: `python -m tools.benchmark.origin PORT`."""

from __future__ import annotations

import sys

import trio

from tools.benchmark.plain import content, head

BODIES = {False: content("1k", 1024), True: content("1m", 1 << 20)}
ANSWERS = {large: head(len(body)) + body for large, body in BODIES.items()}


async def answer(stream: trio.SocketStream) -> None:
    """Answer until the client leaves."""
    data = b""
    try:
        while more := await stream.receive_some():
            data += more
            while (end := data.find(b"\r\n\r\n")) >= 0:
                await stream.send_all(ANSWERS[data.startswith(b"GET /1m ")])
                data = data[end + 4 :]
    except trio.BrokenResourceError:
        pass
    await trio.aclose_forcefully(stream)


async def serve(port: int) -> None:
    """Serve until killed."""
    await trio.serve_tcp(answer, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
