"""A worker's life: it starts, reads its settings again, and drains; on loopback."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from edge.config import Address, Config, for_proxy
from edge.node import Node, _only_for_new_processes, _request_ids, serve
from edge.settings import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def config(*sets: str, to: str = "http://127.0.0.1:1") -> Config:
    quiet = ("node.access_log=off", "timeouts.linger=100ms", "node.drain=5s")
    return for_proxy(["127.0.0.1:0"], to, hostname="h", sets=(*quiet, *sets))


async def ready(capfd: pytest.CaptureFixture[str]) -> int:
    """The port that the node says it listens on."""
    said = ""
    with trio.fail_after(10):
        while "\n" not in said:
            await trio.testing.wait_all_tasks_blocked()
            said += capfd.readouterr().out
    return int(said.rpartition(":")[2])


async def told(port: int, said: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(said)
        data = b""
        while piece := await stream.receive_some():
            data += piece
        return data


GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def test_a_node_serves_until_it_is_told_to_stop(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    node = Node(config(f"store.dir={tmp_path}/store"), config, "the test")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            port = await ready(capfd)
            assert (await told(port, GET)).startswith(b"HTTP/1.1 502 ")
            assert (await told(port, b"BAD\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
            status = node.status()
            assert status["connections"]["accepted"] == 2
            assert set(status["origins"]) == {"default"}
            idle = await trio.open_tcp_stream("127.0.0.1", port)
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGTERM)
            assert await idle.receive_some() == b""
            await idle.aclose()


async def test_settings_are_read_again_whole_or_not_at_all(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def bad() -> Config:
        raise SettingsError([Fault(None, "cache.ttl", None, "is not a duration")])

    log = tmp_path / "error.log"
    first = config(f"node.error_log={log}", f"store.dir={tmp_path}/store")
    origin = replace(first.origins["default"], servers=("http://127.0.0.1:2",))
    unusable = replace(
        first,
        origins={
            "default": replace(origin, servers=("https://a.example",), ca=tmp_path / "none.pem")
        },
    )
    turns: list[Callable[[], Config]] = [
        bad,
        lambda: unusable,
        lambda: replace(first, origins={"default": origin}),
    ]
    node = Node(first, lambda: turns.pop(0)(), "edge.toml")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            port = await ready(capfd)
            for server in ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2"):
                signal.raise_signal(signal.SIGHUP)
                await trio.testing.wait_all_tasks_blocked()
                assert (await told(port, GET)).startswith(b"HTTP/1.1 502 ")
                assert node.status()["origins"]["default"]["servers"] == server
            assert len(node._tended) == 1  # what settings left out is no longer looked after
            signal.raise_signal(signal.SIGTERM)
    text = log.read_text()
    assert text.count("not taken") == 2
    assert "none.pem" in text


def test_an_address_that_cannot_be_had_ends_the_start_with_a_sentence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    node = config().node
    elsewhere = Address("192.0.2.1", 1)  # not an address of any machine's (RFC 5737)
    here = config("store.dir=/nowhere")
    there = replace(here, node=replace(node, listen=(*node.listen, elsewhere)))
    assert serve(there, source=None, reload=config) == 1
    assert capfd.readouterr().err.startswith("edge: cannot listen")


def test_a_node_without_a_directory_for_its_store_does_not_start(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert serve(config(), source=None, reload=config) == 1
    assert "store.dir" in capfd.readouterr().err


def test_a_ca_that_cannot_be_used_ends_the_start_with_a_sentence(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = config(f"origin.default.ca={tmp_path / 'none.pem'}", to="https://a.example")
    assert serve(asked, source=None, reload=config) == 1
    assert "none.pem" in capfd.readouterr().err


def test_request_ids_differ_within_a_run_and_between_runs() -> None:
    one, two = _request_ids(), _request_ids()
    assert len({one(), one(), two(), two()}) == 4


def test_settings_that_wait_for_the_next_start_are_named() -> None:
    old = config()
    assert _only_for_new_processes(old, config("limits.connections=7")) == []
    assert _only_for_new_processes(old, config("store.memory=1MiB", "node.name=x")) == [
        "node.name",
        "store",
    ]
