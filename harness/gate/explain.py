"""Explains how long a canary takes, and why a rollout is in its state.

The explanation repeats a decision's figures for people, and decides nothing itself. Decisions
are in `harness.gate.online.rollout_action`; the rows of guardrails are in
`harness.gate.guardrail_rows`, and a canary's state in words is in
`harness.canary.canary_state`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
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
from harness.gate.caller_forecast import HOUR_S, TrafficPart
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
from harness.gate.online.rollout import (
    Rollout,
    RolloutSignal,
    RolloutState,
    StepCondition,
)
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
    CanaryModel,
    CanaryProgress,
    EstimateState,
    StepPlan,
    StepTimes,
    TrafficPace,
    certified_share,
    estimate_canary,
    forecast_rollout,
)
from harness.gate.step_duration import missing_duration, peak_reached_at

TOO_SLOW: Final = "Give such a step a larger share or a longer `deadline_s`."
SHADOW_FIRST: Final = (
    "`swapproof shadow start ROUTE TARGET` shows severe harm before it reaches any caller, but "
    "shortens no step."
)


def no_pace_text(route: str, requests: int) -> str:
    """Explains why a canary's duration is unknown.

    Args:
        requests: number in the last 24 hours.
    """
    lead = f"How long a canary of {route} takes is unknown"
    if not requests:
        return (
            f"{lead}: no request was recorded in 24 hours. `swapproof canary plan {route} "
            "--callers-per-day N --requests-per-day N` estimates it for the traffic that you "
            "expect."
        )
    recorded = f"{requests:,} request{'s were' if requests > 1 else ' was'}"
    return f"{lead}: too few in the last hour; {recorded} recorded in 24 hours."


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
    """Lists remedies for late steps; empty if no step is late.

    Args:
        may_mirror: whether the route may have a shadow.
    """
    if all(step.in_time for step in steps):
        return ()
    return (TOO_SLOW, SHADOW_FIRST) if may_mirror else (TOO_SLOW,)


WINDOWS_KNOWN: Final = "the windows of its callers are known"
# Further callers do not meet these conditions.
TIMELESS_CONDITIONS: Final = frozenset(
    {
        StepCondition.SAMPLE_RATIO,
        StepCondition.MISSING_OUTCOMES,
        StepCondition.NOT_SENT,
        StepCondition.UNSUPPORTED,
        StepCondition.COUNTED_SHARE,
        StepCondition.ONE_KEY,
        StepCondition.LEFT_OUT,
    }
)


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
    eta: str  # the same as text, with the promotion; empty after the end
    # Warnings for a person who advances the rollout by hand; empty if there are none.
    against: tuple[str, ...] = ()
    judged_by: str = ""  # the rules that its policy registered
    # How the assigned requests of both arms ended, with their sum; empty without outcomes.
    outcomes: tuple[OutcomeRow, ...] = ()
    uncounted: tuple[OutcomeRow, ...] = ()  # requests that the router could not count
    served: tuple[OutcomeRow, ...] = ()  # exposures by the model that the answer names
    estimate: EstimateState = EstimateState.KNOWN  # whether eta_s is known, or why not
    promotion_eta_s: float | None = None  # until the promotion; None if unknown


@dataclass(frozen=True, slots=True)
class EstimateBasis:
    """What an estimate reads besides the rollout's blocks.

    parts: of the last day or two; without them, the blocks give the pace. windows_s: how long
    after a caller's first request its window is known. held: whether a hold stops the canary.
    """

    parts: Sequence[TrafficPart] = ()
    windows_s: float = 0.0
    held: bool = False


NO_BASIS: Final = EstimateBasis()


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
    traffic: EstimateBasis = NO_BASIS,
) -> RolloutExplanation:
    """Explains a rollout.

    Args:
        action: result of `decide_action` for these blocks and this moment.
    """
    return replace(
        _explain(rollout, action, blocks, now, traffic),
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
    traffic: EstimateBasis,
) -> RolloutExplanation:
    """Builds the explanation without the registered rules and the outcomes.

    Ended rollouts have no needs and no outlook.
    """
    forecast = forecast_rollout(rollout, blocks, traffic.parts, now)
    pace = None if forecast is None else forecast.callers_until(HOUR_S)
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
        ended = RolloutExplanation(why, "", "", rows, (), None, None, "")
        return replace(ended, estimate=EstimateState.ENDED)
    if action.signal is RolloutSignal.HARM:
        rollback_text = "The incumbent serves all callers again."
        return RolloutExplanation(
            reason, "0 %", rollback_text, rows, (), pace, 0.0, "at the next look"
        )
    model = None
    if forecast is not None:
        windows_s = max((block.windows_known_s for block in blocks), default=traffic.windows_s)
        model = CanaryModel(rollout.policy, forecast, _failure_rate(rollout, action), windows_s)
    times = () if model is None else estimate_canary(model, _progress(rollout, action, now))
    needs = _list_needs(rollout, action, blocks, times[0] if times else None, now)
    onward = rollout.policy.steps[rollout.step + 1 :]
    next_goal = format_bps(onward[0].weight_bps) if onward else "promotion"
    rollback_text = _describe_rollback("the incumbent serves all callers again")
    state = _choose_estimate_state(rollout, action, times, held=traffic.held)
    if state in (EstimateState.HELD, EstimateState.PAUSED):
        needs = tuple(need if need.done else replace(need, eta_s=None) for need in needs)
    eta_s, promotion_s = _read_times(rollout, state, needs, times)
    return RolloutExplanation(
        reason,
        next_goal,
        rollback_text,
        rows,
        needs,
        pace,
        eta_s,
        _describe_eta(state, eta_s, promotion_s),
        list_warnings(action.figures),
        estimate=state,
        promotion_eta_s=promotion_s,
    )


def _failure_rate(rollout: Rollout, action: RolloutAction) -> float:
    figures = action.figures
    control = figures.control_units
    return figures.control_failures / control if control else rollout.policy.p0


def _progress(rollout: Rollout, action: RolloutAction, now: datetime) -> CanaryProgress:
    """Returns what the rollout has reached in its step."""
    figures = action.figures
    has_callers = action.step_exposures >= max(1, rollout.current.min_exposures)
    limit = math.log(figures.certificate_at) if figures.certificate_at > 1.0 else 1.0
    return CanaryProgress(
        step=rollout.step,
        counted=action.step_exposures,
        canary=action.exposures,
        # The step may have begun after the calling code read `now`.
        lasted_s=max(0.0, (now - rollout.step_started_at).total_seconds()),
        certificate=certified_share(action.log_certificate, limit),
        windows_left_s=figures.windows_left_s if has_callers else None,
    )


def _choose_estimate_state(
    rollout: Rollout, action: RolloutAction, times: Sequence[StepTimes], *, held: bool
) -> EstimateState:
    if rollout.state is RolloutState.PAUSED:
        return EstimateState.PAUSED
    is_as_planned = action.figures.log_srm < ALARM_LOG_E
    if held or action.condition in TIMELESS_CONDITIONS or not is_as_planned:
        return EstimateState.HELD
    if not times:
        return EstimateState.NO_TRAFFIC
    if not math.isfinite(times[0].ends_s):
        return EstimateState.NOT_IN_TIME
    return EstimateState.KNOWN


def _read_times(
    rollout: Rollout,
    state: EstimateState,
    needs: Sequence[StepNeed],
    times: Sequence[StepTimes],
) -> tuple[float | None, float | None]:
    """Returns the seconds until the next step, and until the promotion; None if unknown."""
    if state is not EstimateState.KNOWN:
        return None, None
    # A slow warm-up may hold the step for longer than its other conditions.
    next_s = max(times[0].ends_s, *(need.eta_s or 0.0 for need in needs))
    is_whole = len(times) == len(rollout.policy.steps) - rollout.step
    promotion_s = next_s - times[0].ends_s + times[-1].ends_s
    return next_s, promotion_s if is_whole and math.isfinite(promotion_s) else None


_UNKNOWN_ETAS: Final = {
    EstimateState.NO_TRAFFIC: "unknown: too few requests in the last hour",
    EstimateState.NOT_IN_TIME: "later than its deadline at this traffic; it would then pause",
    EstimateState.HELD: "not before the hold ends",
    EstimateState.PAUSED: "not before a person resumes it",
}


def _describe_eta(state: EstimateState, eta_s: float | None, promotion_s: float | None) -> str:
    if eta_s is None:
        return _UNKNOWN_ETAS[state]
    words = f"in about {format_estimate(eta_s)}" if eta_s else "at the next look"
    if promotion_s is not None and promotion_s > eta_s:
        words += f", and to the promotion in about {format_estimate(promotion_s)}"
    return words


def _describe_rollback(what: str) -> str:
    return (
        f"If the evidence of harm reaches 100 % of the rollback level, {what}, at once and "
        "without a person."
    )


def _list_needs(
    rollout: Rollout,
    action: RolloutAction,
    blocks: Sequence[ObservationBlock],
    times: StepTimes | None,
    now: datetime,
) -> tuple[StepNeed, ...]:
    """Lists the conditions of the next step. During a pause, a person's decision is the first
    condition.

    Args:
        times: of the current step; None if they are unknown.
    """
    needs = [_need_exposures(rollout, action, times)]
    if any(block.windows_known_s for block in blocks):
        needs.append(_need_windows(action.figures, needs[0], times))
    needs += _need_warm_up(rollout, action, now)
    needs.append(_need_planned_share(action))
    needs += _need_duration(rollout, now)
    if rollout.current.certify:
        needs.append(_need_certificate(action, times))
    if rollout.state is RolloutState.PAUSED:
        needs.insert(0, _PERSON_NEED)
    return tuple(needs)


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _need_warm_up(rollout: Rollout, action: RolloutAction, now: datetime) -> list[StepNeed]:
    """Describes the rest of a warm-up that holds the step, because the canary is slow in it;
    else empty.
    """
    if action.condition is not StepCondition.WARM_UP:
        return []
    lasted_s = (now - rollout.step_started_at).total_seconds()
    left_s = max(0.0, rollout.policy.warm_up_s - lasted_s)
    words = "the canary is slow in its warm-up, in which times do not count: later times decide"
    share = min(1.0, max(0.0, lasted_s) / rollout.policy.warm_up_s)
    return [StepNeed("warm-up", words, done=False, share=share, eta_s=left_s)]


def _need_exposures(
    rollout: Rollout, action: RolloutAction, times: StepTimes | None
) -> StepNeed:
    """Explains how many of the step's canary callers are counted."""
    step = rollout.current
    counted = action.step_exposures
    wanted = max(1, step.min_exposures)
    done = counted >= wanted
    eta_s = None if times is None else _finite(times.callers_s)
    return StepNeed(
        what="exposures",
        words=f"{counted:,} of {wanted:,} canary callers at {format_bps(step.weight_bps)}",
        done=done,
        share=min(1.0, counted / wanted),
        eta_s=0.0 if done else eta_s,
    )


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


def _need_windows(
    figures: RolloutFigures, exposures: StepNeed, times: StepTimes | None
) -> StepNeed:
    """Explains the wait for the windows of the step's callers."""
    if not exposures.done:
        eta_s = None if times is None else _finite(times.windows_s)
        return StepNeed("windows", WINDOWS_KNOWN, done=False, share=0.0, eta_s=eta_s)
    wait = WindowWait(figures.windows_open, figures.windows_left_s)
    words = f"{wait.text[:1].lower()}{wait.text[1:]}" or WINDOWS_KNOWN
    share = 1.0 - wait.callers / figures.min_exposures
    return StepNeed("windows", words, not wait.callers, share, wait.left_s)


def _need_certificate(action: RolloutAction, times: StepTimes | None) -> StepNeed:
    """Describes the certificate."""
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
    eta_s = None if times is None else _finite(times.certificate_s)
    return StepNeed("certificate", words, done, share, 0.0 if done else eta_s)
