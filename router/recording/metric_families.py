"""Metrics of several processes as plain data, and how they become one text.

Counters and histograms are summed, those of ended workers included, so that they never go
back. Gauges stay apart, each with the label `worker`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

WORKER = "worker"


class Sample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


class Family(NamedTuple):
    """kind: counter, gauge or histogram, as prometheus_client calls them."""

    name: str
    kind: str
    says: str
    samples: Sequence[Sample]


def from_plain(data: Iterable[Sequence[object]]) -> list[Family]:
    """What a worker sent as JSON. Raises TypeError or ValueError for anything else."""
    families = []
    for name, kind, says, samples in data:
        if not isinstance(samples, list):
            raise TypeError("a family's samples are no list")
        told = [Sample(str(n), dict(labels), float(value)) for n, labels, value in samples]
        families.append(Family(str(name), str(kind), str(says), told))
    return families


def counter(name: str, says: str, value: float) -> Family:
    """name: without `_total`."""
    return Family(name, "counter", says, [Sample(f"{name}_total", {}, value)])


def gauge(name: str, says: str, value: float) -> Family:
    return Family(name, "gauge", says, [Sample(name, {}, value)])


_Labels = tuple[tuple[str, str], ...]


class Sums:
    """Families added up, in the order in which they first came."""

    def __init__(self) -> None:
        self._about: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[tuple[str, _Labels], float]] = {}

    def add(self, families: Iterable[Family], *, worker: str | None = None) -> None:
        """worker: whose gauges these are; None for the parent's own, which need no label."""
        for family in families:
            self._about.setdefault(family.name, (family.kind, family.says))
            values = self._values.setdefault(family.name, {})
            apart = family.kind == "gauge" and worker is not None
            for name, labels, value in family.samples:
                mark = {WORKER: worker} if apart and worker is not None else {}
                key = (name, tuple({**labels, **mark}.items()))
                values[key] = value if family.kind == "gauge" else values.get(key, 0.0) + value

    def add_counts(self, families: Iterable[Family]) -> None:
        """Of a worker that ended: its states ended with it."""
        self.add(each for each in families if each.kind != "gauge")

    def families(self) -> list[Family]:
        return [
            Family(
                name,
                kind,
                says,
                [
                    Sample(sample, dict(labels), value)
                    for (sample, labels), value in self._values[name].items()
                ],
            )
            for name, (kind, says) in self._about.items()
        ]
