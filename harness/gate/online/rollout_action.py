"""A rollout's decision is an action (`RolloutAction`: hold, advance, pause, promote, roll back)
with every figure behind it (`RolloutFigures`), as the audit log stores them.

`decide_action` derives it from the rollout's blocks alone; `harness.gate.online.rollout` has
the table of states. A rollout never advances without data: each step up needs scored exposures
of this step, its minimum time and its peak hours (`missing_duration`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from harness.frame.formatting import (
    add_seconds,
    format_bps,
    format_estimate,
    format_harm,
    format_quantity,
    format_span,
)
from harness.frame.plain_data import ShownAsJson, to_plain
from harness.gate.online.fisher import ALARM_LOG_E, worst_log_srm
from harness.gate.online.guardrail_report import GuardrailEvidence
from harness.gate.online.guardrails import NO_SPLIT, ArmSplit, Guardrail
from harness.gate.online.late_outcomes import NO_WAIT, WindowWait, await_windows
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import (
    ActionKind,
    Rollout,
    RolloutSignal,
    RolloutState,
)
from harness.gate.online.rollout_evidence import (
    CanaryEvidence,
    collect_evidence,
    sum_splits,
)
from harness.gate.online.segment_harm import SegmentHarm, find_segment
from harness.gate.online.step_holds import (
    counted_reason,
    left_out_differences,
    left_out_reason_text,
    not_sent_reason,
    saved_by_key_reason,
    unsupported_reason,
)
from harness.gate.online.uncounted import (
    UnsupportedShare,
    describe_uncountable,
    find_unsupported,
)
from harness.gate.online.worker_guard import GuardCount
from harness.gate.policy import CanaryStep, PeakHours

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RolloutFigures(ShownAsJson):
    """The figures behind a decision.

    Fields whose name begins with `log`, and `rollback_at`, are natural logarithms of e-values;
    `certificate` and its parts are e-values.
    """

    at: datetime = _NEVER  # time of the decision
    last_block: int = 0  # number of the newest block
    alpha: float = 0.0
    rho: float = 1.0
    rho_ni: float = 1.0
    p0: float = 0.0
    log_e_max: float = 0.0  # maximum evidence of harm in the current period
    rollback_at: float = 0.0  # log e at which the canary is rolled back
    period: int = 1
    tripped: Guardrail | None = None  # the guardrail that rolled it back
    guardrails: Mapping[Guardrail, GuardrailEvidence] = field(default_factory=dict)
    certificate: float = 0.0
    certificate_odds: float = 0.0
    certificate_rate: float = 0.0
    certificate_at: float = 0.0  # level that grants the certificate
    log_srm: float = 0.0  # evidence that callers are not split as planned
    blocks: int = 0
    canary_units: int = 0
    canary_failures: int = 0
    control_units: int = 0
    control_failures: int = 0
    missing: int = 0
    min_exposures: int = 0
    seconds_left: float = 0.0  # until the step's deadline
    # Whether the evidence comes from never-seen callers, over all periods.
    carried: bool = False
    unproven: str = ""  # why the stored scores no longer give the verdict
    local_abort: str = ""  # the alert of the router guard that stopped the canary
    guard: GuardCount | None = None  # what that guard counted; None for an alert without counts
    warnings: tuple[str, ...] = ()  # reasons against an advance by hand
    # See `CanaryEvidence`: requests by outcome, requests that were not counted, and all
    # assigned requests; both arms, canary.
    outcomes: Mapping[str, ArmSplit] = field(default_factory=dict)
    uncounted: Mapping[str, ArmSplit] = field(default_factory=dict)
    served: Mapping[str, ArmSplit] = field(default_factory=dict)
    assigned: ArmSplit = NO_SPLIT
    # How many callers with a known window the step still lacks, and the seconds until enough
    # windows should be known.
    windows_open: int = 0
    windows_left_s: float = 0.0

    @property
    def segment(self) -> SegmentHarm | None:
        """The segment of the traffic that the errors harm; None if no segment is clear."""
        errors = self.guardrails.get(Guardrail.ERRORS)
        return errors.segment if errors else None

    def with_segment(self, blocks: Sequence[ObservationBlock]) -> Self:
        """Adds the segment of the errors, for a rollout that was stopped by something other
        than its evidence.
        """
        errors = self.guardrails.get(Guardrail.ERRORS)
        if errors is None or errors.segment:
            return self
        named = replace(errors, segment=find_segment(blocks))
        return replace(self, guardrails={**self.guardrails, Guardrail.ERRORS: named})

    def as_json(self) -> dict[str, object]:
        """Writes the figures as the audit log keeps them.

        Omits `carried` and all fields after it unless they are set.
        """
        figures: dict[str, object] = {name: getattr(self, name) for name in _PLAIN}
        figures["at"] = self.at.isoformat()
        figures["tripped"] = self.tripped and self.tripped.value
        figures["guardrails"] = {
            guardrail.value: evidence.as_json()
            for guardrail, evidence in self.guardrails.items()
        }
        if self.carried:
            figures["carried"] = True
        if self.unproven:
            figures["evidence_mismatch"] = self.unproven
        if self.local_abort:
            figures["local_abort"] = self.local_abort
        if self.guard is not None:
            figures["guard"] = to_plain(self.guard)
        if self.warnings:
            figures["warnings"] = list(self.warnings)
        if self.outcomes:
            figures["outcomes"] = _arms_by_key(self.outcomes)
            figures["assigned"] = _arms(self.assigned)
        if self.uncounted:
            figures["uncounted"] = _arms_by_key(self.uncounted)
        if self.served:
            figures["served"] = _arms_by_key(self.served)
        if self.windows_open:
            figures["windows_open"] = self.windows_open
            figures["windows_left_s"] = self.windows_left_s
        return figures


def _arms(split: ArmSplit) -> dict[str, int]:
    return {"canary": split.canary, "control": split.failures - split.canary}


def _arms_by_key(splits: Mapping[str, ArmSplit]) -> dict[str, dict[str, int]]:
    return {key: _arms(split) for key, split in splits.items()}


_CONVERTED = {
    "at",
    "tripped",
    "guardrails",
    "carried",
    "unproven",
    "local_abort",
    "guard",
    "warnings",
    "outcomes",
    "uncounted",
    "served",
    "assigned",
    "windows_open",
    "windows_left_s",
}

_PLAIN = tuple(f.name for f in fields(RolloutFigures) if f.name not in _CONVERTED)


@dataclass(frozen=True)
class RolloutAction:
    """An action that the data ask for, and every figure behind it.

    `log_e` and `log_certificate` are natural logarithms. `distance_to_trip` is a share of the
    rollback level, from 0 to 1; `exposures` counts canary units of all steps.
    """

    kind: ActionKind
    signal: RolloutSignal | None  # the transition to take; None for no transition
    reason: str
    log_e: float
    distance_to_trip: float
    exposures: int
    step_exposures: int
    log_certificate: float
    block: int | None = None  # number of the block that tripped
    figures: RolloutFigures = field(default_factory=RolloutFigures)


DAY = timedelta(days=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def missing_duration(
    step: CanaryStep,
    peak: PeakHours,
    began: datetime,
    now: datetime,
) -> str:
    """Describes the step's minimum time that is still missing; empty if none is."""
    lasted_s = (now - began).total_seconds()
    if lasted_s < 0:
        # The clock was set back, or is behind the clock of the process that began the step.
        return f"By this machine's clock the step begins in {_hours(-lasted_s)}"
    missing_s = step.min_s - lasted_s
    if missing_s > 0:
        return f"The step lasts at least {_hours(step.min_s)}: {_hours(missing_s)} are left"
    missing_s = step.min_peak_s - peak_seconds(peak, began, now) if step.min_peak_s else 0.0
    if missing_s > 0:
        return (
            f"The step lasts at least {_hours(step.min_peak_s)} of peak traffic "
            f"({peak.start_h} to {peak.end_h} h UTC): {_hours(missing_s)} are left"
        )
    return ""


