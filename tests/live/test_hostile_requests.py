"""What clients do that mean harm, against a real node."""

from __future__ import annotations

import random
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.live.hostile_harness import (
    QUICK,
    RESET,
    SMUGGLED,
    Asked,
    Dialogue,
    Node,
    Origin,
    Wire,
    answer_plainly,
    ask_for,
    connect,
    get,
    is_plainly_served,
    many,
    plain,
    read_all,
    request,
    say,
    wait_until,
)
from tests.vectors import hostile

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.live

MIB = 1 << 20
BIG = bytes(range(256)) * 4096  # 1 MiB
LAST = request("/behind", connection="close")
CHUNKED = (
    b"POST /cut HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n3\r\n!!!\r\n0\r\nT: x\r\n\r\n"
)
COUNTED = b"POST /cut HTTP/1.1\r\nHost: example.com\r\nContent-Length: 8\r\n\r\nhello!!!"
HEAD_ONLY = b"GET /cut?a=b HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nX-Y: z\r\n\r\n"
HANDSHAKE = {"connection": "Upgrade", "upgrade": "websocket"}
# What costs the most: the largest, the slowest to be found out, the most objects.
WORST = (
    "target of a megabyte",
    "fields by the tens of thousands",
    "one field of a megabyte",
    "one huge name",
    "head without end",
    "trailers without end",
    "chunk extension without end",
    "chunk extensions on every byte",
    "length of five thousand digits",
    "chunk size of five thousand digits",
    "empty lines by the thousand",
    "body short of its length",
)


def respond(asked: Asked, wire: Wire) -> None:
    """An origin with a few places of its own."""
    if asked.field("upgrade") == "websocket" and asked.target == "/socket":
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n")
        wire.send(b"Upgrade: websocket\r\n\r\n")
        wire.sock.settimeout(5)
        while data := wire.receive():
            wire.send(data.upper())
        wire.close()
    elif asked.target.startswith("/big"):
        wire.send(plain(BIG))
    elif asked.target.startswith("/hit"):
        wire.send(plain(b"hit"))
    elif asked.target == "/refused":
        wire.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        wire.close()
    else:
        answer_plainly(asked, wire)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin(respond) as origin:
        yield origin
        assert not origin.trouble


@pytest.fixture(scope="module")
def node(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    sets = (*QUICK, "limits.request_body=1MiB")
    with Node(tmp_path_factory.mktemp("node"), origin.url, sets=sets) as node:
        pid = node.pid
        yield node
        assert node.is_running()
        assert node.pid == pid
        assert " internal" not in node.complaints()


@pytest.fixture(autouse=True)
def _afterwards_a_plain_request_is_served(node: Node, origin: Origin) -> Iterator[None]:
    origin.clear()
    yield
    assert is_plainly_served(node.port)


def statuses(dialogue: Dialogue, *methods: str) -> list[int]:
    return [answer.status for answer in dialogue.answers(*methods)]


def method_of(raw: bytes) -> str:
    return raw.split(b" ")[0].decode("latin-1")


# One string of bytes each.

CASES = hostile.requests()


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.closes], ids=lambda case: case.name
)
def test_a_bad_message_gets_its_status_and_everything_behind_it_is_dropped(
    case: hostile.Request, node: Node, origin: Origin
) -> None:
    dialogue = say(node.port, case.raw + SMUGGLED * (not case.ends), ends=case.ends)
    found = statuses(dialogue, method_of(case.raw))
    assert found
    assert set(found) <= set(case.status)
    assert dialogue.closed
    assert not origin.has_seen(b"/smuggled")
    if 200 not in case.status:
        assert not any(asked.whole for asked in origin.asked)
        assert not origin.asked or case.family in {"chunks", "trailers", "pipeline"}


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.closes], ids=lambda case: case.name
)
def test_a_good_message_is_answered_and_leaves_the_connection_in_step(
    case: hostile.Request, node: Node, origin: Origin
) -> None:
    found = statuses(say(node.port, case.raw + LAST), method_of(case.raw))
    assert found[-1] == 200
    assert set(found[:-1]) <= set(case.status)
    assert len(found) >= 2 or set(found) & {400}
    assert not origin.asked_for("/smuggled")


