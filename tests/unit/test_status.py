from __future__ import annotations

import pytest

from edge.status import as_text, ask


def test_a_status_is_told_in_words_and_units() -> None:
    told = as_text(
        {
            "version": "0.1.0",
            "uptime_s": 12.0,
            "hit_ratio": 0.756,
            "store": {"memory_bytes": 1536, "disk_bytes": 3 * 2**40, "objects": 4, "on": True},
            "origins": {"e\x1bu": {"open": 1, "last_error": None}},
            "listen": ["[::]:80", "0.0.0.0:80"],
        }
    )
    assert told.splitlines() == [
        "version    0.1.0",
        "uptime     12 s",
        "hit ratio  75.6%",
        "store",
        "  memory   1.5 KiB",
        "  disk     3.0 TiB",
        "  objects  4",
        "  on       True",
        "origins",
        "  e?u",
        "    open        1",
        "    last error  -",
        "listen     [::]:80, 0.0.0.0:80",
    ]


def test_a_socket_without_a_node_is_an_error(tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(OSError):
        ask(Path(str(tmp_path)) / "none.sock")
