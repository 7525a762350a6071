"""Served-model pins compare which models a provider says that it served, at different times
(F6). Pure.

An alias such as `gpt-4o` is a name; the answers' `model` says what stood behind it, and their
`system_fingerprint`, where there is one, how it was set up. Targets are hashes of what *we*
send; this is the other half, which changes without us.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import combinations
from typing import Final, Self

# Of one target: a provider that invents a name for every answer must not fill the database.
MAX_SIGHTINGS: Final = 16


class ServedPin(StrEnum):
    """What must stay as it was for a measurement to hold.

    BUILD is for providers whose fingerprint is one model's; OpenAI's changes with the machine.
    """

    MODEL = "model"  # the answers' `model`
    BUILD = "build"  # that and the fingerprint
    NONE = "none"  # recorded and shown only: for a name that stands for several models


@dataclass(frozen=True, slots=True, order=True)
class ServedModel:
    """The model that a provider named; build is empty where it named no fingerprint."""

    model: str
    build: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        return self.model, self.build

    @property
    def label(self) -> str:
        return f"{self.model}@{self.build}" if self.build else self.model

    def unlike(self, other: Self, pin: ServedPin) -> bool:
        """Tells whether two differ in what the pin compares; an unknown one never does."""
        if pin is ServedPin.NONE or not (self.model and other.model):
            return False
        builds = pin is ServedPin.BUILD and self.build and other.build
        return self.model != other.model or bool(builds and self.build != other.build)


@dataclass(frozen=True, slots=True)
class ServedModels:
    """Names the models that answered one suite's items, and those that judged the answers."""

    incumbent: tuple[ServedModel, ...] = ()
    candidate: tuple[ServedModel, ...] = ()
    judge: tuple[ServedModel, ...] = ()  # of the models that scored them

    def as_json(self) -> dict[str, list[list[str]]]:
        return {
            "incumbent": [list(model.pair) for model in self.incumbent],
            "candidate": [list(model.pair) for model in self.candidate],
            "judge": [list(model.pair) for model in self.judge],
        }


def named_models(served: Iterable[ServedModel]) -> tuple[ServedModel, ...]:
    return tuple(sorted({model for model in served if model.model}))


def is_mixed(served: Iterable[ServedModel], pin: ServedPin) -> bool:
    """Tells whether two models gave these answers: that is no one measurement."""
    return any(one.unlike(other, pin) for one, other in combinations(named_models(served), 2))


@dataclass(frozen=True, slots=True)
class Sighting:
    """Records a model that a target's provider served: first and last time, whoever asked."""

    target: str
    served: ServedModel
    first_at: datetime
    last_at: datetime


def find_replacement(
    measured: Collection[ServedModel],
    sightings: Sequence[Sighting],
    pin: ServedPin,
    *,
    decided_at: datetime | None = None,
) -> Sighting | None:
    """The newest sighting of a model that is none of those measured, if it counts.

    It counts when it is newer than every sighting of a measured one, or came after decided_at.
    None as well when nothing is known of what was measured.
    """
    if not any(model.model for model in measured):
        return None
    ours = [sighting for sighting in sightings if _measured(sighting, measured, pin)]
    others = [sighting for sighting in sightings if not _measured(sighting, measured, pin)]
    newest = max(others, key=lambda sighting: sighting.last_at, default=None)
    if newest is None:
        return None
    later = all(newest.last_at > sighting.last_at for sighting in ours)
    since = decided_at is not None and newest.last_at > decided_at
    return newest if later or since else None


def _measured(sighting: Sighting, measured: Collection[ServedModel], pin: ServedPin) -> bool:
    return any(not sighting.served.unlike(model, pin) for model in measured)


def newest_sightings(sightings: Iterable[Sighting]) -> Sequence[Sighting]:
    newest = sorted(
        sightings, key=lambda sighting: (sighting.last_at, sighting.served), reverse=True
    )
    return newest[:MAX_SIGHTINGS]
