"""Plain requests: which are, what they mean, what is remembered of them and what it may cost."""

from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

import pytest

from edge.errors import ProtocolError
from edge.wire.grammar import Limits
from edge.wire.h1 import STREAM, ServerEngine
from edge.wire.hop import end_to_end
from edge.wire.message import End, Headers, RequestHead, ResponseHead
from edge.wire.plain import HEADS_PER_BLOCK, MORE_THAN_PLAIN, PlainReader, is_last
from tests.vectors import hostile

EMPTY = ResponseHead(200, Headers([(b"content-length", b"0")]))
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


def request(*lines: bytes) -> bytes:
    return b"\r\n".join([*lines, b"", b""])


def with_field(line: bytes) -> bytes:
    return request(b"GET / HTTP/1.1", b"Host: example.com", line)


def read(data: bytes, limits: Limits | None = None, scheme: bytes = b"http") -> RequestHead | None:
    """As a reader does that remembers nothing."""
    return PlainReader(limits or Limits(), scheme).read(data)


def ordinary(
    data: bytes, limits: Limits | None = None, scheme: bytes = b"http"
) -> RequestHead | None:
    """The head that the engine reads of `data`, or None where it is not that and no more."""
    engine = ServerEngine(limits, scheme)
    engine.receive(data)
    try:
        made = [message for _, message in engine.messages()]
    except ProtocolError:
        return None
    special = engine.upgrade_requested or engine.expects_continue(STREAM) or engine.body_expected
    if special or made[1:] != [End()] or engine.leftover():
        return None
    engine.send(STREAM, EMPTY)
    engine.send(STREAM, End())
    assert isinstance(made[0], RequestHead)
    return made[0] if engine.keep_alive or _says_close(made[0]) else None


def _says_close(head: RequestHead) -> bool:
    return b"close" in [value.lower() for value in head.headers.all(b"connection")]


