"""A rollout is explained: why it is where it is, each guardrail, and what it waits for.

Reads what `policy.decide` decided; decides nothing itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from harness.domain.canary.guardrails import Guardrail, GuardrailKind, guardrail_kind
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.rollout import Rollout, RolloutAction, RolloutSignal, RolloutState
from harness.domain.formatting import (
    format_answer_price,
    format_number,
    without_scientific_notation,
)
from harness.domain.proposals.policy import CanaryJudge, ExposureUnit
from harness.domain.proposals.policy_bounds import clamp_policy
from harness.domain.reliability.failures import describe_failures
from harness.domain.safe_time import add_seconds
from harness.gate.online.assignment import ALARM_LOG_E
from harness.gate.online.policy import missing_duration, peak_seconds
from harness.gate.planning.ramp import DAY_S, TrafficPace, certification_times
from harness.gate.text.ramp_plan import format_span
from harness.gate.text.warnings import STRONG_EVIDENCE, is_warning, list_warnings

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
    """One guardrail."""

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
    # Of errors, a line for each model that has any; of the judge, what he cost.
    classes: tuple[str, ...] = ()
    warns: bool = False  # it speaks against going on by hand


@dataclass(frozen=True, slots=True)
class StepNeed:
    """What the next step waits for."""

    what: str
    words: str
    done: bool
    share: float  # of it that is there
    eta_s: float | None  # None if unknown


@dataclass(frozen=True, slots=True)
class RolloutExplanation:
    """Why a rollout is where it is, and what it waits for."""

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


_PERSON: Final = StepNeed(
    "person", "a person resumes or aborts it", done=False, share=0.0, eta_s=None
)


def explain_rollout(
    rollout: Rollout, action: RolloutAction, blocks: Sequence[ObservationBlock], now: datetime
) -> RolloutExplanation:
    """Explains a rollout. action: what `decide_action` gave for the same rollout, blocks and
    moment.
    """
    rollout = replace(rollout, policy=clamp_policy(rollout.policy))
    pace, reason = _pace(rollout, blocks, now), without_scientific_notation(action.reason)
    rows = _rows(action.figures, rollout.policy.judge)
    if rollout.baking and rollout.bake_ends_at and action.signal is not RolloutSignal.HARM:
        left = max(0.0, (rollout.bake_ends_at - now).total_seconds())
        need = StepNeed("time", "the end of the bake", done=not left, share=0.0, eta_s=left)
        goes, back = "the end of the bake", _back("the incumbent before it serves again")
        return RolloutExplanation(
            action.reason, goes, back, rows, (need,), pace, left, f"in {format_span(left)}"
        )
    if not rollout.live and not rollout.baking:
        why = without_scientific_notation(rollout.ended_because) or reason
        return RolloutExplanation(why, "", "", rows, (), None, None, "")
    if action.signal is RolloutSignal.HARM:
        back = "The incumbent serves all users again."
        return RolloutExplanation(reason, "0 %", back, rows, (), pace, 0.0, "at the next look")
    needs = _needs(rollout, action, pace, now)
    goes = "promotion" if rollout.last_step else _percent(_next_bps(rollout))
    back = _back("the incumbent serves all users again")
    eta_s, eta = _eta(rollout, needs, now)
    against = list_warnings(action.figures)
    return RolloutExplanation(reason, goes, back, rows, needs, pace, eta_s, eta, against)


def _back(what: str) -> str:
    return f"Evidence of harm at 100 % of the rollback level: {what}, at once and by itself."


def _rows(figures: Mapping[str, Any], judge: CanaryJudge | None) -> tuple[GuardrailRow, ...]:
    limit = float(figures["rollback_at"])
    return tuple(
        _row(Guardrail(name), told, limit, judge)
        for name, told in figures["guardrails"].items()
    )


def _row(
    guardrail: Guardrail, told: Mapping[str, Any], limit: float, judge: CanaryJudge | None
) -> GuardrailRow:
    counts = guardrail_kind(guardrail) is GuardrailKind.COUNTS
    furthest = told["log_e_max"] / (limit - math.log(told["weight"]))
    allowed = f"{format_number(told['tolerated'], 6)} × the {'odds' if counts else 'value'}"
    silent = _silent(told)
    seen = bool(told["canary"]) and not silent
    return GuardrailRow(
        guardrail=guardrail,
        name=GUARDRAIL_NAMES[guardrail],
        says=NO_FEEDBACK if silent else _says(told, seen=seen),
        candidate=_figure(guardrail, told, "canary") if seen else "",
        incumbent=_figure(guardrail, told, "control") if seen else "",
        allowed=allowed,
        exposures=int(told["canary"]) if seen else 0,
        log_e=told["log_e"],
        log_e_max=told["log_e_max"],
        distance=told["distance_to_trip"],
        furthest=min(1.0, max(told["distance_to_trip"], furthest, 0.0)),
        classes=_classes(told) or _judging(told, judge),
        warns=is_warning(told),
    )


def _silent(told: Mapping[str, Any]) -> bool:
    """No user said anything: that nobody complained is no success. Missing outcomes, which
    count as bad, may still be evidence.
    """
    found = told.get("opinions")
    return found is not None and not any(found.values()) and told["log_e"] <= 0.0


def _heard(told: Mapping[str, Any], arm: str) -> str:
    """Tells of how many units a user gave feedback."""
    found = told.get("opinions")
    if found is None:
        return ""
    return f", {found[arm]:,} with an opinion"


def _classes(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Lists each model's failures by class: `candidate, 12 failures: 9 timeout, 3
    malformed`.
    """
    found = told.get("classes", {})
    return tuple(
        f"{who}, {_failures(told[f'{arm}_failures'])}: {describe_failures(found[arm])}"
        for who, arm in (("candidate", "canary"), ("incumbent", "control"))
        if found.get(arm)
    )


