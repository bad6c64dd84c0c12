"""What a node is there for: all that tells an edge's processes from a shield's.

The parent, the keeper and the workers of a node are the same whatever it does. They are given a
`Trade`, which is made before any process is forked and comes to each with its `Place`; so what it
holds in shared memory is one for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge.config import Config
    from edge.serving.visit import Parts
    from edge.surroundings.behind import Behind


class MakeParts(Protocol):
    """Makes all that follows from settings; raises ValueError."""

    def __call__(self, config: Config, behind: Behind, salt: bytes) -> Parts:
        """`behind` has no groups and `salt` is empty where nothing will be fetched or answered."""
        ...


def _nothing(_: Parts) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One kind of node.

    `program` is the command that runs it and asks it. `state` is what a worker tells of itself
    beside what every worker does, as part of the document that `status` is made of.
    """

    program: str
    parts: MakeParts
    state: Callable[[Parts], Mapping[str, Any]] = _nothing
