"""Settings tried out: what has changed, and what cannot be had."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from edge.config import Config, for_proxy
from edge.node import EDGE
from edge.process.trial import BECAUSE, LATER, _try_database, changed, faults_of, try_out
from edge.settings import Fault, SettingsError
from tests.unit.databases import record, write_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def config(*sets: str, to: str = "http://127.0.0.1:1") -> Config:
    return for_proxy(["127.0.0.1:0"], to, hostname="h", sets=sets)


def test_what_changed_is_named_in_order() -> None:
    old, new = config(), config("store.memory=1MiB", "node.name=x", "limits.connections=7")
    assert changed(old, new, BECAUSE) == ["node.name", "store.memory"]
    assert changed(old, config("node.workers=3", "store.dir=/x"), LATER) == [
        "node.workers",
        "store.dir",
    ]
    assert changed(old, old, (*LATER, *BECAUSE)) == []


def test_settings_that_can_be_had_leave_no_trace(tmp_path: Path) -> None:
    told = config(
        f"node.admin={tmp_path / 'admin.sock'}",
        f"node.error_log={tmp_path / 'error.log'}",
        "node.metrics=127.0.0.1:0",
    )
    try_out(EDGE, told, BECAUSE)
    assert [path.name for path in tmp_path.iterdir()] == ["error.log"]


def test_a_pipe_that_nobody_reads_is_no_log_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    told = config(f"node.access_log={tmp_path / 'pipe'}")
    with pytest.raises(OSError, match="No such device or address"):
        try_out(EDGE, told, ["node.access_log"])
    try_out(EDGE, told, [])  # as long as it is the one that is open already


def test_what_somebody_else_has_cannot_be_had(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        told = config(f"node.metrics=127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(OSError, match="cannot listen on 127"):
            try_out(EDGE, told, ["node.metrics"])
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(tmp_path / "a"))
        there.listen()
        with pytest.raises(OSError, match="another node answers here"):
            try_out(EDGE, config(f"node.admin={tmp_path / 'a'}"), ["node.admin"])


def test_a_certificate_that_is_none_is_found_out(tmp_path: Path) -> None:
    told = config(f"origin.default.ca={tmp_path / 'none.pem'}", to="https://a.example")
    with pytest.raises(ValueError, match=r"none\.pem"):
        try_out(EDGE, told, [])


def test_whatever_was_raised_is_told_as_faults() -> None:
    fault = Fault(3, "cache.ttl", "x", "is not a duration")
    assert faults_of(SettingsError([fault])) == (fault,)
    assert faults_of(OSError(13, "Permission denied")) == [
        Fault(None, "", None, "Permission denied")
    ]
    (unforeseen,) = faults_of(TypeError("no number"))
    assert unforeseen.message == "brings out a fault of this program: TypeError('no number')"


# --- databases of places


def test_a_database_is_tried_out_by_somebody_who_may_die_of_it(tmp_path: Path) -> None:
    database = write_database(tmp_path / "a.mmdb", {"192.0.2.0/24": record("DE")})
    before = os.listdir("/proc/self/fd")
    try_out(EDGE, config(f"node.geo={database}"), [])
    troubles: tuple[tuple[Callable[[Path], object], str], ...] = (
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "a.mmdb breaks whoever reads it; get it"),
        (lambda _: int("no number"), "invalid literal"),
        (lambda _: [][0], "a.mmdb breaks whoever reads it; get it anew"),
    )
    for trouble, words in troubles:
        with pytest.raises(ValueError, match=words):
            _try_database(database, trouble)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):  # none is left, dead or alive
        os.waitpid(-1, os.WNOHANG)


def test_a_database_that_cannot_be_had_is_told_in_words(tmp_path: Path) -> None:
    missing, empty, junk = (tmp_path / name for name in ("none.mmdb", "empty.mmdb", "junk.mmdb"))
    empty.touch()
    junk.write_bytes(b"no database" * 99)
    for path, words in ((missing, "is not there"), (empty, "is empty"), (junk, str(junk))):
        with pytest.raises(ValueError, match=words) as caught:
            try_out(EDGE, config(f"node.geo={path}"), [])
        assert str(path) in str(caught.value)


# --- secrets


def test_a_secret_is_read_when_settings_are_tried(tmp_path: Path) -> None:
    told = config(
        'shield.nodes=["http://127.0.0.1:1"]', f'shield.secret={{file="{tmp_path / "s"}"}}'
    )
    with pytest.raises(ValueError, match=r"shield\.secret\.file: .*/s: No such file"):
        try_out(EDGE, told, [])
    (tmp_path / "s").write_text("a" * 16)
    (tmp_path / "s").chmod(0o600)
    try_out(EDGE, told, [])
    (tmp_path / "s").unlink()  # and it is no reload that can be had without it
    with pytest.raises(ValueError, match="No such file"):
        try_out(EDGE, told, [])
