"""A rollout's decision is an action (`RolloutAction`: hold, advance, pause, promote, roll back)
with every figure behind it (`RolloutFigures`), as the audit log stores them.

`decide_action` derives it from the rollout's blocks alone; `harness.gate.online.rollout` has
the table of states. A rollout never advances without data: each step up needs scored exposures
of this step, its minimum time and its peak hours (`missing_duration`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Self

from harness.frame.formatting import (
    add_seconds,
    format_bps,
    format_number,
    format_quantity,
)
from harness.frame.plain_data import ShownAsJson, to_plain
from harness.gate.canary_sentences import (
    StepFigures,
    guard_sentence,
    step_sentence,
)
from harness.gate.online.fisher import ALARM_LOG_E, worst_log_srm
from harness.gate.online.guardrail_report import GuardrailEvidence
from harness.gate.online.guardrails import NO_SPLIT, ArmSplit, Guardrail
from harness.gate.online.late_outcomes import NO_WAIT, WindowWait, await_windows
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import (
    ActionKind,
    ReasonCode,
    Rollout,
    RolloutSignal,
    RolloutState,
    StepCondition,
)
from harness.gate.online.rollout_evidence import (
    CanaryEvidence,
    collect_evidence,
    sum_splits,
)
from harness.gate.online.segment_harm import SegmentHarm
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
from harness.gate.step_duration import missing_duration

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

    def with_guard(self, count: GuardCount | None, alert: str) -> Self:
        """Returns the figures of a rollback by a worker's guard: its counts decided.

        The control plane's own counts and outcomes are older, because the guard acts before its
        requests are reported. An older router's guard did not count both arms; then the control
        plane's figures stay.

        Args:
            alert: the id of the guard's alert.
        """
        figures = replace(self, local_abort=alert, guard=count)
        if count is None or count.control_exposures is None:
            return figures
        return replace(
            figures,
            outcomes={},
            uncounted={},
            served={},
            canary_units=count.exposures,
            canary_failures=count.canary_failures,
            control_units=count.control_exposures,
            control_failures=count.control_failures,
        )

    def as_json(self) -> dict[str, object]:
        """Writes the figures as the audit log keeps them.

        Omits `carried` and all fields after it unless they are set.
        """
        figures: dict[str, object] = {name: getattr(self, name) for name in _PLAIN_FIELDS}
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

_PLAIN_FIELDS = tuple(f.name for f in fields(RolloutFigures) if f.name not in _CONVERTED)


@dataclass(frozen=True)
class RolloutAction:
    """An action that the data ask for, and every figure behind it.

    `log_e` and `log_certificate` are natural logarithms. `distance_to_trip` is a share of the
    rollback level, from 0 to 1; `exposures` counts canary exposures of all steps.
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
    code: ReasonCode = ReasonCode.ENDED
    condition: StepCondition | None = None  # of the step, if it is not met
    figures: RolloutFigures = field(default_factory=RolloutFigures)

    def with_guard(self, count: GuardCount | None, alert: str) -> "RolloutAction":
        """Returns the rollback that a worker's guard decided.

        Args:
            count: see `RolloutFigures.with_guard`.
            alert: see `RolloutFigures.with_guard`.
        """
        action = replace(
            self,
            kind=ActionKind.ROLLBACK,
            signal=RolloutSignal.HARM,
            code=ReasonCode.GUARD,
            figures=self.figures.with_guard(count, alert),
        )
        if count is None:
            return action
        return replace(
            action,
            reason=guard_sentence(count),
            exposures=action.figures.canary_units,
            distance_to_trip=max(self.distance_to_trip, count.distance),
        )


class _Choice(NamedTuple):
    """The action with its reason. more: see `canary_sentences.step_sentence`."""

    kind: ActionKind
    signal: RolloutSignal | None
    code: ReasonCode
    more: str = ""
    condition: StepCondition | None = None


