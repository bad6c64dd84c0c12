"""Settings tried out: what has changed, and what cannot be had."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from edge.config import Config, for_proxy
from edge.node import EDGE
from edge.settings import Fault, SettingsError
from edge.trial import BECAUSE, LATER, changed, faults_of, try_out

if TYPE_CHECKING:
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
