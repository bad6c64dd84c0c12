"""How servers and experiments stand beside what the settings say: what checks found, what an
operator has ordered.

A `Standing` is one value that the keeper makes and every worker goes by (`board`). It names only
what differs from the settings: a server that nobody has checked or ordered anything of is not in
it. The settings' own side is the `Roll`: which servers and experiments there are, and with which
weights.

The rule of orders: *an order holds until the settings name another value, or what it is about is
gone.* So an order keeps the settings' value that it was given over, and a reload for another
reason keeps the order, while one that changes just that value takes its place. Whoever asks a
standing for a weight says what the settings say, so a worker that has read new settings goes by
them before the keeper has. A drained server has no such value: it is drained until it is taken
back, or gone. What checks found is no order; it is forgotten with the checks.

The numbers of servers, experiments and arms are bounded, and so are the texts; all of it together
by what the board takes, which whoever writes there has to heed.

Orders are functions from one standing to the next. What cannot be done raises `Unordered`, in
words for the operator, and nothing has changed.
"""

from __future__ import annotations

import difflib
import math
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

MOST_SERVERS: Final = 1_024
MOST_EXPERIMENTS: Final = 128
MOST_ARMS: Final = 64  # of one experiment
NAME_CHARS: Final = 400
WHY_CHARS: Final = 120
LEAST_WEIGHT: Final = 0.001
LEAST_ARM_WEIGHT: Final = 1e-6  # but 0
MOST_WEIGHT: Final = 1_000.0
MOST_ARM_WEIGHT: Final = 1_000_000.0
CONTROL: Final = "control"  # the arm that a stopped experiment falls back to, if it has one
_SHOWN: Final = 80
_PORTS: Final = {"http://": ":80", "https://": ":443"}


class Unordered(ValueError):  # noqa: N818 - it says what became of the order
    """An order that is not carried out; the text names the thing, its value and the way out."""


class Checked(Enum):
    """What active checks have found of a server."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


# --- what the settings say


@dataclass(frozen=True, slots=True)
class NamedServer:
    """A server of an origin, as the settings name it; `url` is like `http://a.example:80`."""

    origin: str
    url: str
    weight: float = 1.0

    @property
    def id(self) -> str:
        """What it is called wherever one server is meant: `eu http://a.example:80`."""
        return f"{self.origin} {self.url}"


@dataclass(frozen=True, slots=True)
class NamedExperiment:
    """An experiment as the settings name it: `id` is `site/experiment`, `arms` in their order."""

    id: str
    arms: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """The experiment's name in its site."""
        return self.id.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Roll:
    """All servers and experiments that the settings name."""

    servers: tuple[NamedServer, ...] = ()
    experiments: tuple[NamedExperiment, ...] = ()


# --- how they stand


class Weight(msgspec.Struct, frozen=True):
    """A weight that was ordered, over what the settings said then."""

    value: float
    over: float


class ServerStanding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one server stands; `since` is Unix seconds, of what checks found, and `why` says it."""

    checked: Checked = Checked.UNKNOWN
    since: float = 0.0
    why: str = ""
    drained: bool = False
    weight: Weight | None = None

    @property
    def is_up(self) -> bool | None:
        """Whether checks found it up; None where they have not found anything."""
        return None if self.checked is Checked.UNKNOWN else self.checked is Checked.UP


class ExperimentStanding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one experiment stands: weights by arm, and the arm that all get where it is stopped."""

    weights: dict[str, Weight] = msgspec.field(default_factory=dict)
    stopped: str | None = None


