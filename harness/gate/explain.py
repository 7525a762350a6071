"""Explains how long a canary takes, and why a rollout is in its state.

The explanation repeats a decision's figures for people, and decides nothing itself. Decisions
are in `harness.gate.online.rollout_action`; the rows of guardrails are in
`harness.gate.guardrail_rows`, and a canary's state in words is in
`harness.canary.canary_state`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.frame.formatting import (
    add_seconds,
    format_bps,
    format_estimate,
    format_number,
    format_percent,
    format_rate,
    format_span,
)
from harness.gate.canary_sentences import ended_sentence
from harness.gate.guardrail_rows import (
    GuardrailRow,
    guardrail_row,
    list_warnings,
)
from harness.gate.online.evidence_paths import ERROR_STREAMS, guardrail_weights
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.late_outcomes import WindowWait
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.gate.online.rollout_action import (
    RolloutAction,
    RolloutFigures,
)
from harness.gate.outcome_rows import (
    OutcomeRow,
    outcome_rows,
    served_rows,
    uncounted_rows,
)
from harness.gate.policy import CanaryPolicy
from harness.gate.ramp import (
    DAY_S,
    StepPlan,
    TrafficPace,
    certification_times,
)
from harness.gate.step_duration import missing_duration, peak_reached_at

TOO_SLOW: Final = "Give such a step a larger share or a longer `deadline_s`."
SHADOW_FIRST: Final = (
    "`swapgate shadow start ROUTE TARGET` shows severe harm before it reaches any caller, but "
    "shortens no step."
)


def no_pace_text(route: str, requests: int) -> str:
    """Explains why a canary's duration is unknown. requests: number in the last 24 hours."""
    recorded = "no request was"
    if requests:
        recorded = f"only {requests:,} request{'s were' if requests > 1 else ' was'}"
    return f"How long a canary of {route} takes is unknown: {recorded} recorded in 24 hours."


def ramp_summary(pace: TrafficPace, steps: Sequence[StepPlan]) -> str:
    """Describes the total duration of a canary, or the first step that misses its deadline."""
    late = [step for step in steps if not step.in_time]
    basis = _describe_basis(pace)
    if not late:
        total = math.fsum(step.typical_s or 0.0 for step in steps)
        cautious = math.fsum(step.cautious_s or 0.0 for step in steps)
        words = f"A healthy canary takes about {format_estimate(total)}"
        if cautious > 1.05 * total:
            words += f", four of five within {format_estimate(cautious)}"
        return f"{words}. {basis}"
    first = late[0]
    time = format_estimate(first.deadline_s)
    why = f"has too little traffic for its certificate within {time}"
    if first.typical_s is not None:
        why = f"needs {format_estimate(first.typical_s)}, but its deadline is {time}"
    step = f"The step at {format_bps(first.weight_bps)}"
    return f"{step} {why}: it would pause for a person. {basis}"


def _describe_basis(pace: TrafficPace) -> str:
    percent = format_percent(pace.failure_rate, significant=2)
    rate = f"{percent} of requests fail today"
    if not pace.rate_measured:
        rate = (
            f"a failure rate of {percent} is assumed (the policy's `p0`), because too few "
            "requests are recorded"
        )
    requests = f"{format_rate(pace.requests_per_hour)} requests an hour"
    if pace.measured:
        return (
            f"Estimated from {format_rate(pace.units_per_hour)} new callers an hour "
            f"({requests}); {rate}. A request without a caller counts as a new caller."
        )
    return (
        f"Estimated from {requests}; {rate}. Each caller counts once, by the first "
        "request. A request without a caller counts as a new caller. The number of new "
        "callers is not measured yet: the canary takes longer if callers return."
    )


def describe_warm_up(policy: CanaryPolicy) -> str:
    """Describes the warm-up, in which latency does not count; empty without a warm-up."""
    first = [format_estimate(policy.warm_up_s)] if policy.warm_up_s else []
    first += [f"{policy.cold_exposures:,} callers"] if policy.cold_exposures else []
    return f"latency is ignored in the canary's first {' and '.join(first)}" if first else ""


def describe_peak(policy: CanaryPolicy) -> str:
    """Describes the peak hours that the steps must include; empty if no step needs them."""
    longest_s = max(step.min_peak_s for step in policy.steps)
    if not longest_s:
        return ""
    return (
        f"Steps last at least {format_estimate(longest_s)} of the peak hours, "
        f"{policy.peak.start_h} to {policy.peak.end_h} h UTC, so at other hours they wait."
    )


def ramp_options(steps: Sequence[StepPlan], *, may_mirror: bool) -> tuple[str, ...]:
    """Lists remedies for late steps; empty if no step is late. may_mirror: whether the route
    may have a shadow.
    """
    if all(step.in_time for step in steps):
        return ()
    return (TOO_SLOW, SHADOW_FIRST) if may_mirror else (TOO_SLOW,)