@dataclass(frozen=True, slots=True)
class _StepView:
    """The figures from which `_choose` chooses the action, computed once."""

    rollout: Rollout
    evidence: CanaryEvidence
    step_exposures: int  # at this weight, without blocks in which every exposure failed
    wanted: int
    log_srm: float
    late: bool
    left: timedelta
    blocks: Sequence[ObservationBlock]
    now: datetime
    last_block: int
    windows: WindowWait

    @property
    def step_figures(self) -> StepFigures:
        rollout = self.rollout
        ends = rollout.bake_ends_at
        left = ends - self.now if ends is not None else self.left
        return StepFigures(
            callers=self.step_exposures,
            wanted=self.wanted,
            weight_bps=rollout.current.weight_bps,
            lasts_s=(self.now - rollout.step_started_at).total_seconds(),
            left_s=left.total_seconds(),
            distance=self.evidence.distance_to_trip,
            kept_bps=rollout.policy.bake_bps,
            certified=rollout.current.certify,
            carried=self.evidence.carried,
            day=self.evidence.period,
        )

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

    Args:
        blocks: all blocks of this rollout, of every step, because evidence accumulates.
    """
    blocks = sorted(blocks, key=lambda block: block.number)
    evidence = collect_evidence(blocks, rollout.policy)
    step = rollout.current
    tripped = evidence.block
    deadline = add_seconds(rollout.step_started_at, step.deadline_s)
    exposures = evidence.exposures_by_weight.get(step.weight_bps, 0)
    wanted = max(1, step.min_exposures)
    known_windows = exposures - evidence.open_windows.get(step.weight_bps, 0)
    # A step that lacks exposures waits for them, and not for windows.
    needs_no_wait = exposures < wanted or known_windows >= wanted
    view = _StepView(
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
        if needs_no_wait
        else await_windows(blocks, step.weight_bps, wanted, known_windows, now),
    )
    choice = _choose(view)
    return RolloutAction(
        kind=choice.kind,
        signal=choice.signal,
        reason=step_sentence(choice.code, view.step_figures, choice.more),
        log_e=evidence.log_e,
        distance_to_trip=evidence.distance_to_trip,
        exposures=evidence.exposures,
        step_exposures=view.step_exposures,
        log_certificate=evidence.log_certificate,
        block=None if tripped is None else blocks[tripped].number,
        code=choice.code,
        condition=choice.condition,
        figures=_figures(view),
    )


def _choose(view: _StepView) -> _Choice:
    """Chooses by state. Harm comes first in every state that has a canary or a bake."""
    rollout = view.rollout
    if rollout.baking:
        return _choose_in_bake(view)
    if not rollout.live:
        state = rollout.state.value.replace("_", " ")
        return _Choice(ActionKind.HOLD, None, ReasonCode.ENDED, state)
    if view.evidence.block is not None:
        return _roll_back(view)
    if rollout.state is RolloutState.PAUSED:
        return _Choice(ActionKind.HOLD, None, ReasonCode.PAUSED)
    if rollout.state is RolloutState.WAITING:
        return _choose_while_waiting(view)
    return _choose_while_measuring(view)


def _choose_in_bake(view: _StepView) -> _Choice:
    """Decides while the promotion bakes: every failure of the candidate counts."""
    if view.evidence.block is not None:
        return _roll_back(view)
    ends = view.rollout.bake_ends_at
    if ends is not None and view.now >= ends:
        return _Choice(ActionKind.HOLD, RolloutSignal.BAKED, ReasonCode.BAKE_OVER)
    return _Choice(ActionKind.HOLD, None, ReasonCode.BAKING)


def _choose_while_waiting(view: _StepView) -> _Choice:
    """Decides for a step that waits for its exposures."""
    why = _explain_uncountable(view)
    if view.step_exposures >= view.wanted:
        return _Choice(ActionKind.HOLD, RolloutSignal.ENOUGH, ReasonCode.ENOUGH, why)
    if view.late:
        return _Choice(ActionKind.PAUSE, RolloutSignal.SILENT, ReasonCode.TOO_FEW, why)
    return _Choice(ActionKind.HOLD, None, ReasonCode.COUNTING, why)


def _choose_while_measuring(view: _StepView) -> _Choice:
    """Decides for a step with its exposures. An unmet condition holds the step, and pauses it
    after its deadline.
    """
    for condition, find in _CONDITIONS:
        if why := find(view):
            return _wait_or_pause(view, condition, why)
    more = view.unsupported.text if view.unsupported.requests else ""
    if view.rollout.last_step:
        return _Choice(ActionKind.PROMOTE, RolloutSignal.PROVEN, ReasonCode.PASSED, more)
    return _Choice(ActionKind.ADVANCE, RolloutSignal.STEP_DONE, ReasonCode.PASSED, more)


def _wait_or_pause(view: _StepView, condition: StepCondition, why: str) -> _Choice:
    if view.late:
        signal = RolloutSignal.UNDECIDED
        return _Choice(ActionKind.PAUSE, signal, ReasonCode.LATE, why, condition)
    return _Choice(ActionKind.HOLD, None, ReasonCode.OPEN, why, condition)


def _roll_back(view: _StepView) -> _Choice:
    evidence = view.evidence
    what = next(one for one in evidence.guardrails if one.guardrail is evidence.tripped)
    where = f". {what.segment.text}" if what.segment else ""
    more = f"{what.text}{where}"
    return _Choice(ActionKind.ROLLBACK, RolloutSignal.HARM, ReasonCode.HARM, more)


def _missing_callers(view: _StepView) -> str:
    if view.step_exposures >= view.wanted:
        return ""
    why = _explain_uncountable(view)
    note = f". {why}" if why else ""
    return (
        f"{view.step_exposures:,} of {view.wanted:,} callers can be read at {_share(view)}"
        f"{note}"
    )


def _wrong_split(view: _StepView) -> str:
    if view.log_srm < ALARM_LOG_E:
        return ""
    return "The canary's share of traffic is not the planned share: see routing"


def _missing_duration(view: _StepView) -> str:
    rollout = view.rollout
    began = rollout.step_started_at
    return missing_duration(rollout.current, rollout.policy.peak, began, view.now)


def _slow_warm_up(view: _StepView) -> str:
    slow = view.evidence.slow_in_warm_up
    return "The canary is slow in its warm-up: later times decide" if slow else ""


def _missing_counts(view: _StepView) -> str:
    return counted_reason(view.evidence) if view.rollout.current.certify else ""


def _missing_certificate(view: _StepView) -> str:
    wanted = view.evidence.certificate_limit
    if not view.rollout.current.certify or view.evidence.log_certificate >= wanted:
        return ""
    value = format_number(_e_value(view.evidence.log_certificate), 2)
    return f"The certificate of no harm is at {value} of {format_number(_e_value(wanted))}"


def _explain_uncountable(view: _StepView) -> str:
    """Explains why most of the step's callers can't be counted; empty if most can be."""
    if view.step_exposures >= view.wanted:
        return ""
    bps = view.rollout.current.weight_bps
    step = [block for block in view.blocks if block.weight_bps == bps]
    return describe_uncountable(
        sum_splits(block.uncounted_callers for block in step),
        sum(block.first_requests.failures for block in step),
    )


def _missing_outcomes(view: _StepView) -> str:
    """Explains that missing outcomes could decide; empty if they could not."""
    if not view.evidence.rests_on_missing:
        return ""
    judged = [e.judging for e in view.evidence.guardrails if e.judging is not None]
    unread = sum(totals.canary_unjudged + totals.control_unjudged for totals in judged)
    missing = view.evidence.missing + view.evidence.lost_windows
    lost = format_quantity(missing + unread, "outcome")
    return f"{lost} did not arrive: counted against the canary, they would roll it back"


def _left_out(view: _StepView) -> str:
    return left_out_reason_text(left_out_differences(view.rollout, view.blocks, view.evidence))


# A step's conditions in their order; the last two read all blocks again, so they come last.
_CONDITIONS: Final[Sequence[tuple[StepCondition, Callable[[_StepView], str]]]] = (
    (StepCondition.CALLERS, _missing_callers),
    (StepCondition.SAMPLE_RATIO, _wrong_split),
    (StepCondition.DURATION, _missing_duration),
    (StepCondition.WARM_UP, _slow_warm_up),
    (StepCondition.WINDOWS, lambda view: view.windows.text),
    (StepCondition.MISSING_OUTCOMES, _missing_outcomes),
    (StepCondition.NOT_SENT, lambda view: not_sent_reason(view.rollout, view.blocks)),
    (StepCondition.UNSUPPORTED, lambda view: unsupported_reason(view.rollout, view.evidence)),
    (StepCondition.COUNTED_SHARE, _missing_counts),
    (StepCondition.CERTIFICATE, _missing_certificate),
    (StepCondition.ONE_KEY, lambda view: saved_by_key_reason(view.rollout, view.blocks)),
    (StepCondition.LEFT_OUT, _left_out),
)


def _share(view: _StepView) -> str:
    return format_bps(view.rollout.current.weight_bps)


def _figures(view: _StepView) -> RolloutFigures:
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
        certificate=_e_value(canary_evidence.log_certificate),
        certificate_odds=_e_value(canary_evidence.log_odds_e),
        certificate_rate=_e_value(canary_evidence.log_rate_e),
        certificate_at=_e_value(canary_evidence.certificate_limit),
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


def _e_value(log: float) -> float:
    # A higher value changes no decision; a double overflows above exp(709).
    return math.exp(min(log, 700.0))
