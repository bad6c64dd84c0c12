from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edge import secret
from edge.config.notation import SecretSettings
from edge.secret import MOST_BYTES, read_secret, secret_anew, secret_at_hand

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "0123456789abcdef"


def kept(path: Path, content: str, mode: int = 0o600) -> SecretSettings:
    path.write_text(content)
    path.chmod(mode)
    return SecretSettings(file=path)


def test_a_secret_is_read_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    by_name = SecretSettings(env="HERE")
    assert read_secret(by_name, "s", {"HERE": GOOD}) == GOOD.encode()
    os.environ["EDGE_TEST_SECRET"] = f"{GOOD}x"
    assert read_secret(SecretSettings(env="EDGE_TEST_SECRET"), "s") == f"{GOOD}x".encode()
    assert read_secret(kept(tmp_path / "s", f"{GOOD}\n"), "s") == GOOD.encode()
    assert read_secret(kept(tmp_path / "s", GOOD, 0o640), "s") == GOOD.encode()


def test_what_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^edges\.secret\.env: there is no variable HERE"):
        read_secret(SecretSettings(env="HERE"), "edges.secret", {})
    with pytest.raises(ValueError, match=r"^s\.file: .*none: No such file"):
        read_secret(SecretSettings(file=tmp_path / "none"), "s")


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ValueError, match="open to others; chmod 600"):
        read_secret(kept(tmp_path / "s", GOOD, mode), "s")


def test_what_is_too_short_or_too_long_is_no_secret_and_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 5 bytes; at least 16, make one") as caught:
        read_secret(SecretSettings(env="HERE"), "s", {"HERE": " short "})
    assert "short" not in str(caught.value)
    with pytest.raises(ValueError, match="something else"):
        read_secret(kept(tmp_path / "s", "x" * (MOST_BYTES + 1)), "s")


def test_what_was_read_is_gone_by_until_it_is_read_again(tmp_path: Path) -> None:
    told = kept(tmp_path / "s", "a" * 16)
    assert secret_at_hand(told, "s") == b"a" * 16  # there was none
    kept(tmp_path / "s", "b" * 16)
    assert secret_at_hand(told, "s") == b"a" * 16
    assert secret_anew(told, "s") == b"b" * 16
    assert secret_at_hand(told, "s") == b"b" * 16


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_file_that_is_taken_away_or_opened_to_others_ends_nothing(
    tmp_path: Path, mode: int | None
) -> None:
    told = kept(tmp_path / "s", GOOD)
    read_secret(told, "s")
    if mode is None:
        (tmp_path / "s").unlink()
    else:
        (tmp_path / "s").chmod(mode)
    assert secret_at_hand(told, "s") == secret_anew(told, "s") == GOOD.encode()
    with pytest.raises(ValueError, match=r"No such file|open to others"):
        read_secret(told, "s")


def test_what_was_never_read_is_not_made_up(tmp_path: Path) -> None:
    for read in (secret_at_hand, secret_anew):
        with pytest.raises(ValueError, match="No such file"):
            read(SecretSettings(file=tmp_path / "none"), "s")


def test_what_is_kept_of_secrets_is_bounded(tmp_path: Path) -> None:
    """Whoever reloads each day with another path does not fill the memory with them."""
    for number in range(200):
        told = kept(tmp_path / f"s{number}", GOOD)
        assert read_secret(told, "s") == secret_at_hand(told, "s") == GOOD.encode()
    assert len(secret._kept) <= secret._MOST_KEPT
