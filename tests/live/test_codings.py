"""Content codings as curl meets them, on real sockets: what it decodes is what the origin made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Final

import pytest

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
