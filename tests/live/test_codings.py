"""Content codings as curl meets them, on real sockets: what it decodes is what the origin made."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, Final

import pytest

from edge.coding.decoders import Decoder
from edge.coding.negotiate import Coding
from tests.live.harness import Node, Reply, ScriptedOrigin, eventually
from tests.live.hostile_harness import ROOT, free_port
from tests.unit.scraped import Scraped, scraped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl"),
]

SIZES: Final = (2_000, 60_000, 3_000_000)
WORD: Final = b"<li>The item of this number, and not of another: %d</li>\n"
HTML: Final = ["cache-control: max-age=600", "content-type: text/html", 'etag: "1"']
SETS: Final = ("site.compress={}", "node.access_log=off")


def text(size: int) -> bytes:
    return b"".join(WORD % number for number in range(size // len(WORD)))


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as made:
        yield made
        assert made.unexpected == []


@pytest.fixture(params=[1, 2], ids=["one-worker", "two-workers"])
def node(origin: ScriptedOrigin, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    sets = (*SETS, f"node.workers={request.param}")
    with Node(origin.url, tmp_path, sets) as made:
        yield made
        assert "internal" not in made.errors()


def curl(node: Node, target: str, *options: str) -> tuple[dict[str, str], bytes]:
    """The fields and the content of an answer, as curl has them."""
    url = f"http://127.0.0.1:{node.port}{target}"
    command = ["curl", "-sS", "-D", "/dev/stderr", "-H", "Host: a.example", *options, url]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    lines = [line for line in done.stderr.decode("latin-1").split("\r\n")[1:] if line]
    fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    return fields, done.stdout


@pytest.mark.parametrize("size", SIZES)
def test_curl_decodes_what_the_origin_made(origin: ScriptedOrigin, node: Node, size: int) -> None:
    body = text(size)
    origin.script(f"page{size}", Reply.of(200, HTML, body))
    target = f"/page{size}"
    for _ in range(6):  # made, stored, and made again by then
        for accepted in (None, "br", "gzip", "zstd", "identity"):
            named = () if accepted is None else ("-H", f"Accept-Encoding: {accepted}")
            fields, got = curl(node, target, "--compressed", *named)
            assert got == body
            coding = fields.get("content-encoding")
            assert coding == (None if accepted == "identity" else accepted or "br")
        fields, got = curl(node, target)
        assert (got, fields.get("content-encoding")) == (body, None)
    assert len(origin.requests(f"page{size}")) == 1
    tag = fields["etag"]
    fields, got = curl(node, target, "-H", f"If-None-Match: {tag}", "-H", "Accept-Encoding: br")
    assert (fields["etag"], got) == (tag, b"")


CODINGS: Final = {
    "br": "br", "zstd": "zstd", "gzip": "gzip", "identity": None, "gzip;q=0, br": "br",
    "gzip, br": "gzip", "*": "gzip", "br;q=0.5, zstd;q=0.4": "br", "identity;q=0, zstd": "zstd",
}  # fmt: skip
GZIPPED: Final = [*HTML, "content-encoding: gzip"]


def chunked(fields: list[str], body: bytes) -> Reply:
    """A reply that tells no length."""
    data = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 50_000]), body[at : at + 50_000])
        for at in range(0, len(body), 50_000)
    )
    return Reply.of(200, [*fields, "transfer-encoding: chunked"], data + b"0\r\n\r\n")


def plain(coding: str | None, data: bytes) -> bytes:
    """What `data` decode to, all of it."""
    if coding is None:
        return data
    decoder = Decoder(Coding(coding))
    decoded = b"".join(decoder.pieces(data))
    decoder.finish()
    return decoded


class Asking:
    """One who asks for a page again and again, by one connection after another."""

    def __init__(self, node: Node, target: str, accepted: str) -> None:
        self._port, self._target = node.port, target
        self._fields = {"Host": "a.example", "Accept-Encoding": accepted}

    def ask(self, method: str = "GET", **fields: str) -> tuple[HTTPResponse, bytes]:
        more = {name.replace("_", "-"): value for name, value in fields.items()}
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            connection.request(method, self._target, headers={**self._fields, **more})
            reply = connection.getresponse()
            return reply, reply.read()


def check_all_ways(asking: Asking, coding: str | None, body: bytes) -> str:
    """What is got whole, by its head, in parts and on condition is one representation of `body`;
    its tag."""
    reply, whole = asking.ask()
    assert (reply.status, reply.getheader("content-encoding")) == (200, coding)
    assert plain(coding, whole) == body
    assert "accept-encoding" in (reply.getheader("vary") or "").lower()
    tag = reply.getheader("etag") or ""
    assert tag
    assert eventually(lambda: asking.ask("HEAD")[0].getheader("content-length") is not None)
    head, nothing = asking.ask("HEAD")
    assert nothing == b""
    assert head.getheader("content-length") == str(len(whole))
    named = [head.getheader(name) for name in ("etag", "content-encoding")]
    assert named == [tag, coding]
    same, nothing = asking.ask(If_None_Match=tag)
    assert (same.status, same.getheader("etag"), nothing) == (304, tag, b"")
    parts = b""
    one, two = len(whole) // 3, len(whole) // 2
    for part in (f"0-{one - 1}", f"{one}-{two - 1}", f"{two}-"):
        condition = {} if tag.startswith("W/") else {"If_Range": tag}
        got, data = asking.ask(Range=f"bytes={part}", **condition)
        assert (got.status, got.getheader("etag")) == (206, tag)
        parts += data
    assert plain(coding, parts) == body
    return tag


def test_what_the_origin_coded_is_what_it_made_in_all_codings(
    origin: ScriptedOrigin, node: Node
) -> None:
    for size, is_sized in ((4_000, True), (4_000, False), (1_500_000, True), (1_500_000, False)):
        body, token = text(size), f"coded{size}{is_sized}"
        coded = gzip.compress(body)
        origin.script(
            token, Reply.of(200, GZIPPED, coded) if is_sized else chunked(GZIPPED, coded)
        )
        tags: dict[str | None, set[str]] = {}
        for _ in range(2):
            for accepted, coding in CODINGS.items():
                tag = check_all_ways(Asking(node, f"/{token}", accepted), coding, body)
                tags.setdefault(coding, set()).add(tag)
        assert [len(found) for found in tags.values()] == [1] * 4
        assert (tags["gzip"], tags[None]) == ({'"1"'}, {'W/"1"'})
        assert len(origin.requests(token)) == 1
    body = b"<p>short"  # of no told length, and in no coding
    origin.script("short", chunked(HTML, body))
    kept: dict[str, str] = {}
    for _ in range(3):
        for accepted in ("br", "zstd", "gzip", "identity"):
            coding = None if accepted == "identity" else accepted
            tag = check_all_ways(Asking(node, "/short", accepted), coding, body)
            assert kept.setdefault(accepted, tag) == tag
    assert len(origin.requests("short")) == 1


def test_what_is_asked_for_often_gets_smaller(origin: ScriptedOrigin, node: Node) -> None:
    body = text(60_000)
    origin.script("often", Reply.of(200, HTML, body))
    accepting = ("-H", "Accept-Encoding: br")
    sizes = [len(curl(node, "/often", *accepting)[1])]

    def is_smaller() -> bool:
        sizes.append(len(curl(node, "/often", *accepting)[1]))
        return sizes[-1] < sizes[0]

    assert eventually(is_smaller)
    assert curl(node, "/often", "--compressed", *accepting)[1] == body


def test_operators_see_what_is_coded(origin: ScriptedOrigin, tmp_path: Path) -> None:
    body, port, accepting = text(60_000), free_port(), ("-H", "Accept-Encoding: br")
    origin.script("seen", Reply.of(200, HTML, body))
    admin = tmp_path / "admin.sock"

    def edge(*words: str) -> str:
        command = [sys.executable, "-m", "edge", *words, "--socket", str(admin)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, check=True, text=True, timeout=30
        )
        return done.stdout

    def measured() -> Scraped:
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", "/metrics")
            return scraped(connection.getresponse().read())

    sets = ("site.compress={recompress_after=0}", "node.access_log=off", "node.workers=2",
            f"node.admin={admin}", f"node.metrics=127.0.0.1:{port}")  # fmt: skip
    with Node(origin.url, tmp_path, sets) as node:
        size = len(curl(node, "/seen", *accepting)[1])
        assert eventually(lambda: measured().all("edge_codings_total", what="begun") == 1)
        share = f"{size} bytes, {100 * size / len(body):.0f} % of {len(body)}"
        line = f"\ncoding   br (of br, zstd, gzip), stored, {share}\n"
        assert eventually(lambda: line in edge("explain", "http://a.example/seen", *accepting))
        plain = edge("explain", "http://a.example/seen", "--json")
        assert json.loads(plain)["coding"]["why"] == "unasked"
        lines = edge("ls").splitlines()
        assert sorted(line.rpartition("/seen")[2] for line in lines) == ["", " (br)"]
        assert measured().all("edge_codings_total", what="begun") == 1  # and no more by that
