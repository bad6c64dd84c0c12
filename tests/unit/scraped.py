"""What a scraper makes of a node's text: an independent reader of Prometheus' format 0.0.4."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')
ESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Labels = frozenset[tuple[str, str]]


@dataclass
class Scraped:
    """The samples of a text, by name and labels, and what its comments say of the names."""

    kinds: dict[str, str] = field(default_factory=dict)
    helps: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)  # of families

    def one(self, name: str, **labels: str) -> float:
        """The sample with these labels and no others."""
        return self.samples[name, frozenset(labels.items())]

    def all(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels, whatever else they have."""
        return sum(
            value
            for (each, has), value in self.samples.items()
            if each == name and labels.items() <= has
        )


def scraped(text: bytes) -> Scraped:
    """Reads a whole text; asserts that it keeps to the format."""
    read = Scraped()
    lines = text.decode("utf-8").split("\n")
    assert lines.pop() == ""  # the last line ends, too
    for line in lines:
        if line.startswith("# HELP "):
            _, _, name, says = line.split(" ", 3)
            assert name not in read.helps
            read.helps[name] = says
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in {"counter", "gauge", "histogram"}
            assert name not in read.kinds
            read.kinds[name] = kind
            read.order.append(name)
        else:
            _sample(read, line)
    return read


def _sample(read: Scraped, line: str) -> None:
    found = NAME.match(line)
    assert found, line
    name, at = found[0], found.end()
    labels: dict[str, str] = {}
    if line[at] == "{":
        at += 1
        while line[at] != "}":
            label = LABEL.match(line, at)
            assert label, line
            assert label[1] not in labels
            labels[label[1]] = re.sub(r'\\[\\"n]', lambda m: ESCAPED[m[0]], label[2])
            at = label.end() + (line[label.end()] == ",")
        at += 1
    assert line[at] == " "
    _in_its_family(read, name)
    key = name, frozenset(labels.items())
    assert key not in read.samples, line
    read.samples[key] = float(line[at + 1 :])


def _in_its_family(read: Scraped, name: str) -> None:
    """Samples stand behind their family's comments and before the next family."""
    family = read.order[-1]
    if read.kinds[family] == "histogram":
        assert name in {f"{family}_bucket", f"{family}_sum", f"{family}_count"}
    else:
        assert name == family
