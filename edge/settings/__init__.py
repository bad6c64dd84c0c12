"""TOML text to frozen dataclasses: units, bounds, unknown keys, every fault at once.

`schema` declares, `kinds` says how a value is written, `binder` reads, `text` writes and tells.
It is a package because those are four nouns; it imports nothing but the standard library.
"""

from edge.settings.binder import (
    Complaint,
    Fault,
    SettingsError,
    assign,
    bind,
    load,
    parse,
)
from edge.settings.kinds import Kind, UnfitError, of_text
from edge.settings.schema import setting
from edge.settings.text import as_markdown, as_text, reference, render

__all__ = [
    "Complaint",
    "Fault",
    "Kind",
    "SettingsError",
    "UnfitError",
    "as_markdown",
    "as_text",
    "assign",
    "bind",
    "load",
    "of_text",
    "parse",
    "reference",
    "render",
    "setting",
]