MUTANTS = (b"\0", b"\t", b"\n", b"\x0b", b"\x0c", b"\r", b"\r\n", b" ", b",", b";", b'"',
           b"\x1c", b"\x7f", b"\x85", b"\xa0", b"\xc2\x85", b"\xe2\x80\xa8")  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_no_byte_put_anywhere_into_framing_lets_a_body_become_a_request(
    seed: int, node: Node, origin: Origin
) -> None:
    """The body is a request; however the head is bent, it is a body or it is nothing."""
    rng = random.Random(seed)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    for _ in range(30):
        if rng.random() < 0.5:
            framing, body = b"Transfer-Encoding: chunked\r\n", chunked
        else:
            framing, body = b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED
        head = b"POST /m HTTP/1.1\r\nHost: example.com\r\n" + framing + b"X: y\r\n\r\n"
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(head) - 3)
            head = head[:at] + rng.choice(MUTANTS) + head[at:]
        if b"\r\n\r\n" in head[:-4]:
            continue  # the mutant ended the head: what follows is a message of its own
        found = statuses(say(node.port, head + body + LAST, ends=True))
        assert set(found) <= {200, 400, 405, 408, 413, 417, 421, 501, 505}, head
        assert not origin.asked_for("/smuggled"), head


# Cuts, ends and pieces.


@pytest.mark.parametrize("raw", [HEAD_ONLY, COUNTED, CHUNKED], ids=["head", "counted", "chunked"])
@pytest.mark.parametrize("how", ["half-close", "reset"])
def test_a_message_cut_at_any_offset_reaches_the_origin_never_as_whole(
    raw: bytes, how: str, node: Node, origin: Origin
) -> None:
    for offset in range(1, len(raw), 3):
        if how == "half-close":
            found = statuses(say(node.port, raw[:offset], ends=True))
            assert found == [400], raw[:offset]
            continue
        sock = connect(node.port)
        sock.sendall(raw[:offset])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
    assert is_plainly_served(node.port)
    assert not [asked for asked in origin.asked_for("/cut") if asked.whole]
    assert not origin.asked_for("/cut?a=b")


@pytest.mark.parametrize("raw", [HEAD_ONLY, COUNTED, CHUNKED], ids=["head", "counted", "chunked"])
def test_a_message_in_two_pieces_is_the_same_message(
    raw: bytes, node: Node, origin: Origin
) -> None:
    with connect(node.port) as sock:
        answers = 0
        for offset in range(1, len(raw), 5):
            sock.sendall(raw[:offset])
            assert is_plainly_served(node.port)  # the node has had its turn with the first piece
            sock.sendall(raw[offset:])
            answers += 1
        sock.sendall(LAST)
        found = statuses(read_all(sock))
    assert found == [200] * (answers + 1)
    assert all(asked.body in (b"", b"hello!!!") for asked in origin.asked)


def test_a_request_is_answered_to_a_client_that_has_ended_its_side(node: Node) -> None:
    dialogue = say(node.port, HEAD_ONLY, ends=True)
    assert statuses(dialogue) == [200]
    assert dialogue.end == "eof"


def test_a_request_by_single_bytes_is_answered(node: Node) -> None:
    with connect(node.port) as sock:
        for byte in request("/plain", connection="close"):
            sock.sendall(bytes([byte]))
        assert statuses(read_all(sock)) == [200]


# Order.


def test_nothing_is_read_behind_an_error(node: Node, origin: Origin) -> None:
    bad = b"GET /bad HTTP/1.1\r\nHost: example.com\r\nX : y\r\n\r\n"
    found = statuses(say(node.port, request("/first") + bad + SMUGGLED * 50))
    assert found == [200, 400]
    assert [asked.target for asked in origin.asked] == ["/first"]