PACE_PERIOD: Final = timedelta(hours=1)
WINDOWS_KNOWN: Final = "the windows of its callers are known"
# A pace from fewer blocks is a guess.
MIN_BLOCKS: Final = 3


@dataclass(frozen=True, slots=True)
class StepNeed:
    """One condition of a rollout's next step, met or not.

    `what` is a stable name, `words` the text. `share` is the met part, from 0 to 1. `eta_s` is
    in seconds from now.
    """

    what: str
    words: str
    done: bool
    share: float  # met part of the need
    eta_s: float | None  # None if unknown


@dataclass(frozen=True, slots=True)
class RolloutExplanation:
    """A rollout's state and its outlook, for people."""

    why: str  # why the rollout is in its state
    goes_to: str  # the next share, empty after its end
    goes_back: str
    guardrails: tuple[GuardrailRow, ...]
    needs: tuple[StepNeed, ...]
    units_per_hour: float | None  # of all arms, at the current pace; None without traffic
    eta_s: float | None  # until the next step; None if unknown
    eta: str  # the same as text; empty after the end
    # Warnings for a person who advances the rollout by hand; empty if there are none.
    against: tuple[str, ...] = ()
    judged_by: str = ""  # the rules that its policy registered
    # How the assigned requests of both arms ended, with their sum; empty without outcomes.
    outcomes: tuple[OutcomeRow, ...] = ()
    uncounted: tuple[OutcomeRow, ...] = ()  # requests that the router could not count
    served: tuple[OutcomeRow, ...] = ()  # exposures by the model that the answer names


_PERSON_NEED: Final = StepNeed(
    "person",
    "a person resumes or aborts it",
    done=False,
    share=0.0,
    eta_s=None,
)


def explain_rollout(
    rollout: Rollout,
    action: RolloutAction,
    blocks: Sequence[ObservationBlock],
    now: datetime,
) -> RolloutExplanation:
    """Explains a rollout. action: result of `decide_action` for these blocks and this
    moment."""
    return replace(
        _explain(rollout, action, blocks, now),
        judged_by=_describe_rules(rollout.policy),
        outcomes=outcome_rows(action.figures),
        uncounted=uncounted_rows(action.figures),
        served=served_rows(action.figures),
    )


def _describe_rules(policy: CanaryPolicy) -> str:
    words = (
        f"counts callers, each by the first request; {_weights_text(policy)}; likely sizes of "
        "harm weigh more than unlikely sizes; small blocks use the planned traffic share"
    )
    words += f"; {describe_warm_up(policy)}" if describe_warm_up(policy) else ""
    if policy.handover_s:
        words += (
            f"; for {format_span(policy.handover_s)} after each new share, a conversation "
            "that began before it keeps its model and counts for neither model"
        )
    return words


def _weights_text(policy: CanaryPolicy) -> str:
    """Describes how the evidence is weighted (`guardrail_weights`)."""
    weights = guardrail_weights(policy.tolerated)
    errors = sum(weights.get(name, 0.0) for name in ERROR_STREAMS)
    parts = [f"errors have {format_percent(errors, 0)} of the weight"]
    if Guardrail.CALLER_ERRORS in weights:
        parts[0] += ", one half at first requests and one in the windows of callers"
    if Guardrail.LEAVING in weights:
        parts.append(f"callers who leave {format_percent(weights[Guardrail.LEAVING], 0)}")
    if len(weights) > len(parts) + (Guardrail.CALLER_ERRORS in weights):
        parts.append("the other guardrails share the rest")
    return ", ".join(parts)