def peak_seconds(
    peak: PeakHours,
    began: datetime,
    now: datetime,
) -> float:
    """Returns the seconds of peak hours between two moments; 0 if the clock was set back."""
    lasted = _peak_until(peak, now) - _peak_until(peak, began)
    return max(timedelta(), lasted).total_seconds()


def peak_reached_at(
    peak: PeakHours,
    began: datetime,
    length_s: float,
) -> datetime:
    """Returns the first moment with `length_s` seconds of peak hours since `began`.

    length_s: more than 0.
    """
    length = _peak_length(peak)
    days, rest = divmod(_peak_until(peak, began) + timedelta(seconds=length_s), length)
    if not rest:  # the end of a day's peak, not the next day's start
        days = days - 1
        rest = length
    return add_seconds(_first_peak(peak), (days * DAY + rest).total_seconds())


def _peak_until(peak: PeakHours, at: datetime) -> timedelta:
    """Returns the length of all peak hours from 1970 to a moment."""
    days, rest = divmod(at - _first_peak(peak), DAY)
    length = _peak_length(peak)
    return days * length + min(rest, length)


def _first_peak(peak: PeakHours) -> datetime:
    return _EPOCH + timedelta(hours=peak.start_h)


def _peak_length(peak: PeakHours) -> timedelta:
    return timedelta(hours=(peak.end_h - peak.start_h) % 24 or 24)


