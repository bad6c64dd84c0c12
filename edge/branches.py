"""What a request's bytes do not tell of how it is answered: where its client is, and chance.

Whatever follows from a request's bytes alone is worked out once (`quick`). On a site that goes by
its clients' places, or that draws arms for new visitors, one more step is needed each time: the
place is looked up, the arm is drawn, and what follows from those is what was worked out for that
place and those arms before. The drawing is all that differs from one such request to the next, and
costs a microsecond or two.

Branches of one request are bounded: a site with many countries and arms begins anew past
`MOST_BRANCHES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from edge.routing.geo import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.routing.experiment import Experiment
    from edge.ways import Ways

    Drawn = tuple[tuple[bytes, bytes], ...]

Known = TypeVar("Known")

MOST_BRANCHES: Final = 256


class Branches(Generic[Known]):
    """What is known of one request, by its client's place and by what it drew.

    `experiments` are those in which chance says the arm, wherever the client is. `make` works it
    out for a peer and for what was drawn.
    """

    __slots__ = ("_experiments", "_known", "_make", "_needs_place", "_ways")

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
        self._known: dict[tuple[str, str, str, Drawn], Known] = {}

    def __bool__(self) -> bool:
        return self._needs_place or bool(self._experiments)

    def __len__(self) -> int:
        return len(self._known)

    def take(self, client: bytes) -> Known:
        """What is known for a client who asks now."""
        ways = self._ways
        place = ways.place_of(client) if self._needs_place else NOWHERE
        drawn = tuple([(e.name, e.rolled(ways.chance()).arm.name) for e in self._experiments])
        # Without its coordinates, of which a country has as many as towns: they choose an origin,
        # and that is asked anew.
        branch = place.country, place.continent, place.subdivision, drawn
        known = self._known.get(branch)
        if known is None:
            if len(self._known) >= MOST_BRANCHES:
                self._known.clear()
            known = self._known[branch] = self._make(client, drawn)
        return known