_PLAIN_SERVER: Final = ServerStanding()
_PLAIN_EXPERIMENT: Final = ExperimentStanding()


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """How all stand, by their ids; who is not named stands as the settings say."""

    servers: dict[str, ServerStanding] = msgspec.field(default_factory=dict)
    experiments: dict[str, ExperimentStanding] = msgspec.field(default_factory=dict)

    def server(self, server_id: str) -> ServerStanding:
        """How this server stands."""
        return self.servers.get(server_id, _PLAIN_SERVER)

    def experiment(self, experiment_id: str) -> ExperimentStanding:
        """How this experiment stands."""
        return self.experiments.get(experiment_id, _PLAIN_EXPERIMENT)

    def ordered_weight(self, server: NamedServer) -> float | None:
        """The weight that was ordered for a server and holds; None where there is none."""
        return _held(self.server(server.id).weight, server.weight)

    def weight_of(self, server: NamedServer) -> float:
        """The weight that a server has."""
        ordered = self.ordered_weight(server)
        return server.weight if ordered is None else ordered

    def weights_of(self, experiment: NamedExperiment) -> dict[str, float]:
        """The weight of each arm, in the settings' order."""
        ordered = self.experiment(experiment.id).weights
        held = {name: _held(ordered.get(name), told) for name, told in experiment.arms}
        return {name: told if held[name] is None else held[name] for name, told in experiment.arms}  # type: ignore[misc]

    def stopped_on(self, experiment: NamedExperiment) -> str | None:
        """The arm that everyone is given; None where the experiment goes on."""
        stopped = self.experiment(experiment.id).stopped
        return stopped if stopped in dict(experiment.arms) else None

    def shares_of(self, experiment: NamedExperiment) -> dict[str, float]:
        """The share of visitors that each arm is given, from 0 to 1."""
        stopped = self.stopped_on(experiment)
        if stopped is not None:
            return {name: float(name == stopped) for name, _ in experiment.arms}
        weights = self.weights_of(experiment)
        total = math.fsum(weights.values())
        return {name: weight / total if total else 0.0 for name, weight in weights.items()}

    def under(self, roll: Roll, checked: Collection[str] = ()) -> Standing:
        """What is left of it under settings that say `roll` and have the servers `checked`
        checked, by their ids."""
        servers = {
            each.id: _left_of(self.servers[each.id], each.weight, is_checked=each.id in checked)
            for each in roll.servers
            if each.id in self.servers
        }
        experiments = {
            each.id: _left_of_experiment(self.experiments[each.id], dict(each.arms))
            for each in roll.experiments
            if each.id in self.experiments
        }
        return Standing(_named(servers), _named_experiments(experiments))

    def orders(self) -> Standing:
        """What of it was ordered, without what checks found."""
        servers = {name: _unchecked(each) for name, each in self.servers.items()}
        return Standing(_named(servers), self.experiments)

    def with_checks_of(self, other: Standing) -> Standing:
        """The same orders, with what checks found by another standing."""
        standing = self.orders()
        for name, each in other.servers.items():
            if each.is_up is not None:
                with suppress(Unordered):  # there are more orders than there were: they come first
                    standing = found(
                        standing, name, is_up=each.is_up, why=each.why, now=each.since
                    )
        return standing


def _held(weight: Weight | None, told: float) -> float | None:
    return weight.value if weight is not None and weight.over == told else None


def _unchecked(server: ServerStanding) -> ServerStanding:
    return ServerStanding(drained=server.drained, weight=server.weight)


def _left_of(server: ServerStanding, told: float, *, is_checked: bool) -> ServerStanding:
    kept = server if is_checked else _unchecked(server)
    if _held(kept.weight, told) is None:
        kept = msgspec.structs.replace(kept, weight=None)
    return kept


def _left_of_experiment(
    experiment: ExperimentStanding, arms: Mapping[str, float]
) -> ExperimentStanding:
    weights = {
        name: weight
        for name, weight in experiment.weights.items()
        if name in arms and _held(weight, arms[name]) is not None
    }
    stopped = experiment.stopped if experiment.stopped in arms else None
    return ExperimentStanding(weights, stopped)


def _named(servers: Mapping[str, ServerStanding]) -> dict[str, ServerStanding]:
    return {name: each for name, each in servers.items() if each != _PLAIN_SERVER}


def _named_experiments(all_: Mapping[str, ExperimentStanding]) -> dict[str, ExperimentStanding]:
    return {name: each for name, each in all_.items() if each != _PLAIN_EXPERIMENT}


# --- what checks find


def found(standing: Standing, server_id: str, *, is_up: bool, why: str, now: float) -> Standing:
    """Checks have found a server up, or down because of `why`, at `now` in Unix seconds."""
    checked = Checked.UP if is_up else Checked.DOWN
    each = standing.server(server_id)
    told = msgspec.structs.replace(each, checked=checked, since=now, why=why[:WHY_CHARS])
    return _with_servers(standing, {server_id: told})


def unfound(standing: Standing, server_id: str) -> Standing:
    """Nothing that checks found of a server holds any more."""
    return _with_servers(standing, {server_id: _unchecked(standing.server(server_id))})


# --- orders about servers