def _hours(seconds: float) -> str:
    return format_span(60 * max(1, round(seconds / 60)))


_Choice = tuple[ActionKind, RolloutSignal | None, str]


@dataclass(frozen=True, slots=True)
class _View:
    """Everything that the choice of an action depends on, computed once."""

    rollout: Rollout
    evidence: CanaryEvidence
    step_exposures: int  # at this weight, without blocks in which every unit failed
    wanted: int
    log_srm: float
    late: bool
    left: timedelta
    blocks: Sequence[ObservationBlock]
    now: datetime
    last_block: int
    windows: WindowWait

    @property
    def unsupported(self) -> UnsupportedShare:
        found = self.evidence
        return find_unsupported(found.assigned, found.outcomes, found.uncounted)


def decide_action(
    rollout: Rollout,
    blocks: Sequence[ObservationBlock],
    now: datetime,
) -> RolloutAction:
    """Decides the action and signal from the data, with every figure behind them. Pure.

    blocks: all blocks of this rollout, of every step, because evidence accumulates.
    """
    blocks = sorted(blocks, key=lambda block: block.number)
    evidence = collect_evidence(blocks, rollout.policy)
    step = rollout.current
    tripped = evidence.block
    deadline = add_seconds(rollout.step_started_at, step.deadline_s)
    exposures = evidence.exposures_by_weight.get(step.weight_bps, 0)
    wanted = max(1, step.min_exposures)
    known = exposures - evidence.open_windows.get(step.weight_bps, 0)
    # A step without its exposures waits for them, and not for windows.
    lacks = exposures < wanted or known >= wanted
    view = _View(
        rollout=rollout,
        evidence=evidence,
        step_exposures=exposures,
        wanted=wanted,
        # The largest value since the step began or a person resumed, so that an alarm stays.
        log_srm=worst_log_srm(blocks, rollout.step_started_at),
        late=now >= deadline,
        left=deadline - now,
        blocks=blocks,
        now=now,
        last_block=blocks[-1].number if blocks else 0,
        windows=NO_WAIT
        if lacks
        else await_windows(blocks, step.weight_bps, wanted, known, now),
    )
    kind, signal, reason = _choose(view)
    return RolloutAction(
        kind=kind,
        signal=signal,
        reason=reason,
        log_e=evidence.log_e,
        distance_to_trip=evidence.distance_to_trip,
        exposures=evidence.exposures,
        step_exposures=view.step_exposures,
        log_certificate=evidence.log_certificate,
        block=None if tripped is None else blocks[tripped].number,
        figures=_figures(view),
    )


def _choose(view: _View) -> _Choice:
    """Chooses by state. Harm comes first in every state that has a canary or a bake."""
    rollout = view.rollout
    if rollout.baking:
        return _baking(view)
    if not rollout.live:
        return (
            ActionKind.HOLD,
            None,
            f"The rollout has ended: {rollout.state.value}.",
        )
    if view.evidence.block is not None:
        return ActionKind.ROLLBACK, RolloutSignal.HARM, _harm(view)
    if rollout.state is RolloutState.PAUSED:
        return (
            ActionKind.HOLD,
            None,
            f"Paused: a person resumes or aborts. {_standing(view)}",
        )
    if rollout.state is RolloutState.WAITING:
        return _waiting(view)
    return _measuring(view)


