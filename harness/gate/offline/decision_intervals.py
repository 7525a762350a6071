"""The interval that a verdict rests on: the mean differences that the gate's own tests have
not refuted. A suite's scores pass if the low end is at the claim's limit or above. They fail if
the high end is at the limit or below.

`intervals` has other intervals: 95 % intervals of the same differences, for reading only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.gate.offline.design import REJECT_LOG_E
from harness.gate.offline.pairs import PairedSuite
from harness.gate.offline.sequential import analysis_p, check_differences, log_e_below
from harness.gate.offline.suite_claims import SuiteClaim, join_suites
from harness.gate.offline.suite_judgement import count_for_candidate, prepare_test
from harness.gate.offline.verdicts import RULES_VERSION, claims_from_json
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import BaseVerdict, SuiteReport, VerdictBasis

_HALVINGS: Final = 20
# A mean of -1 or 1 leaves the bets nothing to win.
_EDGE: Final = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class DecisionInterval:
    """The mean differences, as shares of 1, that the gate has not refuted.

    low: the test of the last analysis refutes all smaller means; -1 before the first analysis.
    high: the sequential test of a rejection refutes all larger means; 1 if it refutes none.
    """

    low: float
    high: float


def decision_intervals(verdict: BaseVerdict) -> Mapping[str, DecisionInterval]:
    """Computes the interval of each claim that decides, by suite, from the verdict's inputs.

    Empty for a verdict of other rules, because today's tests did not decide it. A suite that
    people label has no interval, because no test of scores decides about it.
    """
    if verdict.inputs["rules"] != RULES_VERSION:
        return {}
    basis = VerdictBasis.from_verdict(verdict)
    cases = {case.plan.suite: case for case in claims_from_json(verdict.inputs)}
    if basis.mean is not None:
        members = [cases[member.suite] for member in basis.members]
        cases[basis.mean.suite] = join_suites(members)
    holm_limit = min(
        (
            r.figures.holm.limit
            for r in basis.alternatives
            if r.figures.holm and not _has_passed(r)
        ),
        default=1.0,
    )
    return {
        report.suite: _invert_tests(report, cases[report.suite], holm_limit)
        for report in basis.claims
        if report.figures.labels is None
    }


def _has_passed(report: SuiteReport) -> bool:
    return report.outcome == "passed"


def _invert_tests(
    report: SuiteReport,
    case: SuiteClaim,
    holm_limit: float,
) -> DecisionInterval:
    """Inverts both tests of one claim at the items that the gate used.

    Args:
        holm_limit: the smallest limit that a suite missed, if one suite of several is enough.
    """
    low = _find_low(report, case.plan, case.paired, holm_limit)
    return DecisionInterval(low, _find_high(report, case.plan, case.paired))


def _find_low(
    report: SuiteReport,
    plan: SuitePlan,
    paired: PairedSuite,
    holm_limit: float,
) -> float:
    design, differences, noise = prepare_test(plan, paired)
    levels = {n: level for n, level in design.levels_of(report.n_used).items() if n >= 2}
    if not levels:
        return -1.0
    n = max(levels)
    level = levels[n]
    if holm := report.figures.holm:
        level = holm.limit if _has_passed(report) else holm_limit
    d = check_differences(differences[:n])
    return _find_last(
        lambda mean: float(analysis_p(d, design, noise, theta0=mean, most=level)) <= level,
        design.theta0,
    )


def _find_high(report: SuiteReport, plan: SuitePlan, paired: PairedSuite) -> float:
    design, differences, _ = prepare_test(plan, count_for_candidate(paired))
    if not report.n_used:
        return 1.0
    d = check_differences(differences[: report.n_used])
    allowance = design.theta0 - design.rejected_below

    def fits(mean: float) -> bool:
        return float(log_e_below(d, mean)[-1]) < REJECT_LOG_E

    return min(1.0, _find_last(fits, design.rejected_below) + allowance)


def _find_last(holds: Callable[[float], bool], limit: float) -> float:
    """Returns the largest mean for which `holds` is true, if smaller means have it too.

    The search keeps to the side of the claim's limit on which the gate decided, so that
    rounding cannot move the bound across the limit.
    """
    low, high = (limit, _EDGE) if holds(limit) else (-_EDGE, limit)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
