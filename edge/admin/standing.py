"""What the admin socket is asked about servers and experiments, and ordered about them.

An order is answered when every worker goes by it, or names those that do not. It is told in the
error log, with who gave it. What is listed of a server has three sources, and tells them apart:
the settings and orders, the checks (made once for a node), and what each worker has seen of it.
A worker tells what it sees in its status, under `servers`: a list of tables with `name` (of the
origin), `id`, `state` (up, warming, trial, drained, ejected, down), `at_work`, `weight`,
`latency_s` (0 before any answer) and `failures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from edge.admin.call import Refused, Reply
from edge.observe.metrics import CLASSES
from edge.observe.reading import ArmTold
from edge.surroundings.standing import (
    NamedServer,
    Roll,
    Standing,
    Unordered,
    drained,
    experiment_called,
    ramped,
    resumed,
    servers_called,
    stopped,
    taken_back,
    unramped,
    weight_for_share,
    weighted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge.admin.call import Call, Handler
    from edge.admin.switchboard import Switchboard
    from edge.observe.tally import Tallies
    from edge.surroundings.overseer import Carried, Overseer
    from edge.surroundings.standing import NamedExperiment, ServerStanding

T = TypeVar("T")
_SEEN: Final = ("state", "at_work", "weight", "latency_s", "failures")


class _Servers(msgspec.Struct, forbid_unknown_fields=True):
    servers: list[str]


class _Weight(msgspec.Struct, forbid_unknown_fields=True):
    servers: list[str]
    weight: float | None


class _Ramp(msgspec.Struct, forbid_unknown_fields=True):
    experiment: str
    arm: str
    weight: float | None = None
    share: float | None = None


class _Stop(msgspec.Struct, forbid_unknown_fields=True):
    experiment: str
    arm: str | None = None


class _Resume(msgspec.Struct, forbid_unknown_fields=True):
    experiment: str


class StandingControl:
    """The handlers of a node for its servers and experiments; `now` gives Unix seconds."""

    def __init__(
        self,
        overseer: Overseer,
        switchboard: Switchboard,
        tallies: Tallies,
        now: Callable[[], float],
    ) -> None:
        self._overseer = overseer
        self._switchboard = switchboard
        self._tallies = tallies
        self._now = now

    def routes(self) -> dict[bytes, dict[bytes, Handler]]:
        """The handlers by path and method, for operators."""
        return {
            b"/v1/origins": {b"GET": self._list_servers},
            b"/v1/origins/drain": {b"POST": self._drain},
            b"/v1/origins/up": {b"POST": self._take_back},
            b"/v1/origins/weight": {b"POST": self._weigh},
            b"/v1/experiments": {b"GET": self._list_experiments},
            b"/v1/experiments/ramp": {b"POST": self._ramp},
            b"/v1/experiments/stop": {b"POST": self._stop},
            b"/v1/experiments/resume": {b"POST": self._resume},
        }

    # Servers.

    async def _list_servers(self, _call: Call) -> Reply:
        views = _views(await self._switchboard.states())
        return Reply(200, {"servers": self._servers(self._overseer.roll.servers, views)})

    def _servers(
        self, servers: Sequence[NamedServer], views: Mapping[str, list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        standing, checked = self._overseer.standing, self._overseer.checked
        return [
            {
                **_server(each, standing, views.get(each.id, [])),
                "check": self._check(standing.server(each.id)) if each.id in checked else None,
            }
            for each in servers
        ]

    def _check(self, told: ServerStanding) -> dict[str, Any]:
        for_s = max(0.0, self._now() - told.since) if told.since else None
        return {"state": told.checked.value, "for_s": for_s, "why": told.why}

    async def _drain(self, call: Call) -> Reply:
        words = _read(call, _Servers, '{"servers": ["eu"]}').servers
        return await self._order_servers(words, drained, "drained")

    async def _take_back(self, call: Call) -> Reply:
        words = _read(call, _Servers, '{"servers": ["eu"]}').servers
        return await self._order_servers(words, taken_back, "in use again")

    async def _weigh(self, call: Call) -> Reply:
        asked = _read(call, _Weight, '{"servers": ["eu", "http://eu-1.example"], "weight": 3}')
        weight = asked.weight

        def order(standing: Standing, servers: Sequence[NamedServer]) -> Standing:
            return weighted(standing, servers, weight)

        done = "has the settings' weight" if weight is None else f"has weight {weight:g}"
        return await self._order_servers(asked.servers, order, done)

    async def _order_servers(
        self,
        words: Sequence[str],
        order: Callable[[Standing, Sequence[NamedServer]], Standing],
        done: str,
    ) -> Reply:
        carried = await self._carried(
            lambda standing, roll: order(standing, servers_called(roll, words))
        )
        servers = _called_now(self._overseer.roll, words)
        names = ", ".join(each.id for each in servers)
        document = {**_told(carried), "servers": self._servers(servers, {})}
        return Reply(200, document, words=f"{names}: {done}{_behind_in_words(carried)}")

    # Experiments.

    async def _list_experiments(self, _call: Call) -> Reply:
        arms = self._tallies.reading().arms
        told = [self._experiment(each, arms) for each in self._overseer.roll.experiments]
        return Reply(200, {"experiments": told})

    def _experiment(
        self, experiment: NamedExperiment, counted: Mapping[tuple[str, str], ArmTold]
    ) -> dict[str, Any]:
        standing = self._overseer.standing
        weights, shares = standing.weights_of(experiment), standing.shares_of(experiment)
        return {
            "id": experiment.id,
            "name": experiment.name,
            "stopped_on": standing.stopped_on(experiment),
            "arms": [
                {
                    "name": name,
                    "weight": weights[name],
                    "settings_weight": told,
                    "share": round(shares[name], 6),
                    **_counts(counted.get((experiment.id, name), ArmTold())),
                }
                for name, told in experiment.arms
            ],
        }

    async def _ramp(self, call: Call) -> Reply:
        asked = _read(call, _Ramp, '{"experiment": "checkout", "arm": "new", "share": 0.2}')
        if asked.weight is not None and asked.share is not None:
            raise Refused(400, "", "weight and share are both given; give one, or none to reset")

        def order(standing: Standing, experiment: NamedExperiment) -> Standing:
            weight = asked.weight
            if asked.share is not None:
                weight = weight_for_share(standing, experiment, asked.arm, asked.share)
            if weight is None:
                return unramped(standing, experiment, asked.arm)
            return ramped(standing, experiment, asked.arm, weight)

        return await self._order_experiment(asked.experiment, order)

    async def _stop(self, call: Call) -> Reply:
        asked = _read(call, _Stop, '{"experiment": "checkout", "arm": "control"}')
        return await self._order_experiment(
            asked.experiment, lambda standing, each: stopped(standing, each, asked.arm)
        )

    async def _resume(self, call: Call) -> Reply:
        asked = _read(call, _Resume, '{"experiment": "checkout"}')
        return await self._order_experiment(asked.experiment, resumed)

    async def _order_experiment(
        self, word: str, order: Callable[[Standing, NamedExperiment], Standing]
    ) -> Reply:
        carried = await self._carried(
            lambda standing, roll: order(standing, experiment_called(roll, word))
        )
        try:
            now = experiment_called(self._overseer.roll, word)
        except Unordered as error:
            words = f"new settings have taken {word[:80]} out meanwhile"
            raise Refused(409, "", words) from error
        told = self._experiment(now, {})
        document = {**_told(carried), "experiment": told}
        return Reply(200, document, words=f"{_in_words(told)}{_behind_in_words(carried)}")

    async def _carried(self, order: Callable[[Standing, Roll], Standing]) -> Carried:
        try:
            return await self._overseer.carry_out(order)
        except Unordered as error:
            raise Refused(422, "not ordered", str(error)) from error
        except OSError as error:
            words = (
                f"{error.strerror or error}; nothing has changed: make room on the store's disk"
            )
            raise Refused(503, "order not recorded", words) from error


def _read(call: Call, kind: type[T], example: str) -> T:
    try:
        return msgspec.json.decode(call.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refused(400, "", f"{error}; write it like {example}") from error


def _called_now(roll: Roll, words: Sequence[str]) -> tuple[NamedServer, ...]:
    """Those that were ordered about, as far as the settings that are in force now have them."""
    try:
        return servers_called(roll, words)
    except Unordered:
        return ()


def _told(carried: Carried) -> dict[str, Any]:
    behind = [{"worker": each.slot, "pid": each.pid} for each in carried.behind]
    return {"version": carried.version, "behind": behind}


def _behind_in_words(carried: Carried) -> str:
    return f"; not yet for {', '.join(map(str, carried.behind))}" if carried.behind else ""


def _views(states: Sequence[Mapping[str, Any] | None]) -> dict[str, list[dict[str, Any]]]:
    """What each worker sees of each server, by the server's id."""
    views: dict[str, list[dict[str, Any]]] = {}
    for slot, state in enumerate(states):
        for each in (state or {}).get("servers", ()):
            seen = {name: each.get(name) for name in _SEEN}
            views.setdefault(str(each.get("id")), []).append({"worker": slot, **seen})
    return views


