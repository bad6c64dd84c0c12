"""Waiting for flights, as those who follow them do."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from edge.cache.flight import Flight, Outcome

T = TypeVar("T")


async def landed(flight: Flight[T]) -> Outcome[T]:
    """How a flight ended, once it has."""
    told = 0
    while interims := await flight.wait_interims(told):
        told += len(interims)
    assert flight.outcome is not None
    return flight.outcome
