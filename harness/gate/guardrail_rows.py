"""Explains the evidence of one guardrail as a row, and lists the warnings.

A warning advises a person against the next step; it stops nothing. `harness.gate.online`
computes the evidence, and `harness.gate.online.guardrail_report` describes its sums.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from harness.frame.failures import describe_failures
from harness.frame.formatting import (
    format_answer_price,
    format_number,
    format_percent,
    format_quantity,
    format_usd,
)
from harness.gate.canary_sentences import guard_details, guard_sentence
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.guardrail_report import (
    GUARDRAIL_NAMES,
    GuardrailEvidence,
)
from harness.gate.online.guardrails import (
    CanaryJudge,
    Guardrail,
    GuardrailKind,
    guardrail_kind,
)
from harness.gate.online.rollout_action import RolloutFigures
from harness.gate.online.worker_guard import GuardCount

# log e (statistics.md §0) of strong evidence, which is not enough for a rollback.
STRONG_EVIDENCE: Final = math.log(10.0)
# Half of the evidence that rolls a canary back, for one guardrail alone.
HALF_DISTANCE: Final = 0.5
NO_FEEDBACK: Final = "no feedback yet"
# log e (statistics.md §0) of "some evidence".
SOME_EVIDENCE: Final = math.log(3.0)
_EVIDENCE: Final = (
    (STRONG_EVIDENCE, "strong evidence of harm"),
    (SOME_EVIDENCE, "some evidence of harm"),
    (0.0, "hardly any evidence of harm"),
)
SHOWN_BY_GUARD: Final = "harm is shown by the router's own guard"
_SECONDS: Final = frozenset(
    {
        Guardrail.LATENCY,
        Guardrail.TIME_TO_FIRST_TOKEN,
        Guardrail.INTER_TOKEN_LATENCY,
    }
)


@dataclass(frozen=True, slots=True)
class GuardrailRow:
    """One guardrail's evidence as texts and figures, for a table."""

    guardrail: Guardrail
    name: str
    says: str
    candidate: str  # candidate, incumbent: figures as text, empty without data
    incumbent: str
    allowed: str
    exposures: int
    log_e: float
    log_e_max: float
    distance: float  # share of the rollback level for the guardrail alone; 1 trips
    furthest: float  # the maximum distance so far
    # For errors, a line for each model with errors, and what they are compared with; for the
    # judge, its cost; for costs and times, the part of a difference that the prompt cache
    # explains, the number of values that are lower bounds, and the means up to a cap.
    classes: tuple[str, ...] = ()
    warns: bool = False  # whether it warns against an advance by hand


def guardrail_row(
    evidence: GuardrailEvidence,
    limit: float,
    judge: CanaryJudge | None,
    guard: GuardCount | None = None,
) -> GuardrailRow:
    """Explains one guardrail's evidence.

    Args:
        limit: the log e of a rollback.
        guard: counts of the router's guard that stopped the canary.
    """
    row = _evidence_row(evidence, limit, judge)
    if guard is None:
        return row
    guarded = Guardrail.CALLER_ERRORS if guard.window_s else Guardrail.ERRORS
    return _show_guard_counts(row, guard) if evidence.guardrail is guarded else row


def _show_guard_counts(row: GuardrailRow, guard: GuardCount) -> GuardrailRow:
    """Replaces the row's figures by the counts of the router's guard, because these counts
    decided.
    """
    share = format_percent(guard.canary_share, significant=2)
    return replace(
        row,
        says=row.says if row.distance >= 1.0 else SHOWN_BY_GUARD,
        candidate=f"{share} ({guard.canary_failures:,} of {guard.exposures:,})",
        incumbent=_write_control_failures(guard),
        exposures=guard.exposures,
        distance=max(row.distance, guard.distance),
        furthest=min(1.0, max(row.furthest, guard.distance)),
        classes=(guard_sentence(guard), guard_details(guard)),
        warns=True,
    )


def _write_control_failures(guard: GuardCount) -> str:
    """Writes the incumbent's failures; alerts of older routers have no number of callers."""
    failures = guard.control_failures
    callers = guard.control_exposures
    if callers is None:
        return format_quantity(failures, "failure")
    share = format_percent(failures / callers, significant=2) if callers else "no caller"
    return f"{share} ({failures:,} of {callers:,})"


