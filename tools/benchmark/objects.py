"""What the origins of the load scenarios hold, so that it is known what must come back; pure.

`/files/NAME` has the bytes of `FILES`, and so has `/mixed/NAME/` with whatever follows: as many
URLs as a mixture wants, of as many sizes as there are files. Every other target has `SMALL`.
"""

from __future__ import annotations

from typing import Final

from tools.benchmark.plain import content

LIFETIME_S: Final = 3600
MODIFIED: Final = 1_600_000_000
SMALL: Final = b"x" * 1024
NAMED: Final = {"1k": 1024, "100k": 100 * 1024, "1m": 1 << 20, "10m": 10 << 20}
# Bytes of a page's parts and how many in a thousand have them: half below 10 KB, a mean of 27 KB
# and a long tail, as HTTP Archive has it for scripts, styles and pictures together. Nothing here
# is larger than what this node keeps in memory unless told otherwise.
SIZES: Final = {
    400: 150,
    1_500: 150,
    4_000: 200,
    10_000: 200,
    25_000: 150,
    60_000: 90,
    150_000: 45,
    500_000: 13,
    1_000_000: 2,
}
FILES: Final = {
    name: content(name, size)
    for name, size in {**NAMED, **{str(size): size for size in SIZES}}.items()
}


def etag(size: int) -> bytes:
    """The validator of a file, as nginx makes it."""
    return b'"%x-%x"' % (MODIFIED, size)


def body_at(target: str) -> bytes:
    """What is at a target."""
    words = target.split("/")
    if words[1] in {"files", "mixed"}:
        return FILES[words[2]]
    return SMALL


def requests_told(text: str) -> int:
    """How many requests an origin has had, by what it answers to /requests."""
    return int(text.splitlines()[2].split()[2])
