"""Rollout evidence adds up every guardrail's evidence of harm, block by block, until it reaches
the rollback level (statistics.md §2).

Guardrails share alpha as a weighted mean of e-values. Keys keep their arm from day to day, so
periods are dependent and each period has separate evidence. The evidence of the first period
continues over all days: keys that were never seen before are independent of the past on every
day (statistics.md §2.12). The module also computes the certificate's evidence.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Final, NamedTuple

from harness.gate.arrays import Floats, np
from harness.gate.online.evidence_paths import (
    TIMES,
    combined_path,
    distance_to_trip,
    error_tally,
    guardrail_path,
    guardrail_weights,
    skip_warm_up,
)
from harness.gate.online.fisher import (
    Certificate,
    add_block,
    log_certificate,
)
from harness.gate.online.guardrail_report import (
    GuardrailEvidence,
    guardrail_totals,
)
from harness.gate.online.guardrails import NO_SPLIT, ArmSplit, Guardrail
from harness.gate.online.late_outcomes import (
    enter_lost_windows,
    find_windows,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.one_key import (
    CALLER_DECIDED,
    least_path,
    saving_keys,
    without_key,
)
from harness.gate.online.segment_harm import find_segment
from harness.gate.policy import CanaryPolicy

# The stream of never-seen keys has this number instead of a period.
CARRIED: Final = 0
# The share of alpha for that stream; the periods after the first divide the rest.
CARRIED_SHARE: Final = 0.75


@dataclass(frozen=True, slots=True)
class CanaryEvidence:
    """Holds the evidence of a rollout up to the last block, or to the block that tripped."""

    blocks: int  # number of blocks used
    log_e: float
    block: int | None  # index of the block that tripped; None if none did
    period: int  # of the last block
    limit: float  # log e that trips
    guardrails: tuple[GuardrailEvidence, ...]  # errors first
    tripped: (
        Guardrail | None
    )  # if it tripped, the guardrail with the largest part of the evidence
    exposures: int  # canary exposures
    # Canary exposures with a known outcome by weight in bps, without blocks in which every such
    # exposure failed, because those blocks contain no information about the canary.
    exposures_by_weight: Mapping[int, int]
    units: int
    failures: int
    canary_failures: int
    missing: int
    distance_to_trip: float
    # Whether the canary would have tripped if missing outcomes counted against it.
    rests_on_missing: bool
    # Whether times of the warm-up would have tripped it, and too few later times are known.
    slow_in_warm_up: bool
    # log_certificate: mean of the two e-values below; certifies the step at certificate_limit.
    log_certificate: float
    certificate_limit: float
    log_odds_e: float
    log_rate_e: float
    log_e_max: float
    # Whether the evidence comes from never-seen keys over all periods, not from one period.
    carried: bool
    # outcomes: the exposures by `ExposureOutcome.key`, and assigned requests that became no
    # exposure. uncounted: other requests that became no exposure, by reason. Both arms, canary.
    outcomes: Mapping[str, ArmSplit]
    served: Mapping[str, ArmSplit]  # the exposures by the model that the answer names
    uncounted: Mapping[str, ArmSplit]
    assigned: ArmSplit  # the sum of `outcomes`, if all blocks record outcomes
    # Canary callers whose windows are still open, by weight in bps.
    open_windows: Mapping[int, int]
    lost_windows: int  # windows that never arrived, both arms

    @property
    def control_units(self) -> int:
        return self.units - self.exposures

    @property
    def control_failures(self) -> int:
        return self.failures - self.canary_failures


def collect_evidence(
    blocks: Sequence[ObservationBlock], policy: CanaryPolicy
) -> CanaryEvidence:
    """Collects all evidence of one rollout over its steps, blocks in the order of number.

    Stops at the block that trips, because a rollback is final. Missing outcomes count for the
    canary in the evidence of harm, and against it in the certificate (statistics.md §2.1).
    """
    ordered = _prepare_blocks(blocks, policy)
    streams = _build_streams(ordered, policy)
    trips_with_missing = any(block.has_missing for block in ordered) and any(
        stream.tripped is not None for stream in _build_streams(ordered, policy, against=True)
    )
    tripped = min((s.tripped for s in streams if s.tripped is not None), default=None)
    used_blocks = ordered if tripped is None else ordered[: tripped + 1]
    current = [
        stream.until(len(used_blocks))
        for stream in streams
        if stream.number in (CARRIED, _period(used_blocks))
    ]
    nearest = max(current, key=lambda stream: stream.excess)
    guardrails = _collect_guardrails(nearest, used_blocks, policy)
    certificates = [_compute_certificate(stream, policy) for stream in current]
    certificate = max(certificates, key=lambda certified: certified.log_e - certified.limit)
    tripped_guardrail = (
        None if tripped is None else max(guardrails, key=_share_of_evidence).guardrail
    )
    if tripped_guardrail is Guardrail.ERRORS:
        guardrails = (
            replace(guardrails[0], segment=find_segment(used_blocks)),
            *guardrails[1:],
        )
    return CanaryEvidence(
        blocks=len(used_blocks),
        log_e=_last(nearest.path),
        block=tripped,
        period=_period(used_blocks),
        limit=nearest.limit,
        guardrails=guardrails,
        tripped=tripped_guardrail,
        exposures=sum(block.canary_units for block in used_blocks),
        exposures_by_weight=_count_informative_exposures(used_blocks),
        units=sum(block.units for block in used_blocks),
        failures=sum(block.failures for block in used_blocks),
        canary_failures=sum(block.canary_failures for block in used_blocks),
        missing=sum(block.missing for block in used_blocks),
        rests_on_missing=trips_with_missing and tripped is None,
        slow_in_warm_up=tripped is None and _slow_in_warm_up(blocks, ordered, policy),
        distance_to_trip=distance_to_trip(_last(nearest.path), nearest.limit),
        log_certificate=certificate.log_e,
        certificate_limit=certificate.limit,
        log_odds_e=certificate.odds,
        log_rate_e=certificate.rate,
        log_e_max=_highest(nearest.path),
        carried=nearest.number == CARRIED,
        outcomes=sum_splits(block.assigned_outcomes for block in used_blocks),
        uncounted=sum_splits(block.uncounted_callers for block in used_blocks),
        served=sum_splits(block.served for block in used_blocks),
        assigned=ArmSplit(
            *map(sum, zip(*(block.assigned for block in used_blocks), strict=True))
        )
        if used_blocks
        else NO_SPLIT,
        open_windows=count_open_windows(used_blocks),
        lost_windows=sum(
            tally.missing.failures for block in used_blocks if (tally := find_windows(block))
        ),
    )


def _prepare_blocks(
    blocks: Sequence[ObservationBlock], policy: CanaryPolicy
) -> list[ObservationBlock]:
    """Returns the blocks in the order of number, without the warm-up's times and with the
    windows that are lost.
    """
    return enter_lost_windows(skip_warm_up(blocks, policy), policy)


def sum_splits(parts: Iterable[Mapping[str, ArmSplit]]) -> dict[str, ArmSplit]:
    """Adds up splits by key, in the order of the keys."""
    both = Counter[str]()
    canary = Counter[str]()
    for part in parts:
        for key, split in part.items():
            both[key] += split.failures
            canary[key] += split.canary
    return {key: ArmSplit(both[key], canary[key]) for key in sorted(both)}


def distance_path(
    blocks: Sequence[ObservationBlock], policy: CanaryPolicy
) -> tuple[float, ...]:
    """Computes `CanaryEvidence.distance_to_trip` after each block in order of number, up to the
    block that tripped.
    """
    ordered = _prepare_blocks(blocks, policy)
    streams = _build_streams(ordered, policy)
    number = len(ordered)
    tripped = min(
        (s.tripped for s in streams if s.tripped is not None),
        default=number - 1,
    )
    excess = np.full(number, -np.inf)
    distance = np.zeros(number)
    for stream in streams:
        places = np.array(stream.places, dtype=np.intp)
        path = stream.path
        if stream.number == CARRIED:
            # The evidence does not change after blocks without never-seen keys.
            after_each = np.concatenate([[0.0], path])
            path = after_each[np.searchsorted(places, np.arange(number), side="right")]
            places = np.arange(number)
        nearest = path - stream.limit > excess[places]
        excess[places[nearest]] = (path - stream.limit)[nearest]
        distance[places[nearest]] = np.clip(path / stream.limit, 0.0, 1.0)[nearest]
    return tuple(map(float, distance[: tripped + 1]))


@dataclass(frozen=True, slots=True)
class _Stream:
    """The evidence of one period of a rollout, or of never-seen keys over all periods."""

    number: int  # of the period, or CARRIED
    cost: float  # how much the stream's part of alpha raises the required log e
    limit: float
    places: tuple[int, ...]  # indices of the stream's blocks among all blocks
    blocks: tuple[ObservationBlock, ...]
    paths: Mapping[Guardrail, Floats]  # paths, path: log e of each guardrail, and combined
    path: Floats

    @classmethod
    def from_blocks(
        cls,
        number: int,
        placed: Iterable[tuple[int, ObservationBlock]],
        policy: CanaryPolicy,
        cost: float,
        *,
        against: bool,
    ) -> "_Stream":
        own = list(placed)
        blocks = tuple(block for _, block in own)
        read = [block.set_missing(against=against) for block in blocks]
        paths = {
            guardrail: guardrail_path(read, guardrail, policy) for guardrail in policy.tolerated
        }
        limit = math.log(1.0 / policy.alpha) + cost
        places = tuple(place for place, _ in own)
        path = combined_path(paths)
        if (path >= limit).any() and any(block.by_key for block in read):
            paths = _without_one_key(read, paths, policy)
            path = combined_path(paths)
        return cls(number, cost, limit, places, blocks, paths, path)

    @property
    def tripped(self) -> int | None:
        """The index of the first block at the limit; None without such a block."""
        over = np.flatnonzero(self.path >= self.limit)
        return self.places[int(over[0])] if len(over) else None

    @property
    def excess(self) -> float:
        """Returns log e minus the limit, to find the stream that is nearest to its limit."""
        return _last(self.path) - self.limit

    def until(self, end: int) -> "_Stream":
        """Returns the stream before the block at index `end`."""
        n = sum(place < end for place in self.places)
        paths = {guardrail: path[:n] for guardrail, path in self.paths.items()}
        return replace(
            self,
            places=self.places[:n],
            blocks=self.blocks[:n],
            paths=paths,
            path=self.path[:n],
        )


def _without_one_key(
    blocks: Sequence[ObservationBlock],
    paths: Mapping[Guardrail, Floats],
    policy: CanaryPolicy,
) -> dict[Guardrail, Floats]:
    """Returns the paths with the least evidence without any one client key (`one_key`)."""
    return {
        guardrail: least_path(
            blocks,
            guardrail,
            path,
            partial(guardrail_path, guardrail=guardrail, policy=policy),
        )
        if guardrail in CALLER_DECIDED
        else path
        for guardrail, path in paths.items()
    }


def find_saving_key(blocks: Sequence[ObservationBlock], policy: CanaryPolicy) -> str:
    """Returns a client key without which the canary would be rolled back; empty without one.

    Args:
        blocks: of the whole rollout, in the order of number.
    """
    ordered = _prepare_blocks(blocks, policy)
    for guardrail in CALLER_DECIDED:
        if guardrail not in policy.tolerated:
            continue
        for key in saving_keys(ordered, guardrail):
            left = [without_key(block, key, guardrail) for block in ordered]
            if any(stream.tripped is not None for stream in _build_streams(left, policy)):
                return key
    return ""


def _build_streams(
    ordered: Sequence[ObservationBlock],
    policy: CanaryPolicy,
    *,
    against: bool = False,
) -> list[_Stream]:
    """Returns the stream of never-seen keys, which spans all periods, and a stream for each
    period after the first, in which each key can count again.
    """
    placed = list(enumerate(ordered))
    new = [(place, part) for place, block in placed if (part := block.of_new_keys)]
    cost = -math.log(CARRIED_SHARE)
    streams = [_Stream.from_blocks(CARRIED, new, policy, cost, against=against)]
    for number in sorted({block.period for block in ordered if block.period > 1}):
        own = [(at, block) for at, block in placed if block.period == number]
        cost = period_cost(number)
        streams.append(_Stream.from_blocks(number, own, policy, cost, against=against))
    return streams


def _slow_in_warm_up(
    blocks: Sequence[ObservationBlock],
    ordered: Sequence[ObservationBlock],
    policy: CanaryPolicy,
) -> bool:
    """Tells whether the newest callers' share would trip with its warm-up's times. Returns
    False once enough later times count.

    Args:
        ordered: the blocks without the warm-up's times.

    A block may contain ranks of many earlier blocks, so its exposures do not measure its ranks.
    """
    shares = (block.weight_bps for block in reversed(ordered) if not block.late_of)
    share = next(shares, 0)
    if not share or not policy.warm_up_s:
        return False
    ranks = [block.ranks for block in ordered if block.weight_bps == share]
    timed = max(sum(len(rank.get(time, ())) for rank in ranks) for time in TIMES)
    if timed >= max(1, policy.cold_exposures):
        return False
    numbered = sorted(blocks, key=lambda block: block.number)
    own = [block for block in numbered if block.weight_bps == share]
    return any(stream.tripped is not None for stream in _build_streams(own, policy))


def _period(blocks: Sequence[ObservationBlock]) -> int:
    """Returns the period of the newest callers."""
    return next((block.period for block in reversed(blocks) if not block.late_of), 1)


def period_cost(period: int) -> float:
    """Returns how much the period's part of alpha raises the required log e. The periods after
    the first divide their part of alpha by 1/(j(j + 1)), which sums to ½.
    """
    return math.log(period * (period + 1) / (2.0 * (1.0 - CARRIED_SHARE)))


def _collect_guardrails(
    nearest: _Stream,
    used_blocks: Sequence[ObservationBlock],
    policy: CanaryPolicy,
) -> tuple[GuardrailEvidence, ...]:
    weight = guardrail_weights(policy.tolerated)
    collected = []
    for guardrail, tolerated in policy.tolerated.items():
        path = nearest.paths[guardrail]
        sums = guardrail_totals(used_blocks, guardrail)
        collected.append(
            GuardrailEvidence(
                guardrail=guardrail,
                tolerated=tolerated,
                weight=weight[guardrail],
                log_e=_last(path),
                log_e_max=_highest(path),
                distance_to_trip=distance_to_trip(
                    _last(path), nearest.limit - math.log(weight[guardrail])
                ),
                **{item.name: getattr(sums, item.name) for item in fields(sums)},
            )
        )
    return tuple(collected)


class _Certified(NamedTuple):
    """The mean of the evidence `odds` and `rate`, and the limit that certifies."""

    log_e: float
    odds: float
    rate: float
    limit: float


def _compute_certificate(stream: _Stream, policy: CanaryPolicy) -> _Certified:
    certificate = Certificate()
    for block in (block.set_missing(against=True) for block in stream.blocks):
        known = error_tally(block)
        certificate = add_block(
            certificate,
            (
                known.units,
                known.canary,
                known.failures,
                known.canary_failures,
            ),
            policy.rho_ni,
        )
    total, odds, rate = log_certificate(certificate, policy.p0)
    return _Certified(total, odds, rate, math.log(policy.certificate) + stream.cost)


def _share_of_evidence(evidence: GuardrailEvidence) -> float:
    return math.log(evidence.weight) + evidence.log_e


def _last(path: Floats) -> float:
    return float(path[-1]) if len(path) else 0.0


def _highest(path: Floats) -> float:
    return max(0.0, float(path.max())) if len(path) else 0.0


def count_open_windows(blocks: Iterable[ObservationBlock]) -> dict[int, int]:
    """Counts the canary's callers whose windows are neither known nor lost, by weight.

    Args:
        blocks: as `enter_lost_windows` returns them.
    """
    open_windows: Counter[int] = Counter()
    for block in blocks:
        if block.windows_known_s:
            open_windows[block.weight_bps] += block.canary_units
        if block.late_of and find_windows(block) is not None:
            open_windows[block.weight_bps] -= block.counted.canary
    return {weight_bps: number for weight_bps, number in open_windows.items() if number > 0}


def _count_informative_exposures(blocks: Iterable[ObservationBlock]) -> dict[int, int]:
    exposures: dict[int, int] = {}
    for block in blocks:
        known = error_tally(block)
        if known.failures < known.units:
            seen_before = exposures.get(block.weight_bps, 0)
            exposures[block.weight_bps] = seen_before + known.canary
    return exposures
