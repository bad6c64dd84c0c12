"""Secrets, read from where the settings say that they are: the environment, or a file.

What is too short to be one is refused: it is the only thing that keeps others from speaking in an
edge's name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from edge.wire.proof import SECRET_BYTES

if TYPE_CHECKING:
    from edge.config.secret import SecretSettings

FILE_BYTES: Final = 65_536


def secret_of(told: SecretSettings, setting: str) -> bytes:
    """The secret, which `setting` points at. Raises ValueError with words for the operator."""
    if told.env is not None:
        where, found = f"the variable {told.env}", os.environ.get(told.env, "").encode()
    else:
        where, found = f"{told.file}", _read(told, setting)
    secret = found.strip()
    if not secret:
        raise ValueError(f"{setting}: {where} is empty; put the secret there")
    if len(secret) < SECRET_BYTES:
        raise ValueError(
            f"{setting}: {where} holds {len(secret)} bytes; a secret has {SECRET_BYTES} at least, "
            "like those of `openssl rand -hex 32`"
        )
    return secret


def _read(told: SecretSettings, setting: str) -> bytes:
    assert told.file is not None
    try:
        with told.file.open("rb") as file:
            return file.read(FILE_BYTES)
    except OSError as error:
        raise ValueError(f"{setting}: {told.file} cannot be read: {error.strerror}") from error
