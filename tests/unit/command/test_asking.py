from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from edge.admin.socket import BODY_BYTES, Refused
from edge.command.asking import LINE_BYTES, Node, NodeRefused, Unreachable, _Watch
from tests.unit.standin import read_some, refusing, replying, saying, standing_in, streaming

if TYPE_CHECKING:
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def test_a_document_is_asked_for_and_one_is_sent(path: Path) -> None:
    routes = {"GET /v1/status": replying({"a": 1}), "POST /v1/purge": replying({"number": 17})}
    with standing_in(path, routes) as calls:
        assert Node(path).get("/v1/status", [("a b", "ü&="), ("a b", "\udcff")]) == {"a": 1}
        assert Node(path).post("/v1/purge", {"tag": ["ü"]}) == {"number": 17}
        assert Node(path).post("/v1/purge") == {"number": 17}
    assert calls[0].query == {"a b": ["ü&=", "\udcff"]}
    assert calls[1].body == b'{"tag":["\\u00fc"]}'
    assert calls[2].body == b"{}"
    assert calls[0].caller.pid == os.getpid()


def test_a_refusal_has_its_status_and_its_words(path: Path) -> None:
    faults = [{"path": "url[3]", "message": "is no URL"}]
    refused = Refused(422, "Bad scopes", "1 scope is bad", {"faults": faults})
    with standing_in(path, {"POST /v1/purge": refusing(refused)}):
        with pytest.raises(NodeRefused, match="1 scope is bad") as told:
            Node(path).post("/v1/purge")
        with pytest.raises(NodeRefused, match="there is POST /v1/purge") as none:
            next(Node(path).stream("/v1/ls"))
    assert (told.value.status, told.value.document["faults"]) == (422, faults)
    assert none.value.status == 404


def test_what_is_refused_before_it_was_all_sent_is_still_told(path: Path) -> None:
    with (
        standing_in(path, {"POST /v1/purge": replying({})}),
        pytest.raises(NodeRefused, match="at most 16777216 bytes") as told,
    ):
        Node(path).post("/v1/purge", {"tag": ["x" * BODY_BYTES]})
    assert told.value.status == 413


def test_a_stream_comes_in_pieces_and_lines_are_put_together(path: Path) -> None:
    handler = streaming(b'{"a": 1}\n{"a"', b": ", b'2}\n\n{"a": 3}')
    with standing_in(path, {"GET /v1/ls": handler, "POST /v1/purge": handler}) as calls:
        assert b"".join(Node(path).stream("/v1/ls")) == b'{"a": 1}\n{"a": 2}\n\n{"a": 3}'
        assert [each["a"] for each in Node(path).lines("/v1/ls")] == [1, 2, 3]
        assert len([*Node(path).lines("/v1/purge", document={"dry_run": True})]) == 3
    assert calls[-1].body == b'{"dry_run":true}'


def test_a_stream_may_be_left_before_its_end(path: Path) -> None:
    with standing_in(path, {"GET /v1/ls": streaming(b'{"a": 1}\n' * 1000, times=10**9)}):
        lines = Node(path).lines("/v1/ls")
        assert next(lines) == {"a": 1}
        lines.close()  # type: ignore[attr-defined]
        with pytest.raises(NodeRefused):
            Node(path).get("/v1/none")


def test_a_stream_that_is_cut_is_never_taken_for_whole(path: Path) -> None:
    handler = streaming(b'{"a": 1}\n', then=ZeroDivisionError())
    with standing_in(path, {"GET /v1/ls": handler}):
        lines = Node(path).lines("/v1/ls")
        assert next(lines) == {"a": 1}
        with pytest.raises(Unreachable, match="ended before its answer was whole"):
            next(lines)


# No node.


def test_a_socket_that_is_not_there_is_told_so(path: Path) -> None:
    with pytest.raises(Unreachable, match="no socket is there; is the node running"):
        Node(path).get("/v1/status")
    with pytest.raises(Unreachable, match=r"no socket is there"):
        (path.parent / "file").write_text("")
        Node(path.parent / "file" / "a.sock").get("/v1/status")


