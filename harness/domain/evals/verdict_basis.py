"""A verdict's basis says which claims decided it, which suites only count in a weighted mean,
and how many items it rests on. Every page, command and report takes these figures from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from harness.domain.evals.suite_plan import (
    PrimaryCombination,
    SuitePlan,
    SuiteRole,
    plan_from_json,
)
from harness.domain.evals.verdict import BaseVerdict, SuiteReport
from harness.domain.formatting import format_quantity

# Outcomes by which a single suite decides, also one that counts in a weighted mean.
REJECTING_OUTCOMES: Final = ("failed", "harness_mismatch")


@dataclass(frozen=True, slots=True)
class VerdictBasis:
    """What a verdict rests on."""

    outcome: str
    plans: tuple[SuitePlan, ...]  # as they were registered, one for each suite
    suites: tuple[SuiteReport, ...]  # what was measured, one for each suite
    mean: SuiteReport | None  # of the primary suites together, where their mean is the claim
    items: Mapping[str, int]  # by suite: how many the verdict rests on

    @classmethod
    def from_verdict(cls, verdict: BaseVerdict) -> Self:
        """Reads the basis out of what the verdict was decided from."""
        inputs: Any = verdict.inputs
        plans = tuple(plan_from_json(plan) for plan in inputs["plans"])
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
        """Lists the claims that were shown."""
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
        """Counts the items on which both models were compared, over all suites."""
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