def test_requests_behind_hits_that_were_not_read_are_answered_in_order(node: Node) -> None:
    get(node.port, "/big")
    with connect(node.port) as sock:
        sock.sendall(request("/big") * 8 + LAST)
        answers = read_all(sock).answers()
    assert [answer.body == BIG for answer in answers] == [True] * 8 + [False]
    assert answers[-1].status == 200
    assert all(answer.is_hit for answer in answers[:8])


def test_hundreds_of_pipelined_requests_are_answered_in_order(node: Node) -> None:
    wanted = [f"/plain?{number}" for number in range(300)]
    dialogue = say(node.port, b"".join(map(request, wanted)) + LAST)
    assert statuses(dialogue) == [200] * 301


def test_an_error_behind_a_hit_is_told_after_the_hit(node: Node) -> None:
    get(node.port, "/hit")
    dialogue = say(node.port, request("/hit") + b"GET /x HTTP/9.9\r\n\r\n" + SMUGGLED)
    assert statuses(dialogue) == [200, 505]


def test_bytes_behind_an_upgrade_that_was_accepted_are_the_tunnels(
    node: Node, origin: Origin
) -> None:
    with connect(node.port) as sock:
        sock.sendall(request("/socket", **HANDSHAKE) + SMUGGLED)
        assert wait_until(lambda: origin.has_seen(b"/smuggled"))
        sock.shutdown(socket.SHUT_WR)
        answers = read_all(sock).answers()
    assert [answer.status for answer in answers] == [101]
    assert answers[0].body == SMUGGLED.upper()
    assert not origin.asked_for("/smuggled")


def test_bytes_behind_an_upgrade_that_was_refused_are_never_tunnelled(
    node: Node, origin: Origin
) -> None:
    frame = b"\x81\x85\x01\x02\x03\x04hello"
    dialogue = say(node.port, request("/nothing", **HANDSHAKE) + frame + SMUGGLED)
    assert statuses(dialogue) == [200, 400]
    assert not origin.has_seen(frame)
    assert not origin.has_seen(b"/smuggled")


def test_a_request_behind_a_refused_upgrade_is_one_by_itself(node: Node, origin: Origin) -> None:
    assert statuses(say(node.port, request("/nothing", **HANDSHAKE) + LAST)) == [200, 200]
    assert [asked.target for asked in origin.asked] == ["/nothing", "/behind"]
    assert origin.asked[1].field("upgrade") is None


def test_an_upgrade_to_http2_never_reaches_the_origin(node: Node, origin: Origin) -> None:
    settings = {"http2_settings": "AAMAAABkAAQAAP__"}
    for upgrade in ("h2c", "H2C", "h2c, websocket", "h2"):
        fields = {"connection": "Upgrade, HTTP2-Settings", "upgrade": upgrade} | settings
        get_with = request("/h2c", **fields) + LAST
        assert statuses(say(node.port, get_with))[-1] == 200
    for asked in origin.asked:
        assert "h2" not in (asked.field("upgrade") or "").lower()
        assert asked.field("http2-settings") is None
        assert "http2-settings" not in (asked.field("connection") or "").lower()


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "BREW"])
def test_a_body_on_any_method_is_a_body(method: str, node: Node, origin: Origin) -> None:
    for body in (SMUGGLED, SMUGGLED * 2000):
        dialogue = say(node.port, request("/body", method, body) + LAST)
        found = statuses(dialogue, method)
        assert found in ([200, 200], [200], [400])
        assert not origin.asked_for("/smuggled")
        for asked in origin.asked_for("/body"):
            assert asked.whole


def test_a_body_that_a_hit_did_not_need_is_not_a_request(node: Node, origin: Origin) -> None:
    get(node.port, "/hit-with-body")
    for size in (1, 20_000):
        body = SMUGGLED * size
        found = statuses(say(node.port, request("/hit-with-body", "GET", body) + LAST))
        assert set(found) <= {200, 400, 413}
        assert not origin.asked_for("/smuggled")


