"""Decides a verdict on all suites from samples (`decide_verdict`), or again from a stored
verdict's inputs (`replay_verdict`): same inputs, same id, same bytes.

Suites of different roles are combined into one outcome (statistics.md §1.7).

| role | condition for a pass | shown worse | too little evidence |
|---|---|---|---|
| required | shown within the allowed loss, at the whole alpha | rejects | blocks |
| primary | the proposal's claim is shown | rejects | blocks |
| guard | no condition | rejects | does not block |

All conditions together are an intersection-union test (Berger 1982): no correction.
Several primary suites are one claim, which `harness.gate.offline.suite_claims` judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from harness.frame.formatting import add_seconds
from harness.frame.plain_data import canonical_json, digest, from_plain, to_plain
from harness.gate.budget import slice_level
from harness.gate.incumbent_days import IncumbentDays
from harness.gate.offline.pairs import PairedItem, PairedSuite, pair_samples
from harness.gate.offline.people_claims import SuiteLabels
from harness.gate.offline.served_arms import (
    SameModel,
    describe_unmeasured,
    find_same_model,
)
from harness.gate.offline.suite_claims import (
    UNLABELLED,
    ClaimGroup,
    SuiteClaim,
    at_least_one,
    judge_claim,
    weighted_mean,
)
from harness.gate.pins import ServedModel, ServedModels
from harness.gate.run import Sample
from harness.gate.sentences import NOT_SHOWN_WORSE, RECORDED_HISTORY
from harness.gate.suite_plan import (
    Claim,
    PrimaryCombination,
    SuitePlan,
    SuiteRole,
)
from harness.gate.verdict import VERDICTS, ScorePair, SuiteReport, Verdict

# Increase it with each change of the rules that can change a verdict from equal scores.
RULES_VERSION: Final = 7
# Begins the reason of a verdict whose answers do not compare the models.
NOT_MEASURED: Final = "Not measured: "


def inputs_to_json(
    cases: Sequence[SuiteClaim],
    decided_at: datetime,
    expires_at: datetime,
) -> dict[str, object]:
    """Writes the inputs of a verdict: plans, pairs (item, incumbent, candidate, both lenient),
    runs, marks of incomplete items, and the models that the providers served.

    Some keys of the result have only some suites:

    - `costs`: suites with a cost claim; pairs in US dollars, in the items' order
    - `days`: suites whose incumbent's scores are the mean of scheduled runs
    - `variances`: suites with claims about these items; variances of the pairs' scores
    - `labels`: suites about which people decide; None before their labels have ended
    """
    labels = {case.plan.suite: to_plain(case.labels) for case in cases if case.by_people}
    variances = {
        case.plan.suite: [item.variances for item in case.paired.items]
        for case in cases
        if case.plan.about_these
    }
    served = {case.plan.suite: case.paired.served for case in cases}
    costs = {
        case.plan.suite: [list(item.costs) for item in case.paired.items]
        for case in cases
        if case.plan.claim is Claim.CHEAPER
    }
    days = {
        case.plan.suite: to_plain(case.paired.days)
        for case in cases
        if case.paired.days is not None
    }
    return {
        "rules": RULES_VERSION,
        **({"days": days} if days else {}),
        **({"costs": costs} if costs else {}),
        **({"variances": variances} if variances else {}),
        **({"labels": labels} if labels else {}),
        "plans": [case.plan.as_json() for case in cases],
        "pairs": {case.plan.suite: _list_pair_rows(case.paired) for case in cases},
        "runs": {
            case.plan.suite: {
                "incumbent": case.paired.incumbent_run,
                "candidate": case.paired.candidate_run,
            }
            for case in cases
        },
        "marks": {case.plan.suite: _mark_items(case.paired) for case in cases},
        "blocked": {
            case.plan.suite: case.paired.blocked for case in cases if case.paired.blocked
        },
        # Left out if no served model is known.
        **(
            {"served": {suite: models.as_json() for suite, models in served.items()}}
            if any(models != ServedModels() for models in served.values())
            else {}
        ),
        "stopped": {case.plan.suite: list(case.stopped) for case in cases if case.stopped},
        "decided_at": decided_at.isoformat(),
        "expires_at": expires_at.isoformat(),
    }


def claims_from_json(inputs: Mapping[str, Any]) -> tuple[SuiteClaim, ...]:
    """Restores the output of inputs_to_json, also after conversion to JSON text and back."""
    return tuple(_read_claim(from_plain(SuitePlan, plan), inputs) for plan in inputs["plans"])


def run_ids(inputs: Mapping[str, Any], suite: str) -> tuple[str, str]:
    """Returns the run ids of incumbent and candidate; empty for a run that never began."""
    runs = inputs["runs"][suite]
    return runs["incumbent"], runs["candidate"]


def days_from_json(inputs: Mapping[str, Any], suite: str) -> IncumbentDays | None:
    """Restores the scheduled runs behind the incumbent's scores; None for one run."""
    found: IncumbentDays | None = from_plain(
        IncumbentDays | None, inputs.get("days", {}).get(suite)
    )
    return found


