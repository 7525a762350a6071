"""A verdict states the result of a comparison of two runs, suite by suite. It is a union of
five classes. Only `Passed` allows a change of the routing table. Code that reads a verdict
matches all five classes (`assert_never`).

A suite's figures are further measurements besides the test itself: means, form, costs.
`SuiteReport.details` keeps them as JSON.

A verdict is a value: `harness.gate.offline.verdicts` decides it,
`harness.routing.records.verdicts` stores and verifies it, and `harness.evals.proof_validity`
tells whether it is still valid.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from harness.frame.formatting import format_quantity
from harness.frame.plain_data import ShowsMore, from_plain
from harness.gate.suite_plan import (
    Claim,
    PrimaryCombination,
    SuitePlan,
    SuiteRole,
)


@dataclass(frozen=True, slots=True)
class LenientFigures:
    """The comparison of a suite by its lenient scores. Differences are shares of 1."""

    outcome: str = ""
    n_used: int = 0
    delta: float = 0.0  # candidate minus incumbent
    ci_low: float | None = None
    ci_high: float | None = None
    p_final: float | None = None


class CostOutcome(StrEnum):
    OPEN = "open"
    SHOWN = "shown"
    REFUTED = "refuted"  # saves less than claimed
    UNSHOWABLE = "unshowable"  # an item above its ceiling, or a side without known costs


@dataclass(frozen=True, slots=True)
class CostFigures:
    """Costs of the answers used. US dollars per item; shares of 1."""

    min_saving: float = 0.0  # the claimed share
    outcome: CostOutcome = CostOutcome.OPEN
    n_used: int = 0
    incumbent_usd: float | None = None
    candidate_usd: float | None = None
    # 1 minus the ratio of the means, over the items with both costs. Its interval is 95 % and
    # not adjusted for early stopping.
    saving: float | None = None
    saving_low: float | None = None
    saving_high: float | None = None
    log_e: float = 0.0
    log_e_bad: float = 0.0
    missing_incumbent: int = 0
    missing_candidate: int = 0
    above_ceiling: int = 0  # items of the candidate

    @property
    def against(self) -> bool:
        """Tells whether no further item can turn the comparison into a pass."""
        return self.outcome in (CostOutcome.REFUTED, CostOutcome.UNSHOWABLE)


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """The figures of one slice, counted in its own units; see `gate.offline.slices`."""

    field: str = ""
    value: str = ""
    n_used: int = 0
    n_max: int = 0
    delta: float = 0.0  # candidate minus incumbent
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None  # p-value of "not worse"; None before the first look
    worse: bool = False

    @property
    def name(self) -> str:
        return f"{self.field} = {self.value}"


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """People's labels of a suite. Shares are the candidate's win shares, from 0 to 1.

    judge_share: for information, because it decides nothing.
    """

    labelling: str = ""
    labels: int = 0
    labellers: int = 0
    share: float = 0.0
    share_by_requests: float | None = None  # None without counts of requests
    judge_share: float = 0.0
    log_e_unacceptable: float = 0.0  # that the candidate has more unacceptable answers


@dataclass(frozen=True, slots=True)
class HolmFigures:
    """One suite's result among several suites of one claim, by Holm's rule."""

    p: float = 1.0
    rank: int = 1
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class SuiteFigures:
    """One suite's measurements beside its test, as far as they apply.

    Scores are shares of 1.
    """

    alpha: float | None = None
    look: int | None = None  # number of the look that used alpha
    spend: str | None = None  # the rule that split alpha over looks
    t: float | None = None  # the test statistic of the last look and its p-value
    p_t: float | None = None
    sd: float | None = None  # standard deviation of the items' differences
    incumbent_mean: float | None = None
    candidate_mean: float | None = None
    lenient_incumbent_mean: float | None = None
    lenient_candidate_mean: float | None = None
    near_ties: int = 0
    mcnemar_exact: float | None = None
    mcnemar_mid_p: float | None = None
    # Answers without a score, and items that a model did not answer.
    unscored_incumbent: int = 0
    unscored_candidate: int = 0
    unanswered: int = 0
    # measured: number of used units with every score; None if all have every score. delta and
    # interval describe these units. bound_*: the difference with all missing scores counted
    # against the candidate, and for it.
    measured: int | None = None
    bound_low: float | None = None
    bound_high: float | None = None
    # Further items, or clusters, that should decide; None if no number would.
    more_items: int | None = None
    rule: str | None = None  # the format rule that the candidate's answers broke most often
    rules: Mapping[str, int] = field(default_factory=dict)  # number of breaks by rule
    examples: tuple[str, ...] = ()  # items in which `rule` broke
    lenient: LenientFigures | None = None
    cost: CostFigures | None = None
    holm: HolmFigures | None = None
    cluster: str | None = None  # the field whose values are the units that n_used counts
    items: int | None = None  # number of items in the used clusters
    item_delta: float | None = None  # the mean difference per item, beside `delta` per cluster
    # noise_*: an item's score variance over repeated answers, for a claim about these items.
    noise_incumbent: float | None = None
    noise_candidate: float | None = None
    slices: tuple[SliceFigures, ...] | None = None  # the guarded slices
    labels: LabelFigures | None = None  # if people's labels decide instead of scores

    @property
    def worse_slices(self) -> tuple[SliceFigures, ...]:
        return tuple(one for one in self.slices or () if one.worse)

    @property
    def unit(self) -> str:
        return "cluster" if self.cluster else "item"

    def as_json(self) -> dict[str, object]:
        """Writes the figures as a report keeps them, without optional ones that are None."""
        slices = None if self.slices is None else [asdict(one) for one in self.slices]
        written = asdict(self) | {
            "examples": list(self.examples),
            "slices": slices,
        }
        absent = [name for name in _OPTIONAL if written[name] is None]
        return {name: value for name, value in written.items() if name not in absent}


_OPTIONAL: Final = (
    "look",
    "spend",
    "cost",
    "holm",
    "cluster",
    "items",
    "item_delta",
    "noise_incumbent",
    "noise_candidate",
    "measured",
    "bound_low",
    "bound_high",
    "slices",
    "labels",
)


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
    """The gate's result for one suite, over the used items. Shares are from 0 to 1."""

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
        """Reads `details`."""
        figures: SuiteFigures = from_plain(SuiteFigures, self.details)
        return figures

    @property
    def is_unscored(self) -> bool:
        """Tells whether no used unit has every score, so that the difference means nothing."""
        return not self.n_used or self.figures.measured == 0

    @property
    def limit(self) -> float:
        """The smallest allowed difference, a share: 0 if the candidate must be better."""
        return 0.0 if self.claim is Claim.SUPERIOR else -self.margin

    @property
    def items_used(self) -> int:
        """The number of items behind the report, also if its units are clusters."""
        items = self.figures.items
        return self.n_used if items is None else items

    @property
    def used_text(self) -> str:
        """Writes the number of used units: `120 of 500`, `40 of 167 clusters`."""
        clusters = " clusters" if self.figures.cluster else ""
        return f"{self.n_used} of {self.n_max}{clusters}"