def _baking(view: _View) -> _Choice:
    """Decides while the promotion bakes: every failure of the candidate counts."""
    rollout = view.rollout
    ends = view.rollout.bake_ends_at
    if view.evidence.block is not None:
        return ActionKind.ROLLBACK, RolloutSignal.HARM, _harm(view)
    share = format_bps(rollout.policy.bake_bps)
    kept = f"the former incumbent keeps {share} as a control. {_standing(view)}"
    if ends is not None and view.now >= ends:
        return (
            ActionKind.HOLD,
            RolloutSignal.BAKED,
            f"The bake is over. {_standing(view)}",
        )
    left = format_span((ends - view.now).total_seconds()) if ends else ""
    return ActionKind.HOLD, None, f"Promoted; for {left} more {kept}"


def _waiting(view: _View) -> _Choice:
    """Decides while the step lacks exposures: enough, too late, or hold."""
    counted = f"{view.step_exposures:,} of {view.wanted:,} canary exposures at {_share(view)}"
    counted += _uncountable(view)
    if view.step_exposures >= view.wanted:
        return (
            ActionKind.HOLD,
            RolloutSignal.ENOUGH,
            f"{counted}: enough. {_standing(view)}",
        )
    if view.late:
        lasted_s = (view.now - view.rollout.step_started_at).total_seconds()
        needed = format_estimate(lasted_s * view.wanted / max(1, view.step_exposures))
        pace = f": at this pace they take {needed}" if view.step_exposures else ""
        why = f"{counted} when the step's time was up{pace}. "
        why += "Too few exposures are no evidence of health: a person decides."
        return ActionKind.PAUSE, RolloutSignal.SILENT, why
    return (
        ActionKind.HOLD,
        None,
        f"{counted}, {_left(view)} left. {_standing(view)}",
    )


def _measuring(view: _View) -> _Choice:
    """Decides once the step has its exposures. An open condition holds, later it pauses."""
    rollout = view.rollout
    if condition := _open_condition(view):
        return _open(view, condition)
    shown = "certified" if rollout.current.certify else "no evidence of harm beyond tolerance"
    reason = f"{view.step_exposures:,} exposures at {_share(view)}, {shown}. {_standing(view)}"
    if view.unsupported.requests:
        reason += f" {view.unsupported.text}."
    if rollout.last_step:
        return ActionKind.PROMOTE, RolloutSignal.PROVEN, reason
    return ActionKind.ADVANCE, RolloutSignal.STEP_DONE, reason


def _open_condition(view: _View) -> str:
    """Returns the first condition that the step does not meet; empty if it meets all."""
    rollout = view.rollout
    step = rollout.current
    began = rollout.step_started_at
    if view.step_exposures < view.wanted:
        missing = f"{view.step_exposures:,} of {view.wanted:,} canary exposures can be read"
        return f"{missing} at {_share(view)}{_uncountable(view)}"
    if view.log_srm >= ALARM_LOG_E:
        return "The canary's share of traffic is not the planned share: see routing"
    missing = missing_duration(step, rollout.policy.peak, began, view.now)
    if not missing and view.evidence.slow_in_warm_up:
        missing = "The canary is slow in its warm-up: later times decide"
    missing = (
        missing
        or view.windows.text
        or _missing_outcomes(view)
        or not_sent_reason(rollout, view.blocks)
        or unsupported_reason(rollout, view.evidence)
    )
    if not missing and step.certify:
        missing = counted_reason(view.evidence) or _missing_certificate(view)
    # These read all blocks again, so they come last.
    missing = missing or saved_by_key_reason(rollout, view.blocks)
    return missing or left_out_reason_text(
        left_out_differences(rollout, view.blocks, view.evidence)
    )


