"""What a node has in common with another one and with nobody else, read from where it stands.

It is read when settings are, so a reload takes up a new one. Where another secret is to take this
one's place, both are accepted for a while: first by who verifies, then whoever signs goes over.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from edge.wire.proof import SECRET_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edge.config.notation import SecretSettings

MOST_BYTES: Final = 4096
_MOST_KEPT: Final = 64  # secrets that settings name, over all reloads
_kept: dict[SecretSettings, bytes] = {}
_HOW: Final = "make one with: openssl rand -hex 32"


def read_secret(
    told: SecretSettings, path: str, environ: Mapping[str, str] | None = None
) -> bytes:
    """The secret that the setting at `path` names, without white space around it.

    Raises ValueError where it is not there, is too short to be one, or is there for everyone.
    """
    if told.env is not None:
        found = (os.environ if environ is None else environ).get(told.env)
        if found is None:
            raise ValueError(f"{path}.env: there is no variable {told.env} in the environment")
        secret = _checked(os.fsencode(found), f"{path}.env: the variable {told.env}")
    else:
        assert told.file is not None  # as the settings have been checked
        secret = _checked(_content(told.file, path), f"{path}.file: {told.file}")
    if len(_kept) >= _MOST_KEPT:
        _kept.clear()
    _kept[told] = secret
    return secret


def secret_at_hand(told: SecretSettings, path: str) -> bytes:
    """The same as it was when it was last read, in this process or, before that, its parent.

    For processes of a node that runs: one that starts in place of another goes by what the others
    go by, and a file that somebody took away ends nothing.
    """
    kept = _kept.get(told)
    return read_secret(told, path) if kept is None else kept


def secret_anew(told: SecretSettings, path: str) -> bytes:
    """The same, read again; where it has gone since the settings were tried, as it was before."""
    try:
        return read_secret(told, path)
    except ValueError:
        if told not in _kept:
            raise
        return _kept[told]


def _content(file: Path, path: str) -> bytes:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise ValueError(f"{path}.file: {file} is open to others; chmod 600 {file}")
            return opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}.file: {file}: {error.strerror or error}") from error


def _checked(found: bytes, what: str) -> bytes:
    secret = found.strip()
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"{what} holds {len(secret)} bytes; at least {SECRET_BYTES}, {_HOW}")
    if len(found) > MOST_BYTES:
        raise ValueError(f"{what} holds more than {MOST_BYTES} bytes, so it is something else")
    return secret
