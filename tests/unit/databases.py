"""MaxMind-format databases for tests: any record for any network, of any type and age."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from mmdb_writer import SearchTreeLeaf, TreeWriter

from tools.atlas.tree import Piece, grow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def record(country: str, continent: str = "", at: tuple[float, float] | None = None) -> Any:
    """A record as MaxMind's databases have it."""
    made: dict[str, Any] = {"country": {"iso_code": country}, "continent": {"code": continent}}
    if at is not None:
        made["location"] = {"latitude": at[0], "longitude": at[1]}
    return made


def write_database(
    path: Path, records: Mapping[str, Any], *, kind: str = "Test-City", built: float = 0.0
) -> Path:
    """A database with these records by network, none of which overlap."""
    networks = [(ipaddress.ip_network(text), text) for text in records]
    networks.sort(key=lambda pair: int(pair[0].network_address))
    pieces = [
        Piece(int(network.network_address), int(network.broadcast_address), number)
        for number, (network, _) in enumerate(networks)
    ]
    root = grow(pieces, [SearchTreeLeaf(records[text]) for _, text in networks])
    meta = {
        "ip_version": 6,
        "database_type": kind,
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "description": {"en": "a test's"},
        "build_epoch": int(built),
    }
    TreeWriter(root, meta).write(str(path))
    return path
