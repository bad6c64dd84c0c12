"""What is told of content codings: `site.compress`."""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator  # noqa: TC003
from dataclasses import dataclass, field
from typing import Literal

from edge.config import notation as n
from edge.config.notation import span
from edge.settings import Complaint, setting
from edge.settings.kinds import GIB, MIB, SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressSettings:
    """`site.compress`: answers are compressed for clients that accept it, and kept so. An empty
    table is enough; without one, answers go as the origin made them."""

    codings: tuple[Literal["zstd", "br", "gzip"], ...] = field(
        default=("br", "zstd", "gzip"),
        metadata=setting(
            "Codings, the best first where a client likes several as much.",
            fewest=1,
            most_members=3,
        ),
    )
    min: int = field(
        default=512,
        metadata=setting(
            "Bodies smaller than this, by their Content-Length, go as they are.", SIZE
        ),
    )
    max: int = field(
        default=64 * MIB,
        metadata=setting("And larger ones, too.", SIZE, least=1, most=GIB),
    )
    types: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "Media types to compress, like text/*; without any, those that are known to shrink.",
            n.MEDIA_TYPE,
            most_members=64,
        ),
    )
    ask: Literal["identity", "coded"] = field(
        default="identity",
        metadata=setting(
            "What origins are asked for: bodies as they are, or compressed, to be stored so, and "
            "decoded or coded anew for clients that do not accept that."
        ),
    )
    recompress_after: int = field(
        default=3,
        metadata=setting(
            "Compress again, and better, what was sent compressed so often in `recompress_within`;"
            " 0: never.",
            least=0,
            most=1_000_000,
        ),
    )
    recompress_within: float = field(
        default=300.0, metadata=span("The time in which this has to come together.")
    )
    recompress_max: int = field(
        default=4 * MIB,
        metadata=setting("Larger bodies are not compressed again.", SIZE, most=64 * MIB),
    )

    dictionaries: bool = field(
        default=False,
        metadata=setting(
            "Send clients that hold an earlier answer what has changed since (RFC 9842): answers "
            "with Use-As-Dictionary become dictionaries."
        ),
    )

    def check(self) -> Iterator[Complaint]:
        """A coding twice, and limits between which nothing lies."""
        if len(set(self.codings)) < len(self.codings):
            yield Complaint(("codings",), list(self.codings), "names one twice; leave it out")
        bounds = self.min, self.max
        if None not in bounds and self.min > self.max:
            yield Complaint(("min",), None, "is more than max; nothing would be compressed")
