"""MaxMind-format databases for tests: any record for any network, of any type and age."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final

from mmdb_writer import SearchTreeLeaf, SearchTreeNode, TreeWriter

from tools.atlas.tree import Piece, grow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BUILT: Final = 1_700_000_000.0  # 2023-11-14


def record(country: str, continent: str = "", at: tuple[float, float] | None = None) -> Any:
    """A record as MaxMind's databases have it."""
    made: dict[str, Any] = {"country": {"iso_code": country}, "continent": {"code": continent}}
    if at is not None:
        made["location"] = {"latitude": at[0], "longitude": at[1]}
    return made


def write_database(
    path: Path,
    records: Mapping[str, Any],
    *,
    kind: str = "Test-City",
    built: float = BUILT,
    ip_version: int = 6,
) -> Path:
    """A database with these records by network, none of which overlap."""
    networks = [(ipaddress.ip_network(text), text) for text in records]
    networks.sort(key=lambda pair: int(pair[0].network_address))
    pieces = [
        Piece(int(network.network_address), int(network.broadcast_address), number)
        for number, (network, _) in enumerate(networks)
    ]
    root = grow(pieces, [SearchTreeLeaf(records[text]) for _, text in networks])
    if ip_version == 4:
        root = _ipv4_part(root)
    meta = {
        "ip_version": ip_version,
        "database_type": kind,
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "description": {"en": "a test's"},
        "build_epoch": int(built),
    }
    TreeWriter(root, meta).write(str(path))
    return path


def _ipv4_part(root: SearchTreeNode) -> SearchTreeNode:
    for _ in range(96):
        assert isinstance(root.left, SearchTreeNode)
        root = root.left
    return root