def servers_called(roll: Roll, words: Sequence[str]) -> tuple[NamedServer, ...]:
    """The servers that an operator means: `("eu",)` all of an origin, `("eu", URL)` one of them,
    `(URL,)` that server of whichever origins have it. Raises `Unordered`."""
    origins = dict.fromkeys(each.origin for each in roll.servers)
    match tuple(words):
        case (word,) if "://" in word:
            return _by_url(roll.servers, word, "an origin")
        case (word,):
            _check_known("origin", word, origins)
            return tuple(each for each in roll.servers if each.origin == word)
        case (origin, url):
            _check_known("origin", origin, origins)
            its = [each for each in roll.servers if each.origin == origin]
            return _by_url(its, url, f'origin "{origin}"')
    raise Unordered("name an origin, a server by its URL, or both: eu http://eu-1.example")


def _by_url(servers: Iterable[NamedServer], url: str, whose: str) -> tuple[NamedServer, ...]:
    servers = tuple(servers)
    meant = tuple(each for each in servers if _plain_url(each.url) == _plain_url(url))
    if not meant:
        known = dict.fromkeys(each.url for each in servers)
        raise Unordered(f'"{_shown(url)}" is no server of {whose}; {_near(url, known)}')
    return meant


def _plain_url(url: str) -> str:
    url = url.lower().rstrip("/")
    for scheme, port in _PORTS.items():
        if url.startswith(scheme):
            return url.removesuffix(port)
    return url


def drained(standing: Standing, servers: Sequence[NamedServer]) -> Standing:
    """Give these servers no new requests."""
    return _changed(standing, servers, drained=True)


def taken_back(standing: Standing, servers: Sequence[NamedServer]) -> Standing:
    """Give these servers requests again."""
    return _changed(standing, servers, drained=False)


def weighted(standing: Standing, servers: Sequence[NamedServer], weight: float | None) -> Standing:
    """Give these servers a weight, or (None) the settings' own; raises `Unordered`."""
    if weight is None:
        return _changed(standing, servers, weight=None)
    if not _is_weight(weight):
        zero = "; to give a server nothing, drain it" if weight == 0 else ""
        most = f"{LEAST_WEIGHT:g} to {MOST_WEIGHT:.0f}"
        raise Unordered(f"{weight:g} is no weight of a server; use {most}{zero}")
    told = {
        each.id: msgspec.structs.replace(
            standing.server(each.id), weight=Weight(weight, each.weight)
        )
        for each in servers
    }
    return _with_servers(standing, told)


def _is_weight(weight: float) -> bool:
    return LEAST_WEIGHT <= weight <= MOST_WEIGHT  # no NaN is


def _is_arm_weight(weight: float) -> bool:
    return weight == 0 or LEAST_ARM_WEIGHT <= weight <= MOST_ARM_WEIGHT


def check_orders(standing: Standing) -> None:
    """Raise `ValueError` for a weight that nobody can have ordered, as a file may have it."""
    for name, server in standing.servers.items():
        if server.weight is not None and not _is_weight(server.weight.value):
            raise ValueError(f"{_shown(name)}: {server.weight.value:g} is no weight of a server")
    for name, experiment in standing.experiments.items():
        for arm, weight in experiment.weights.items():
            if not _is_arm_weight(weight.value):
                words = f"{weight.value:g} is no weight of an arm"
                raise ValueError(f"{_shown(name)}, {_shown(arm)}: {words}")


def _changed(
    standing: Standing, servers: Sequence[NamedServer], **changes: bool | Weight | None
) -> Standing:
    told = {
        each.id: msgspec.structs.replace(standing.server(each.id), **changes) for each in servers
    }
    return _with_servers(standing, told)


def _with_servers(standing: Standing, told: Mapping[str, ServerStanding]) -> Standing:
    servers = _named({**standing.servers, **told})
    grown = servers.keys() - standing.servers.keys()
    if len(servers) > MOST_SERVERS and grown:
        raise Unordered(f"there is something to tell of at most {MOST_SERVERS} servers")
    for name in grown:
        _check_length(name)
    return Standing(servers, standing.experiments)


# --- orders about experiments


def experiment_called(roll: Roll, word: str) -> NamedExperiment:
    """The experiment that an operator means, by its id, or by its name where only one site has
    one of that name. Raises `Unordered`."""
    meant = [each for each in roll.experiments if word in (each.id, each.name)]
    exact = [each for each in meant if each.id == word]
    if len(meant) > 1 and not exact:
        raise Unordered(
            f'"{_shown(word)}" is one of several; say which: {_listed(e.id for e in meant)}'
        )
    if not meant:
        known = [each.id for each in roll.experiments] + [each.name for each in roll.experiments]
        _check_known("experiment", word, dict.fromkeys(known))
    return (exact or meant)[0]


