"""What a request's bytes do not tell of how it is answered: where its client is, and chance.

Whatever follows from a request's bytes alone is worked out once (`quick`). On a site that goes by
its clients' places, or that draws arms for new visitors, one more step is needed each time: the
place is looked up, the arm is drawn, and what follows from those is what was worked out for that
place and those arms before. The drawing is all that differs from one such request to the next, and
costs a microsecond or less, where there is one experiment.

Branches of one request are bounded: a site with many countries and arms begins anew past
`MOST_BRANCHES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.routing.experiment import Experiment
    from edge.serving.ways import Ways

    Drawn = tuple[tuple[bytes, bytes], ...]
    Branch = tuple[str, *tuple[bytes, ...]]  # an area, and an arm of each experiment

Known = TypeVar("Known")

MOST_BRANCHES: Final = 256


class Branches(Generic[Known]):
    """What is known of one request, by its client's place and by what it drew.

    `experiments` are those in which chance says the arm, wherever the client is. `make` works it
    out for a peer and for what was drawn.
    """

    __slots__ = ("_alone", "_experiments", "_known", "_make", "_needs_place", "_ways")

    def __init__(
        self,
        ways: Ways,
        needs_place: bool,
        experiments: Sequence[Experiment],
        make: Callable[[bytes, Drawn], Known],
    ) -> None:
        self._ways = ways
        self._needs_place = needs_place
        self._experiments = tuple(experiments)
        self._make = make
        self._alone = self._experiments[0] if len(self._experiments) == 1 else None
        self._known: dict[Branch, Known] = {}

    def __bool__(self) -> bool:
        return self._needs_place or bool(self._experiments)

    def __len__(self) -> int:
        return len(self._known)

    def take(self, client: bytes) -> Known:
        """What is known for a client who asks now."""
        ways = self._ways
        # Without its coordinates, of which a country has as many as towns: they choose an origin,
        # and that is asked anew.
        area = ways.place_of(client).area if self._needs_place else ""
        branch: Branch
        if self._alone is not None:  # as quick as can be: of hits this is what experiments cost
            branch = area, self._alone.rolled(ways.chance()).arm.name
        elif not self._experiments:
            branch = (area,)
        else:
            branch = area, *[each.rolled(ways.chance()).arm.name for each in self._experiments]
        known = self._known.get(branch)
        return self._made(branch, client) if known is None else known

    def _made(self, branch: Branch, client: bytes) -> Known:
        if len(self._known) >= MOST_BRANCHES:
            self._known.clear()
        names = [each.name for each in self._experiments]
        known = self._known[branch] = self._make(
            client, tuple(zip(names, branch[1:], strict=True))
        )
        return known
