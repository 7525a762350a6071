"""Rollout evidence adds up every guardrail's harm, block by block, to where it trips
(statistics.md §2).

Guardrails share alpha as a weighted mean of e-values. Keys keep their arm from one day to the
next, so that periods are dependent: each has evidence of its own, the j-th at alpha/(j(j+1)).
The certificate's evidence of the current period is there as well.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.domain.canary.guardrails import Guardrail
from harness.domain.canary.observation import ObservationBlock
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.logspace import Floats
from harness.gate.online.certificate import Certificate, add_block, log_certificate
from harness.gate.online.evidence_paths import combined_path, guardrail_path, guardrail_weights
from harness.gate.online.guardrail_report import GuardrailEvidence, guardrail_totals
from harness.gate.online.warm_up import skip_warm_up


@dataclass(frozen=True, slots=True)
class CanaryEvidence:
    """Holds the evidence of a rollout up to the last block, or to the one that tripped."""

    path: tuple[float, ...]  # log e after each block read, of its period
    block: int | None  # index of the block that tripped, None if none did
    period: int  # of the last one, limit: the log e at which it trips
    limit: float
    guardrails: tuple[GuardrailEvidence, ...]  # errors first
    tripped: Guardrail | None  # the one that weighs most in the evidence that did
    exposures: int  # canary units
    # The same, by weight in bps, only in blocks in which not every unit failed (those say
    # nothing about the canary).
    exposures_by_weight: Mapping[int, int]
    units: int
    failures: int
    canary_failures: int
    missing: int
    distance_to_trip: float
    # Running, of the current period, which certifies at certificate_limit; log_odds_e and
    # log_rate_e are the two e-values it is the mean of.
    log_certificate: float
    certificate_limit: float
    log_odds_e: float
    log_rate_e: float
    log_e_max: float

    @property
    def log_e(self) -> float:
        return self.path[-1] if self.path else 0.0

    @property
    def control_units(self) -> int:
        return self.units - self.exposures

    @property
    def control_failures(self) -> int:
        return self.failures - self.canary_failures


def collect_evidence(
    blocks: Sequence[ObservationBlock], policy: CanaryPolicy
) -> CanaryEvidence:
    """Collects all evidence of one rollout, accumulated over its steps, blocks in the order of
    number.

    Stops at the block that trips: a rollback is final.
    """
    ordered = skip_warm_up(sorted(blocks, key=lambda block: block.number), policy.warm_up_units)
    periods = [
        _Period.from_blocks(number, ordered, policy) for number in _periods(ordered, policy)
    ]
    tripped = min((p.tripped for p in periods if p.tripped is not None), default=None)
    read = ordered if tripped is None else ordered[: tripped + 1]
    now = next(p for p in periods if p.number == _number(read[-1:], policy)).until(len(read))
    path = np.zeros(len(ordered))
    for period in periods:
        path[list(period.places)] = period.path
    guardrails = _guardrails(now, read, policy)
    total, odds, rate = _certificate([ordered[place] for place in now.places], policy)
    return CanaryEvidence(
        path=tuple(map(float, path[: len(read)])),
        block=tripped,
        period=now.number,
        limit=now.limit,
        guardrails=guardrails,
        tripped=None if tripped is None else max(guardrails, key=_share_of_evidence).guardrail,
        exposures=sum(block.canary_units for block in read),
        exposures_by_weight=_telling(read),
        units=sum(block.units for block in read),
        failures=sum(block.failures for block in read),
        canary_failures=sum(block.canary_failures for block in read),
        missing=sum(block.missing for block in read),
        distance_to_trip=_distance(_last(now.path), now.limit),
        log_certificate=total,
        certificate_limit=math.log(policy.certificate) + _cost(now.number, policy),
        log_odds_e=odds,
        log_rate_e=rate,
        log_e_max=_highest(now.path),
    )


@dataclass(frozen=True, slots=True)
class _Period:
    """The evidence of one period of a rollout."""

    number: int
    limit: float
    places: tuple[int, ...]  # of its blocks among all
    paths: Mapping[Guardrail, Floats]  # paths, path: log e of each guardrail, and of all
    path: Floats

    @classmethod
    def from_blocks(
        cls, number: int, ordered: Sequence[ObservationBlock], policy: CanaryPolicy
    ) -> "_Period":
        places = tuple(
            place for place, block in enumerate(ordered) if _number([block], policy) == number
        )
        own = [ordered[place] for place in places]
        paths = {
            guardrail: guardrail_path(own, guardrail, policy) for guardrail in policy.tolerated
        }
        limit = math.log(1.0 / policy.alpha) + _cost(number, policy)
        return cls(number, limit, places, paths, combined_path(paths, policy.evidence))

    @property
    def tripped(self) -> int | None:
        """The place of the first block that did."""
        over = np.flatnonzero(self.path >= self.limit)
        return self.places[int(over[0])] if len(over) else None

    def until(self, end: int) -> "_Period":
        """Returns the period as it was before the block at place `end` came."""
        n = sum(place < end for place in self.places)
        paths = {guardrail: path[:n] for guardrail, path in self.paths.items()}
        return replace(self, places=self.places[:n], paths=paths, path=self.path[:n])


def _number(blocks: Sequence[ObservationBlock], policy: CanaryPolicy) -> int:
    """The period of the last block. Requests as units are never counted twice: one period."""
    return blocks[-1].period if blocks and policy.unit.counts_keys else 1


def _periods(blocks: Sequence[ObservationBlock], policy: CanaryPolicy) -> list[int]:
    return sorted({_number([block], policy) for block in blocks} or {1})


def _cost(period: int, policy: CanaryPolicy) -> float:
    """What the period's part of alpha adds to the log e that is needed."""
    return math.log(period * (period + 1)) if policy.unit.counts_keys else 0.0