def test_a_socket_that_no_one_listens_on_is_told_so(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(Unreachable, match="no node listens here"):
        Node(path).get("/v1/status")


def test_a_file_that_is_no_socket_is_told_so(path: Path) -> None:
    path.write_text("x")
    with pytest.raises(Unreachable, match="this is no socket"):
        Node(path).get("/v1/status")


def test_a_path_too_long_for_a_socket_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="at most 107 bytes"):
        Node(tmp_path / ("x" * 120)).get("/v1/status")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone who may not ask")
def test_one_who_may_not_ask_is_told_who_may(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with standing_in(path, {"GET /v1/status": replying({})}):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.chdir(tmp_path)
                os.setgroups([])
                os.setresgid(65_534, 65_534, 65_534)
                os.setresuid(65_534, 65_534, 65_534)
                Node(path.relative_to(tmp_path)).get("/v1/status")
            except BaseException as error:
                os.write(write, f"{type(error).__name__} {error}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as told:
            assert "Unreachable a.sock: permission denied; ask as the node's user" in told.read()


def test_a_full_backlog_is_waited_for_and_then_told(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as first:
        hung.bind(str(path))
        hung.listen(0)
        first.connect(str(path))
        with pytest.raises(Unreachable, match="takes no more callers"):
            Node(path, patience_s=0.05).get("/v1/status")


def test_a_node_that_hangs_is_told_so(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen(1)
        with pytest.raises(Unreachable, match="does not answer; whether it was done"):
            Node(path, patience_s=0.05).post("/v1/purge")


def test_who_is_waited_for_in_vain_is_told_of_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.command.asking.QUIET_S", 0.01)
    silences: list[float] = []
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen(1)
        node = Node(path, patience_s=0.1, on_silence=lambda: silences.append(1))
        with pytest.raises(Unreachable, match="does not answer"):
            node.get("/v1/status")
    assert silences == [1]


def test_a_reader_that_takes_its_time_is_no_silence_of_the_node() -> None:
    watch = _Watch()
    with watch.waiting():
        assert watch.since is not None
    assert watch.since is None  # while a piece is being printed


@pytest.mark.parametrize(
    ("answer", "tells"),
    [
        (b"", "ended before its answer was whole; whether it was done is not known"),
        (OK[:9], "not HTTP|was whole"),
        (OK + b"Content-Length: 9\r\n\r\n{}", "ended before its answer was whole; whether"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "before its answer was whole"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "before its answer was whole"),
        (b"SSH-2.0-x\r\n", "not HTTP; is this a node's admin socket"),
        (OK + b"x" * 70_000, "not HTTP"),
        (OK + b"Content-Length: 2\r\n\r\n[]", "other than a document"),
        (OK + b"Content-Length: 2\r\n\r\n{]", "other than JSON"),
        (OK + b"\r\n" + b"[" * 200_000, "other than JSON"),
        (OK + b"\r\n\xff", "other than JSON"),
    ],
)
def test_a_strange_answer_is_told_in_words(path: Path, answer: bytes, tells: str) -> None:
    with (
        saying(path, answer, read=read_some),
        pytest.raises(Unreachable, match=tells),
    ):
        Node(path).post("/v1/purge")


def test_a_refusal_in_no_words_of_ours_is_told_by_its_status(path: Path) -> None:
    answer = b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nno"
    with (
        saying(path, answer, read=read_some),
        pytest.raises(NodeRefused, match="the node answered 502"),
    ):
        Node(path).get("/v1/status")


def test_a_line_without_an_end_is_not_gathered_for_ever(path: Path) -> None:
    handler = streaming(b"x" * 60_000, times=10**9)
    with (
        standing_in(path, {"GET /v1/ls": handler}),
        pytest.raises(Unreachable, match=f"a line of more than {LINE_BYTES} bytes"),
    ):
        next(Node(path).lines("/v1/ls"))


def test_a_document_without_an_end_is_not_gathered_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.command.asking.REPLY_BYTES", 100_000)
    handler = streaming(b"x" * 60_000, times=10**9)
    with (
        standing_in(path, {"GET /v1/status": handler}),
        pytest.raises(Unreachable, match="more than 100000 bytes"),
    ):
        Node(path).get("/v1/status")
