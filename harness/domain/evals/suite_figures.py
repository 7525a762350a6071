"""A suite's figures are what the gate counted and measured on one suite beside the test itself:
means, form, costs. `SuiteReport.details` keeps them as JSON.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class LenientFigures:
    """Holds the figures of a comparison whose answers were scored with their form forgiven."""

    outcome: str = ""
    n_used: int = 0
    delta: float = 0.0  # candidate minus incumbent
    ci_low: float | None = None
    ci_high: float | None = None
    p_final: float | None = None


class CostOutcome(StrEnum):
    OPEN = "open"
    SHOWN = "shown"
    REFUTED = "refuted"  # saves less than was claimed
    UNSHOWABLE = "unshowable"  # an item above its ceiling, or a side without known costs


@dataclass(frozen=True, slots=True)
class CostFigures:
    """What the answers to the items used cost, where the claim is about it. US dollars per
    item; shares of 1.
    """

    min_saving: float = 0.0  # the share that was claimed
    outcome: CostOutcome = CostOutcome.OPEN
    n_used: int = 0
    incumbent_usd: float | None = None
    candidate_usd: float | None = None
    # 1 minus the ratio of the means, over the items with both costs; its interval is 95 % and
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
        """Tells whether further items cannot make the comparison a pass."""
        return self.outcome in (CostOutcome.REFUTED, CostOutcome.UNSHOWABLE)


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """How a slice of the suite stands, on its own units that were used; see
    `gate.offline.slices`.
    """

    field: str = ""
    value: str = ""
    n_used: int = 0
    n_max: int = 0
    delta: float = 0.0  # candidate minus incumbent
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None  # that it is no worse; None before its first look
    worse: bool = False

    @property
    def name(self) -> str:
        return f"{self.field} = {self.value}"


@dataclass(frozen=True, slots=True)
class HolmFigures:
    """Says how a suite stood among several of one claim, by Holm's rule."""

    p: float = 1.0
    rank: int = 1
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class SuiteFigures:
    alpha: float | None = None
    look: int | None = None  # which of the looks that alpha was split for
    spend: str | None = None  # the rule by which it was split
    t: float | None = None  # the test statistic of the last look and its p-value
    p_t: float | None = None
    sd: float | None = None  # of the items' differences
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
    # measured: how many of the units used have every score, where some have not; delta and
    # interval are theirs. bound_*: the difference with all that is missing counted against the
    # candidate, and for it.
    measured: int | None = None
    bound_low: float | None = None
    bound_high: float | None = None
    # Further items, or clusters, that should settle it; None where nothing would.
    more_items: int | None = None
    rule: str | None = None  # of form, that broke most often in the candidate's answers
    rules: Mapping[str, int] = field(default_factory=dict)  # how often each broke
    examples: tuple[str, ...] = ()  # items in which `rule` broke
    lenient: LenientFigures | None = None
    cost: CostFigures | None = None
    holm: HolmFigures | None = None
    cluster: str | None = None  # the field whose values are the units that n_used counts
    items: int | None = None  # in the clusters used
    # noise_*: variance of an item's score when it is asked anew, where the claim is about these
    # items.
    noise_incumbent: float | None = None
    noise_candidate: float | None = None
    slices: tuple[SliceFigures, ...] | None = None  # that are guarded

    @property
    def worse_slices(self) -> tuple[SliceFigures, ...]:
        return tuple(one for one in self.slices or () if one.worse)

    @property
    def unit(self) -> str:
        return "cluster" if self.cluster else "item"

    def as_json(self) -> dict[str, object]:
        """Writes the figures as JSON without those that do not apply; `from_plain` reads it."""
        slices = None if self.slices is None else [asdict(one) for one in self.slices]
        written = asdict(self) | {"examples": list(self.examples), "slices": slices}
        absent = [name for name in _OPTIONAL if written[name] is None]
        return {name: value for name, value in written.items() if name not in absent}


_OPTIONAL: Final = (
    "look",
    "spend",
    "cost",
    "holm",
    "cluster",
    "items",
    "noise_incumbent",
    "noise_candidate",
    "measured",
    "bound_low",
    "bound_high",
    "slices",
)