def _judging(told: Mapping[str, Any], judge: CanaryJudge | None) -> tuple[str, ...]:
    found = told.get("judging")
    if found is None or judge is None:
        return ()
    spent, unjudged = found["cost_usd"], found["no_verdict"]
    lines = [
        (
            f"{judge.model} was paid ${format_number(spent, 2)} of "
            f"${format_number(judge.max_usd, 15)}"
        )
    ]
    if spent >= judge.max_usd:
        lines[0] += ": the money is spent, and no further answer is read, of either model"
    if any(unjudged.values()):
        lines.append(
            f"without a verdict, and so counted as bad: candidate {unjudged['canary']:,}, "
            f"incumbent {unjudged['control']:,}"
        )
    return tuple(lines)


def _failures(number: int) -> str:
    return "1 failure" if number == 1 else f"{number:,} failures"


def _says(told: Mapping[str, Any], *, seen: bool) -> str:
    if not seen:
        return "no data yet"
    if told["distance_to_trip"] >= 1.0:
        return "harm is shown"
    log_e = told["log_e"]
    return next((words for at, words in _EVIDENCE if log_e > at), "no evidence of harm")


def _figure(guardrail: Guardrail, told: Mapping[str, Any], arm: str) -> str:
    if guardrail_kind(guardrail) is GuardrailKind.COUNTS:
        failed, of = told[f"{arm}_failures"], told[arm]
        if not of:
            return "nothing yet"
        return (
            f"{format_number(failed / of * 100, 2)} % ({failed:,} of {of:,}{_heard(told, arm)})"
        )
    level = told[f"{arm}_level"]
    if level is None:
        return f"{told[arm]:,} compared"
    if guardrail in _SECONDS:
        return f"{format_number(level)} s"
    if guardrail is Guardrail.COST_PER_SUCCESS:
        other = told["control_level" if arm == "canary" else "canary_level"]
        return format_answer_price(level, other)
    return format_number(level)


