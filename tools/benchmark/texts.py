"""Real text of three sizes: the manual of Python's language, which every Python carries; pure.

`/text/NAME/` of the origins has these, whatever follows, as `text/plain`.
"""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Final

MANUAL: Final = "\n\n".join(topics[name] for name in sorted(topics)).encode()
TEXTS: Final = {"8k": MANUAL[: 8 << 10], "64k": MANUAL[: 64 << 10], "whole": MANUAL}
