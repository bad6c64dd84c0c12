"""Whether this is the wheel whose hot modules are compiled, or the pure one."""

from __future__ import annotations

from importlib.machinery import SOURCE_SUFFIXES
from importlib.util import find_spec

COMPILED = "compiled"
PURE = "pure"


def kind() -> str:
    """`COMPILED` or `PURE`; imports nothing to know it."""
    spec = find_spec("edge.serving.quick")
    assert spec is not None
    assert spec.origin is not None
    return PURE if spec.origin.endswith(tuple(SOURCE_SUFFIXES)) else COMPILED