# Expect.


def test_a_body_is_asked_for_once_and_only_where_it_is_expected(node: Node) -> None:
    with connect(node.port) as sock:
        sock.sendall(
            b"POST /expect HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"hello")
        answers = read_all(sock).answers()
    assert [(a.status, a.interims) for a in answers] == [(200, [])]


def test_a_body_over_the_limit_is_refused_before_it_is_sent(node: Node, origin: Origin) -> None:
    raw = (
        b"POST /large HTTP/1.1\r\nHost: example.com\r\nContent-Length: 9999999\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    dialogue = say(node.port, raw, ends=False)
    assert [(a.status, a.interims) for a in dialogue.answers()] == [(413, [])]
    assert dialogue.closed
    assert not origin.asked


def test_an_endless_body_is_refused_and_broken_off_towards_the_origin(
    node: Node, origin: Origin
) -> None:
    head = b"POST /endless HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    dialogue = say(node.port, head + b"1000\r\n" + bytes(0x1000) + b"\r\n" * 2)
    assert statuses(dialogue) == [400]
    dialogue = say(node.port, head + (b"1000\r\n" + bytes(0x1000) + b"\r\n") * 1000)
    assert statuses(dialogue) in ([413], [])  # the answer may be lost to a reset
    assert not [asked for asked in origin.asked if asked.whole]


@pytest.mark.parametrize("value", ["100-continue, x", "x", "200-ok", "100-Continue"])
def test_another_expectation_is_refused_or_met(value: str, node: Node) -> None:
    found = statuses(say(node.port, request("/expect", "POST", b"hello", expect=value) + LAST))
    assert found in ([417], [200, 200])


def test_an_early_refusal_by_the_origin_ends_the_request(node: Node) -> None:
    with connect(node.port) as sock:
        sock.sendall(
            b"POST /refused HTTP/1.1\r\nHost: example.com\r\nContent-Length: 500000\r\n\r\n"
        )
        sock.sendall(BIG[:500_000])
        dialogue = read_all(sock, 2)
    assert statuses(dialogue) in ([403], [502], [])


def test_a_chunk_gone_bad_midway_breaks_the_origins_connection(node: Node, origin: Origin) -> None:
    head = b"POST /midway HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(node.port) as sock:
        sock.sendall(head + b"5\r\nhello\r\n")
        assert wait_until(lambda: origin.has_seen(b"hello"))
        sock.sendall(b"-5\r\nhello\r\n0\r\n\r\n" + SMUGGLED)
        assert statuses(read_all(sock)) == [400]
    assert not origin.asked_for("/midway")[0].whole
    assert not origin.has_seen(b"\r\n0\r\n\r\n")


# Time.


def dribble(sock: socket.socket, raw: bytes, pause_s: float) -> threading.Thread:
    def run() -> None:
        try:
            for byte in raw:
                sock.sendall(bytes([byte]))
                time.sleep(pause_s)
        except OSError:
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_head_that_drips_is_cut_off_in_time(node: Node, origin: Origin) -> None:
    with connect(node.port) as sock:
        began = time.monotonic()
        thread = dribble(sock, HEAD_ONLY, 0.1)
        dialogue = read_all(sock)
        assert statuses(dialogue) in ([408], [])
        assert dialogue.closed
        assert time.monotonic() - began < 4
    thread.join()
    assert not origin.asked_for("/cut?a=b")


def test_a_body_that_drips_is_cut_off_in_time(node: Node, origin: Origin) -> None:
    with connect(node.port) as sock:
        sock.sendall(b"POST /drip HTTP/1.1\r\nHost: example.com\r\nContent-Length: 99\r\n\r\n")
        began = time.monotonic()
        thread = dribble(sock, bytes(99), 0.1)
        dialogue = read_all(sock)
        assert statuses(dialogue) in ([408], [])
        assert dialogue.closed
        assert time.monotonic() - began < 6
    thread.join()
    assert not any(asked.whole for asked in origin.asked_for("/drip"))


def test_a_client_that_never_reads_is_let_go_of(node: Node, origin: Origin) -> None:
    get(node.port, "/big")
    open_before = node.status()["connections"]["open"]
    with connect(node.port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(request("/big") * 20)
        assert wait_until(lambda: node.status()["connections"]["open"] > open_before)
        assert is_plainly_served(node.port)
        assert wait_until(lambda: node.status()["connections"]["open"] <= open_before)
        dialogue = read_all(sock)
        assert dialogue.end == "reset"
        assert not dialogue.answers()[-1].whole or len(dialogue.answers()) < 20


def test_a_silent_connection_costs_nothing_and_is_closed(node: Node) -> None:
    before = node.rss()
    with many(node.port, 2000) as socks:
        assert is_plainly_served(node.port)
        assert node.rss() - before < 2000 * 32 * 1024
        for sock in socks[::200]:
            sock.sendall(request("/plain", connection="close"))
            assert statuses(read_all(sock)) == [200]
    assert wait_until(lambda: node.status()["connections"]["open"] < 50)


# Size.


def test_memory_stays_flat_under_the_worst_of_them(node: Node) -> None:
    worst = [case for case in CASES if any(name in case.name for name in WORST)]
    assert len(worst) >= len(WORST)

    def round_of(count: int) -> int:
        for number in range(count):
            case = worst[number % len(worst)]
            say(node.port, case.raw, ends=case.ends)
        assert is_plainly_served(node.port)
        return node.rss()

    settled = round_of(200)
    assert round_of(1000) - settled < 16 * MIB


@pytest.mark.parametrize(
    "piece",
    [b"X: y\r\n", b"x", b"\r\n", b"\0", b"GET ", b"a" * 1000 + b": b\r\n"],
    ids=["fields", "a name", "empty lines", "NULs", "methods", "long names"],
)
def test_a_head_without_end_is_refused_at_its_limit(
    piece: bytes, node: Node, origin: Origin
) -> None:
    before = node.rss()
    for start in (b"", b"GET / HTTP/1.1\r\nHost: example.com\r\n"):
        dialogue = say(node.port, start + piece * (4 * MIB // len(piece)))
        assert dialogue.closed
        # Two empty lines after the fields end a head that is good, and one that is not begins.
        assert set(statuses(dialogue)) <= {400, 414, 431} | (
            {200} if start and piece == b"\r\n" else set()
        )
    assert node.rss() - before < 16 * MIB
    assert len(origin.asked) == (piece == b"\r\n")


def test_max_forwards_ends_where_it_says(node: Node, origin: Origin) -> None:
    raw = request("/mf", "OPTIONS", max_forwards="0") + request("/mf", "OPTIONS", max_forwards="2")
    assert statuses(say(node.port, raw + LAST)) == [200, 200, 200]
    assert [asked.field("max-forwards") for asked in origin.asked_for("/mf")] == ["1"]
    for odd in ("-1", "1_0", "+1", "9" * 5000, "²"):
        answer = ask_for(node.port, "/mf", "OPTIONS", max_forwards=odd)
        assert answer is None or answer.status < 500


@pytest.mark.parametrize(
    "named", ["host", "authorization", "content-length", "x-forwarded-for", "cache-control", "via"]
)
def test_a_field_that_connection_names_may_not_lose_its_meaning(
    named: str, node: Node, origin: Origin
) -> None:
    fields = {"authorization": "Basic YQ==", "cache-control": "no-cache", "via": "1.0 before"}
    raw = request("/named", "POST", b"hello", connection=named, **fields)
    assert statuses(say(node.port, raw + LAST)) == [200, 200]
    (asked,) = origin.asked_for("/named")
    assert asked.body == b"hello"
    assert asked.field("host") == "example.com"
    assert asked.field("authorization") == "Basic YQ=="
    assert "127.0.0.1" in (asked.field("x-forwarded-for") or "")