def _missing_certificate(view: _View) -> str:
    wanted = view.evidence.certificate_limit
    if view.evidence.log_certificate >= wanted:
        return ""
    value = _e(view.evidence.log_certificate)
    needed = _e(wanted)
    return f"The certificate of no harm is at {value:.2g} of {needed:g}"


def _uncountable(view: _View) -> str:
    """Explains why most of the step's callers can't be counted; empty if most can be."""
    if view.step_exposures >= view.wanted:
        return ""
    bps = view.rollout.current.weight_bps
    step = [block for block in view.blocks if block.weight_bps == bps]
    why = describe_uncountable(
        sum_splits(block.uncounted_callers for block in step),
        sum(block.units for block in step),
    )
    return f". {why}" if why else ""


def _missing_outcomes(view: _View) -> str:
    """Explains that missing outcomes could decide; empty if they could not."""
    if not view.evidence.rests_on_missing:
        return ""
    judged = [e.judging for e in view.evidence.guardrails if e.judging is not None]
    unread = sum(totals.canary_unjudged + totals.control_unjudged for totals in judged)
    missing = view.evidence.missing + view.evidence.lost_windows
    lost = format_quantity(missing + unread, "outcome")
    return f"{lost} did not arrive: counted against the canary, they would roll it back"


def _open(view: _View, what: str) -> _Choice:
    if view.late:
        why = f"{what} when the step's time was up: a person decides. {_standing(view)}"
        return ActionKind.PAUSE, RolloutSignal.UNDECIDED, why
    return (
        ActionKind.HOLD,
        None,
        f"{what}, {_left(view)} left. {_standing(view)}",
    )


def _harm(view: _View) -> str:
    evidence = view.evidence
    what = next(
        guardrail
        for guardrail in evidence.guardrails
        if guardrail.guardrail is evidence.tripped
    )
    where = f" {what.segment.text}." if what.segment else ""
    return (
        f"The canary {what.text}; "
        f"evidence of harm reached the rollback level (e = {_e(evidence.log_e):.3g})"
        f"{_whose(view)}.{where}"
    )


def _whose(view: _View) -> str:
    """Describes whose evidence caused the rollback."""
    if view.evidence.carried:
        return " in callers that were new to this canary, over all its days"
    return f" in the callers of day {view.evidence.period} alone"


def _standing(view: _View) -> str:
    return f"Evidence of harm: {format_harm(view.evidence.distance_to_trip)}."


def _share(view: _View) -> str:
    return format_bps(view.rollout.current.weight_bps)


def _left(view: _View) -> str:
    return format_span(view.left.total_seconds())


def _figures(view: _View) -> RolloutFigures:
    canary_evidence = view.evidence
    policy = view.rollout.policy
    return RolloutFigures(
        at=view.now,
        last_block=view.last_block,
        alpha=policy.alpha,
        rho=policy.rho,
        rho_ni=policy.rho_ni,
        p0=policy.p0,
        log_e_max=canary_evidence.log_e_max,
        rollback_at=canary_evidence.limit,
        period=canary_evidence.period,
        tripped=canary_evidence.tripped,
        guardrails={evidence.guardrail: evidence for evidence in canary_evidence.guardrails},
        certificate=_e(canary_evidence.log_certificate),
        certificate_odds=_e(canary_evidence.log_odds_e),
        certificate_rate=_e(canary_evidence.log_rate_e),
        certificate_at=_e(canary_evidence.certificate_limit),
        log_srm=view.log_srm,
        blocks=canary_evidence.blocks,
        canary_units=canary_evidence.exposures,
        canary_failures=canary_evidence.canary_failures,
        control_units=canary_evidence.control_units,
        control_failures=canary_evidence.control_failures,
        missing=canary_evidence.missing,
        min_exposures=view.wanted,
        seconds_left=max(0.0, view.left.total_seconds()),
        carried=canary_evidence.carried,
        outcomes=canary_evidence.outcomes,
        uncounted=canary_evidence.uncounted,
        served=canary_evidence.served,
        assigned=canary_evidence.assigned,
        windows_open=view.windows.callers,
        windows_left_s=view.windows.left_s,
    )


def _e(log: float) -> float:
    # A higher value changes no decision; a double overflows above exp(709).
    return math.exp(min(log, 700.0))