# As they were sent by the clients named, but for names, cookies and versions.
CLIENTS = {
    "Chrome on Windows": request(
        b"GET /news/2026/some-article?id=12345 HTTP/1.1",
        b"Host: www.example.com",
        b"Connection: keep-alive",
        b'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"',
        b"sec-ch-ua-mobile: ?0",
        b'sec-ch-ua-platform: "Windows"',
        b"Upgrade-Insecure-Requests: 1",
        b"User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
        b"(KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
        b"image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
        b"Sec-Fetch-Site: same-origin",
        b"Sec-Fetch-Mode: navigate",
        b"Sec-Fetch-User: ?1",
        b"Sec-Fetch-Dest: document",
        b"Referer: https://www.example.com/news/",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Accept-Language: en-GB,en-US;q=0.9,en;q=0.8",
        b"Cookie: _ga=GA1.2.1234567890.1700000000; session=eyJhbGciOi.J9; theme=dark",
        b'If-None-Match: W/"65f-18c"',
    ),
    "Chrome on Android, asking for an image": request(
        b"GET /i/%E2%82%AC.avif?w=640&dpr=2.6 HTTP/1.1",
        b"Host: img.example.com:8080",
        b"Connection: keep-alive",
        b'sec-ch-ua-platform: "Android"',
        b"sec-ch-ua-mobile: ?1",
        b"sec-ch-dpr: 2.625",
        b"sec-ch-viewport-width: 412",
        b"sec-ch-width: 640",
        b"Save-Data: on",
        b"DNT: 1",
        b"Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        b"Priority: u=1, i",
        b"Range: bytes=0-",
    ),
    "Firefox": request(
        b"GET /style.css?v=3 HTTP/1.1",
        b"Host: www.example.com",
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
        b"Accept: text/css,*/*;q=0.1",
        b"Accept-Language: de,en-US;q=0.7,en;q=0.3",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Connection: keep-alive",
        b"Referer: http://www.example.com/",
        b"Sec-GPC: 1",
        b"Pragma: no-cache",
        b"Cache-Control: no-cache",
        b"Priority: u=2",
    ),
    "Safari": request(
        b"GET /index.html HTTP/1.1",
        b"Host: [2001:DB8::1]",
        b"Upgrade-Insecure-Requests: 1",
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        b"User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
        b"(KHTML, like Gecko) Version/18.5 Safari/605.1.15",
        b"Accept-Language: fr-FR,fr;q=0.9",
        b"Accept-Encoding: gzip, deflate",
        b"Connection: keep-alive",
    ),
    "curl": request(
        b"HEAD /a HTTP/1.1", b"Host: localhost:8080", b"User-Agent: curl/8.14.1", b"Accept: */*"
    ),
    "wrk": request(b"GET / HTTP/1.1", b"Host: 127.0.0.1:8080"),
    "a health check": request(b"GET /up HTTP/1.1", b"Host: 10.0.0.7", b"Connection: Close"),
    "WordPress": request(b"PURGE /a/ HTTP/1.1", b"Host: example.com", b"Connection: close"),
    "ab -k": request(
        b"GET / HTTP/1.1",
        b"Connection: Keep-Alive",
        b"Host: example.com",
        b"User-Agent: ApacheBench/2.3",
        b"Accept: */*",
    ),
    "Googlebot": request(
        b"GET /robots.txt HTTP/1.1",
        b"Host: WWW.Example.COM.",
        b"Connection: keep-alive",
        b"Accept: text/plain,text/html,*/*",
        b"From: googlebot(at)googlebot.com",
        b"User-Agent: Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        b"Accept-Encoding: gzip, deflate, br",
        b"If-Modified-Since: Tue, 04 Nov 2025 10:00:00 GMT",
    ),
    "Go": request(
        b"GET /v1/items HTTP/1.1",
        b"Host: api.example.com:80",
        b"User-Agent: Go-http-client/1.1",
        b"Authorization: Bearer abc.def",
        b"Accept-Encoding: gzip",
    ),
    "UTF-8 in a cookie, empty values, odd spaces": request(
        b"GET /?q=\"<>[]{}|\\^` HTTP/1.1",
        b"hOST:\texample.com \t",
        "Cookie: stadt=Köln; name=\N{SNOWMAN}".encode(),
        b"X-Latin-1: caf\xe9\xa0\x85",
        b"X-Empty:",
        b"X-Blank:  \t ",
        b"X-Inner: a \t b",
        b"!#$%&'*+-.^_`|~: token",
        b"Cookie: more=1",
    ),
    "a proxy": request(
        b"GET / HTTP/1.1",
        b"Host: example.com",
        b"Via: 1.1 lb",
        b"X-Forwarded-For: 192.0.2.1, 198.51.100.7",
        b"X-Forwarded-Proto: https",
        b"Forwarded: for=192.0.2.1",
        b"CDN-Loop: other; n=1",
        b"X_Odd: kept",
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize("scheme", [b"http", b"https"])
def test_what_clients_send_is_plain_and_read_as_the_engine_reads_it(
    data: bytes, scheme: bytes
) -> None:
    head = read(data, scheme=scheme)
    assert head is not None
    assert head == ordinary(data, scheme=scheme)
    assert end_to_end(head.headers) == head.headers.without({b"connection"})


MORE = {
    "another method": b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "absolute form": b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "an octet that is not ASCII": b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "an empty line before": b"\r\n" + GET,
    "nothing": b"",
    "a line end": b"\r\n",
    "no line end": b"GET / HTTP/1.1",
    "no fields": b"GET / HTTP/1.1\r\n\r\n",
    "no end": GET[:-2],
    "no end behind two fields": with_field(b"A: b")[:-2],
    "half an end": GET[:-1],
    "a byte behind": GET + b"G",
    "a line end behind": GET + b"\r\n",
    "two requests": GET + GET,
    "no Host": request(b"GET / HTTP/1.1", b"Accept: */*"),
    "an empty Host": request(b"GET / HTTP/1.1", b"Host:"),
    "two Hosts": with_field(b"Host: example.com"),
    "a bad Host": request(b"GET / HTTP/1.1", b"Host: a@b"),
    "a bad port": request(b"GET / HTTP/1.1", b"Host: a:99999"),
    "a bare LF": with_field(b"A: b\nC: d"),
    "a bare CR": with_field(b"A: b\rC: d"),
    "a NUL": with_field(b"A: b\x00"),
    "DEL": with_field(b"A: b\x7f"),
    "a vertical tab": with_field(b"A: \x0bb"),
    "a fold": with_field(b"A: b\r\n c"),
    "a space before a colon": with_field(b"A : b"),
    "no colon": with_field(b"A"),
    "no name": with_field(b": b"),
    "a name that is not ASCII": with_field(b"\xc3\xa9: b"),
    "an empty Connection": with_field(b"Connection:"),
    "a nomination": with_field(b"Connection: keep-alive, Cookie"),
    "close behind keep-alive": with_field(b"Connection: keep-alive\r\nConnection: close"),
    "close before keep-alive": with_field(b"Connection: close\r\nConnection: keep-alive"),
}


@pytest.mark.parametrize("data", MORE.values(), ids=MORE)
def test_anything_more_is_left_to_the_engine(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize("name", sorted(MORE_THAN_PLAIN))
def test_a_field_that_touches_connection_or_body_is_left_to_the_engine(name: bytes) -> None:
    assert read(with_field(name + b": 0")) is None
    assert read(with_field(name.title() + b":")) is None


@pytest.mark.parametrize("case", hostile.requests(), ids=lambda case: case.name)
def test_a_hostile_request_is_not_plain_or_read_as_the_engine_reads_it(
    case: hostile.Request,
) -> None:
    reader = PlainReader(Limits())
    for _ in range(3):
        head = reader.read(case.raw)
        assert head is None or head == ordinary(case.raw)


# --- limits -------------------------------------------------------------------


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("size", [100, 333])
def test_a_head_has_at_most_so_many_bytes(size: int, excess: int) -> None:
    limits = Limits(head_bytes=size)
    head = GET[:-2] + b"A: " + b"b" * (size + excess - len(GET) - 5) + b"\r\n\r\n"
    assert len(head) == size + excess
    assert (read(head, limits) is None) == bool(excess)
    assert read(head, limits) == ordinary(head, limits)


@pytest.mark.parametrize("excess", [0, 1])
def test_a_target_has_at_most_so_many_bytes(excess: int) -> None:
    limits = Limits(target_bytes=50)
    data = request(b"GET /" + b"a" * (49 + excess) + b" HTTP/1.1", b"Host: a")
    reader = PlainReader(limits)
    for _ in range(3):  # nor does it once its fields are known
        assert (reader.read(data) is None) == bool(excess)
        assert reader.read(data) == ordinary(data, limits)


@pytest.mark.parametrize("excess", [0, 1, 2, 50])
def test_a_head_has_at_most_so_many_fields(excess: int) -> None:
    limits = Limits(fields=10)
    data = request(b"GET / HTTP/1.1", b"Host: a", *[b"A: b"] * (9 + excess))
    assert (read(data, limits) is None) == bool(excess)
    assert read(data, limits) == ordinary(data, limits)


# --- what is remembered -------------------------------------------------------


def told(number: int) -> bytes:
    """A head that no other number has."""
    return with_field(b"Cookie: n=%d" % number)


def test_fields_seen_before_are_not_read_again() -> None:
    reader = PlainReader(Limits())
    first = reader.read(GET)
    second = reader.read(GET.replace(b"/", b"/b", 1))
    assert first is not None
    assert second is not None
    assert second.headers is first.headers
    assert (first.target, second.target) == (b"/", b"/b")


def test_a_line_seen_before_is_not_read_again() -> None:
    reader = PlainReader(Limits())
    first = reader.read(with_field(b"Accept: */*"))
    second = reader.read(with_field(b"Accept: */*\r\nDNT: 1"))
    assert first is not None
    assert second is not None
    assert second.headers.pairs[0][1] is first.headers.pairs[0][1]


def test_a_head_seen_twice_is_the_same_object_from_then_on() -> None:
    reader = PlainReader(Limits())
    reader.read(GET)
    head = reader.read(GET)
    assert head == read(GET)
    assert reader.read(bytes(bytearray(GET))) is head


def test_known_fields_do_not_make_a_bad_request_line_good() -> None:
    reader = PlainReader(Limits())
    assert reader.read(GET) is not None
    for line in (b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b""):
        assert reader.read(GET.replace(b"GET / HTTP/1.1", line)) is None
    assert reader.read(b"\r\n" + GET) is None


def test_lines_known_one_by_one_are_still_judged_together() -> None:
    reader = PlainReader(Limits(fields=3))
    hosts = [request(b"GET / HTTP/1.1", b"Host: " + name) for name in (b"a", b"b")]
    assert all(reader.read(data) for data in hosts)
    assert reader.read(request(b"GET / HTTP/1.1", b"Host: a", b"Host: b")) is None
    assert reader.read(with_field(b"A: 1\r\nB: 2")) is not None
    assert reader.read(request(b"GET / HTTP/1.1", b"A: 1", b"B: 2")) is None
    assert reader.read(with_field(b"A: 1\r\nB: 2\r\nA: 1")) is None


def test_more_targets_than_are_remembered_are_read_all_the_same() -> None:
    reader = PlainReader(Limits())
    for _ in range(2):
        for number in range(3 * HEADS_PER_BLOCK):
            data = GET.replace(b"/", b"/%d" % number, 1)
            assert reader.read(data) == read(data)


def test_heads_that_never_come_back_are_forgotten() -> None:
    reader = PlainReader(Limits(), room_bytes=20_000)
    for number in range(500):
        assert reader.read(told(number)) is not None
    held = reader.statistics()
    assert 10 < held.blocks < 100
    assert 10 < held.lines < 100
    assert reader.read(told(0)) == read(told(0))


def test_fields_that_come_back_survive_a_stream_of_those_that_do_not() -> None:
    reader = PlainReader(Limits(), room_bytes=20_000)
    first = reader.read(GET)
    assert first is not None
    for number in range(500):
        reader.read(told(number))
        if number % 10 == 0:
            again = reader.read(GET)
            assert again is not None
            assert again.headers is first.headers


def test_a_line_that_comes_back_survives_a_stream_of_those_that_do_not() -> None:
    reader = PlainReader(Limits(), room_bytes=20_000)
    first = reader.read(with_field(b"Accept: */*"))
    assert first is not None
    for number in range(500):
        head = reader.read(with_field(b"Accept: */*\r\nCookie: n=%d" % number))
        assert head is not None
        assert head.headers.pairs[0][1] is first.headers.pairs[0][1]


@pytest.mark.parametrize("filler", [b"", b"x" * 3000])
def test_what_is_forgotten_is_freed_in_step_with_what_comes(filler: bytes) -> None:
    reader = PlainReader(Limits(), room_bytes=40_000)
    dying = [0]
    for number in range(2000):
        small = told(number)
        assert reader.read(small[:-4] + filler + b"\r\n\r\n" if number % 7 else small) is not None
        dying.append(reader.statistics().dying)
    rises = [place for place in range(1, len(dying)) if dying[place] > dying[place - 1] + 2]
    assert len(rises) > 10
    falls = [before - after for before, after in pairwise(dying)]
    assert max(falls) <= 2 * (2 + (400 + 2 * 3100) // 400)
    assert min(dying) == 0


def test_targets_that_never_come_back_turn_only_the_generations() -> None:
    reader = PlainReader(Limits(), room_bytes=20_000)
    first = reader.read(GET)
    assert first is not None
    for number in range(1000):
        head = reader.read(GET.replace(b"/", b"/%d" % number, 1))
        assert head is not None
        assert head.headers is first.headers
    assert reader.statistics().blocks == 1


def flood(kind: str, number: int) -> bytes:
    """A head of `kind` whose every line is new."""
    mark = b"%06d" % number
    host = b"Host: " + mark
    match kind:
        case "small":
            return request(b"GET / HTTP/1.1", host)
        case "large targets of fields that come back":
            target = b"/%d" % number + b"x" * 8000
            return request(b"GET %b HTTP/1.1" % target, b"Host: %d" % (number % 40))
        case "many fields":
            return request(b"GET / HTTP/1.1", host, *[b"%d:%b" % (n, mark) for n in range(99)])
        case "a large field":
            return request(b"GET / HTTP/1.1", host, b"A: " + mark + b"x" * 30_000)
        case _:
            return request(b"GET /" + mark + b"x" * 8000 + b" HTTP/1.1", b"Host: a")


@pytest.mark.parametrize(
    "kind",
    [
        "small",
        "many fields",
        "a large field",
        "a large target",
        "large targets of fields that come back",
    ],
)
def test_what_is_remembered_takes_no_more_than_its_room(kind: str) -> None:
    room = 256 * 1024
    tracemalloc.start()
    try:
        reader = PlainReader(Limits(), room_bytes=room)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20 * room // (1000 + 3 * len(flood(kind, 0)))):
            assert reader.read(flood(kind, number)) is not None
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 6 * room


# --- effort -------------------------------------------------------------------

FREE = Limits(head_bytes=2**21, fields=2**20)
HARD = {
    "name": lambda size: b"a" * size,
    "colons": lambda size: b":" * size,
    "spaces": lambda size: b"A:" + b" " * size + b"\x00",
    "tabs and letters": lambda size: b"A:" + b"\t x" * (size // 3) + b"\x7f",
    "CR": lambda size: b"A:" + b"\r" * size,
    "LF": lambda size: b"A:" + b"\n" * size,
    "line ends": lambda size: b"\r\n" * (size // 2),
    "fields": lambda size: b"A:b\r\n" * (size // 5) + b"\x00",
    "fields that are one": lambda size: b"A:b\r\n" * (size // 5),
    "fields without colon": lambda size: b"A\r\n" * (size // 3),
    "Hosts": lambda size: b"Host: a\r\n" * (size // 9),
}


def seconds(data: bytes) -> float:
    """The least that it takes to read `data`, of several times."""
    best = 1.0
    for _ in range(5):
        reader = PlainReader(FREE)
        start = time.process_time()
        reader.read(data)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("before", [b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET /", b""])
def test_hostile_bytes_cost_time_in_proportion(kind: str, before: bytes) -> None:
    short, long = (before + HARD[kind](size) + b"\r\n\r\n" for size in (2**15, 2**19))
    assert seconds(long) < 100 * max(seconds(short), 1e-5)  # 16 times the bytes; a square is 256


@pytest.mark.parametrize("value", [b"close", b"CLOSE", b"keep-alive", None])
def test_a_head_says_whether_it_is_the_last(value: bytes | None) -> None:
    head = read(GET if value is None else with_field(b"Connection: " + value))
    assert head is not None
    assert is_last(head) == (value is not None and value.lower() == b"close")
