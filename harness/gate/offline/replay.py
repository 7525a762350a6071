"""Writes a verdict's inputs as JSON and reads them back, so that Swapgate can decide the
verdict again with the same bytes (F5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from harness.frame.plain_data import canonical_json, from_plain
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.suite_claims import SuiteClaim
from harness.gate.pins import ServedModel, ServedModels
from harness.gate.suite_plan import Claim, SuitePlan
from harness.gate.verdict import ScorePair, SuiteReport, Verdict

# Rises with every change of the rules that can change a verdict from the same scores.
RULES_VERSION: Final = 5


def inputs_to_json(
    cases: Sequence[SuiteClaim],
    decided_at: datetime,
    expires_at: datetime,
) -> dict[str, object]:
    """Writes the inputs of a verdict: plans, pairs (item, incumbent, candidate, both lenient),
    runs, marks of incomplete items, and the models that the providers served.

    costs: only for suites with a cost claim; pairs in US dollars, in the items' order.
    variances: variances of the pairs' scores, for claims about these items.
    """
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
    return {
        "rules": RULES_VERSION,
        **({"costs": costs} if costs else {}),
        **({"variances": variances} if variances else {}),
        "plans": [case.plan.as_json() for case in cases],
        "pairs": {case.plan.suite: _rows(case.paired) for case in cases},
        "runs": {
            case.plan.suite: {
                "incumbent": case.paired.incumbent_run,
                "candidate": case.paired.candidate_run,
            }
            for case in cases
        },
        "marks": {case.plan.suite: _marks(case.paired) for case in cases},
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
    return tuple(_case(from_plain(SuitePlan, plan), inputs) for plan in inputs["plans"])


def run_ids(inputs: Mapping[str, Any], suite: str) -> tuple[str, str]:
    """Returns the run ids of incumbent and candidate; empty for a run that never began."""
    runs = inputs["runs"][suite]
    return runs["incumbent"], runs["candidate"]


def served_from_json(inputs: Mapping[str, Any], suite: str) -> ServedModels:
    stored = inputs.get("served", {}).get(suite, {})
    sides = {
        side: tuple(ServedModel(*model) for model in pairs) for side, pairs in stored.items()
    }
    return ServedModels(**sides)


def verdict_times(inputs: Mapping[str, Any]) -> tuple[datetime, datetime]:
    return (
        datetime.fromisoformat(inputs["decided_at"]),
        datetime.fromisoformat(inputs["expires_at"]),
    )


def report_json(report: SuiteReport) -> dict[str, object]:
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


def _rows(paired: PairedSuite) -> list[list[object]]:
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


def _marks(paired: PairedSuite) -> dict[str, object]:
    return {
        item.pair.item: {
            "unscored": [item.unscored_incumbent, item.unscored_candidate],
            "unanswered": item.unanswered,
            "rules": list(item.rules),
            **({} if item.complete else {"reasons": [list(arm) for arm in item.reasons]}),
        }
        for item in paired.items
        if item != PairedItem(item.pair, costs=item.costs, variances=item.variances)
    }


def _case(plan: SuitePlan, inputs: Mapping[str, Any]) -> SuiteClaim:
    suite = plan.suite
    marks, runs = inputs["marks"][suite], inputs["runs"][suite]
    rows = inputs["pairs"][suite]
    costs = inputs.get("costs", {}).get(suite) or [(None, None)] * len(rows)
    variances = inputs.get("variances", {}).get(suite) or [None] * len(rows)
    items = tuple(
        replace(
            _item(row, marks.get(row[0]), plan.epochs),
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
        stored_served=served_from_json(inputs, suite),
    )
    stopped = inputs["stopped"].get(suite)
    return SuiteClaim(plan, paired, (stopped[0], stopped[1]) if stopped else None)


def _item(row: Sequence[Any], mark: Mapping[str, Any] | None, epochs: int) -> PairedItem:
    pair = ScorePair(str(row[0]), *(float(score) for score in row[1:]))
    if mark is None:
        return PairedItem(pair)
    ours, theirs = mark["unscored"]
    reasons = mark.get("reasons", ((), ()))
    return PairedItem(
        pair=pair,
        unscored_incumbent=ours,
        unscored_candidate=theirs,
        unanswered=mark["unanswered"],
        missing=(ours / epochs, theirs / epochs),
        reasons=(tuple(reasons[0]), tuple(reasons[1])),
        rules=tuple(mark["rules"]),
    )