def _needs(
    rollout: Rollout, action: RolloutAction, pace: float | None, now: datetime
) -> tuple[StepNeed, ...]:
    found = [_exposures(rollout, action, pace)]
    if rollout.policy.unit is ExposureUnit.SESSION:
        found.append(_ratio(action))
    found += _floors(rollout, now)
    if rollout.current.certify:
        found.append(_certificate(rollout, action, pace, now))
    if rollout.state is RolloutState.PAUSED:
        found.insert(0, _PERSON)
    return tuple(found)


def _exposures(rollout: Rollout, action: RolloutAction, pace: float | None) -> StepNeed:
    step, have = rollout.current, action.step_exposures
    wanted = max(1, step.min_exposures)
    left = max(0, wanted - have)
    each_s = 3600.0 / (pace * step.weight_bps / 10_000) if pace else None
    what = "sessions" if rollout.policy.unit is ExposureUnit.SESSION else "requests"
    return StepNeed(
        what="exposures",
        words=f"{have:,} of {wanted:,} canary {what} at {_percent(step.weight_bps)}",
        done=not left,
        share=min(1.0, have / wanted),
        eta_s=0.0 if not left else None if each_s is None else left * each_s,
    )


def _ratio(action: RolloutAction) -> StepNeed:
    right = float(str(action.figures["log_srm"])) < ALARM_LOG_E
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
        while peak_seconds(peak, began, at) < step.min_peak_s and at < now + 60 * 24 * HOUR:
            at += HOUR / 4
        eta = (at - now).total_seconds()
    words = missing[:1].lower() + missing[1:] if missing else "the step lasted long enough"
    return [StepNeed("time", words, not missing, float(not missing), eta)]


def _certificate(
    rollout: Rollout, action: RolloutAction, pace: float | None, now: datetime
) -> StepNeed:
    """When: the rest of what a healthy canary of this route takes in half of all cases."""
    figures: Mapping[str, Any] = action.figures
    at = figures["certificate_at"]
    share = min(1.0, max(0.0, action.log_certificate / math.log(at)))
    done = action.log_certificate >= math.log(at)
    words = (
        f"the certificate of no harm is at {format_number(figures['certificate'], 2)} "
        f"of {format_number(at)}"
    )
    eta: float | None = 0.0 if done else None
    if not done and pace:
        control = figures["control_units"]
        rate = figures["control_failures"] / control if control else rollout.policy.p0
        seen = TrafficPace(
            _two_figures(pace), _two_figures(pace), _two_figures(rate), measured=True
        )
        began_s = (now - rollout.started_at).total_seconds() // DAY_S * DAY_S
        half, _ = certification_times(rollout.policy, rollout.current, seen, began_s)
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
    if add_seconds(now, eta_s) > add_seconds(
        rollout.step_started_at, rollout.current.deadline_s
    ):
        return (
            eta_s,
            f"in about {format_span(eta_s)}: later than its time allows, so it will pause",
        )
    return eta_s, f"in about {format_span(eta_s)}"


def _pace(rollout: Rollout, blocks: Sequence[ObservationBlock], now: datetime) -> float | None:
    """Units of all arms an hour: of the last hour, or of the whole step where that is thin."""
    step = [block for block in blocks if block.closed_at >= rollout.step_started_at]
    last_hour = [each for each in step if now - each.closed_at <= HOUR]
    for used in (last_hour, step):
        if len(used) >= MIN_BLOCKS:
            began = min(each.opened_at for each in used)
            seconds = max(60.0, (now - began).total_seconds())
            return sum(each.units for each in used) * 3600.0 / seconds
    return None


def _two_figures(value: float) -> float:
    """Rounds to two digits, so that decisions at nearly the same pace share one simulation."""
    return float(f"{value:.2g}")


def _next_bps(rollout: Rollout) -> int:
    return rollout.policy.steps[rollout.step + 1].weight_bps


def _percent(bps: int) -> str:
    return f"{bps / 100:g} %"
