"""Sentences about a verdict's claim, its suites, and the outcome.

They are written when a verdict is shown, and are not stored: a change here changes no verdict.
The stored reason of each suite is in `harness.gate.sentences`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from harness.frame.formatting import format_percent, format_quantity, format_score
from harness.gate.suite_plan import Claim, SuiteRole
from harness.gate.verdict import CostOutcome, SuiteReport, VerdictBasis

PROBLEMS: Final = {
    "failed": "Worse than the allowed loss",
    "harness_mismatch": "Lost by format alone",
    "infra_error": "Could not be measured",
    "inconclusive": "Still open",
}

WORSE_IN_SLICE: Final = "Worse in a slice"


def describe_claim(basis: VerdictBasis, titles: Mapping[str, str] | None = None) -> str:
    """Describes a verdict's result: `Better on the weighted mean of 2 suites; both suites point
    the same way.` titles: suite titles by name.
    """
    names = titles or {}
    if basis.outcome == "passed":
        return "; ".join(_passed_parts(basis, names)) + "."
    deciding = [report for report in basis.claims if report.outcome == basis.outcome]
    deciding = deciding or list(basis.claims)
    where = _join([_name(basis, report, names) for report in deciding])
    what = PROBLEMS.get(basis.outcome, PROBLEMS["inconclusive"])
    if basis.outcome == "failed":
        what = _loss(deciding)
    if what == WORSE_IN_SLICE:
        where = _join(
            [
                f"{names.get(report.suite, report.suite)}, {slice_.name}"
                for report in deciding
                for slice_ in report.figures.worse_slices
            ]
        )
    tally, claims = "", len(basis.claims)
    if claims > 1:
        tally = f" {len(basis.passed_claims)} of {format_quantity(claims, 'claim')} shown."
    return f"{what}: {where}.{tally}"


def describe_members(basis: VerdictBasis) -> str:
    """Describes how many suites agree with their weighted mean; empty without a mean."""
    members = basis.members
    if basis.mean is None or not members:
        return ""
    agreeing = sum(
        report.delta > (0.0 if report.claim is Claim.SUPERIOR else -report.margin)
        for report in members
    )
    which = f"{agreeing} of {len(members)}"
    if agreeing == len(members):
        which = "both" if len(members) == 2 else f"all {len(members)}"
    return f"{which} suites point the same way"


def _passed_parts(basis: VerdictBasis, names: Mapping[str, str]) -> Sequence[str]:
    """Lists the claim, then further conditions, then the agreement of suites."""
    guards = basis.silent_guards
    shown = [report for report in basis.passed_claims if report not in basis.members]
    primary = [report for report in shown if report.role is SuiteRole.PRIMARY]
    kept = [report for report in shown if report.role is not SuiteRole.PRIMARY]
    where = _join([_name(basis, report, names) for report in primary])
    head = _promise(primary[0]) if primary else "Shown"
    parts = [f"{head} on {where}" if where else head]
    if basis.alternatives:
        parts.append(f"one of {len(basis.alternatives)} suites was enough")
    if agreement := describe_members(basis):
        parts.append(agreement)
    by_loss: dict[str, list[str]] = {}
    for report in kept:
        name = names.get(report.suite, report.suite)
        by_loss.setdefault(format_score(report.margin, None), []).append(name)
    parts += [
        f"at most {loss} points worse on {_join(group)}" for loss, group in by_loss.items()
    ]
    if guards:
        parts.append(
            f"not shown to be worse on {_join([names.get(r.suite, r.suite) for r in guards])}"
        )
    return parts


def _promise(report: SuiteReport) -> str:
    """Names the claim that a passed suite has shown."""
    loss = f"at most {format_score(report.margin, None)} points worse"
    match report.claim:
        case Claim.SUPERIOR:
            return "Better"
        case Claim.CHEAPER:
            cost = report.figures.cost
            share = f" by at least {format_percent(cost.min_saving)}" if cost else ""
            return f"Cheaper{share} and {loss}"
        case _:
            return loss.capitalize()


def _loss(deciding: Sequence[SuiteReport]) -> str:
    """Names the kind of loss that all deciding suites have in common."""
    costs = [report.figures.cost for report in deciding]
    if costs and all(
        cost is not None and cost.outcome == CostOutcome.REFUTED for cost in costs
    ):
        return "Not as cheap as claimed"
    if deciding and all(report.figures.worse_slices for report in deciding):
        return WORSE_IN_SLICE
    if all(report.claim is Claim.SUPERIOR for report in deciding):
        return "Worse than the current model"
    return PROBLEMS["failed"]


def _name(basis: VerdictBasis, report: SuiteReport, names: Mapping[str, str]) -> str:
    if report is basis.mean:
        members = [names.get(member.suite, member.suite) for member in basis.members]
        return f"the weighted mean of {len(members)} suites ({_join(members)})"
    return names.get(report.suite, report.suite)


def _join(names: Sequence[str]) -> str:
    """Lists names as a sentence does: `a`, `a and b`, `a, b and c`."""
    return " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])
