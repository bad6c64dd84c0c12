"""How servers and experiments stand, as `edge origin` and `edge ab` print it.

Pure, and total: whatever stands in a document, there is a line for it, and none of it moves a
cursor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from edge.command.status import clean, seconds, told
from edge.command.telling import span

_SERVERS_HEAD: Final = ("origin", "server", "state", "checks", "at work", "weight", "latency")
_ARMS_HEAD: Final = (
    "arm", "weight", "share", "visitors", "requests", "2xx", "3xx", "4xx", "5xx", "hits", "mean",
    "p99",
)  # fmt: skip
_RIGHT: Final = frozenset({*_SERVERS_HEAD[4:], *_ARMS_HEAD[1:]})


def servers(document: Mapping[str, Any]) -> Iterator[str]:
    """A table of servers."""
    yield from _table(_SERVERS_HEAD, [_server(each) for each in _tables(document, "servers")])


def _server(server: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        told("", server.get("origin")),
        told("", server.get("server")),
        _state(server),
        _check(server.get("check")),
        told("", server.get("at_work")),
        _weight(server),
        _time(server.get("latency_s")),
    )


def _state(server: Mapping[str, Any]) -> str:
    """What workers see: one word where they agree, else how many see what."""
    if server.get("drained") is True:
        return "drained"
    states = Counter(told("", each.get("state")) for each in _tables(server, "workers"))
    if len(states) < 2:
        return next(iter(states), "-")
    return ", ".join(f"{state} {count}" for state, count in states.most_common())


def _check(check: object) -> str:
    if not isinstance(check, Mapping):
        return "-"
    for_s, why = check.get("for_s"), check.get("why")
    lasting = f" for {span(for_s)}" if isinstance(for_s, int | float) else ""
    return f"{told('', check.get('state'))}{lasting}{f': {why}' if why else ''}"


def _weight(table: Mapping[str, Any], name: str = "weight") -> str:
    """A weight, with the settings' own where another was ordered."""
    weight, settings = table.get(name), table.get(f"settings_{name}")
    words = _number(weight)
    return words if weight == settings else f"{words} (settings {_number(settings)})"


def servers_ordered(document: Mapping[str, Any]) -> Iterator[str]:
    """What an order has come to, one line a server."""
    for each in _tables(document, "servers"):
        state = "drained" if each.get("drained") is True else f"in use, weight {_weight(each)}"
        yield clean(f"{told('', each.get('id'))}: {state}")


def experiments(document: Mapping[str, Any]) -> Iterator[str]:
    """Every experiment, with a table of its arms."""
    told_of = _tables(document, "experiments")
    if not told_of:
        yield "no site has an experiment"
    for number, each in enumerate(told_of):
        if number:
            yield ""
        yield clean(_experiment(each))
        yield from _table(_ARMS_HEAD, [_arm(arm) for arm in _tables(each, "arms")])


def _experiment(experiment: Mapping[str, Any]) -> str:
    stopped = experiment.get("stopped_on")
    state = f"stopped: everyone has {told('', stopped)}" if stopped is not None else "running"
    return f"{told('', experiment.get('id'))}  {state}"


def _arm(arm: Mapping[str, Any]) -> tuple[str, ...]:
    statuses = arm.get("statuses")
    by_class = statuses if isinstance(statuses, Mapping) else {}
    return (
        told("", arm.get("name")),
        _weight(arm),
        _share(arm.get("share")),
        told("", arm.get("visitors")),
        told("", arm.get("requests")),
        *(told("", by_class.get(f"{each}xx", 0)) for each in (2, 3, 4, 5)),
        _share(arm.get("hit_ratio")),
        _time(arm.get("mean_s")),
        _time(arm.get("p99_s")),
    )


def experiment_ordered(document: Mapping[str, Any]) -> Iterator[str]:
    """What an order has come to: the shares that follow from it, one line an arm."""
    experiment = document.get("experiment")
    if not isinstance(experiment, Mapping):
        return
    yield clean(_experiment(experiment))
    for arm in _tables(experiment, "arms"):
        name, share = told("", arm.get("name")), _share(arm.get("share"))
        yield clean(f"  {name}: {share} of visitors, weight {_weight(arm)}")


def behind(document: Mapping[str, Any]) -> str:
    """Who does not go by an order yet, in words; "" where all do."""
    late = _tables(document, "behind")
    if not late:
        return ""
    names = ", ".join(
        f"worker {told('', each.get('worker'))} (pid {told('', each.get('pid'))})" for each in late
    )
    return clean(
        f"the order is recorded, and {names} does not go by it yet; look again with `list`, "
        "or end that process"
    )


def _tables(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    listed = document.get(name)
    return (
        [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    lines = [head, *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            f"{cell:>{width}}" if name in _RIGHT else f"{cell:<{width}}"
            for name, cell, width in zip(head, line, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _number(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else told("", value)


def _share(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.1%}" if is_number else told("", value)


def _time(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return seconds(value) if is_number else told("", value)  # type: ignore[arg-type]
