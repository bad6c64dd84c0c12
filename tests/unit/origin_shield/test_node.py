from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge.config import for_proxy
from edge.errors import ExchangeError
from edge.surroundings.behind import Behind
from edge.wire.message import Headers, RequestHead
from edge.wire.proof import FIELD, Claims, sign
from origin_shield.config import shield_proxy
from origin_shield.node import PROGRAM, Shield

if TYPE_CHECKING:
    from pathlib import Path

    from origin_shield.config import ShieldConfig


NOTHING = Behind(now=lambda: 0.0, chance=lambda: 0.0)


def config(path: Path, *sets: str) -> ShieldConfig:
    told = ["127.0.0.1:0"], "http://a.example", {"file": str(path)}
    return shield_proxy(*told, hostname="h", sets=sets)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef")
    path.chmod(0o600)
    return path


def test_a_shield_is_made_of_its_settings(secret: Path) -> None:
    trade = Shield().trade()
    made = trade.parts(config(secret, "node.name=s1"), NOTHING, b"salt")
    assert (trade.program, made.name, made.salt) == (PROGRAM, b"s1", b"salt")
    assert not made.remembers
    assert not made.trusted
    site = made.sites.find(b"any.example")
    assert site is not None
    assert site.purge_reach == "node"
    assert all(site.purge_from.trusts(peer) for peer in (b"192.0.2.1", b"::1", b"unix"))
    assert trade.state(made) == {"proofs": {"noted": 0, "refused": 0, "full": 0}}


def test_new_settings_forget_no_proof(secret: Path) -> None:
    shield = Shield(now=lambda: 7.0)
    made = [shield.parts(config(secret), NOTHING, b"").admit for _ in range(2)]
    used = {id(admit.__self__._used) for admit in made}  # type: ignore[attr-defined]
    assert len(used) == 1


def test_a_secret_that_is_not_there_is_found_out_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"edges\.secret\.file: .*none: No such file"):
        Shield().parts(config(tmp_path / "none"), NOTHING, b"")


def test_an_edges_settings_make_no_shield() -> None:
    told = for_proxy(["127.0.0.1:0"], "http://a.example", hostname="h")
    with pytest.raises(AssertionError):
        Shield().parts(told, NOTHING, b"")


def test_a_reload_takes_up_another_secret(secret: Path) -> None:
    shield = Shield(now=lambda: 7.0)
    claims = Claims(edge=b"fra1", id=b"1", hops=(b"192.0.2.1",), scheme=b"http")
    head = RequestHead(b"GET", b"http", b"a.example", b"/", Headers())
    value = sign(b"fedcba9876543210", head, claims, 7.0)
    signed = replace(head, headers=Headers([(FIELD, value)]))
    before = shield.parts(config(secret), NOTHING, b"")
    secret.write_text("fedcba9876543210")
    after = shield.parts(config(secret), NOTHING, b"")
    with pytest.raises(ExchangeError):
        before.admit(before, signed, b"192.0.2.9")
    assert after.admit(after, signed, b"192.0.2.9").client == b"192.0.2.1"
