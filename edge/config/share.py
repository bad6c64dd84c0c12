"""What one of several workers may have of what the settings grant the node.

Bounds that a worker keeps by itself are divided: memory, connections of clients and to origins.
The disk is divided by its shards, so it stands here whole. Of connections each may have one at
least.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.config.root import Config


def share_of(config: Config, workers: int) -> Config:
    """`config` as one of so many workers goes by it."""
    if workers == 1:
        return config
    return replace(
        config,
        store=replace(config.store, memory=config.store.memory // workers),
        limits=replace(config.limits, connections=_part(config.limits.connections, workers)),
        origins={
            name: replace(
                origin,
                max_connections=_part(origin.max_connections, workers),
                max_idle=-(-origin.max_idle // workers),
            )
            for name, origin in config.origins.items()
        },
    )


def _part(whole: int, workers: int) -> int:
    return max(1, -(-whole // workers))
