"""Explains a rollout for people by what `decide_action` decided; decides nothing itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.domain.canary.guardrails import (
    CanaryJudge,
    Guardrail,
    GuardrailKind,
    guardrail_kind,
)
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.rollout import Rollout, RolloutSignal, RolloutState
from harness.domain.formatting import (
    format_answer_price,
    format_bps,
    format_estimate,
    format_number,
    format_percent,
    format_quantity,
    format_span,
    format_usd,
    without_scientific_notation,
)
from harness.domain.proposals.policy import CanaryPolicy
from harness.domain.ranges import add_seconds
from harness.domain.reliability.failures import describe_failures
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.guardrail_report import GuardrailEvidence
from harness.gate.online.next_step import missing_duration, peak_reached_at
from harness.gate.online.rollout_action import RolloutAction, RolloutFigures
from harness.gate.planning.ramp import DAY_S, TrafficPace, certification_times
from harness.gate.text.ramp_plan import describe_warm_up

# log e (statistics.md §0): strong evidence, not enough to act.
STRONG_EVIDENCE: Final = math.log(10.0)
# Of the way to a rollback by itself.
HALF_DISTANCE: Final = 0.5
NO_FEEDBACK: Final = "no feedback yet"
HOUR: Final = timedelta(hours=1)
# A pace of fewer blocks is a guess.
MIN_BLOCKS: Final = 3
# log e (statistics.md §0): from here on it is called so.
SOME_EVIDENCE: Final = math.log(3.0)
_EVIDENCE: Final = (
    (STRONG_EVIDENCE, "strong evidence of harm"),
    (SOME_EVIDENCE, "some evidence of harm"),
    (0.0, "hardly any evidence of harm"),
)
GUARDRAIL_NAMES: Final[Mapping[Guardrail, str]] = {
    Guardrail.ERRORS: "Errors",
    Guardrail.LATENCY: "Time for an answer",
    Guardrail.TIME_TO_FIRST_TOKEN: "Time to first token",
    Guardrail.INTER_TOKEN_LATENCY: "Time between tokens",
    Guardrail.OUTPUT_TOKENS: "Output tokens",
    Guardrail.TRUNCATION: "Cut off at the token limit",
    Guardrail.REFUSALS: "Refusals",
    Guardrail.JSON_VALIDITY: "Invalid JSON",
    Guardrail.TOOL_VALIDITY: "Wrong tool calls",
    Guardrail.COST_PER_SUCCESS: "Cost per answer",
    Guardrail.FEEDBACK: "Disliked by users",
    Guardrail.JUDGE: "Found bad by the judge",
}
_SECONDS: Final = frozenset(
    {Guardrail.LATENCY, Guardrail.TIME_TO_FIRST_TOKEN, Guardrail.INTER_TOKEN_LATENCY}
)


@dataclass(frozen=True, slots=True)
class GuardrailRow:
    guardrail: Guardrail
    name: str
    says: str
    candidate: str  # candidate, incumbent: figures in words, empty without data
    incumbent: str
    allowed: str
    exposures: int
    log_e: float
    log_e_max: float
    distance: float  # to the rollback if it tripped alone, 1 trips
    furthest: float  # the highest that it was
    # Of errors, a line for each model that has any; of the judge, what he cost; of costs and
    # times, which part of a difference is the prompt cache.
    classes: tuple[str, ...] = ()
    warns: bool = False  # it speaks against going on by hand


@dataclass(frozen=True, slots=True)
class StepNeed:
    what: str
    words: str
    done: bool
    share: float  # of it that is there
    eta_s: float | None  # None if unknown


@dataclass(frozen=True, slots=True)
class RolloutExplanation:
    why: str  # it is where it is
    goes_to: str  # where it goes next, empty when it has ended
    goes_back: str
    guardrails: tuple[GuardrailRow, ...]
    needs: tuple[StepNeed, ...]
    units_per_hour: float | None  # of all arms, at the current pace; None without traffic
    eta_s: float | None  # until the next step, None where nobody knows
    eta: str  # in words, empty when nothing is to come
    # What a person is told who takes it on by hand; empty where nothing speaks against it.
    against: tuple[str, ...] = ()
    judged_by: str = ""  # the rules that its policy registered


_PERSON: Final = StepNeed(
    "person", "a person resumes or aborts it", done=False, share=0.0, eta_s=None
)


def explain_rollout(
    rollout: Rollout, action: RolloutAction, blocks: Sequence[ObservationBlock], now: datetime
) -> RolloutExplanation:
    """Explains a rollout. action: of `decide_action`, for the same blocks and moment."""
    return replace(_explain(rollout, action, blocks, now), judged_by=_judged_by(rollout.policy))


def _judged_by(policy: CanaryPolicy) -> str:
    words = (
        "counts callers, each by the first request; the guardrail of errors has nine tenths of "
        "the weight, and the others share the rest; likely sizes of harm weigh more than "
        "unlikely ones; small blocks are judged by the planned share"
    )
    words += f"; {describe_warm_up(policy)}" if describe_warm_up(policy) else ""
    if policy.handover_s:
        words += (
            f"; for {format_span(policy.handover_s)} after each new share, a conversation "
            "that is under way stays with the incumbent and counts for neither model"
        )
    return words


def _explain(
    rollout: Rollout, action: RolloutAction, blocks: Sequence[ObservationBlock], now: datetime
) -> RolloutExplanation:
    pace, reason = _pace(rollout, blocks, now), without_scientific_notation(action.reason)
    limit, judge = action.figures.rollback_at, rollout.policy.judge
    rows = tuple(_row(one, limit, judge) for one in action.figures.guardrails.values())
    if rollout.baking and rollout.bake_ends_at and action.signal is not RolloutSignal.HARM:
        left = max(0.0, (rollout.bake_ends_at - now).total_seconds())
        need = StepNeed("time", "the end of the bake", done=not left, share=0.0, eta_s=left)
        goes, back = "the end of the bake", _back("the incumbent before it serves again")
        return RolloutExplanation(
            action.reason, goes, back, rows, (need,), pace, left, f"in {format_estimate(left)}"
        )
    if not rollout.live and not rollout.baking:
        why = without_scientific_notation(rollout.ended_because) or reason
        return RolloutExplanation(why, "", "", rows, (), None, None, "")
    if action.signal is RolloutSignal.HARM:
        back = "The incumbent serves all users again."
        return RolloutExplanation(reason, "0 %", back, rows, (), pace, 0.0, "at the next look")
    needs = _needs(rollout, action, pace, now)
    onward = rollout.policy.steps[rollout.step + 1 :]
    goes = format_bps(onward[0].weight_bps) if onward else "promotion"
    back = _back("the incumbent serves all users again")
    eta_s, eta = _eta(rollout, needs, now)
    against = list_warnings(action.figures)
    return RolloutExplanation(reason, goes, back, rows, needs, pace, eta_s, eta, against)


def _back(what: str) -> str:
    return f"Evidence of harm at 100 % of the rollback level: {what}, at once and by itself."


def _row(evidence: GuardrailEvidence, limit: float, judge: CanaryJudge | None) -> GuardrailRow:
    guardrail, tolerated = evidence.guardrail, evidence.tolerated
    counts = guardrail_kind(guardrail) is GuardrailKind.COUNTS
    furthest = evidence.log_e_max / (limit - math.log(evidence.weight))
    silent = _without_feedback(evidence)
    measured = bool(evidence.canary) and not silent
    candidate, incumbent = (_arm_figure(evidence, canary=arm) for arm in (True, False))
    times = "" if tolerated == 1 else f"{format_number(tolerated, 6)} × "
    return GuardrailRow(
        guardrail=guardrail,
        name=GUARDRAIL_NAMES[guardrail],
        says=NO_FEEDBACK if silent else _evidence_text(evidence, measured=measured),
        candidate=candidate if measured else "",
        incumbent=incumbent if measured else "",
        allowed=f"at most {times}the incumbent's {'odds' if counts else 'value'}",
        exposures=evidence.canary if measured else 0,
        log_e=evidence.log_e,
        log_e_max=evidence.log_e_max,
        distance=evidence.distance_to_trip,
        furthest=min(1.0, max(evidence.distance_to_trip, furthest, 0.0)),
        classes=(
            _failure_classes(evidence)
            or _judge_lines(evidence, judge)
            or tuple(filter(None, [evidence.cache_text]))
        ),
        warns=is_warning(evidence),
    )


def _without_feedback(evidence: GuardrailEvidence) -> bool:
    """Whether no user gave feedback. Missing outcomes, which count as bad, may be evidence."""
    opinions = evidence.opinions
    return (
        opinions is not None
        and not (opinions.canary or opinions.control)
        and evidence.log_e <= 0.0
    )


def _failure_classes(evidence: GuardrailEvidence) -> tuple[str, ...]:
    """Lists each model's failures by class, and the segment that carries the harm."""
    arms = (
        ("candidate", evidence.canary_failures, evidence.canary_classes),
        ("incumbent", evidence.control_failures, evidence.control_classes),
    )
    lines = tuple(
        f"{name}, {format_quantity(failures, 'failure')}: {describe_failures(classes)}"
        for name, failures, classes in arms
        if classes
    )
    return (*lines, evidence.segment.text) if evidence.segment else lines


