"""What one of several workers may have of what the settings grant the node.

Bounds that a worker keeps by itself are divided: memory, connections of clients and to origins.
The disk is divided by its shards, so it stands here whole. Of connections each may have one at
least.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.config.origin import ShieldSettings
    from edge.config.root import Config


def share_of(config: Config, workers: int, slot: int = 0) -> Config:
    """`config` as the worker in `slot` of so many goes by it."""
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
                at_work=_place(origin.at_work, workers, slot),
                waiting=-(-origin.waiting // workers),
            )
            for name, origin in config.origins.items()
        },
        shield=None if config.shield is None else _shields(config.shield, workers, slot),
    )


def _shields(told: ShieldSettings, workers: int, slot: int) -> ShieldSettings:
    return replace(
        told,
        max_connections=_part(told.max_connections, workers),
        max_idle=-(-told.max_idle // workers),
        at_work=_place(told.at_work, workers, slot),
        waiting=-(-told.waiting // workers),
    )


def _place(whole: int, workers: int, slot: int) -> int:
    """A part of what no more may be of than `whole` in all, where each worker has one."""
    return max(1, whole // workers + (slot < whole % workers))


def _part(whole: int, workers: int) -> int:
    return max(1, -(-whole // workers))
