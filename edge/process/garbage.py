"""Python's cyclic collector, so that nobody waits for it long.

What a request leaves is freed by reference counts: of ten thousand misses, coded and not, and of
requests that fail in any way that is known, no object was left to the collector. But everything
waits while it looks, 1 ms for a thousand objects, and a store of 100,000 responses has a million.

So it looks at the youngest often and at few at a time, and what it has seen three times is *kept*:
it is not looked at again. Reference counts free it as ever. Only what has grown that old and
then dies in a circle stays, which nothing does that comes with a request.
"""

from __future__ import annotations

import gc
from typing import Any, Final

# New objects before the youngest are looked at; rounds of that before those that are left are, a
# second time; and rounds of this before the third time.
THRESHOLDS: Final = (1_000, 3, 10)
_OLDEST: Final = 2


def collect_in_pieces() -> None:
    """Have this process go by it, from now on; what there is by now is kept."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    if _keep not in gc.callbacks:
        gc.callbacks.append(_keep)


def _keep(phase: str, info: dict[str, Any]) -> None:
    """The collector's word that it begins or has ended."""
    if phase == "stop" and info["generation"] == _OLDEST:
        gc.freeze()
