"""A verdict says what the scores of two runs mean, suite by suite.

It is a union of five classes. Only `Passed` opens the routing table; readers `match` the union
and end in `assert_never`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from harness.domain.evals.suite_figures import SuiteFigures
from harness.domain.evals.suite_plan import Claim, SuiteRole


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
    log_e: float
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
        return SuiteFigures.from_json(self.details)

    @property
    def items_used(self) -> int:
        """Counts the items in the units used."""
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
