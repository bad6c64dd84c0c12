"""The edge as a node: what follows from its settings, and how it admits requests.

All else is any node's: `process.parent` starts its processes, `process.keeper` and
`process.worker` are what they do.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edge.config import policies
from edge.config.behind import SHIELD, coordinates
from edge.process.trade import Trade
from edge.serving.admission import admit
from edge.serving.shielding import Voice
from edge.serving.visit import Parts
from edge.serving.ways import Shielding, Ways

if TYPE_CHECKING:
    from edge.config import Config
    from edge.surroundings.behind import Behind


def parts(config: Config, behind: Behind, salt: bytes) -> Parts:
    """All that follows from an edge's settings; raises OSError, ValueError."""
    return Parts(
        name=config.node.name.encode(),
        sites=policies.sites(config, behind.standing),
        ways=_ways(config, behind),
        trusted=policies.trusted(config),
        salt=salt,
        admit=admit,
        remembers=True,
    )


def _ways(config: Config, behind: Behind) -> Ways:
    made = Ways(
        groups={name: group for name, group in behind.groups.items() if name in config.origins},
        place_of=behind.place_of,
        now=time.time,  # by which shields go: the node's own clock takes no step with it
        chance=behind.chance,
        at=coordinates(config.node.at),
    )
    told = config.shield
    if told is None:
        return made
    secret = behind.secret_of(told.secret, "shield.secret")
    group = behind.groups.get(SHIELD)
    if group is None:  # nothing is asked from here
        return made
    voice = Voice(config.node.name.encode(), secret)
    return replace(made, shielding=Shielding(group, voice, told.without == "origin"))


EDGE: Final = Trade(program="edge", parts=parts)