@dataclass(frozen=True, kw_only=True)
class BaseVerdict(ShowsMore):
    """The fields of all five verdicts.

    Invariant: equal inputs give an equal `id`, because it is a hash of inputs and figures.
    """

    id: str  # `v_` and a hash of its inputs and figures
    route: str
    incumbent: str
    candidate: str
    reason: str
    suites: tuple[SuiteReport, ...]
    # Registration, run ids, pairs: enough to recompute it bit for bit.
    inputs: Mapping[str, object]
    decided_at: datetime
    expires_at: datetime

    outcome: ClassVar[str]
    words: ClassVar[str]

    def show_more(self, shown: dict[str, Any]) -> dict[str, Any]:
        return {
            "verdict": self.outcome,
            "words": self.words,
            **shown,
        }


@dataclass(frozen=True, kw_only=True)
class Passed(BaseVerdict):
    """The candidate has shown its claim: the proof that a change of the routing table needs."""

    outcome = "passed"
    words = "PASSED"


@dataclass(frozen=True, kw_only=True)
class Failed(BaseVerdict):
    """The candidate is worse than allowed, or cannot save enough."""

    outcome = "failed"
    words = "FAILED"


@dataclass(frozen=True, kw_only=True)
class Inconclusive(BaseVerdict):
    """The planned items, or an early stop, did not show the claim."""

    outcome = "inconclusive"
    words = "NOT ENOUGH EVIDENCE"