def served_from_json(inputs: Mapping[str, Any], suite: str) -> ServedModels:
    """Restores the served models of one suite; empty for a verdict without them."""
    stored = inputs.get("served", {}).get(suite, {})
    sides = {
        side: tuple(ServedModel(*model) for model in pairs) for side, pairs in stored.items()
    }
    return ServedModels(**sides)


def read_same_model(inputs: Mapping[str, Any]) -> SameModel | None:
    """Restores the finding that the same models served both arms; None without it."""
    stored = inputs.get("same_model")
    return SameModel.from_json(stored) if stored else None


def read_passed_slices(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Restores the proposals of other slices that had passed; empty for a whole route."""
    stored = inputs.get("passed_slices")
    return tuple(map(str, stored)) if isinstance(stored, list | tuple) else ()


def _raise_level(case: SuiteClaim, passed: int) -> SuiteClaim:
    """Gives a slice the level of Holm's rule after `passed` other slices have passed."""
    terms = case.plan.slice_terms
    if terms is None or not passed:
        return case
    alpha = slice_level(case.plan.alpha * terms.slices, terms.slices, passed)
    return replace(case, plan=replace(case.plan, alpha=alpha))


def verdict_times(inputs: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """Returns when the verdict was decided, and when it expires."""
    return (
        datetime.fromisoformat(inputs["decided_at"]),
        datetime.fromisoformat(inputs["expires_at"]),
    )


def report_json(report: SuiteReport) -> dict[str, object]:
    """Writes a suite's report as plain values, as verdicts are hashed and stored."""
    return {**asdict(report), "flags": list(report.flags)}


def verdict_bytes(verdict: Verdict) -> bytes:
    """Writes a whole verdict in one canonical form: equal bytes, equal verdicts."""
    body = {
        "id": verdict.id,
        "outcome": verdict.outcome,
        "route": verdict.route,
        "incumbent": verdict.incumbent,
        "candidate": verdict.candidate,
        "reason": verdict.reason,
        "suites": [report_json(report) for report in verdict.suites],
        "inputs": verdict.inputs,
    }
    return canonical_json(body).encode()


def _list_pair_rows(paired: PairedSuite) -> list[list[object]]:
    return [
        [
            item.pair.item,
            item.pair.incumbent,
            item.pair.candidate,
            item.pair.lenient_incumbent,
            item.pair.lenient_candidate,
        ]
        for item in paired.items
    ]


def _mark_items(paired: PairedSuite) -> dict[str, object]:
    return {
        item.pair.item: {
            "unscored": [item.unscored_incumbent, item.unscored_candidate],
            "unanswered": item.unanswered,
            "rules": list(item.rules),
            **({} if item.complete else {"reasons": [list(arm) for arm in item.reasons]}),
            **({"fallbacks": list(item.fallbacks)} if any(item.fallbacks) else {}),
        }
        for item in paired.items
        if item != PairedItem(item.pair, costs=item.costs, variances=item.variances)
    }


def _read_claim(plan: SuitePlan, inputs: Mapping[str, Any]) -> SuiteClaim:
    suite = plan.suite
    marks = inputs["marks"][suite]
    runs = inputs["runs"][suite]
    rows = inputs["pairs"][suite]
    costs = inputs.get("costs", {}).get(suite) or [(None, None)] * len(rows)
    variances = inputs.get("variances", {}).get(suite) or [None] * len(rows)
    items = tuple(
        replace(
            _read_item(row, marks.get(row[0]), plan.epochs),
            costs=(cost[0], cost[1]),
            variances=None if noise is None else (noise[0], noise[1]),
        )
        for row, cost, noise in zip(rows, costs, variances, strict=True)
    )
    blocked = inputs["blocked"].get(suite, "")
    paired = PairedSuite(
        items,
        runs["incumbent"],
        runs["candidate"],
        blocked,
        days_from_json(inputs, suite),
        stored_served=served_from_json(inputs, suite),
    )
    stopped = inputs["stopped"].get(suite)
    return SuiteClaim(
        plan,
        paired,
        (stopped[0], stopped[1]) if stopped else None,
        by_people=suite in inputs.get("labels", {}),
        labels=from_plain(SuiteLabels | None, inputs.get("labels", {}).get(suite)),
    )


def _read_item(
    row: Sequence[Any],
    mark: Mapping[str, Any] | None,
    epochs: int,
) -> PairedItem:
    pair = ScorePair(str(row[0]), *(float(score) for score in row[1:]))
    if mark is None:
        return PairedItem(pair)
    ours, theirs = mark["unscored"]
    reasons = mark.get("reasons", ((), ()))
    fallbacks = mark.get("fallbacks", (0, 0))
    return PairedItem(
        pair=pair,
        unscored_incumbent=ours,
        unscored_candidate=theirs,
        unanswered=mark["unanswered"],
        missing=(ours / epochs, theirs / epochs),
        reasons=(tuple(reasons[0]), tuple(reasons[1])),
        rules=tuple(mark["rules"]),
        fallbacks=(fallbacks[0], fallbacks[1]),
    )


# The verdict has the first of these outcomes that any suite has; `passed` needs all suites. So
# people need not label if the other suites already decide against a pass.
OUTCOME_PRECEDENCE: Final = (
    "failed",
    "running",
    "infra_error",
    "harness_mismatch",
    "inconclusive",
    UNLABELLED,
    "passed",
)

GUARD_NOT_WORSE: Final = "A guard suite passes because the candidate is not shown to be worse."


@dataclass(frozen=True, slots=True)
class JointJudgement:
    """The outcome on all suites, with each suite's report."""

    outcome: str
    reason: str
    reports: tuple[SuiteReport, ...]  # one for each case in order, then the weighted mean's
    consumed: tuple[int, ...]  # by case


def judge_suites(cases: Sequence[SuiteClaim]) -> JointJudgement:
    """Returns the outcome on all suites; `running` or `UNLABELLED` while it is open."""
    groups = _groups(cases)
    votes = [vote for group in groups for vote in group.votes]
    outcome = next(
        (word for word in OUTCOME_PRECEDENCE if word in dict(votes)),
        "running",
    )
    deciding = [report for vote, report in votes if vote == outcome]
    by_suite = {suite: member for group in groups for suite, member in group.members.items()}
    ordered = [by_suite[case.plan.suite] for case in cases]
    reports = (
        *(claim.report for claim in ordered),
        *(g.whole for g in groups if g.whole),
    )
    return JointJudgement(
        outcome=outcome,
        reason=_reason(outcome, deciding, reports),
        reports=reports,
        consumed=tuple(judgement.consumed for judgement in ordered),
    )


def _groups(cases: Sequence[SuiteClaim]) -> Sequence[ClaimGroup]:
    """Groups the suites: each suite alone, then the primary suites that share a claim."""
    weighted = [
        case
        for case in cases
        if case.plan.combine is PrimaryCombination.WEIGHTED and not case.by_people
    ]
    # If each part of a mean exceeds the null hypothesis, the mean does. So a suite that people
    # label decides alone (statistics.md §1.23).
    alone = [
        _judge_alone(case)
        for case in cases
        if case.plan.combine is None
        or (case.by_people and case.plan.combine is PrimaryCombination.WEIGHTED)
    ]
    any_of = [case for case in cases if case.plan.combine is PrimaryCombination.ANY]
    if weighted:
        alone.append(weighted_mean(weighted))
    if any_of:
        alone.append(at_least_one(any_of))
    return alone


def _judge_alone(case: SuiteClaim) -> ClaimGroup:
    judgement = judge_claim(case)
    report = judgement.report
    if case.plan.role is SuiteRole.GUARD and _is_silent_guard(report):
        report = replace(report, reason=f"{report.reason} {GUARD_NOT_WORSE}")
        judgement = replace(judgement, report=report)
        return ClaimGroup(votes=(("passed", report),), members={case.plan.suite: judgement})
    return ClaimGroup(
        votes=((case.vote(report.outcome), report),),
        members={case.plan.suite: judgement},
    )


def _is_silent_guard(report: SuiteReport) -> bool:
    """Tells whether a guard used all its items without a decision. An earlier end proves
    nothing.
    """
    return report.outcome == "inconclusive" and report.n_used >= report.n_max


def _reason(
    outcome: str,
    deciding: Sequence[SuiteReport],
    reports: Sequence[SuiteReport],
) -> str:
    """Returns the deciding suite's sentence; after a pass, the last (primary) suite's."""
    if not deciding:
        return ""
    report = deciding[-1] if outcome == "passed" else deciding[0]
    if len(reports) == 1:
        return report.reason
    if outcome == "passed" and all(report.outcome == "passed" for report in reports):
        reason = f"All {len(reports)} suites passed. {report.suite}: {report.reason}"
        return f"{reason}{_add_history(report, reports)}"
    guards = [r.suite for r in reports if r.role is SuiteRole.GUARD and _is_silent_guard(r)]
    more = f"{NOT_SHOWN_WORSE}{', '.join(guards)}." if guards else ""
    return f"{report.suite}: {report.reason}" + (more if outcome == "passed" else "")


def _add_history(named: SuiteReport, reports: Sequence[SuiteReport]) -> str:
    """Returns the sentence about recorded history, if it concerns a suite that the reason does
    not name.
    """
    others = [r.suite for r in reports if r.reason.endswith(RECORDED_HISTORY)]
    if not others or named.suite in others:
        return ""
    return f" {', '.join(others)}: {RECORDED_HISTORY}"


Samples = Sequence[Sample]


@dataclass(frozen=True, slots=True)
class _Question:
    """The question that a verdict answers. models, confirmed: see `served_arms`. same: the
    stored finding, for a replay.
    """

    route: str
    incumbent: str
    candidate: str
    models: tuple[str, str] = ("", "")
    confirmed: bool = False
    same: SameModel | None = None
    passed_slices: tuple[str, ...] = ()  # proposals of other slices that passed before


def decide_verdict(  # noqa: PLR0913 - all inputs of one decision
    route: str,
    incumbent: str,
    candidate: str,
    plans: Sequence[SuitePlan],
    samples_by_suite: Mapping[str, tuple[Samples, Samples]],
    now: datetime,
    ttl_s: float,
    *,
    stopped: Mapping[str, tuple[str, str]] | None = None,
    models: tuple[str, str] = ("", ""),
    same_model_confirmed: bool = False,
    days: Mapping[str, IncumbentDays] | None = None,
    passed_slices: Sequence[str] = (),
    labels: Mapping[str, SuiteLabels | None] | None = None,
) -> Verdict | None:
    """Decides on all suites together; returns None while it is open (statistics.md §1.7).

    Args:
        samples_by_suite: samples of incumbent and candidate; a missing suite has no samples
            yet.
        ttl_s: how long the verdict is valid.
        stopped: for suites whose runs have ended, the outcome of a suite that is still open
            (`infra_error` or `inconclusive`), and why.
        models: the names of incumbent and candidate.
        same_model_confirmed: see `served_arms.SameModel`.
        days: for suites whose incumbent's run is the mean of scheduled runs.
        passed_slices: for a slice, the proposals of the other slices that have passed.
        labels: for the suites about which people decide; None before their labels have ended.

    Raises StaleEvidence if the two sides of a suite do not match.
    """
    cases = []
    for plan in sorted(plans, key=lambda plan: plan.role is SuiteRole.PRIMARY):
        ours, theirs = samples_by_suite.get(plan.suite, ((), ()))
        halted = (stopped or {}).get(plan.suite)
        paired = pair_samples(plan, ours, theirs)
        paired = replace(paired, days=(days or {}).get(plan.suite))
        found = labels or {}
        cases.append(
            SuiteClaim(
                plan,
                paired,
                halted,
                by_people=plan.suite in found,
                labels=found.get(plan.suite),
            )
        )
    decided_at = now.astimezone(UTC)
    expires_at = add_seconds(decided_at, ttl_s)
    question = _Question(
        route,
        incumbent,
        candidate,
        models,
        same_model_confirmed,
        passed_slices=tuple(passed_slices),
    )
    return _decide(question, cases, decided_at, expires_at)


def replay_verdict(stored: Verdict) -> Verdict:
    """Decides again from the stored inputs alone. Unless somebody changed them, the result has
    the same id and bytes.

    Raises ValueError if the inputs do not decide.
    """
    replayed = decide_from_claims(stored, claims_from_json(stored.inputs))
    if replayed is None:
        raise ValueError(f"the inputs of verdict {stored.id} do not decide")
    return replayed


def decide_from_claims(stored: Verdict, cases: Sequence[SuiteClaim]) -> Verdict | None:
    """Decides the stored verdict's question from `cases`; None while it is open."""
    same = read_same_model(stored.inputs)
    question = _Question(
        stored.route,
        stored.incumbent,
        stored.candidate,
        same=same,
        passed_slices=read_passed_slices(stored.inputs),
    )
    return _decide(question, cases, *verdict_times(stored.inputs))


def _decide(
    question: _Question,
    cases: Sequence[SuiteClaim],
    decided_at: datetime,
    expires_at: datetime,
) -> Verdict | None:
    """Returns the verdict, or None while it is open.

    The inputs contain only the units behind the outcome, so that a replay reads the same items.
    """
    passed = question.passed_slices
    judgement = judge_suites([_raise_level(case, len(passed)) for case in cases])
    outcome = judgement.outcome
    reports = judgement.reports
    if outcome in ("running", UNLABELLED):
        return None
    used = [case.first(units) for case, units in zip(cases, judgement.consumed, strict=True)]
    inputs = inputs_to_json(used, decided_at, expires_at)
    same = question.same or find_same_model(used, question.models, confirmed=question.confirmed)
    if same is not None:
        inputs["same_model"] = same.as_json()
    if passed:
        inputs["passed_slices"] = list(passed)
    reason = judgement.reason
    if why := describe_unmeasured(used, same):
        outcome = "infra_error"
        reason = f"{NOT_MEASURED}{why}"
    body = [
        question.route,
        question.incumbent,
        question.candidate,
        outcome,
        reason,
        [report_json(report) for report in reports],
        inputs,
    ]
    return VERDICTS[outcome](
        id=f"v_{digest(body)[:24]}",
        route=question.route,
        incumbent=question.incumbent,
        candidate=question.candidate,
        reason=reason,
        suites=reports,
        inputs=inputs,
        decided_at=decided_at,
        expires_at=expires_at,
    )