def _server(
    server: NamedServer, standing: Standing, views: list[dict[str, Any]]
) -> dict[str, Any]:
    told = standing.server(server.id)
    latencies = [each["latency_s"] for each in views if each["latency_s"]]
    return {
        "id": server.id,
        "origin": server.origin,
        "server": server.url,
        "drained": told.drained,
        "weight": standing.weight_of(server),
        "settings_weight": server.weight,
        "at_work": sum(each["at_work"] or 0 for each in views),
        "latency_s": sum(latencies) / len(latencies) if latencies else None,
        "workers": views,
    }


def _counts(told: ArmTold) -> dict[str, Any]:
    count = told.duration.count
    return {
        "requests": told.requests,
        "visitors": told.visitors,
        "statuses": {
            name: number for name, number in zip(CLASSES, told.statuses, strict=True) if number
        },
        "hit_ratio": told.hits / told.looked_up if told.looked_up else None,
        "mean_s": told.duration.sum_us / count / 1e6 if count else None,
        "p50_s": told.duration.quantile(0.5),
        "p99_s": told.duration.quantile(0.99),
    }


def _in_words(told: Mapping[str, Any]) -> str:
    if told["stopped_on"] is not None:
        return f"{told['id']}: stopped on {told['stopped_on']}"
    shares = ", ".join(f"{arm['name']} {arm['share']:.2%}" for arm in told["arms"])
    return f"{told['id']}: {shares}"
