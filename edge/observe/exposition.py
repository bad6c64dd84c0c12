"""The text that Prometheus reads, format version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/

What is told is the node's total. A total and its parts under one name would be counted twice by
every `sum()`, and parts alone would cost each scrape as many series as there are workers; so the
parts are there on request, with the label `worker`, for a scrape job of their own.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final, TypeAlias

from edge.observe.metrics import (
    ARM_DURATION,
    ARM_HITS,
    ARM_LOOKED_UP,
    ARM_REQUESTS,
    ARM_VISITORS,
    BUILD,
    CLASSES,
    DURATION,
    ERRORS,
    FIRST_BYTE,
    ORIGIN_ERRORS,
    ORIGIN_POINTS,
    ORIGIN_WAIT,
    POINTS,
    REQUESTS,
    SENT,
    STARTED,
    STARTS,
    TIMES_S,
    status_class,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from edge.observe.metrics import Family
    from edge.observe.reading import ArmTold, Histogram, OriginTold, Reading, Served

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

Labels: TypeAlias = tuple[tuple[str, str], ...]
Sample: TypeAlias = tuple[str, Labels, int | float]  # what follows the name; labels; value


def exposition(readings: Mapping[str | None, Reading], *, version: str) -> bytes:
    """The text of `readings`, each by its worker's name; None stands for all together."""
    lines = [*_header(BUILD), _line(BUILD.name, ("", (("version", version),), 1))]
    for family, samples in _FAMILIES:
        lines += _header(family)
        for worker, reading in readings.items():
            first: Labels = () if worker is None else (("worker", worker),)
            lines += [
                _line(family.name, (suffix, first + labels, value))
                for suffix, labels, value in samples(reading)
            ]
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def _header(family: Family) -> list[str]:
    says = family.says.replace("\\", "\\\\").replace("\n", "\\n")
    return [f"# HELP {family.name} {says}", f"# TYPE {family.name} {family.kind.value}"]


def _line(name: str, sample: Sample) -> str:
    suffix, labels, value = sample
    told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{suffix}{{{told}}} {value}" if told else f"{name}{suffix} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _requests(reading: Reading) -> Iterator[Sample]:
    told: dict[tuple[str, ...], int] = {}
    for (cache, reason, status, _), count in reading.requests.items():
        values: tuple[str, ...] = cache, reason, status_class(status)
        told[values] = told.get(values, 0) + count
    for values, count in sorted(told.items()):
        yield "", tuple(zip(REQUESTS.labels, values, strict=True)), count


def _errors(reading: Reading) -> Iterator[Sample]:
    for error, count in reading.by(lambda words: words[3] or None).items():
        yield "", (("error", error),), count


def _by_hit(reading: Reading) -> Iterator[tuple[Labels, Served]]:
    yield (("hit", "true"),), reading.hits
    yield (("hit", "false"),), reading.rest


def _sent(reading: Reading) -> Iterator[Sample]:
    for labels, served in _by_hit(reading):
        yield "", labels, served.sent_bytes


def _durations(reading: Reading) -> Iterator[Sample]:
    for labels, served in _by_hit(reading):
        yield from _histogram(labels, served.duration)


def _first_bytes(reading: Reading) -> Iterator[Sample]:
    for labels, served in _by_hit(reading):
        yield from _histogram(labels, served.first_byte)


def _histogram(labels: Labels, histogram: Histogram) -> Iterator[Sample]:
    bounds = [*map(repr, TIMES_S), "+Inf"]
    for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
        yield "_bucket", (*labels, ("le", bound)), count
    yield "_sum", labels, histogram.sum_us / 1e6
    yield "_count", labels, histogram.count


def _by_origin(reading: Reading) -> Iterator[tuple[Labels, OriginTold]]:
    for name, told in sorted(reading.origins.items()):
        yield (("origin", name),), told


def _waits(reading: Reading) -> Iterator[Sample]:
    for labels, told in _by_origin(reading):
        yield from _histogram(labels, told.wait)


def _origin_errors(reading: Reading) -> Iterator[Sample]:
    for labels, told in _by_origin(reading):
        yield "", labels, told.errors


def _of_origins(index: int) -> Callable[[Reading], Iterable[Sample]]:
    return lambda reading: [
        ("", labels, told.points[index]) for labels, told in _by_origin(reading)
    ]


def _by_arm(reading: Reading) -> Iterator[tuple[Labels, ArmTold]]:
    for (experiment, arm), told in sorted(reading.arms.items()):
        yield (("experiment", experiment), ("arm", arm)), told


def _arm_requests(reading: Reading) -> Iterator[Sample]:
    for labels, told in _by_arm(reading):
        for status, count in zip(CLASSES, told.statuses, strict=True):
            if count:
                yield "", (*labels, ("status", status)), count


def _of_arms(number: Callable[[ArmTold], int]) -> Callable[[Reading], Iterable[Sample]]:
    return lambda reading: [("", labels, number(told)) for labels, told in _by_arm(reading)]


def _arm_durations(reading: Reading) -> Iterator[Sample]:
    for labels, told in _by_arm(reading):
        yield from _histogram(labels, told.duration)


def _of_points(family: Family) -> Callable[[Reading], Iterable[Sample]]:
    places = [
        (index, tuple(zip(family.labels, point.values, strict=True)))
        for index, point in enumerate(POINTS)
        if point.family is family
    ]
    return lambda reading: [("", labels, reading.points[index]) for index, labels in places]


_FAMILIES: Final[tuple[tuple[Family, Callable[[Reading], Iterable[Sample]]], ...]] = (
    (REQUESTS, _requests),
    (ERRORS, _errors),
    (SENT, _sent),
    (DURATION, _durations),
    (FIRST_BYTE, _first_bytes),
    *((family, _of_points(family)) for family in dict.fromkeys(p.family for p in POINTS)),
    (ORIGIN_WAIT, _waits),
    (ORIGIN_ERRORS, _origin_errors),
    *((point.family, _of_origins(index)) for index, point in enumerate(ORIGIN_POINTS)),
    (ARM_REQUESTS, _arm_requests),
    (ARM_VISITORS, _of_arms(lambda told: told.visitors)),
    (ARM_LOOKED_UP, _of_arms(lambda told: told.looked_up)),
    (ARM_HITS, _of_arms(lambda told: told.hits)),
    (ARM_DURATION, _arm_durations),
    (STARTS, lambda reading: [("", (), reading.starts)]),
    (STARTED, lambda reading: [("", (), reading.started_s)]),
)
FAMILIES: Final = (BUILD, *(family for family, _ in _FAMILIES))
