"""The shield's schema: an edge's tables as far as they are a shield's, and `[edges]`.

A table is the edge's own where it says the same to both, so that who can write one file can write
the other. What an edge is told of the public is not a shield's: it meets nobody but edges. Such a
setting is refused with its way out, and is not in the reference.

*Stale windows.* `cache.max_stale` is an hour at an edge and three days here. While an origin is
down, everything that everybody is shown comes from what is still held, and behind the shield there
is no other copy; edges forget within hours, being many and small. Three days are a weekend, the
longest that a site commonly stays broken because nobody looks. It costs only disk, which is a
shield's to spend. Nothing is served stale for it while the origin answers.
"""

from __future__ import annotations

# The schema's hints are read when settings are: their names must be here at run time.
from collections.abc import Iterator, Mapping, Sequence  # noqa: TC003
from dataclasses import dataclass, field
from typing import Any, Final

from edge.config import CacheSettings, Config, LimitsSettings
from edge.config import notation as n
from edge.config.notation import SecretSettings, span
from edge.config.root import node_name
from edge.settings import Complaint, Fault, SettingsError, assign, bind, parse, reference, setting
from edge.settings.kinds import DAY_S, DURATION, KIB, MIB, SIZE
from edge.settings.lines import Path, line_of, lines_of
from edge.settings.text import Row  # noqa: TC001

PROXY_ORIGIN: Final = "default"
STALE_S: Final = 3 * DAY_S
MOST_SKEW_S: Final = 600.0
_BY_EDGES: Final = "a shield is asked by edges alone, and they say who the client is"