def _explain(
    rollout: Rollout,
    action: RolloutAction,
    blocks: Sequence[ObservationBlock],
    now: datetime,
) -> RolloutExplanation:
    """Builds the explanation without the registered rules and the outcomes.

    Ended rollouts have no needs and no outlook.
    """
    pace = _measure_pace(rollout, blocks, now)
    reason = action.reason
    limit = action.figures.rollback_at
    judge = rollout.policy.judge
    guardrails = action.figures.guardrails.values()
    guard = action.figures.guard
    rows = tuple(guardrail_row(evidence, limit, judge, guard) for evidence in guardrails)
    if rollout.baking and rollout.bake_ends_at and action.signal is not RolloutSignal.HARM:
        left = max(0.0, (rollout.bake_ends_at - now).total_seconds())
        need = StepNeed(
            "time",
            "the end of the bake",
            done=not left,
            share=0.0,
            eta_s=left,
        )
        next_goal = "the end of the bake"
        rollback_text = _describe_rollback("the former incumbent serves again")
        return RolloutExplanation(
            action.reason,
            next_goal,
            rollback_text,
            rows,
            (need,),
            pace,
            left,
            f"in {format_estimate(left)}",
        )
    if not rollout.live and not rollout.baking:
        why = ended_sentence(rollout) or reason
        return RolloutExplanation(why, "", "", rows, (), None, None, "")
    if action.signal is RolloutSignal.HARM:
        rollback_text = "The incumbent serves all callers again."
        return RolloutExplanation(
            reason, "0 %", rollback_text, rows, (), pace, 0.0, "at the next look"
        )
    windows_s = max((block.windows_known_s for block in blocks), default=0.0)
    needs = _list_needs(rollout, action, pace, windows_s, now)
    onward = rollout.policy.steps[rollout.step + 1 :]
    next_goal = format_bps(onward[0].weight_bps) if onward else "promotion"
    rollback_text = _describe_rollback("the incumbent serves all callers again")
    eta_s, eta = _estimate_next_step(
        rollout,
        needs,
        now,
    )
    warnings = list_warnings(action.figures)
    return RolloutExplanation(
        reason, next_goal, rollback_text, rows, needs, pace, eta_s, eta, warnings
    )


def _describe_rollback(what: str) -> str:
    return (
        f"If the evidence of harm reaches 100 % of the rollback level, {what}, at once and "
        "without a person."
    )


def _list_needs(
    rollout: Rollout,
    action: RolloutAction,
    pace: float | None,
    windows_s: float,
    now: datetime,
) -> tuple[StepNeed, ...]:
    """Lists the conditions of the next step. During a pause, a person's decision is the first
    condition.

    windows_s: how long after a caller's first request its window is known; 0 without windows.
    """
    needs = [_need_exposures(rollout, action, pace)]
    if windows_s:
        needs.append(_need_windows(action.figures, needs[0], windows_s))
    needs += _need_warm_up(rollout, action, pace, now)
    needs.append(_need_planned_share(action))
    needs += _need_duration(rollout, now)
    if rollout.current.certify:
        needs.append(_need_certificate(rollout, action, pace, now))
    if rollout.state is RolloutState.PAUSED:
        needs.insert(0, _PERSON_NEED)
    return tuple(needs)


def _need_warm_up(
    rollout: Rollout,
    action: RolloutAction,
    pace: float | None,
    now: datetime,
) -> list[StepNeed]:
    """Describes the rest of the warm-up; empty after the warm-up."""
    policy = rollout.policy
    counted = action.exposures
    missing_callers = max(0, policy.cold_exposures - counted)
    # The step may have begun after the calling code read `now`.
    lasted_s = max(0.0, (now - rollout.step_started_at).total_seconds())
    left_s = max(0.0, policy.warm_up_s - lasted_s) if action.step_exposures else 0.0
    if not missing_callers and not left_s:
        return []
    exposure_s = _seconds_per_exposure(rollout, pace)
    parts = [f"{counted:,} of {policy.cold_exposures:,} callers"] if missing_callers else []
    parts += [f"another {format_estimate(left_s)}"] if left_s else []
    words = f"{' and '.join(parts)} of the warm-up, in which times do not count"
    share = (
        counted / policy.cold_exposures if missing_callers else 1.0 - left_s / policy.warm_up_s
    )
    eta_s: float | None = left_s
    if missing_callers:
        eta_s = None if exposure_s is None else max(left_s, missing_callers * exposure_s)
    return [
        StepNeed(
            "warm-up",
            words,
            done=False,
            share=share,
            eta_s=eta_s,
        )
    ]


def _need_exposures(
    rollout: Rollout,
    action: RolloutAction,
    pace: float | None,
) -> StepNeed:
    """Explains how many of the step's canary callers are counted."""
    step = rollout.current
    counted = action.step_exposures
    wanted = max(1, step.min_exposures)
    missing_callers = max(0, wanted - counted)
    exposure_s = _seconds_per_exposure(rollout, pace)
    return StepNeed(
        what="exposures",
        words=f"{counted:,} of {wanted:,} canary callers at {format_bps(step.weight_bps)}",
        done=not missing_callers,
        share=min(1.0, counted / wanted),
        eta_s=0.0
        if not missing_callers
        else None
        if exposure_s is None
        else missing_callers * exposure_s,
    )


def _seconds_per_exposure(rollout: Rollout, pace: float | None) -> float | None:
    return 3600.0 / (pace * rollout.current.weight_bps / 10_000) if pace else None


def _need_planned_share(action: RolloutAction) -> StepNeed:
    is_as_planned = action.figures.log_srm < ALARM_LOG_E
    words = "the canary's share of callers is the planned share"
    if not is_as_planned:
        words = "the canary's share of callers is not the planned share: look at routing"
    return StepNeed(
        "sample ratio",
        words,
        is_as_planned,
        float(is_as_planned),
        0.0 if is_as_planned else None,
    )