def ramped(standing: Standing, experiment: NamedExperiment, arm: str, weight: float) -> Standing:
    """Give an arm a weight; raises `Unordered`."""
    arms = dict(experiment.arms)
    _check_known("arm", arm, arms)
    if not _is_arm_weight(weight):
        bounds = f"use 0, or {LEAST_ARM_WEIGHT:g} to {MOST_ARM_WEIGHT:.0f}"
        raise Unordered(f"{weight:g} is no weight of an arm; {bounds}")
    if not math.fsum({**standing.weights_of(experiment), arm: weight}.values()):
        raise Unordered(f'with "{arm}" at 0 no arm has a weight; stop the experiment instead')
    each = standing.experiment(experiment.id)
    weights = {**each.weights, arm: Weight(weight, arms[arm])}
    if len(weights) > MOST_ARMS:
        raise Unordered(f"weights can be ordered for at most {MOST_ARMS} arms of an experiment")
    return _with_experiment(standing, experiment, msgspec.structs.replace(each, weights=weights))


def unramped(standing: Standing, experiment: NamedExperiment, arm: str) -> Standing:
    """Give an arm the settings' weight again; raises `Unordered`."""
    _check_known("arm", arm, dict(experiment.arms))
    each = standing.experiment(experiment.id)
    weights = {name: weight for name, weight in each.weights.items() if name != arm}
    return _with_experiment(standing, experiment, msgspec.structs.replace(each, weights=weights))


def weight_for_share(
    standing: Standing, experiment: NamedExperiment, arm: str, share: float
) -> float:
    """The weight with which an arm is given this share of visitors (0 to 1) while the others keep
    theirs; raises `Unordered`."""
    weights = standing.weights_of(experiment)
    _check_known("arm", arm, weights)
    others = math.fsum(weight for name, weight in weights.items() if name != arm)
    if not 0 <= share < 1:
        way_out = f"stop the experiment on it: edge ab stop {experiment.name} --on {arm}"
        raise Unordered(f"{share:.6g} is no share beside others; use 0% to 99.9%, or {way_out}")
    if not others:
        raise Unordered(f'no arm but "{arm}" has a weight, so its share is all; ramp another one')
    return round(others * share / (1 - share), 9)


def stopped(standing: Standing, experiment: NamedExperiment, arm: str | None) -> Standing:
    """Give everyone one arm: the one named, else `control`, else the first; raises `Unordered`."""
    arms = dict(experiment.arms)
    if arm is None:
        arm = CONTROL if CONTROL in arms else next(iter(arms), "")
    _check_known("arm", arm, arms)
    each = standing.experiment(experiment.id)
    return _with_experiment(standing, experiment, msgspec.structs.replace(each, stopped=arm))


def resumed(standing: Standing, experiment: NamedExperiment) -> Standing:
    """Go on with a stopped experiment, with the weights that it had."""
    each = standing.experiment(experiment.id)
    return _with_experiment(standing, experiment, msgspec.structs.replace(each, stopped=None))


def _with_experiment(
    standing: Standing, experiment: NamedExperiment, told: ExperimentStanding
) -> Standing:
    experiments = _named_experiments({**standing.experiments, experiment.id: told})
    if len(experiments) > MOST_EXPERIMENTS and experiment.id not in standing.experiments:
        raise Unordered(
            f"there are orders about {MOST_EXPERIMENTS} experiments, the most there may be"
        )
    _check_length(experiment.id)
    return Standing(standing.servers, experiments)


# --- words


def _check_known(kind: str, word: str, known: Mapping[str, object]) -> None:
    if word not in known:
        raise Unordered(f'"{_shown(word)}" is no {kind}; {_near(word, known)}')


def _near(word: str, known: Mapping[str, object]) -> str:
    names = list(known)[:MOST_SERVERS]
    near = difflib.get_close_matches(word[:NAME_CHARS], names, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"there is {_listed(names)}" if names else "the settings name none"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])}{more}"


def _shown(word: str) -> str:
    return word if len(word) <= _SHOWN else f"{word[:_SHOWN]}…"


def _check_length(name: str) -> None:
    if len(name) > NAME_CHARS:
        raise Unordered(f'"{_shown(name)}": a name of more than {NAME_CHARS} characters')


# --- as bytes

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Standing)


def to_bytes(standing: Standing) -> bytes:
    """A standing as the board holds it."""
    return _ENCODER.encode(standing)


def from_bytes(document: bytes) -> Standing:
    """The standing in a document; raises `ValueError`."""
    try:
        return _DECODER.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"no standing: {error}") from error
