"""Where a secret stands: in the environment or in a file, and never in the settings."""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator  # noqa: TC003
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003

from edge.config import notation as n
from edge.settings import Complaint, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSettings:
    """`secret = { env = "NAME" }` or `{ file = "PATH" }`."""

    env: str | None = field(
        default=None, metadata=setting("Variable of the environment that holds it.", n.TOKEN)
    )
    file: Path | None = field(
        default=None,
        metadata=setting("File that holds it; white space at its ends is none of it."),
    )

    def check(self) -> Iterator[Complaint]:
        """Not one place, but none or two."""
        if (self.env is None) == (self.file is None):
            yield Complaint((), None, 'write { env = "NAME" } or { file = "PATH" }')