def _evidence_row(
    evidence: GuardrailEvidence,
    limit: float,
    judge: CanaryJudge | None,
) -> GuardrailRow:
    """Builds the row of one guardrail.

    Args:
        limit: log e of the rollback, for all guardrails together.
        judge: the policy's judge; None without one.

    Without data the arms' figures are empty texts, because a zero would look measured.
    """
    guardrail = evidence.guardrail
    tolerated = evidence.tolerated
    furthest = evidence.log_e_max / (limit - math.log(evidence.weight))
    silent = _lacks_feedback(evidence)
    measured = bool(evidence.canary) and not silent
    candidate = _arm_figure(evidence, canary=True)
    incumbent = _arm_figure(evidence, canary=False)
    return GuardrailRow(
        guardrail=guardrail,
        name=GUARDRAIL_NAMES[guardrail],
        says=NO_FEEDBACK if silent else _evidence_text(evidence, measured=measured),
        candidate=candidate if measured else "",
        incumbent=incumbent if measured else "",
        allowed=_write_limit(guardrail, tolerated),
        exposures=evidence.canary if measured else 0,
        log_e=evidence.log_e,
        log_e_max=evidence.log_e_max,
        distance=evidence.distance_to_trip,
        furthest=min(1.0, max(evidence.distance_to_trip, furthest, 0.0)),
        classes=(
            *_list_failure_classes(evidence),
            *_judge_lines(evidence, judge),
            *filter(
                None,
                [
                    evidence.cache_text,
                    evidence.bounds_text,
                    evidence.sums_text,
                    evidence.requests.text if evidence.requests else "",
                    _sole_key_text(evidence),
                    evidence.usual_text if measured else "",
                ],
            ),
        ),
        warns=is_warning(evidence),
    )


def _write_limit(guardrail: Guardrail, tolerated: float) -> str:
    """Writes the limit of a guardrail.

    Args:
        tolerated: a ratio, or a margin for sums.
    """
    kind = guardrail_kind(guardrail)
    if kind is GuardrailKind.SUMS:
        return f"at most the incumbent's share and {format_percent(tolerated)} of the requests"
    times = "" if tolerated == 1 else f"{format_number(tolerated, 6)} × "
    return f"at most {times}the incumbent's {_COMPARED_FIGURES[kind]}"


_COMPARED_FIGURES: Final = {GuardrailKind.COUNTS: "odds", GuardrailKind.RANKS: "value"}


def _lacks_feedback(evidence: GuardrailEvidence) -> bool:
    """Tells whether callers gave no feedback, and missing outcomes are no evidence either."""
    opinions = evidence.opinions
    return (
        opinions is not None
        and not (opinions.canary or opinions.control)
        and evidence.log_e <= 0.0
    )


def _list_failure_classes(evidence: GuardrailEvidence) -> tuple[str, ...]:
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


def _sole_key_text(evidence: GuardrailEvidence) -> str:
    if not evidence.sole_key:
        return ""
    return (
        f"one key: nearly all callers come with the client key {evidence.sole_key}, which thus "
        "decides this guardrail alone. Give each application its own key"
    )


def _judge_lines(evidence: GuardrailEvidence, judge: CanaryJudge | None) -> tuple[str, ...]:
    """Describes the judge's cost, and answers without its verdict."""
    totals = evidence.judging
    if totals is None or judge is None:
        return ()
    paid = format_usd(totals.cost_usd)
    money = format_usd(judge.max_usd)
    lines = [f"{judge.model} was paid {paid} of {money}"]
    if totals.cost_usd >= judge.max_usd:
        lines[0] += ": the money is spent, so the judge reads no further answer of either model"
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
        (words for at, words in _EVIDENCE if evidence.log_e > at),
        "no evidence of harm",
    )


def _arm_figure(evidence: GuardrailEvidence, *, canary: bool) -> str:
    """Writes one arm's figure: a share for counts, a mean for values."""
    exposures = evidence.canary if canary else evidence.control
    if guardrail_kind(evidence.guardrail) is not GuardrailKind.RANKS:
        failed = evidence.canary_failures if canary else evidence.control_failures
        if not exposures:
            return "nothing yet"
        feedback = ""
        opinions = evidence.opinions
        if opinions is not None:
            given = opinions.canary if canary else opinions.control
            feedback = f", {given:,} with an opinion"
        percent = format_percent(failed / exposures, significant=2)
        return f"{percent} ({failed:,} of {exposures:,}{feedback})"
    levels = evidence.canary_level, evidence.control_level
    level, other = levels if canary else levels[::-1]
    if level is None:
        return f"{exposures:,} compared"
    if evidence.guardrail in _SECONDS:
        return f"{format_number(level)} s"
    if evidence.guardrail is Guardrail.COST_PER_SUCCESS:
        return format_answer_price(level, other)
    return format_number(level)


def is_warning(evidence: GuardrailEvidence) -> bool:
    """Tells whether the evidence of harm is strong, or half of the rollback level."""
    if not evidence.canary:
        return False
    return evidence.distance_to_trip >= HALF_DISTANCE or evidence.log_e > STRONG_EVIDENCE


def list_warnings(figures: RolloutFigures) -> tuple[str, ...]:
    """Writes a sentence for each warning; empty without warnings."""
    warnings = []
    if figures.log_srm >= ALARM_LOG_E:
        warnings.append(
            "The canary's share of callers is not the planned share: look at routing first."
        )
    warnings += [
        f"The canary {evidence.text}; this guardrail alone has "
        f"{format_percent(evidence.distance_to_trip, 0)} of the evidence for a rollback."
        for evidence in figures.guardrails.values()
        if is_warning(evidence)
    ]
    warnings += [
        f"{evidence.cache_text[:1].upper()}{evidence.cache_text[1:]}. The evidence excludes "
        "the cache's part, which remains if the candidate's cache stays cold at full traffic."
        for evidence in figures.guardrails.values()
        if evidence.is_cold
    ]
    return tuple(warnings)
