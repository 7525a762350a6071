"""Served-model pins compare the models that a provider named at different times. Pure.

An alias such as `gpt-4o` is only a name. The answers' `model` names the actual model, and their
`system_fingerprint`, if present, its setup. A target hashes only our request; the provider can
change the served model without us.

This module never asks a provider: routers and eval workers record sightings.
`harness.evals.proof_validity` and `harness.evals.drift_monitor` act on a replacement.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import combinations
from typing import Final, Self

# The limit for each target. Without it, a provider with a new name in every answer would fill
# the database.
MAX_SIGHTINGS: Final = 16


class ServedPin(StrEnum):
    """The part of a provider's answer that must not change during a measurement.

    BUILD is for providers whose fingerprint identifies one model; OpenAI's
    fingerprint identifies a machine.
    """

    MODEL = "model"  # the answers' `model`
    BUILD = "build"  # the answers' `model` and the fingerprint
    NONE = "none"  # only recorded and shown, for a name that refers to several models


@dataclass(frozen=True, slots=True, order=True)
class ServedModel:
    """The model that a provider named; build is empty without a fingerprint."""

    model: str
    build: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        """Name and build as plain texts, for JSON and sorting."""
        return self.model, self.build

    @property
    def label(self) -> str:
        return f"{self.model}@{self.build}" if self.build else self.model

    def unlike(self, other: Self, pin: ServedPin) -> bool:
        """Tells whether the pinned parts differ; an unknown part never differs."""
        if pin is ServedPin.NONE or not (self.model and other.model):
            return False
        builds = pin is ServedPin.BUILD and self.build and other.build
        return self.model != other.model or bool(builds and self.build != other.build)


@dataclass(frozen=True, slots=True)
class ServedModels:
    """Names the models that answered one suite's items, and the judges of the answers."""

    incumbent: tuple[ServedModel, ...] = ()
    candidate: tuple[ServedModel, ...] = ()
    judge: tuple[ServedModel, ...] = ()

    def as_json(self) -> dict[str, list[list[str]]]:
        return {
            "incumbent": [list(model.pair) for model in self.incumbent],
            "candidate": [list(model.pair) for model in self.candidate],
            "judge": [list(model.pair) for model in self.judge],
        }


def named_models(served: Iterable[ServedModel]) -> tuple[ServedModel, ...]:
    """Lists the models that have a name, each once and sorted."""
    return tuple(sorted({model for model in served if model.model}))


def is_mixed(served: Iterable[ServedModel], pin: ServedPin) -> bool:
    """Tells whether two or more models gave these answers, so that they are not one
    measurement.
    """
    return any(one.unlike(other, pin) for one, other in combinations(named_models(served), 2))


@dataclass(frozen=True, slots=True)
class Sighting:
    """Records a model that a target's provider served: first and last time, in any request."""

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
    """Returns the newest sighting of an unmeasured model, if it is newer than every sighting of
    a measured model or than decided_at. Returns None if no measured model is known.
    """
    if not any(model.model for model in measured):
        return None
    measured_sightings = [
        sighting for sighting in sightings if _is_measured(sighting, measured, pin)
    ]
    other_sightings = [
        sighting for sighting in sightings if not _is_measured(sighting, measured, pin)
    ]
    newest = max(other_sightings, key=lambda sighting: sighting.last_at, default=None)
    if newest is None:
        return None
    is_newest = all(newest.last_at > sighting.last_at for sighting in measured_sightings)
    is_after_decision = decided_at is not None and newest.last_at > decided_at
    return newest if is_newest or is_after_decision else None


def _is_measured(
    sighting: Sighting,
    measured: Collection[ServedModel],
    pin: ServedPin,
) -> bool:
    return any(not sighting.served.unlike(model, pin) for model in measured)


def newest_sightings(sightings: Iterable[Sighting]) -> Sequence[Sighting]:
    """Keeps the MAX_SIGHTINGS newest sightings, the newest first."""
    newest = sorted(
        sightings,
        key=lambda sighting: (sighting.last_at, sighting.served),
        reverse=True,
    )
    return newest[:MAX_SIGHTINGS]
