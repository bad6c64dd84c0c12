"""What a scenario is asked for, and what it has to say."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Wishes:
    """The command line's; None is the scenario's own default. `directory` is empty and ours."""

    directory: Path
    rounds: int | None = None
    seconds: float | None = None
    clients: int | None = None
    objects: int | None = None
    tags: int | None = None
    store: Path | None = None


@dataclass(slots=True)
class Report:
    """Figures for machines, lines for people, and what went wrong."""

    figures: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """A line for people; printed at once would be lost among those of other programs."""
        self.lines.append(line)

    def goal(self, name: str, value: float, most: float, unit: str) -> None:
        """A figure that has a goal; one that misses it is no fault, and is said."""
        verdict = "goal met" if value <= most else "GOAL MISSED"
        self.say(f"  {name}: {value:.4g} {unit} (at most {most:g}: {verdict})")

    def fault(self, what: str) -> None:
        """Something that must not happen."""
        self.faults.append(what)


def milliseconds(seconds: float) -> str:
    """A duration as people read it."""
    return f"{1000 * seconds:.3g} ms"


def progress(line: str) -> None:
    """Tell whoever waits how far it has got."""
    print(f"bench: {line}", file=sys.stderr, flush=True)
