"""Bad and large orders, by command, socket and PURGE: done whole or refused in words, never half.

And the law of `edge explain` on a real node: what it says, the next real request gets.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from edge.command.asking import Node as Socket
from tests.live.hostile_harness import (
    EDGE,
    ROOT,
    Answer,
    Asked,
    Node,
    Origin,
    Wire,
    connect,
    parse_answers,
    plain,
    read_all,
    request,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.live

MIB: Final = 1 << 20
SEED: Final = int(os.environ.get("EDGE_SEED", "1"))
OPERATOR, PROXY, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.4"
SETS: Final = (
    f'site.purge_from=["{OPERATOR}", "192.0.2.0/24"]',
    f'node.trusted_proxies=["{PROXY}"]',
    "site.cache.stale_while_revalidate=30s",
    'site.query.drop=["utm"]',
    'site.key.cookies=["a"]',
    'site.rule=[{match={path="/live/*"},cache={bypass=true}}]',
)
MOST_GAP_S: Final = 1.0


class Book:
    """An origin whose page `/<tag>/…` has that tag; every answer is another."""

    def __init__(self) -> None:
        self.count = 0

    def answer(self, asked: Asked, wire: Wire) -> None:
        self.count += 1
        _, first, *_ = asked.target.split("?")[0].split("/")
        terms = {"stale": "max-age=0", "private": "private", "no": "no-cache"}.get(first, "")
        fields = [f"Cache-Control: {terms or 'max-age=600'}", f"Cache-Tag: {first}", "ETag: W/x"]
        if first == "vary":
            fields.append("Vary: Accept-Encoding")
        raw = plain(b"%d" % self.count, *fields)
        wire.send(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if asked.method == "HEAD" else raw)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with (
        Origin(Book().answer) as origin,
        Node(tmp_path_factory.mktemp("node"), origin.url, sets=SETS) as node,
    ):
        yield node
        assert not origin.trouble
        assert " internal" not in node.complaints()
        assert "Traceback" not in node.complaints()


def edge(node: Node, *arguments: str, names: str = "") -> subprocess.CompletedProcess[str]:
    """An `edge` command, to its end."""
    command = [*EDGE, *arguments, "--socket", str(node.admin)]
    return subprocess.run(
        command, cwd=ROOT, input=names, capture_output=True, text=True, timeout=60, check=False
    )


def latest(node: Node) -> int:
    """The number of the last purge."""
    number: int = Socket(node.admin).get("/v1/purges")["latest"]
    return number


def stored(node: Node, *targets: str) -> dict[str, bytes]:
    """What the node has, and gives again, for each."""
    bodies = {target: node.get(target).body for target in targets}
    assert is_kept(node, bodies)
    return bodies


def is_kept(node: Node, bodies: dict[str, bytes]) -> bool:
    return all(node.get(target).body == body for target, body in bodies.items())


def is_gone(node: Node, bodies: dict[str, bytes]) -> bool:
    return all(node.get(target).body != body for target, body in bodies.items())


# Refused in words, and nothing done.


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prefix", "http://example.com" + "/a" * 17], 1, "at most 16 levels, this one 17"),
        (["tag", "bad\x01tag"], 1, "no control characters"),
        (["tag", "a, b"], 1, "name two tags"),
        (["tag", " a"], 1, "no white space around it"),
        (["tag", "x" * 1025], 1, "at most 1024 bytes, this one 1025"),
        (["tag", ""], 1, "give its name"),
        (["tag", "good", "bad\x7f"], 1, "tag[1]"),
        (["tag"], 2, "no tag was given"),
        (["url", "http://exa mple.com/"], 1, "%20"),
        (["url", "example.com/kept"], 1, "write it like http://"),
        (["url", "http://example.com/#a"], 1, "#fragment"),
        (["url", "http://user@example.com/"], 1, "user info"),
        (["url", "ftp://example.com/"], 1, "write it like http://"),
        (["prefix", "http://example.com/a?b"], 1, "no query"),
        (["host", "*.example.com"], 1, "each"),
        (["host", "example.com/a"], 1, "prefix"),
        (["all"], 2, "--yes"),
        (["everything"], 2, "No such command"),
    ],
)
def test_a_bad_order_is_refused_in_words_and_purges_nothing(
    arguments: list[str], code: int, words: str, node: Node
) -> None:
    kept, before = stored(node, "/kept/1", "/good/1"), latest(node)
    done = edge(node, "purge", *arguments)
    assert done.returncode == code, done
    assert words in done.stderr
    assert done.stdout == ""
    assert latest(node) == before
    assert is_kept(node, kept)


def test_no_node_is_another_exit_code_than_a_refusal(node: Node) -> None:
    command = [*EDGE, "purge", "tag", "a", "--socket", str(node.admin) + ".not"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert ".not" in done.stderr


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"all"', b'{"all": 1}', b'{"tag": "a"}', b'{"tag": [1]}', b'{"tags": []}',
     b"{}", b'{"tag": []}', b'{"tag": ["good"], "tag": ["kept"]}', b'{"all": true, "tag": ["a"]}',
     b'{"tag": ["\xff"]}', b'{"tag": ["\\ud800"]}', b"[" * 100_000, b'{"a":' * 100_000,
     b'{"tag": ["good"], "soft": "no"}', b"tag=good"],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_bad_json_is_refused_in_words_and_purges_nothing(body: bytes, node: Node) -> None:
    kept, before = stored(node, "/kept/1", "/good/1"), latest(node)
    answer = posted(node, body)
    assert answer.status in (400, 422)
    problem = json.loads(answer.body)
    assert problem["detail"]
    assert answer.field("content-type") == "application/problem+json"
    assert latest(node) == before
    assert is_kept(node, kept)


def posted(node: Node, body: bytes, declared: int | None = None) -> Answer:
    """What the admin socket answers to these bytes as `POST /v1/purge`."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(node.admin))
        size = str(len(body) if declared is None else declared)
        head = request("/v1/purge", "POST", content_length=size, connection="close")
        sender = threading.Thread(target=send_what_is_taken, args=(sock, head + body))
        sender.start()
        dialogue = read_all(sock)
        sender.join()
    (answer,) = parse_answers(dialogue.data, "eof")
    return answer


