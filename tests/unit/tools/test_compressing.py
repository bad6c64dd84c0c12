"""What the compress scenario asks for, and that it takes no wrong answer for a right one."""

from __future__ import annotations

import gzip
import zlib

import pytest

from edge.coding.negotiate import Coding
from tools.benchmark.compressing import BROWSER, _bytes_row, _kind, decoded
from tools.benchmark.objects import etag
from tools.benchmark.origin import answer_to
from tools.benchmark.plain import parse_head
from tools.benchmark.report import Report
from tools.benchmark.texts import MANUAL, TEXTS


def test_texts_are_real_and_of_three_sizes() -> None:
    assert [len(TEXTS["8k"]), len(TEXTS["64k"])] == [8192, 65_536]
    assert len(TEXTS["whole"]) > 300_000
    assert all(MANUAL.startswith(text) for text in TEXTS.values())
    assert 2 < len(MANUAL) / len(zlib.compress(MANUAL, 6)) < 6  # as text, not as a pattern


@pytest.mark.parametrize("name", TEXTS)
def test_the_plain_origin_has_them_whatever_follows(name: str) -> None:
    request = f"GET /text/{name}/any/thing HTTP/1.1\r\n\r\n".encode()
    head, _, body = answer_to(request).partition(b"\r\n\r\n")
    status, fields = parse_head(head)
    assert (status, body) == (200, TEXTS[name])
    assert fields[b"content-type"] == b"text/plain"
    assert fields[b"etag"] == etag(len(body))


def test_a_load_names_the_codings_it_takes() -> None:
    request = _kind("8k", BROWSER).request()
    assert request.startswith(b"GET /text/8k/hits HTTP/1.1\r\n")
    assert request.endswith(b"\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\r\n")


def test_a_broken_body_says_nothing() -> None:
    coded = gzip.compress(b"told")
    assert decoded(Coding.GZIP, coded) == b"told"
    assert decoded(Coding.IDENTITY, coded) == coded
    for wrong in (coded[:-1], coded + b"x", b"", zlib.compress(b"told")):
        assert decoded(Coding.GZIP, wrong) is None


def test_bytes_are_told_beside_their_share() -> None:
    report = Report()
    _bytes_row(report, "8k", 8000, {Coding.GZIP: [2000, 1000], Coding.ZSTD: [4000]})
    assert report.lines[0].split() == [
        "8k", "8,000", "2,000", "(25.0%)", "1,000", "(12.5%)", "-", "4,000", "(50.0%)",
    ]  # fmt: skip