def _guardrails(
    now: _Period, read: Sequence[ObservationBlock], policy: CanaryPolicy
) -> tuple[GuardrailEvidence, ...]:
    weight = guardrail_weights(policy.tolerated, policy.evidence)
    found = []
    for guardrail, tolerated in policy.tolerated.items():
        path, sums = now.paths[guardrail], guardrail_totals(read, guardrail)
        found.append(
            GuardrailEvidence(
                guardrail=guardrail,
                tolerated=tolerated,
                weight=weight[guardrail],
                log_e=_last(path),
                log_e_max=_highest(path),
                distance_to_trip=_distance(
                    _last(path), now.limit - math.log(weight[guardrail])
                ),
                canary=sums.canary,
                control=sums.control,
                canary_failures=sums.canary_failures,
                control_failures=sums.control_failures,
                canary_level=sums.canary_level,
                control_level=sums.control_level,
                canary_classes=sums.canary_classes,
                control_classes=sums.control_classes,
                judging=sums.judging,
                opinions=sums.opinions,
            )
        )
    return tuple(found)


def _certificate(
    blocks: Sequence[ObservationBlock], policy: CanaryPolicy
) -> tuple[float, float, float]:
    certificate = Certificate()
    for block in blocks:
        certificate = add_block(
            certificate,
            (block.units, block.canary_units, block.failures, block.canary_failures),
            policy.rho_ni,
        )
    return log_certificate(certificate, policy.p0)


def _share_of_evidence(evidence: GuardrailEvidence) -> float:
    return math.log(evidence.weight) + evidence.log_e


def _distance(log_e: float, limit: float) -> float:
    return min(1.0, max(0.0, log_e / limit))


def _last(path: Floats) -> float:
    return float(path[-1]) if len(path) else 0.0


def _highest(path: Floats) -> float:
    return max(0.0, float(path.max())) if len(path) else 0.0


def _telling(blocks: Iterable[ObservationBlock]) -> dict[int, int]:
    exposures: dict[int, int] = {}
    for block in blocks:
        if block.failures < block.units:
            seen_before = exposures.get(block.weight_bps, 0)
            exposures[block.weight_bps] = seen_before + block.canary_units
    return exposures