def send_what_is_taken(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError:
        return


def test_an_order_that_is_too_large_is_refused_before_it_is_read(node: Node) -> None:
    kept, before = stored(node, "/kept/1", "/good/1"), latest(node)
    names = "\n".join(["good", *("x" * 1000 for _ in range(17 * MIB // 1001))])
    assert len(names) > 16 * MIB
    done = edge(node, "purge", "tag", "--file", "-", names=names)
    assert done.returncode == 2
    assert "16777216 bytes" in done.stderr
    document = json.dumps({"tag": names.split("\n")}).encode()
    assert len(document) > 17 * MIB
    answer = posted(node, document)
    assert answer.status == 413
    assert "16777216" in json.loads(answer.body)["detail"]
    assert latest(node) == before
    assert is_kept(node, kept)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_caller_who_leaves_half_way_has_purged_nothing(share: float, node: Node) -> None:
    kept, before = stored(node, "/kept/1", "/good/1"), latest(node)
    body = json.dumps({"tag": ["good", *(f"t{number}" for number in range(5_000))]}).encode()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(node.admin))
        head = request("/v1/purge", "POST", content_length=str(len(body)))
        sock.sendall(head + body[: int(share * len(body))])
    assert latest(node) == before
    assert is_kept(node, kept)


def test_a_caller_who_does_not_wait_for_the_answer_has_purged_all_of_it(node: Node) -> None:
    first, last = stored(node, "/good/1"), stored(node, "/late/1")
    before = latest(node)
    tags = ["good", *(f"t{number}" for number in range(5_000)), "late"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(node.admin))
        body = json.dumps({"tag": tags}).encode()
        sock.sendall(request("/v1/purge", "POST", body))
    assert wait_until(lambda: latest(node) > before)
    assert is_gone(node, first)
    assert is_gone(node, last)


# Large, and many at once.


class Hits:
    """A client that asks for what is stored, again and again; `gap_s` is its longest wait."""

    def __init__(self, node: Node, target: str) -> None:
        self.gap_s = 0.0
        self.count = 0
        self.misses = 0
        self._port, self._target = node.port, target
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Hits:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        with connect(self._port) as sock:
            while not self._over.is_set():
                began = time.monotonic()
                sock.sendall(request(self._target))
                data = sock.recv(65_536)
                self.gap_s = max(self.gap_s, time.monotonic() - began)
                self.count += 1
                self.misses += b"; hit" not in data


def test_a_hundred_thousand_tags_are_one_purge_and_hits_go_on_meanwhile(node: Node) -> None:
    tags = [f"big-{number}" for number in range(100_000)]
    targets = [f"/big-{number}/x" for number in (0, 50_000, 99_999)]
    covered, kept, before = stored(node, *targets), stored(node, "/kept/1"), latest(node)
    with Hits(node, "/kept/1") as hits:
        began = time.monotonic()
        done = edge(node, "purge", "tag", "--file", "-", "--json", names="\n".join(tags))
        took_s = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(
        f"100,000 tags: {took_s * 1e3:.0f} ms by command, {told['ms']:.0f} ms in the node; "
        f"{hits.count} hits meanwhile, the slowest {hits.gap_s * 1e3:.0f} ms"
    )
    assert (told["number"], told["scopes"]) == (before + 1, 100_000)
    assert is_gone(node, covered)
    assert is_kept(node, kept)
    assert hits.misses == 0
    assert hits.gap_s < MOST_GAP_S


def test_one_tag_more_than_a_hundred_thousand_is_refused_whole(node: Node) -> None:
    kept, before = stored(node, "/kept/1", "/good/1"), latest(node)
    names = "\n".join(["good", *(f"big-{number}" for number in range(100_000))])
    with Hits(node, "/kept/1") as hits:
        done = edge(node, "purge", "tag", "--file", "-", names=names)
    assert done.returncode == 1
    assert "100001 scopes; an order has at most 100000: split it" in done.stderr
    assert latest(node) == before
    assert is_kept(node, kept)
    assert hits.gap_s < MOST_GAP_S


def test_one_bad_line_of_many_is_told_by_its_number_and_nothing_is_purged(node: Node) -> None:
    kept, before = stored(node, "/good/1"), latest(node)
    names = [*["good"] * 700, "bad,\ttag", *["good"] * 100]
    done = edge(node, "purge", "tag", "--file", "-", names="\n".join(names))
    assert done.returncode == 1
    assert "-:701" in done.stderr
    assert latest(node) == before
    assert is_kept(node, kept)


def test_purges_at_once_have_numbers_of_their_own_and_are_all_in_force(node: Node) -> None:
    targets = [f"/at-once-{number}/x" for number in range(24)]
    covered, before = stored(node, *targets), latest(node)
    numbers: list[int] = []

    def work(nth: int) -> None:
        done = Socket(node.admin).post("/v1/purge", {"tag": [f"at-once-{nth}"]})
        numbers.append(done["number"])

    threads = [threading.Thread(target=work, args=(nth,)) for nth in range(len(targets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(before + 1, before + 1 + len(targets)))
    assert is_gone(node, covered)


def test_where_all_places_at_the_socket_are_taken_a_purge_is_told_so(node: Node) -> None:
    covered = stored(node, "/good/1")
    with ExitStack() as idle:
        for _ in range(64):
            sock = idle.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(node.admin))
        assert wait_until(lambda: edge(node, "purge", "tag", "good").returncode == 1)
        done = edge(node, "purge", "tag", "good")
        assert done.returncode == 1
        assert "all 32 places are taken; ask again in a moment" in done.stderr
        assert is_kept(node, covered)
        assert node.get("/kept/1").status == 200
    assert wait_until(lambda: edge(node, "purge", "tag", "good").returncode == 0)
    assert is_gone(node, covered)


# PURGE from here and there.


def asked_from(address: str, node: Node, method: str, target: str, *fields: str) -> Answer:
    """The answer to a client at that address of this machine."""
    more = ["Connection: close"]
    if not any(field.startswith("Host:") for field in fields):
        more.append("Host: example.com")
    lines = "".join(f"{field}\r\n" for field in (*more, *fields))
    with socket.create_connection(("127.0.0.1", node.port), 10, (address, 0)) as sock:
        sock.sendall(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode())
        dialogue = read_all(sock)
    is_unread = dialogue.data.startswith(b"HTTP/1.1 400")  # and so its method is not known
    (answer,) = dialogue.answers("GET" if is_unread else method)
    return answer


@pytest.mark.parametrize(
    ("address", "fields", "is_let"),
    [
        (OPERATOR, [], True),
        (STRANGER, [], False),
        (STRANGER, [f"X-Forwarded-For: {OPERATOR}"], False),
        (STRANGER, [f"Forwarded: for={OPERATOR}"], False),
        (STRANGER, ["X-Forwarded-For: 192.0.2.7", "X-Real-IP: 192.0.2.7"], False),
        (OPERATOR, ["X-Forwarded-For: 203.0.113.9"], True),  # its word means nothing; it is known
        (PROXY, [], False),
        (PROXY, ["X-Forwarded-For: 192.0.2.7"], True),
        (PROXY, ["Forwarded: for=192.0.2.7"], True),
        (PROXY, ["X-Forwarded-For: 203.0.113.9"], False),
        (PROXY, ["X-Forwarded-For: 192.0.2.7, 203.0.113.9"], False),
        (PROXY, ["X-Forwarded-For: 203.0.113.9, 192.0.2.7"], True),
        (PROXY, ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: 203.0.113.9"], False),
        (PROXY, ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=203.0.113.9"], False),
        (PROXY, ["X-Forwarded-For: 203.0.113.9", "Forwarded: for=192.0.2.7"], False),
        (PROXY, ["X-Forwarded-For: 192.0.2.7, junk"], False),
        (PROXY, ["X-Forwarded-For: unknown"], False),
        (PROXY, [f"X-Forwarded-For: 192.0.2.7, {PROXY}"], True),
    ],
)
def test_purge_is_for_those_the_site_names_however_it_is_forged(
    address: str, fields: Sequence[str], is_let: bool, node: Node
) -> None:
    covered = stored(node, "/front/1")
    before = latest(node)
    answer = asked_from(address, node, "PURGE", "/front/1", *fields)
    if is_let:
        assert answer.status == 200, answer
        assert json.loads(answer.body)["id"] == str(before + 1)
        assert is_gone(node, covered)
    else:
        assert answer.status == 405
        assert latest(node) == before
        assert is_kept(node, covered)


# What is explained, the next real request gets.


EXPLAINED: Final = 100
METHODS: Final = ("GET",) * 8 + ("HEAD", "POST", "PURGE", "OPTIONS")
TARGETS: Final = ("/a/1", "/a/1?x=1", "/a/1?utm=9&x=1", "/b/../a/1", "/stale/1", "/private/1",
                  "/no/1", "/vary/1", "/live/1", "/a%00")  # fmt: skip
FIELDS: Final = (
    "Accept-Encoding: gzip", "Accept-Encoding: br", "Cookie: a=1", "Cookie: b=2",
    "Range: bytes=0-0", "Range: bytes=99-", "If-None-Match: W/x", "If-None-Match: *",
    'If-Match: "no"',
    "Cache-Control: only-if-cached", "Cache-Control: no-store", "Authorization: Basic eDp5",
    "Max-Forwards: 0", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https",
    "Expect: nothing", "Host: other.example", "Bad Name: x",
)  # fmt: skip


def reasons(node: Node) -> Counter[str]:
    """Why requests went as they did, so far."""
    return Counter(node.status()["reasons"])


def answered(
    node: Node, address: str, method: str, target: str, *fields: str
) -> tuple[Answer, str]:
    """The answer, and the one reason that the node counts for it, once nothing is under way;
    what became of what an origin said, which nobody can foretell, is left out."""
    before = reasons(node)
    answer = asked_from(address, node, method, target, *fields)
    assert wait_until(lambda: reasons(node) != before and not node.status()["flights"])
    ((reason, count),) = (reasons(node) - before).items()
    assert count == 1
    return answer, reason.partition("/")[0]


def prepare(node: Node, rng: random.Random, target: str) -> None:
    """Have something stored, or purged, or neither."""
    for _ in range(rng.randrange(3)):
        what = rng.randrange(6)
        url, tag = f"http://example.com{target}", target.split("/")[1]
        if what < 4:
            answered(node, STRANGER, "GET", target, *rng.sample(FIELDS[:4], rng.randrange(2)))
        elif "%00" not in target:
            order = rng.choice(({"url": [url]}, {"tag": [tag]}))
            Socket(node.admin).post("/v1/purge", {**order, "soft": rng.random() < 0.7})


def test_what_is_explained_the_next_real_request_gets(node: Node) -> None:
    rng = random.Random(SEED)
    outcomes: Counter[str] = Counter()
    for nth in range(EXPLAINED):
        method, target = rng.choice(METHODS), rng.choice(TARGETS)
        address = rng.choice((OPERATOR, PROXY, STRANGER))
        fields = rng.sample(FIELDS, rng.choice((0, 0, 1, 1, 2)))
        prepare(node, rng, target)
        if nth % 10:
            query = [("url", f"http://example.com{target}"), ("method", method)]
            query += [("from", address), *(("field", field) for field in fields)]
            document = Socket(node.admin).get("/v1/explain", query)
        else:
            options = [f"--header={field}" for field in fields]
            done = edge(node, "explain", f"http://example.com{target}", "--json", *options,
                        "--method", method, "--from", address)  # fmt: skip
            document = json.loads(done.stdout)
        told = document["verdict"]
        answer, reason = answered(node, address, method, target, *fields)
        case = (method, target, address, fields, told, reason, answer)
        assert told["reason"] == reason, case
        assert told["status"] in (None, answer.status), case
        outcomes[told["outcome"]] += 1
    print(f"explained: {dict(outcomes)}")
    assert len(outcomes) >= 6
