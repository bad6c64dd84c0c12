"""What the workers of a node tell of themselves, as the node's own.

Numbers are added up, and "yes" of one is the node's; what is not a sum is named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LEAST: Final = frozenset({"swept_to"})  # a purge is swept where every worker has swept it
_MOST: Final = frozenset({"failures_in_a_row", "built_unix", "age_s"})


def merged(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One document of several of the same shape; what only some have is taken from those."""
    names = dict.fromkeys(name for document in documents for name in document)
    return {
        name: _one(name, [each[name] for each in documents if each.get(name) is not None])
        for name in names
    }


def _one(name: str, values: list[Any]) -> Any:
    if not values:
        return None
    first = values[0]
    if isinstance(first, Mapping):
        return merged(values)
    if isinstance(first, bool):
        return any(values)
    if isinstance(first, int | float):
        return _fold(name)(values)
    return first


def _fold(name: str) -> Callable[[list[Any]], Any]:
    if name in _LEAST:
        return min
    return max if name in _MOST else sum
