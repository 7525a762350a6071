"""Finds the end that one source states about a model, under its own or a related name. Pure.

An alias such as `gpt-5-mini` ends with what it serves, and sources often date only the
snapshots. The end of a name is therefore the earliest of these: its own; the end of the names
that its answers report; the end of its snapshots, such as `gpt-5-mini-2025-08-07`; and for a
fine-tune, the end of its base.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from harness.providers.models.model_ends import NO_DATES, EndDates

# What vendors append to an alias: `-2025-08-07`, `-20250929`, `@20250929`, `-0613`, `-2512` and
# Google's `-001`, with Bedrock's `-v1:0` after it.
_SNAPSHOT: Final = re.compile(
    r"(?P<alias>.+?)[-@](?:20\d\d-\d\d-\d\d|20\d{6}|\d{4}|\d{3})(?:-v\d+(?::\d+)?)?", re.ASCII
)
_LATEST: Final = "-latest"
# OpenAI's `ft:BASE:ORGANIZATION::ID` (and the catalogue's `ft:BASE`), and Azure's `BASE.ft-ID`.
_FINE_TUNE: Final = re.compile(r"ft:(?P<base>[^:]+)(?::.*)?|(?P<azure>.+?)\.ft-.+", re.ASCII)


class Relation(StrEnum):
    """How a name relates to the model that a person asked for."""

    ITSELF = "itself"
    ANSWERED = "answered"  # the model's answers report this name
    SNAPSHOT = "snapshot"  # the model is an alias, and this its snapshot
    BASE = "base"  # the model is a fine-tune, and this its base


@dataclass(frozen=True, slots=True)
class RelatedDates:
    """The dates that a source states about a name that a model ends with."""

    dates: EndDates
    model: str
    relation: Relation

    @property
    def text(self) -> str:
        """Completes the name of a source: `, for its snapshot gpt-5-mini-2025-08-07`."""
        return {
            Relation.ITSELF: "",
            Relation.ANSWERED: f", for {self.model}, which its answers name",
            Relation.SNAPSHOT: f", for its snapshot {self.model}",
            Relation.BASE: f", for its base {self.model.removeprefix('ft:')}",
        }[self.relation]


class RelatedEnds:
    """The dates that one source states, by the model's name at one provider or kind."""

    def __init__(self, dates: Mapping[str, EndDates]) -> None:
        self._dates = dates
        self._snapshots: dict[str, list[str]] = {}
        for model in sorted(dates):
            if found := _SNAPSHOT.fullmatch(model):
                self._snapshots.setdefault(found["alias"], []).append(model)

    def find(
        self, model: str, today: date, answered: Collection[str] = ()
    ) -> RelatedDates | None:
        """Finds the dates that govern a model: those with the earliest end, or else those that
        deprecate it. None without a statement.

        Args:
            answered: the names that the model's answers report, if known.
        """
        found = [
            RelatedDates(dates, name, relation)
            for name, relation in self._list_related(model, today, answered)
            if not (dates := self._dates.get(name, NO_DATES)).is_empty
        ]
        return min(found, key=lambda one: one.dates.ends_on or date.max, default=None)

    def list_names(
        self, model: str, today: date, answered: Collection[str] = ()
    ) -> Sequence[str]:
        """Lists the source's names that a model ends with. Arguments as in `find`."""
        related = self._list_related(model, today, answered)
        return [name for name, _ in related if name in self._dates]

    def _list_related(
        self, model: str, today: date, answered: Collection[str]
    ) -> Iterator[tuple[str, Relation]]:
        yield model, Relation.ITSELF
        yield from self._list_served(model, today, answered)
        for name in answered:
            if name != model:
                yield name, Relation.ANSWERED
                yield from self._list_served(name, today, ())

    def _list_served(
        self, name: str, today: date, answered: Collection[str]
    ) -> Iterator[tuple[str, Relation]]:
        """Lists the snapshots that an alias may serve, and the names of a fine-tune's base."""
        for snapshot in self._list_served_snapshots(name, today, answered):
            yield snapshot, Relation.SNAPSHOT
        if base := find_base(name):
            yield f"ft:{base}", Relation.BASE
            yield base, Relation.BASE
            for snapshot in self._list_served_snapshots(base, today, ()):
                yield snapshot, Relation.BASE

    def _list_served_snapshots(
        self, alias: str, today: date, answered: Collection[str]
    ) -> Collection[str]:
        """Lists the snapshots that an alias may serve.

        A vendor moves an alias before its snapshot ends. So an ended snapshot counts only if
        all have ended and no answer names another one: then the latest end counts.
        """
        snapshots = self._snapshots.get(alias.removesuffix(_LATEST), [])
        if alias.endswith(_LATEST):
            return snapshots[-1:]
        ends = {name: self._dates[name].ends_on for name in snapshots}
        live = [name for name, end in ends.items() if end is None or end > today]
        if live or answered:
            return live
        return sorted(snapshots, key=lambda name: ends[name] or today)[-1:]


def find_base(model: str) -> str:
    """Returns the name of a fine-tune's base; empty for another model."""
    found = _FINE_TUNE.fullmatch(model)
    return (found["base"] or found["azure"]) if found else ""