def _judge_lines(evidence: GuardrailEvidence, judge: CanaryJudge | None) -> tuple[str, ...]:
    totals = evidence.judging
    if totals is None or judge is None:
        return ()
    paid, money = format_usd(totals.cost_usd), format_usd(judge.max_usd)
    lines = [f"{judge.model} was paid {paid} of {money}"]
    if totals.cost_usd >= judge.max_usd:
        lines[0] += ": the money is spent, and no further answer is read, of either model"
    if totals.canary_unjudged or totals.control_unjudged:
        lines.append(
            f"without a verdict: candidate {totals.canary_unjudged:,}, incumbent "
            f"{totals.control_unjudged:,}; as evidence of harm they count for the candidate"
        )
    return tuple(lines)


def _evidence_text(evidence: GuardrailEvidence, *, measured: bool) -> str:
    if not measured:
        return "no data yet"
    if evidence.distance_to_trip >= 1.0:
        return "harm is shown"
    return next(
        (words for at, words in _EVIDENCE if evidence.log_e > at), "no evidence of harm"
    )


def _arm_figure(evidence: GuardrailEvidence, *, canary: bool) -> str:
    units = evidence.canary if canary else evidence.control
    if guardrail_kind(evidence.guardrail) is GuardrailKind.COUNTS:
        failed = evidence.canary_failures if canary else evidence.control_failures
        if not units:
            return "nothing yet"
        feedback, opinions = "", evidence.opinions
        if opinions is not None:
            given = opinions.canary if canary else opinions.control
            feedback = f", {given:,} with an opinion"
        percent = format_percent(failed / units, significant=2)
        return f"{percent} ({failed:,} of {units:,}{feedback})"
    levels = evidence.canary_level, evidence.control_level
    level, other = levels if canary else levels[::-1]
    if level is None:
        return f"{units:,} compared"
    if evidence.guardrail in _SECONDS:
        return f"{format_number(level)} s"
    if evidence.guardrail is Guardrail.COST_PER_SUCCESS:
        return format_answer_price(level, other)
    return format_number(level)


