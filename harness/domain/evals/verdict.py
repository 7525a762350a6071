"""A verdict says what the scores of two runs mean, suite by suite. It is a union of five
classes. Only `Passed` opens the routing table; readers `match` the union and end in
`assert_never`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final, Self

from harness.domain.evals.suite_figures import SuiteFigures
from harness.domain.evals.suite_plan import Claim, PrimaryCombination, SuitePlan, SuiteRole
from harness.domain.formatting import format_quantity
from harness.domain.plain_data import from_plain


@dataclass(frozen=True, slots=True)
class ScorePair:
    """One item's scores of both arms, the gate's only offline input.

    Means over epochs, after the worst-case rule for unscored samples (statistics.md §1.1).
    """

    item: str
    incumbent: float
    candidate: float
    lenient_incumbent: float
    lenient_candidate: float


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """What the gate found on one suite; all figures over the items used. Shares of 1."""

    suite: str
    role: SuiteRole
    claim: Claim
    margin: float
    outcome: str  # passed | failed | inconclusive | harness_mismatch | infra_error | running
    how: str | None  # early | final | None
    n_used: int
    n_max: int
    delta: float  # candidate minus incumbent
    ci_low: float | None
    ci_high: float | None
    ci_method: str
    log_e_bad: float
    p_final: float | None
    wins: int
    ties: int
    losses: int
    reason: str
    flags: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)  # `figures` as JSON

    @property
    def figures(self) -> SuiteFigures:
        """What was counted and measured beside the test itself."""
        figures: SuiteFigures = from_plain(SuiteFigures, self.details)
        return figures

    @property
    def is_unscored(self) -> bool:
        """Tells whether no item has a score of both models: no difference is known."""
        return not self.n_used or self.figures.measured == 0

    @property
    def items_used(self) -> int:
        items = self.figures.items
        return self.n_used if items is None else items

    @property
    def used_text(self) -> str:
        """Says in words how much was used: `120 of 500`, `40 of 167 clusters`."""
        clusters = " clusters" if self.figures.cluster else ""
        return f"{self.n_used} of {self.n_max}{clusters}"


@dataclass(frozen=True, kw_only=True)
class BaseVerdict:
    """Holds what every verdict carries."""

    id: str  # `v_` and a hash of its inputs and figures
    route: str
    incumbent: str
    candidate: str
    reason: str
    suites: tuple[SuiteReport, ...]
    # Registration, run ids, pairs: enough to recompute it bit for bit (F5).
    inputs: Mapping[str, object]
    decided_at: datetime
    expires_at: datetime

    outcome: ClassVar[str]
    words: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class Passed(BaseVerdict):
    outcome = "passed"
    words = "PASSED"


@dataclass(frozen=True, kw_only=True)
class Failed(BaseVerdict):
    outcome = "failed"
    words = "FAILED"


@dataclass(frozen=True, kw_only=True)
class Inconclusive(BaseVerdict):
    outcome = "inconclusive"
    words = "NOT ENOUGH EVIDENCE"


@dataclass(frozen=True, kw_only=True)
class HarnessMismatch(BaseVerdict):
    outcome = "harness_mismatch"
    words = "FORMAT MISMATCH"


@dataclass(frozen=True, kw_only=True)
class InfraError(BaseVerdict):
    outcome = "infra_error"
    words = "NOT MEASURED"


Verdict = Passed | Failed | Inconclusive | HarnessMismatch | InfraError

VERDICTS: Mapping[str, type[Verdict]] = {
    kind.outcome: kind for kind in (Passed, Failed, Inconclusive, HarnessMismatch, InfraError)
}


# Outcomes by which a single suite decides, also one that counts in a weighted mean.
REJECTING_OUTCOMES: Final = ("failed", "harness_mismatch")


@dataclass(frozen=True, slots=True)
class VerdictBasis:
    outcome: str
    plans: tuple[SuitePlan, ...]  # as they were registered, one for each suite
    suites: tuple[SuiteReport, ...]  # what was measured, one for each suite
    mean: SuiteReport | None  # of the primary suites together, where their mean is the claim
    items: Mapping[str, int]  # by suite: how many the verdict rests on

    @classmethod
    def from_verdict(cls, verdict: BaseVerdict) -> Self:
        inputs: Any = verdict.inputs
        plans = tuple(from_plain(SuitePlan, plan) for plan in inputs["plans"])
        names = {plan.suite for plan in plans}
        return cls(
            outcome=verdict.outcome,
            plans=plans,
            suites=tuple(report for report in verdict.suites if report.suite in names),
            mean=next((report for report in verdict.suites if report.suite not in names), None),
            items={plan.suite: len(inputs["pairs"][plan.suite]) for plan in plans},
        )

    @property
    def members(self) -> tuple[SuiteReport, ...]:
        """Lists the suites of the weighted mean: by themselves they can only reject."""
        if self.mean is None:
            return ()
        return self._combined(PrimaryCombination.WEIGHTED)

    @property
    def alternatives(self) -> tuple[SuiteReport, ...]:
        """Lists the suites of which one at least has to be better."""
        return self._combined(PrimaryCombination.ANY)

    @property
    def claims(self) -> tuple[SuiteReport, ...]:
        """Lists what was decided: the weighted mean first, in place of its suites, then every
        other suite. A suite of the mean is among them where it rejects by itself.
        """
        suites = [report for report in self.suites if self.decides(report)]
        return (self.mean, *suites) if self.mean is not None else tuple(suites)

    @property
    def passed_claims(self) -> tuple[SuiteReport, ...]:
        return tuple(report for report in self.claims if report.outcome == "passed")

    @property
    def silent_guards(self) -> tuple[SuiteReport, ...]:
        """Lists the guards of a passed verdict that showed nothing: they do not block."""
        if self.outcome != "passed":
            return ()
        guards = [report for report in self.claims if report.role is SuiteRole.GUARD]
        return tuple(report for report in guards if report.outcome != "passed")

    @property
    def items_used(self) -> int:
        return sum(self.items.values())

    @property
    def items_planned(self) -> int:
        return sum(plan.planned_items for plan in self.plans)

    @property
    def items_text(self) -> str:
        """Says how many items were used: `120 of 500 items`, `176 of 960 items (88 of 480 in
        each of 2 suites)`.
        """
        whole = f"{self.items_used:,} of {format_quantity(self.items_planned, 'item')}"
        shares = {(self.items[plan.suite], plan.planned_items) for plan in self.plans}
        if len(self.plans) == 1 or len(shares) > 1:
            return whole
        ((used, planned),) = shares
        return f"{whole} ({used:,} of {planned:,} in each of {len(self.plans)} suites)"

    def decides(self, report: SuiteReport) -> bool:
        """Tells whether a suite's own outcome counts, and not only its part in the mean."""
        if report not in self.members:
            return True
        return report.outcome == self.outcome and report.outcome in REJECTING_OUTCOMES

    def used_text(self, report: SuiteReport) -> str:
        """Says how much of a report's own plan was used: `120 of 500`, `88 of 480 of each`."""
        return f"{report.used_text} of each" if report is self.mean else report.used_text

    def _combined(self, combination: PrimaryCombination) -> tuple[SuiteReport, ...]:
        together = {plan.suite for plan in self.plans if plan.combine is combination}
        return tuple(report for report in self.suites if report.suite in together)