@dataclass(frozen=True, kw_only=True)
class HarnessMismatch(BaseVerdict):
    """The candidate loses by the form of its answers, not by their content."""

    outcome = "harness_mismatch"
    words = "FORMAT MISMATCH"


@dataclass(frozen=True, kw_only=True)
class InfraError(BaseVerdict):
    """Scores are missing through no fault of the model, and could change the outcome."""

    outcome = "infra_error"
    words = "NOT MEASURED"


Verdict = Passed | Failed | Inconclusive | HarnessMismatch | InfraError

VERDICTS: Mapping[str, type[Verdict]] = {
    kind.outcome: kind for kind in (Passed, Failed, Inconclusive, HarnessMismatch, InfraError)
}


# With these outcomes, a suite decides alone, even if it is part of a weighted mean.
REJECTING_OUTCOMES: Final = ("failed", "harness_mismatch")


@dataclass(frozen=True, slots=True)
class VerdictBasis:
    """A verdict's registration beside its reports, to tell which suites decide."""

    outcome: str
    plans: tuple[SuitePlan, ...]  # as registered, one for each suite
    suites: tuple[SuiteReport, ...]  # as measured, one for each suite
    mean: SuiteReport | None  # of the primary suites together, if their mean is the claim
    items: Mapping[str, int]  # by suite: number of items behind the verdict

    @classmethod
    def from_verdict(cls, verdict: BaseVerdict) -> Self:
        """Reads the registration from the verdict's inputs.

        Raises LookupError for inputs without plans.
        """
        inputs: Any = verdict.inputs
        plans = tuple(from_plain(SuitePlan, plan) for plan in inputs["plans"])
        names = {plan.suite for plan in plans}
        return cls(
            outcome=verdict.outcome,
            plans=plans,
            suites=tuple(report for report in verdict.suites if report.suite in names),
            mean=next(
                (report for report in verdict.suites if report.suite not in names),
                None,
            ),
            items={plan.suite: len(inputs["pairs"][plan.suite]) for plan in plans},
        )

    @property
    def members(self) -> tuple[SuiteReport, ...]:
        """Lists the suites of the weighted mean; empty if the mean is not the claim."""
        if self.mean is None:
            return ()
        combined = self._combined(PrimaryCombination.WEIGHTED)
        return tuple(report for report in combined if report.figures.labels is None)

    @property
    def alternatives(self) -> tuple[SuiteReport, ...]:
        """Lists the primary suites if the claim holds with any one of them."""
        return self._combined(PrimaryCombination.ANY)

    @property
    def claims(self) -> tuple[SuiteReport, ...]:
        """Lists the decided claims: the weighted mean, and each suite that decides alone."""
        suites = [report for report in self.suites if self.decides(report)]
        return (self.mean, *suites) if self.mean is not None else tuple(suites)

    @property
    def passed_claims(self) -> tuple[SuiteReport, ...]:
        return tuple(report for report in self.claims if report.outcome == "passed")

    @property
    def silent_guards(self) -> tuple[SuiteReport, ...]:
        """Lists the guard suites of a passed verdict that decided nothing and do not block."""
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
        """Writes `120 of 500 items`, `176 of 960 items (88 of 480 in each of 2 suites)`."""
        whole = f"{self.items_used:,} of {format_quantity(self.items_planned, 'item')}"
        shares = {(self.items[plan.suite], plan.planned_items) for plan in self.plans}
        if len(self.plans) == 1 or len(shares) > 1:
            return whole
        ((used, planned),) = shares
        return f"{whole} ({used:,} of {planned:,} in each of {len(self.plans)} suites)"

    def decides(self, report: SuiteReport) -> bool:
        """Tells whether the suite decides alone, not only as a part of the weighted mean."""
        if report not in self.members:
            return True
        return report.outcome == self.outcome and report.outcome in REJECTING_OUTCOMES

    def used_text(self, report: SuiteReport) -> str:
        """Writes the used part of a report's own plan: `120 of 500`, `88 of 480 of each`."""
        return f"{report.used_text} of each" if report is self.mean else report.used_text

    def _combined(self, combination: PrimaryCombination) -> tuple[SuiteReport, ...]:
        together = {plan.suite for plan in self.plans if plan.combine is combination}
        return tuple(report for report in self.suites if report.suite in together)
