"""The edge as a node: what follows from its settings, and how it admits requests.

All else is any node's: `workers` starts its processes, `keeper` and `worker` are what they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.admission import admit
from edge.config import policies
from edge.trade import Trade
from edge.visit import Parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge.config import Config
    from edge.upstream.fetch import Upstream


def parts(config: Config, upstreams: Mapping[str, Upstream], salt: bytes) -> Parts:
    """All that follows from an edge's settings; raises ValueError."""
    return Parts(
        name=config.node.name.encode(),
        sites=policies.sites(config),
        upstreams=upstreams,
        trusted=policies.trusted(config),
        salt=salt,
        admit=admit,
        remembers=True,
    )


EDGE: Final = Trade(program="edge", parts=parts)
