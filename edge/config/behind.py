"""From the settings of origins and shields to what the code that asks them goes by."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edge.config import policies
from edge.routing.balance import Balance, EjectPolicy, GroupPolicy
from edge.routing.geo import Coordinates
from edge.surroundings.standing import NamedServer, Roll
from edge.upstream.group import GroupSettings
from edge.upstream.origin import Origin, parse_origin
from edge.upstream.probe import Checkable, CheckPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from edge.config.origin import (
        CheckSettings,
        EjectSettings,
        OriginSettings,
        OriginTimeouts,
        ShieldSettings,
    )
    from edge.config.root import Config

SHIELD: Final = "shield"  # what the group of all shields is called
# A shield is tried again soon, however often it was in vain: it is asked for what it alone should
# fetch, and no checks tell that it is back. That it is slow says
# nothing of it: how long it takes hangs on whether it has what its keys stand for.
_SHIELD_EJECT: Final = EjectPolicy(after=2, for_s=2.0, longest_s=5.0, most=1.0, slower=0.0)
_BALANCES: Final = {"weighted": Balance.ROUND_ROBIN}


def groups(config: Config) -> list[GroupSettings]:
    """Every origin, and the shields, as they are asked; raises ValueError."""
    made = [_group(name, told) for name, told in config.origins.items()]
    return made if config.shield is None else [*made, _shields(config.shield)]


def _group(name: str, told: OriginSettings) -> GroupSettings:
    servers = tuple(
        _server(url, told.ca, told.timeouts, told.max_connections, told.max_idle)
        for url in told.servers
    )
    return GroupSettings(
        name=name,
        servers=servers,
        weights=told.weights,
        policy=GroupPolicy(
            balance=_BALANCES.get(told.balance) or Balance(told.balance),
            eject=_eject(told.eject),
            slow_start_s=told.slow_start,
        ),
        at_work=told.at_work,
        waiting=told.waiting,
        at=coordinates(told.at),
        host=told.host.encode("ascii") if told.host else None,
    )


def _shields(told: ShieldSettings) -> GroupSettings:
    policy = GroupPolicy(Balance.KEY_HASH, _SHIELD_EJECT, slow_start_s=0.0, spills=False)
    return GroupSettings(
        SHIELD, shields(told), policy=policy, at_work=told.at_work, waiting=told.waiting
    )


def shields(told: ShieldSettings) -> tuple[Origin, ...]:
    """Every shield, with its bounds; raises ValueError."""
    return tuple(
        _server(url, told.ca, told.timeouts, told.max_connections, told.max_idle)
        for url in told.nodes
    )


def _server(
    url: str, ca: Path | None, timeouts: OriginTimeouts, connections: int, idle: int
) -> Origin:
    return replace(
        parse_origin(url),
        ca=str(ca) if ca else None,
        connect_s=timeouts.connect,
        first_byte_s=timeouts.first_byte,
        between_bytes_s=timeouts.between_bytes,
        total_s=timeouts.total,
        idle_s=timeouts.idle,
        max_connections=connections,
        max_idle=min(idle, connections),
    )


def _eject(told: EjectSettings) -> EjectPolicy:
    return EjectPolicy(after=told.after, for_s=told.for_, most=told.most, slower=told.slower)


def coordinates(at: tuple[float, ...] | None) -> Coordinates | None:
    """A place as it is told: latitude and longitude."""
    return Coordinates(*at) if at is not None else None


def roll(config: Config) -> Roll:
    """Which servers and experiments the settings name, for orders about them."""
    servers = [
        NamedServer(told.name, server.url, weight)
        for told in groups(config)
        for server, weight in zip(
            told.servers, told.weights or (1.0,) * len(told.servers), strict=True
        )
    ]
    experiments = [
        policies.named_experiment(site, each) for site in config.sites for each in site.experiments
    ]
    return Roll(tuple(servers), tuple(experiments))


def checkable(config: Config) -> list[Checkable]:
    """The servers that are checked, and how."""
    return [
        Checkable(f"{told.name} {server.url}", server, policy)
        for told in groups(config)
        if told.name in config.origins
        and (policy := _check(config.origins[told.name].checks, told.host)) is not None
        for server in told.servers
    ]


def _check(told: CheckSettings | None, host: bytes | None) -> CheckPolicy | None:
    if told is None:
        return None
    return CheckPolicy(
        path=told.path.encode("ascii"),
        host=host,
        every_s=told.every,
        timeout_s=told.timeout,
        down_after=told.down_after,
        up_after=told.up_after,
        statuses=frozenset(told.status),
        body=told.body.encode() if told.body else b"",
    )
