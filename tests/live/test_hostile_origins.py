"""What origins do wrong, against a real node."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.live.hostile_harness import (
    Answer,
    Asked,
    Dialogue,
    Node,
    Origin,
    Wire,
    answer_plainly,
    connect,
    get,
    is_plainly_served,
    plain,
    read_all,
    request,
    say,
)
from tests.vectors import hostile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.live

MIB = 1 << 20
FRESH = b"Cache-Control: max-age=60\r\n"


class Stage:
    """An origin that does to each target once what a test says, and is plain after that."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._once: dict[str, Callable[[Asked, Wire], None]] = {}
        self._number = 0
        self._lock = threading.Lock()
        origin.handle = self._handle

    def once(self, act: Callable[[Asked, Wire], None]) -> str:
        """A new target whose first request is answered by `act`."""
        with self._lock:
            self._number += 1
            target = f"/once/{self._number}"
            self._once[target] = act
        return target

    def _handle(self, asked: Asked, wire: Wire) -> None:
        with self._lock:
            act = self._once.pop(asked.target, answer_plainly)
        act(asked, wire)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Origin() as origin:
        yield Stage(origin)
        assert not origin.trouble


@pytest.fixture(scope="module")
def node(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node"), stage.origin.url) as node:
        yield node
        assert node.is_running()
        assert " internal" not in node.complaints()


@pytest.fixture(autouse=True)
def _afterwards_a_plain_request_is_served(node: Node) -> Iterator[None]:
    yield
    assert is_plainly_served(node.port)


def sends(raw: bytes, *, ends: bool = False) -> Callable[[Asked, Wire], None]:
    def act(asked: Asked, wire: Wire) -> None:
        wire.send(raw)
        if ends:
            wire.close()

    return act


def first_of(dialogue: Dialogue, method: str = "GET") -> Answer | None:
    answers = dialogue.answers(method)
    return answers[0] if answers else None


def is_honest_failure(dialogue: Dialogue, method: str = "GET") -> bool:
    """A gateway's error, or an answer that was visibly broken off; never a part as the whole."""
    answer = first_of(dialogue, method)
    if answer is None or not answer.whole:
        return dialogue.closed
    return answer.status in (502, 504)


def was_not_stored(stage: Stage, node: Node, target: str) -> bool:
    """Whether the next request for `target` reaches the origin and gets its plain answer."""
    before = len(stage.origin.asked_for(target))
    answer = get(node.port, target)
    return answer.body == b"plain" and len(stage.origin.asked_for(target)) == before + 1


def with_lifetime(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\r\n" + FRESH, 1)


def fails_here(case: hostile.Response) -> bool:
    return bool(case.failure) or (b" 304 " in case.raw[:20] and case.method != b"HEAD")


# One string of bytes each.

CASES = hostile.responses()


@pytest.mark.parametrize(
    "case", [case for case in CASES if fails_here(case)], ids=lambda case: case.name
)
def test_a_bad_response_is_an_error_or_a_break_and_is_not_stored(
    case: hostile.Response, stage: Stage, node: Node
) -> None:
    target = stage.once(sends(with_lifetime(case.raw), ends=case.ends))
    method = case.method.decode()
    dialogue = say(node.port, request(target, method, connection="close"))
    if not case.raw:  # a reused connection that died before the first byte is asked again
        assert is_honest_failure(dialogue) or b"plain" in dialogue.data
        return
    assert is_honest_failure(dialogue, method)
    bad = stage.origin.asked_for(target)[0].connection
    assert was_not_stored(stage, node, target)
    assert stage.origin.asked_for(target)[-1].connection != bad


@pytest.mark.parametrize(
    "case", [case for case in CASES if not fails_here(case)], ids=lambda case: case.name
)
def test_a_good_response_is_passed_on_and_its_connection_reused_only_when_clean(
    case: hostile.Response, stage: Stage, node: Node
) -> None:
    target = stage.once(sends(case.raw, ends=case.ends))
    method = case.method.decode()
    answer = first_of(say(node.port, request(target, method, connection="close")), method)
    assert answer is not None
    assert answer.whole
    assert answer.body == case.body
    used = stage.origin.asked_for(target)[0].connection
    assert get(node.port, "/next").body == b"plain"
    if not case.reusable:
        assert stage.origin.asked_for("/next")[-1].connection != used


def test_surplus_bytes_are_no_ones_answer(stage: Stage, node: Node) -> None:
    evil = plain(b"evil!", "Cache-Control: max-age=60")
    for good in (plain(b"good"), b"HTTP/1.1 204 No Content\r\n\r\n", plain(b"")):
        target = stage.once(sends(good + evil))
        get(node.port, target)
        for number in range(5):
            assert get(node.port, f"/after/{number}").body == b"plain"


def test_surplus_bytes_that_come_late_are_no_ones_answer(stage: Stage, node: Node) -> None:
    come = threading.Event()

    def act(asked: Asked, wire: Wire) -> None:
        wire.send(plain(b"good"))
        come.wait(5)
        wire.send(plain(b"evil!"))

    assert get(node.port, stage.once(act)).body == b"good"
    come.set()
    for number in range(10):
        assert get(node.port, f"/late/{number}").body == b"plain"


# Cut at every offset.

GOOD = {
    "counted": b"HTTP/1.1 200 OK\r\n" + FRESH + b"Content-Length: 10\r\n\r\n0123456789",
    "chunked": b"HTTP/1.1 200 OK\r\n"
    + FRESH
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("framing", GOOD)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_response_cut_at_any_offset_is_never_whole_and_never_stored(
    framing: str, how: str, stage: Stage, node: Node
) -> None:
    raw = GOOD[framing]
    for offset in range(0, len(raw), 3):

        def act(asked: Asked, wire: Wire, offset: int = offset) -> None:
            wire.send(raw[:offset])
            wire.reset() if how == "reset" else wire.close()

        target = stage.once(act)
        dialogue = say(node.port, request(target, connection="close"))
        if offset == 0 and (answer := first_of(dialogue)) and answer.body == b"plain":
            continue  # a reused connection that died before the first byte is asked again
        assert is_honest_failure(dialogue), (offset, dialogue)
        assert was_not_stored(stage, node, target)


def test_a_long_body_cut_short_breaks_every_reader_off(stage: Stage, node: Node) -> None:
    release = threading.Event()

    def act(asked: Asked, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\n" + FRESH + b"Content-Length: 3000000\r\n\r\n")
        wire.send(bytes(2_000_000))
        release.wait(5)
        wire.close()

    target = stage.once(act)
    socks = [connect(node.port) for _ in range(5)]
    for sock in socks:
        sock.sendall(request(target))
    assert socks[0].recv(10)
    release.set()
    for sock in socks:
        dialogue = read_all(sock)
        assert dialogue.end == "reset"
        sock.close()
    assert was_not_stored(stage, node, target)


# Sizes without end.


def endless(start: bytes, piece: bytes) -> Callable[[Asked, Wire], None]:
    def act(asked: Asked, wire: Wire) -> None:
        wire.send(start)
        while True:
            wire.send(piece * (65_536 // len(piece)))

    return act


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 ", b"O"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        (b"", b"\r\n"),
        (b"", b"\0"),
    ],
    ids=["fields", "a value", "a reason", "100", "103", "empty lines", "NULs"],
)
def test_a_head_without_end_is_given_up(
    start: bytes, piece: bytes, stage: Stage, node: Node
) -> None:
    before = node.rss()
    target = stage.once(endless(start, piece))
    assert is_honest_failure(say(node.port, request(target, connection="close")))
    assert node.rss() - before < 16 * MIB
    assert was_not_stored(stage, node, target)


def test_a_field_of_a_megabyte_is_refused(stage: Stage, node: Node) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"y" * MIB + b"\r\n\r\nhi"
    target = stage.once(sends(with_lifetime(raw)))
    assert is_honest_failure(say(node.port, request(target, connection="close")))
    assert was_not_stored(stage, node, target)


def test_an_endless_body_is_not_read_on_when_its_client_has_left(stage: Stage, node: Node) -> None:
    gone = threading.Event()
    sent = [0]

    def act(asked: Asked, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\r\n")
        try:
            while True:
                wire.send(bytes(65_536))
                sent[0] += 65_536
        finally:
            gone.set()

    with connect(node.port) as sock:
        sock.sendall(request(stage.once(act)))
        received = 0
        while received < 4 * MIB:
            received += len(sock.recv(65_536))
        settled = node.rss()
    assert gone.wait(10)
    assert node.rss() - settled < 16 * MIB
    assert sent[0] < 64 * MIB


def test_an_endless_storable_body_is_not_read_on_for_ever(stage: Stage, node: Node) -> None:
    gone = threading.Event()

    def act(asked: Asked, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\n" + FRESH + b"\r\n")
        try:
            while True:
                wire.send(bytes(65_536))
        finally:
            gone.set()

    target = stage.once(act)
    with connect(node.port) as sock:
        sock.sendall(request(target))
        assert sock.recv(100)
    assert gone.wait(10)
    assert was_not_stored(stage, node, target)


# Time. The node waits a second for a first byte and between bytes, and four seconds in all.


def test_an_origin_that_says_nothing_is_a_504(stage: Stage, node: Node) -> None:
    target = stage.once(lambda asked, wire: wire.close() if wire.wait_gone(5) else None)
    began = time.monotonic()
    answer = get(node.port, target)
    assert answer.status == 504
    assert time.monotonic() - began < 3
    assert was_not_stored(stage, node, target)


def drips(raw: bytes, pause_s: float) -> Callable[[Asked, Wire], None]:
    def act(asked: Asked, wire: Wire) -> None:
        for byte in raw:
            wire.send(bytes([byte]))
            time.sleep(pause_s)

    return act


def test_a_head_that_drips_is_given_up_in_time(stage: Stage, node: Node) -> None:
    raw = b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200 + b"\r\nContent-Length: 0\r\n\r\n"
    target = stage.once(drips(raw, 0.1))
    began = time.monotonic()
    assert is_honest_failure(say(node.port, request(target, connection="close")))
    assert time.monotonic() - began < 6
    assert was_not_stored(stage, node, target)


def test_a_body_that_drips_is_given_up_in_time(stage: Stage, node: Node) -> None:
    def act(asked: Asked, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\n" + FRESH + b"Content-Length: 1000\r\n\r\n")
        drips(b"x" * 1000, 0.1)(asked, wire)

    target = stage.once(act)
    began = time.monotonic()
    dialogue = say(node.port, request(target, connection="close"))
    assert dialogue.end == "reset"
    assert time.monotonic() - began < 6
    assert was_not_stored(stage, node, target)


def test_a_body_that_stalls_is_given_up_in_time(stage: Stage, node: Node) -> None:
    def act(asked: Asked, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\n" + FRESH + b"Content-Length: 10\r\n\r\n01234")
        wire.wait_gone(5)
        wire.close()

    target = stage.once(act)
    began = time.monotonic()
    dialogue = say(node.port, request(target, connection="close"))
    assert dialogue.end == "reset"
    assert time.monotonic() - began < 3
    assert was_not_stored(stage, node, target)


# While the request is on its way.


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_origin_that_goes_while_it_is_being_sent_to_is_a_502(
    how: str, stage: Stage, node: Node
) -> None:
    def act(asked: Asked, wire: Wire) -> None:
        wire.receive()
        wire.reset() if how == "reset" else wire.close()

    stage.origin.reads_body = False
    try:
        dialogue = say(
            node.port, request(stage.once(act), "POST", bytes(900_000), connection="close")
        )
    finally:
        stage.origin.reads_body = True
    assert is_honest_failure(dialogue, "POST")


def test_an_answer_before_the_requests_end_is_passed_on_and_its_connection_not_reused(
    stage: Stage, node: Node
) -> None:
    target = stage.once(sends(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno"))
    stage.origin.reads_body = False
    try:
        with connect(node.port) as sock:
            sock.sendall(request(target, "POST", content_length="1000") + bytes(10))
            data = b""
            while b"\r\n\r\nno" not in data:
                piece = sock.recv(65_536)
                assert piece
                data += piece
        assert data.startswith(b"HTTP/1.1 413 ")
        used = stage.origin.asked_for(target)[0].connection
    finally:
        stage.origin.reads_body = True
    assert get(node.port, "/next").body == b"plain"
    assert stage.origin.asked_for("/next")[-1].connection != used


def test_an_origin_that_hangs_up_idle_connections_costs_no_failure(
    stage: Stage, node: Node
) -> None:
    for number in range(20):
        target = stage.once(sends(plain(b"once"), ends=True))
        assert get(node.port, target).body == b"once"
        assert get(node.port, f"/then/{number}").body == b"plain"


# Fields.


def test_fields_of_one_hop_do_not_reach_the_client_or_the_store(stage: Stage, node: Node) -> None:
    fields = (
        "Connection: close, X-Secret, Cache-Control",
        "X-Secret: 1",
        "Keep-Alive: timeout=9",
        "Proxy-Connection: keep-alive",
        "Proxy-Authenticate: Basic",
        "Upgrade: h2c",
        "TE: trailers",
        "Trailer: X-T",
        "Cache-Control: max-age=60",
    )
    target = stage.once(sends(plain(b"kept", *fields)))
    for _ in range(2):
        answer = get(node.port, target)
        assert answer.body == b"kept"
        for name in ("x-secret", "keep-alive", "proxy-connection", "upgrade", "te", "trailer"):
            assert answer.field(name) is None
    assert answer.is_hit


def test_a_nominated_lifetime_still_forbids(stage: Stage, node: Node) -> None:
    fields = ("Connection: Cache-Control, Set-Cookie", "Cache-Control: private, max-age=60")
    target = stage.once(sends(plain(b"mine", *fields, "Set-Cookie: a=b")))
    assert get(node.port, target).body == b"mine"
    assert was_not_stored(stage, node, target)


@pytest.mark.parametrize(
    "fields",
    [
        ("Cache-Control: max-age=60", "Set-Cookie: id=1"),
        ("Cache-Control: max-age=60, private",),
        ("Cache-Control: max-age=60", "Cache-Control: no-store"),
        ("Cache-Control: max-age=60, max-age=0",),
        ("Cache-Control: s-maxage=0, max-age=60",),
        ("Cache-Control: max-age=60", "Vary: *"),
        ("Cache-Control: max-age=60", "Age: 99999"),
        ("Expires: 0",),
        ("Cache-Control: max-age=-1",),
        ("Cache-Control: max-age=\u00b2",),
        ("Cache-Control: max-age=1_000",),
        ('Cache-Control: max-age="60', "Cache-Control: no-store"),
        ("Cache-Control: PRIVATE, MAX-AGE=60",),
        ("Cache-Control: no-cache, max-age=60",),
    ],
    ids=str,
)
def test_a_lifetime_that_is_no_licence_is_not_used(
    fields: tuple[str, ...], stage: Stage, node: Node
) -> None:
    raw = plain(b"once", *fields)
    target = stage.once(sends(raw))
    assert get(node.port, target).body == b"once"
    assert was_not_stored(stage, node, target)


# Statuses nobody asked for.


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/10\r\nContent-Length: 2\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n",
    ],
    ids=["206", "206 without range", "304", "101"],
)
def test_a_status_nobody_asked_for_is_a_502(head: bytes, stage: Stage, node: Node) -> None:
    target = stage.once(sends(head + FRESH + b"\r\nhi"))
    assert get(node.port, target).status == 502
    assert was_not_stored(stage, node, target)


def test_an_upgrade_nobody_asked_for_never_becomes_a_tunnel(stage: Stage, node: Node) -> None:
    raw = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\nevil"
    for offered, switched in ((None, b"websocket"), ("h2c", b"h2c"), ("websocket", b"other")):
        target = stage.once(sends(raw % switched))
        fields = {"connection": "Upgrade", "upgrade": offered} if offered else {}
        dialogue = say(node.port, request(target, **fields), patience_s=1)
        answer = first_of(dialogue)
        assert answer is not None
        assert answer.status == 502
        assert b"evil" not in dialogue.data


def test_a_part_that_is_not_the_part_asked_for_does_not_stand_for_it(
    stage: Stage, node: Node
) -> None:
    raw = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-6/10\r\nContent-Length: 2\r\n"
    target = stage.once(sends(raw + FRESH + b"\r\nhi"))
    dialogue = say(node.port, request(target, range="bytes=0-1", connection="close"))
    answer = first_of(dialogue)
    assert answer is not None
    assert answer.status in (206, 502)
    if answer.status == 206:
        assert answer.field("content-range") == "bytes 5-6/10"
    assert was_not_stored(stage, node, target)


# Under many repetitions.


def test_memory_stays_flat_under_bad_origins(stage: Stage, node: Node) -> None:
    worst = [case for case in CASES if fails_here(case) and len(case.raw) > 5_000]
    assert len(worst) > 2

    def round_of(count: int) -> int:
        for number in range(count):
            case = worst[number % len(worst)]
            target = stage.once(sends(with_lifetime(case.raw), ends=True))
            assert is_honest_failure(say(node.port, request(target, connection="close")))
        return node.rss()

    settled = round_of(100)
    assert round_of(1000) - settled < 16 * MIB
