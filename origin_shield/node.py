"""The shield as a node: what follows from its settings, and how it admits edges.

All else is any node's: `edge.process` starts its processes, and what they do is the edge's code.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edge.config import policies
from edge.config.behind import coordinates
from edge.guard.address import Networks
from edge.process.trade import Trade
from edge.serving.visit import Parts
from edge.serving.ways import Ways
from origin_shield.config import ShieldConfig
from origin_shield.edges import Admission, BySecret, Entry
from origin_shield.used import Used

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge.config import Config
    from edge.surroundings.behind import Behind

PROGRAM = "origin-shield"
_ALL = ("0.0.0.0/0", "::/0", "unix")  # who has come so far has proven to be an edge


class Shield:
    """What a shield's processes share. To be made before they are forked."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._used = Used()
        self._now = now

    def trade(self) -> Trade:
        """The shield's, for whoever runs processes."""
        return Trade(program=PROGRAM, parts=self.parts, state=self._state)

    def parts(self, config: Config, behind: Behind, salt: bytes) -> Parts:
        """All that follows from a shield's settings; raises ValueError."""
        assert isinstance(config, ShieldConfig)  # as `origin_shield` has read it
        admission = Admission(_entry(config, behind), self._used, self._now)
        return Parts(
            name=config.node.name.encode(),
            sites=policies.sites(_open_to_edges(config)),
            ways=Ways(
                groups=behind.groups,
                place_of=behind.place_of,
                now=behind.now,
                chance=behind.chance,
                at=coordinates(config.node.at),
            ),
            trusted=Networks(),
            salt=salt,
            admit=admission.admit,
            remembers=False,  # a proof is good for its own request, and for a while
        )

    def _state(self, _: Parts) -> Mapping[str, Any]:
        return {"proofs": asdict(self._used.statistics())}


def _entry(config: ShieldConfig, behind: Behind) -> Entry:
    told = config.edges
    secrets = tuple(behind.secret_of(secret, path) for path, secret in told.all_secrets)
    return Entry(
        networks=Networks.parse(told.networks),
        identity=BySecret(secrets, told.skew),
        remember_s=2 * told.skew,  # of an edge whose clock is ahead, proofs count so long
    )


def _open_to_edges(config: ShieldConfig) -> ShieldConfig:
    """Every site as edges may purge it: from wherever they are, and for the whole node."""
    sites = (replace(site, purge_from=_ALL, purge_reach="node") for site in config.sites)
    return replace(config, sites=tuple(sites))