def _need_duration(rollout: Rollout, now: datetime) -> list[StepNeed]:
    """Explains the step's minimum time and peak hours; empty if the step needs neither."""
    step = rollout.current
    peak = rollout.policy.peak
    began = rollout.step_started_at
    missing = missing_duration(step, peak, began, now)
    if not missing and not step.min_s and not step.min_peak_s:
        return []
    eta = 0.0
    if missing:
        eta = max(0.0, step.min_s - (now - began).total_seconds())
        at = add_seconds(now, eta)
        if step.min_peak_s:
            at = max(at, peak_reached_at(peak, began, step.min_peak_s))
        eta = (at - now).total_seconds()
    words = missing[:1].lower() + missing[1:] if missing else "the step lasted long enough"
    return [StepNeed("time", words, not missing, float(not missing), eta)]


def _need_windows(figures: RolloutFigures, exposures: StepNeed, windows_s: float) -> StepNeed:
    """Explains the wait for the windows of the step's callers."""
    if not exposures.done:
        eta_s = None if exposures.eta_s is None else exposures.eta_s + windows_s
        return StepNeed("windows", WINDOWS_KNOWN, done=False, share=0.0, eta_s=eta_s)
    wait = WindowWait(figures.windows_open, figures.windows_left_s)
    words = f"{wait.text[:1].lower()}{wait.text[1:]}" or WINDOWS_KNOWN
    share = 1.0 - wait.callers / figures.min_exposures
    return StepNeed("windows", words, not wait.callers, share, wait.left_s)


def _need_certificate(
    rollout: Rollout,
    action: RolloutAction,
    pace: float | None,
    now: datetime,
) -> StepNeed:
    """Describes the certificate. Its ETA is the rest of the median time that a healthy canary
    takes.
    """
    figures = action.figures
    at = figures.certificate_at
    share = min(1.0, max(0.0, action.log_certificate / math.log(at)))
    done = action.log_certificate >= math.log(at)
    # A certificate above its limit means nothing more, so the text names the limit.
    words = (
        f"the certificate of no harm is reached ({format_number(at)})"
        if done
        else f"the certificate of no harm is at {format_number(figures.certificate, 2)} "
        f"of {format_number(at)}"
    )
    eta: float | None = 0.0 if done else None
    if not done and pace:
        control = figures.control_units
        rate = figures.control_failures / control if control else rollout.policy.p0
        traffic_pace = TrafficPace(
            _round_to_two_digits(pace),
            _round_to_two_digits(pace),
            _round_to_two_digits(rate),
            measured=True,
        )
        began_s = (now - rollout.started_at).total_seconds() // DAY_S * DAY_S
        half, _ = certification_times(
            rollout.policy,
            rollout.current,
            traffic_pace,
            began_s,
        )
        eta = half * (1.0 - share) if math.isfinite(half) else None
    return StepNeed("certificate", words, done, share, eta)


def _estimate_next_step(
    rollout: Rollout,
    needs: Sequence[StepNeed],
    now: datetime,
) -> tuple[float | None, str]:
    """Returns the seconds until the slowest need is met, and the same as text.

    Returns None if a person must act, or if the time of a need is unknown: a partial estimate
    would mislead.
    """
    if rollout.state is RolloutState.PAUSED:
        return None, "not before a person resumes it"
    if any(need.eta_s is None for need in needs):
        return None, "unknown at the current pace"
    eta_s = max((need.eta_s or 0.0 for need in needs), default=0.0)
    if not eta_s:
        return 0.0, "at the next look"
    words = f"in about {format_estimate(eta_s)}"
    ends = add_seconds(rollout.step_started_at, rollout.current.deadline_s)
    if add_seconds(now, eta_s) > ends:
        words += ": later than its deadline, so it will pause"
    return eta_s, words


def _measure_pace(
    rollout: Rollout,
    blocks: Sequence[ObservationBlock],
    now: datetime,
) -> float | None:
    """Returns all arms' exposures an hour: of the last hour, or of the step if the hour has few
    blocks; else None.
    """
    step = [block for block in blocks if block.closed_at >= rollout.step_started_at]
    last_hour = [block for block in step if now - block.closed_at <= PACE_PERIOD]
    for measured_blocks in (last_hour, step):
        if len(measured_blocks) >= MIN_BLOCKS:
            began = min(block.opened_at for block in measured_blocks)
            seconds = max(60.0, (now - began).total_seconds())
            return sum(block.units for block in measured_blocks) * 3600.0 / seconds
    return None


def _round_to_two_digits(value: float) -> float:
    """Rounds to two digits, so that decisions at nearly the same pace share one simulation."""
    return float(f"{value:.2g}")
