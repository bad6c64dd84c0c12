from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from edge.process.place import Paths

if TYPE_CHECKING:
    from pathlib import Path


def test_a_socket_has_a_short_name_wherever_the_directory_stands(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    directory = os.open(deep, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(Paths(directory).desk(3))
    assert os.listdir(deep) == ["desk-3.sock"]
    os.close(directory)


def test_everyone_has_a_name_of_his_own() -> None:
    paths = Paths(5)
    names = [paths.keeper, *map(paths.desk, range(256)), *map(paths.hop, range(256))]
    assert len(set(names)) == 513
    assert all(name.startswith("/proc/self/fd/5/") and len(name) < 100 for name in names)