def _needs(
    rollout: Rollout, action: RolloutAction, pace: float | None, now: datetime
) -> tuple[StepNeed, ...]:
    found = [_exposures(rollout, action, pace)]
    found += _warm_up(rollout, action, pace, now)
    found.append(_ratio(action))
    found += _floors(rollout, now)
    if rollout.current.certify:
        found.append(_certificate(rollout, action, pace, now))
    if rollout.state is RolloutState.PAUSED:
        found.insert(0, _PERSON)
    return tuple(found)


def _warm_up(
    rollout: Rollout, action: RolloutAction, pace: float | None, now: datetime
) -> list[StepNeed]:
    policy, have = rollout.policy, action.exposures
    left = max(0, policy.cold_units - have)
    # The step may have begun after `now` was read.
    lasted_s = max(0.0, (now - rollout.step_started_at).total_seconds())
    left_s = max(0.0, policy.warm_up_s - lasted_s) if action.step_exposures else 0.0
    if not left and not left_s:
        return []
    each_s = _seconds_each(rollout, pace)
    until = [f"{have:,} of {policy.cold_units:,} units"] if left else []
    until += [f"another {format_estimate(left_s)}"] if left_s else []
    words = f"{' and '.join(until)} to warm up, in which times do not count"
    share = have / policy.cold_units if left else 1.0 - left_s / policy.warm_up_s
    eta_s: float | None = left_s
    if left:
        eta_s = None if each_s is None else max(left_s, left * each_s)
    return [StepNeed("warm-up", words, done=False, share=share, eta_s=eta_s)]


