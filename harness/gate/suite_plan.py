"""A suite plan registers, before the first candidate score, how the gate judges a suite: its
role and claim, the gate's settings, and the pin of the suite.
"""

from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Final

from harness.frame.plain_data import digest
from harness.gate.item_groups import Slice
from harness.gate.pins import ServedPin

JUDGE_SEPARATOR: Final = "+judge:"  # in a suite's pin, between the scorer and its judge


class Claim(StrEnum):
    SUPERIOR = "superior"
    NON_INFERIOR = "non_inferior"
    CHEAPER = "cheaper_and_not_worse"  # non-inferior, and cheaper by the declared share

    @property
    def quality(self) -> "Claim":
        return Claim.NON_INFERIOR if self is Claim.CHEAPER else self


QUALITY_CLAIMS: Final = (Claim.SUPERIOR, Claim.NON_INFERIOR)


class SuiteRole(StrEnum):
    PRIMARY = "primary"  # decides the claim
    REQUIRED = "required"  # must be shown to be within the allowed loss
    GUARD = "guard"  # must not be shown worse; too little evidence does not block


class PrimaryCombination(StrEnum):
    WEIGHTED = "weighted"  # the claim, on the weighted mean of the suites' scores
    ANY = "any"  # superiority on at least one suite, by Holm's rule


class ClaimPopulation(StrEnum):
    LIKE_THESE = "like_these"  # the population from which the suite's items were drawn
    THESE = "these"  # the suite's own items; needs two or more answers to each


@dataclass(frozen=True, slots=True)
class SuitePin:
    """Records a suite's content and scoring, hashed piece by piece (F6)."""

    name: str
    version: str
    data_sha256: str
    scorer: str
    template: str
    items: int
    # Result of `item_groups.texts_fingerprint`; `data_sha256` covers it. Empty in older pins.
    texts: str = field(default="", compare=False, repr=False)

    @property
    def judged(self) -> bool:
        """Tells whether a model scores the answers: the scorer's pin then names the judge."""
        return bool(self.judge)

    @property
    def judge(self) -> str:
        return self.judge_pin.partition("/")[0]

    @property
    def judge_pin(self) -> str:
        return self.scorer.partition(JUDGE_SEPARATOR)[2]

    @property
    def judge_subject(self) -> str:
        """Names the subject of the judge's calibration; it covers the whole scorer pin."""
        return f"judge {digest([self.name, self.scorer])[:24]}"

    @property
    def scorer_alone(self) -> str:
        return self.scorer.partition(JUDGE_SEPARATOR)[0]

    @property
    def digest(self) -> str:
        return digest(
            [self.name, self.version, self.data_sha256, self.scorer, self.template, self.items]
        )


@dataclass(frozen=True, slots=True)
class SuitePlan:
    suite: str
    suite_digest: str
    role: SuiteRole
    claim: Claim
    margin: float  # allowed loss
    alpha: float  # for this comparison
    n_max: int  # items, or clusters if the suite names a cluster field
    epochs: int
    order_seed: int
    # How often the gate has judged this candidate, or a model that it descends from, on this
    # suite; 1 for the first time.
    look: int = 1
    # The rule that gave that look its alpha; "" if looks are not counted.
    spend: str = ""
    # The part of the served models that must not change; NONE in registrations without a pin.
    served_pin: ServedPin = ServedPin.NONE
    # min_saving, cost_ceiling: as in GatePolicy, only for the claim CHEAPER.
    min_saving: float = 0.0
    cost_ceiling: float = 0.0
    # combine, weight: for one of several primary suites; None for a single suite.
    combine: PrimaryCombination | None = None
    weight: float = 1.0
    # The metadata field whose values are clusters; empty if items are the units.
    cluster: str = ""
    # The number of items in each of the n_max clusters, in the registered order.
    cluster_sizes: tuple[int, ...] = ()
    # No slice may be shown worse (statistics.md §1.13).
    slices: tuple[Slice, ...] = ()
    # The number of candidates in the selection; `alpha` is this candidate's share.
    candidates: int = 1
    # The comparison stops if its chance of passing at n_max falls below this; 0: never stops.
    futility: float = 0.0

    @property
    def unit(self) -> str:
        return "cluster" if self.cluster else "item"

    @property
    def n_max_text(self) -> str:
        return f"{self.n_max:,}{' clusters' if self.cluster else ''}"

    @property
    def planned_items(self) -> int:
        return self.items_in(self.n_max)

    def items_in(self, units: int) -> int:
        return sum(self.cluster_sizes[:units]) if self.cluster else units

    def units_in(self, items: int) -> int:
        """Counts the whole units among the first items of the order."""
        if not self.cluster:
            return items
        return bisect_right(list(accumulate(self.cluster_sizes)), items)

    population: ClaimPopulation = ClaimPopulation.LIKE_THESE
    suite_items: int = 0  # number of the suite's items, for a claim about these items

    @property
    def about_these(self) -> bool:
        return self.population is ClaimPopulation.THESE

    @property
    def most_answers(self) -> int:
        return 2 * self.planned_items * self.epochs

    def as_json(self) -> dict[str, object]:
        """Leaves out settings that do not apply to the plan."""
        more: dict[str, object] = {}
        if self.spend:
            more |= {"look": self.look, "spend": self.spend}
        if self.served_pin is not ServedPin.NONE:
            more |= {"served_pin": self.served_pin.value}
        if self.claim is Claim.CHEAPER:
            more |= {"min_saving": self.min_saving, "cost_ceiling": self.cost_ceiling}
        if self.combine:
            more |= {"combine": self.combine.value, "weight": self.weight}
        if self.cluster:
            more |= {"cluster": self.cluster, "cluster_sizes": list(self.cluster_sizes)}
        if self.about_these:
            more |= {"population": self.population.value, "suite_items": self.suite_items}
        if self.slices:
            more |= {"slices": [asdict(slice_) for slice_ in self.slices]}
        single = {
            "candidates": self.candidates if self.candidates > 1 else None,
            "futility": self.futility or None,
        }
        more |= {name: value for name, value in single.items() if value is not None}
        return {
            "suite": self.suite,
            "suite_digest": self.suite_digest,
            "role": self.role.value,
            "claim": self.claim.value,
            "margin": self.margin,
            "alpha": self.alpha,
            "n_max": self.n_max,
            "epochs": self.epochs,
            "order_seed": self.order_seed,
            **more,
        }