NOT_A_SHIELDS: Final[Mapping[str, str]] = {
    "node.geo": "places are found at the edge; a shield has no use for them",
    "node.trusted_proxies": f"{_BY_EDGES}; list their networks in edges.networks",
    "shield": "a shield asks origins itself",
    "site.place": "places are found at the edge, which tells the origin through the shield",
    "site.experiment": "experiments are run at the edge, which tells the shield what follows",
    "site.purge_from": "edges that are proven may purge; nobody else may ask",
    "site.purge_reach": "an edge that is proven purges for the whole node",
}
"""Settings of an edge that a shield refuses, by their path in the file, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShieldCacheSettings(CacheSettings):
    """`cache` of a shield: as an edge's, with a longer stale window."""

    max_stale: float = field(
        default=STALE_S,
        metadata=span(
            "How long an answer is kept past its lifetime, for validation and for trouble at "
            "the origin; longer than at an edge, as there is no other copy behind this one."
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShieldLimitsSettings(LimitsSettings):
    """`limits` of a shield: room for what an edge adds to a request that it has let in.

    That is the proof, the hops so far, the client's place, and an arm's fields.
    """

    head: int = field(
        default=96 * KIB,
        metadata=setting(
            "Request line and fields; more is answered 431. More than at any edge.",
            SIZE,
            least=KIB,
            most=MIB,
        ),
    )
    target: int = field(
        default=12 * KIB,
        metadata=setting("Request target; more is answered 414.", SIZE, least=64, most=MIB),
    )
    fields: int = field(
        default=200,
        metadata=setting("Field lines of a request; more is answered 431.", least=8, most=10_000),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgesSettings:
    """`[edges]`: which edges may ask, and how they prove that they are."""

    secret: SecretSettings | None = field(
        default=None,
        metadata=setting("What edges sign their requests with; the same as their shield.secret."),
    )
    secrets: tuple[SecretSettings, ...] = field(
        default=(),
        metadata=setting("Further secrets that count as well, as while edges go over to another.", most_members=8),  # noqa: E501
    )  # fmt: skip
    skew: float = field(
        default=60.0,
        metadata=setting(
            "How far an edge's clock may be off; so long, a proof of a GET can be repeated.",
            DURATION,
            least=1.0,
            most=MOST_SKEW_S,
        ),
    )
    networks: tuple[str, ...] = field(
        default=(),
        metadata=setting("Where edges may connect from; empty is from anywhere.", n.NETWORK),
    )

    def check(self) -> Iterator[Complaint]:
        """No secret at all."""
        if self.secret is None and not self.secrets:
            message = 'is missing; write secret = { env = "NAME" } or { file = "PATH" }'
            yield Complaint(("secret",), None, message)

    @property
    def all_secrets(self) -> tuple[tuple[str, SecretSettings], ...]:
        """Every secret that counts, with its path."""
        first = () if self.secret is None else (("edges.secret", self.secret),)
        return (*first, *((f"edges.secrets[{i}]", each) for i, each in enumerate(self.secrets)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShieldConfig(Config):
    """Everything a shield is told."""

    cache: ShieldCacheSettings = field(
        default_factory=ShieldCacheSettings,
        metadata=setting("Terms for every site; a site's and a rule's go first.", inherits=True),
    )
    limits: ShieldLimitsSettings = field(
        default_factory=ShieldLimitsSettings, metadata=setting("What a message may cost.")
    )
    edges: EdgesSettings = field(metadata=setting("Write [edges] with their secret."))


def load_shield(text: str, *, hostname: str) -> ShieldConfig:
    """The settings of a file. Raises `SettingsError` with every fault in it, and nothing else."""
    return _bound(parse(text), lines_of(text), hostname)


def shield_proxy(
    listen: Sequence[str],
    to: str,
    secret: Mapping[str, str],
    *,
    hostname: str,
    options: Mapping[str, str | None] | None = None,
    sets: Sequence[str] = (),
) -> ShieldConfig:
    """The settings of a shield without a file: one origin, one site for every host.

    `secret` is as in a file; `options` and `sets` are as for `edge.config.for_proxy`. Raises
    `SettingsError`.
    """
    table: dict[str, Any] = {
        "node": {"listen": list(listen)},
        "origin": {PROXY_ORIGIN: {"servers": [to]}},
        "site": [{"hosts": ["*"], "route": {"first": [PROXY_ORIGIN]}}],
        "edges": {"secret": dict(secret)},
    }
    for key, value in (options or {}).items():
        if value is not None:
            part, _, name = key.partition(".")
            table.setdefault(part, {})[name] = value
    for each in sets:
        key, _, value = each.partition("=")
        assign(table, key, value)
    return _bound(table, {}, hostname)


def rows() -> Iterator[Row]:
    """Every setting of a shield, for the reference."""
    return (row for row in reference(ShieldConfig) if not _is_refused(row.path))


def _is_refused(path: str) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in NOT_A_SHIELDS)


def _bound(table: dict[str, Any], lines: dict[Path, int], hostname: str) -> ShieldConfig:
    _name(table, hostname)
    faults = list(_refused(table, lines))
    try:
        config = bind(ShieldConfig, table, lines)
    except SettingsError as error:
        raise SettingsError([*faults, *error.faults]) from error
    if faults:
        raise SettingsError(faults)
    return config


def _name(table: dict[str, Any], hostname: str) -> None:
    node = table.get("node")
    if isinstance(node, dict):
        name = node_name(hostname, node.get("listen"))
        node.setdefault("name", f"shield-{name.removeprefix('edge-')}")


def _refused(table: dict[str, Any], lines: dict[Path, int]) -> Iterator[Fault]:
    """What is there that is not a shield's; it is taken out, so that it has one fault."""
    for path, why in NOT_A_SHIELDS.items():
        *way, last = path.split(".")
        for keys, words, place in _places(table, way):
            if isinstance(place, dict) and last in place:
                del place[last]
                at = f"{words}.{last}" if words else last
                yield Fault(line_of((*keys, last), lines), at, None, f"is not a shield's; {why}")


def _places(table: dict[str, Any], way: list[str]) -> Iterator[tuple[Path, str, object]]:
    """The tables at a path, each with its keys and in words; of a list, all members."""
    if not way:
        yield (), "", table
        return
    (key,) = way
    place = table.get(key)
    if isinstance(place, list):
        for index, member in enumerate(place):
            yield (key, index), f"{key}s[{index}]", member
    else:
        yield (key,), key, place