def _exposures(rollout: Rollout, action: RolloutAction, pace: float | None) -> StepNeed:
    step, have = rollout.current, action.step_exposures
    wanted = max(1, step.min_exposures)
    left = max(0, wanted - have)
    each_s = _seconds_each(rollout, pace)
    return StepNeed(
        what="exposures",
        words=f"{have:,} of {wanted:,} canary callers at {format_bps(step.weight_bps)}",
        done=not left,
        share=min(1.0, have / wanted),
        eta_s=0.0 if not left else None if each_s is None else left * each_s,
    )


def _seconds_each(rollout: Rollout, pace: float | None) -> float | None:
    return 3600.0 / (pace * rollout.current.weight_bps / 10_000) if pace else None


def _ratio(action: RolloutAction) -> StepNeed:
    right = action.figures.log_srm < ALARM_LOG_E
    words = "the canary's share of callers is the planned one"
    if not right:
        words = "the canary's share of callers is not the planned one: look at routing"
    return StepNeed("sample ratio", words, right, float(right), 0.0 if right else None)


def _floors(rollout: Rollout, now: datetime) -> list[StepNeed]:
    step, peak, began = rollout.current, rollout.policy.peak, rollout.step_started_at
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


def _certificate(
    rollout: Rollout, action: RolloutAction, pace: float | None, now: datetime
) -> StepNeed:
    """When: the rest of what a healthy canary of this route takes in half of all cases."""
    figures = action.figures
    at = figures.certificate_at
    share = min(1.0, max(0.0, action.log_certificate / math.log(at)))
    done = action.log_certificate >= math.log(at)
    # Beyond its goal the number says nothing more.
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
            _two_figures(pace), _two_figures(pace), _two_figures(rate), measured=True
        )
        began_s = (now - rollout.started_at).total_seconds() // DAY_S * DAY_S
        half, _ = certification_times(rollout.policy, rollout.current, traffic_pace, began_s)
        eta = half * (1.0 - share) if math.isfinite(half) else None
    return StepNeed("certificate", words, done, share, eta)


def _eta(
    rollout: Rollout, needs: Sequence[StepNeed], now: datetime
) -> tuple[float | None, str]:
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
        words += ": later than its time allows, so it will pause"
    return eta_s, words


def _pace(rollout: Rollout, blocks: Sequence[ObservationBlock], now: datetime) -> float | None:
    """Units of all arms an hour: of the last hour, or of the whole step where that is thin."""
    step = [block for block in blocks if block.closed_at >= rollout.step_started_at]
    last_hour = [block for block in step if now - block.closed_at <= HOUR]
    for used in (last_hour, step):
        if len(used) >= MIN_BLOCKS:
            began = min(block.opened_at for block in used)
            seconds = max(60.0, (now - began).total_seconds())
            return sum(block.units for block in used) * 3600.0 / seconds
    return None


def _two_figures(value: float) -> float:
    """Rounds to two digits, so that decisions at nearly the same pace share one simulation."""
    return float(f"{value:.2g}")


def is_warning(evidence: GuardrailEvidence) -> bool:
    """Whether a guardrail's figures are strong evidence of harm, or half of what trips it."""
    if not evidence.canary:
        return False
    return evidence.distance_to_trip >= HALF_DISTANCE or evidence.log_e > STRONG_EVIDENCE


def list_warnings(figures: RolloutFigures) -> tuple[str, ...]:
    """Returns a sentence for each thing that warns; empty when nothing does."""
    warnings = []
    if figures.log_srm >= ALARM_LOG_E:
        warnings.append(
            "The canary's share of callers is not the planned one: look at routing first."
        )
    warnings += [
        f"The canary {evidence.text}; by itself that is "
        f"{format_percent(evidence.distance_to_trip, 0)} of the evidence that takes it back."
        for evidence in figures.guardrails.values()
        if is_warning(evidence)
    ]
    warnings += [
        f"{evidence.cache_text[:1].upper()}{evidence.cache_text[1:]}. No evidence counts the "
        "cache's part: it stays if the candidate's cache stays cold at full traffic."
        for evidence in figures.guardrails.values()
        if evidence.is_cold
    ]
    return tuple(warnings)
