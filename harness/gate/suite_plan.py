"""A suite plan registers how a suite is judged, before the first candidate score: its role and
claim, the rule of the gate and the pin of what the results depend on.
"""

from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Final

from harness.frame.content_hash import digest
from harness.gate.item_groups import Slice
from harness.gate.pins import ServedPin

JUDGE_SEPARATOR: Final = "+judge:"  # in a suite's pin, between the scorer and its judge


class Claim(StrEnum):
    SUPERIOR = "superior"
    NON_INFERIOR = "non_inferior"
    CHEAPER = "cheaper_and_not_worse"  # non-inferior, and its cost lower by the declared share

    @property
    def quality(self) -> "Claim":
        return Claim.NON_INFERIOR if self is Claim.CHEAPER else self


QUALITY_CLAIMS: Final = (Claim.SUPERIOR, Claim.NON_INFERIOR)


class SuiteRole(StrEnum):
    PRIMARY = "primary"  # the claim is decided here
    REQUIRED = "required"  # must be shown to stay within the allowed loss
    GUARD = "guard"  # must not be shown worse; too little evidence does not block


class PrimaryCombination(StrEnum):
    WEIGHTED = "weighted"  # the claim, on the weighted mean of their items' scores
    ANY = "any"  # superiority on at least one of them, by Holm's rule


class ClaimPopulation(StrEnum):
    LIKE_THESE = "like_these"  # those that the suite's items were drawn from
    THESE = "these"  # the suite's own, asked anew: where each is asked twice or more


@dataclass(frozen=True, slots=True)
class SuitePin:
    """Records what a suite's results depend on, hashed piece by piece (F6)."""

    name: str
    version: str
    data_sha256: str
    scorer: str
    template: str
    items: int
    # What its items ask, of `item_groups.texts_fingerprint`; empty in pins from before there
    # was one. `data_sha256` covers it already.
    texts: str = field(default="", compare=False, repr=False)

    @property
    def judged(self) -> bool:
        """Whether a model scores its answers: the scorer's pin names the judge."""
        return bool(self.judge)

    @property
    def judge(self) -> str:
        return self.judge_pin.partition("/")[0]

    @property
    def judge_pin(self) -> str:
        return self.scorer.partition(JUDGE_SEPARATOR)[2]

    @property
    def judge_subject(self) -> str:
        """Names the subject of the judge's calibration; the scorer's pin holds all of it."""
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
    alpha: float  # of this comparison
    n_max: int  # items, or clusters where the suite names a cluster field
    epochs: int
    order_seed: int
    # Which time this candidate, or one that it descends from, stands before this suite.
    look: int = 1
    # The rule by which that look got its alpha; "" where nobody counts looks.
    spend: str = ""
    # What the providers must go on serving; NONE in registrations older than that pin.
    served_pin: ServedPin = ServedPin.NONE
    # min_saving, cost_ceiling: as in GatePolicy, for the claim CHEAPER alone.
    min_saving: float = 0.0
    cost_ceiling: float = 0.0
    # combine, weight: of one of several primary suites; None for a suite alone.
    combine: PrimaryCombination | None = None
    weight: float = 1.0
    # The metadata field whose values are clusters; empty where the item is the unit.
    cluster: str = ""
    # How many items each of the n_max clusters has, in the registered order.
    cluster_sizes: tuple[int, ...] = ()
    # Each may not be shown worse (statistics.md §1.13).
    slices: tuple[Slice, ...] = ()
    # How many candidates stand in its selection; `alpha` is this one's share.
    candidates: int = 1
    # Chance of being shown at the end below which the comparison is given up; 0: never.
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
        """Counts the units that the first items of the order make up, whole ones alone."""
        if not self.cluster:
            return items
        return bisect_right(list(accumulate(self.cluster_sizes)), items)

    population: ClaimPopulation = ClaimPopulation.LIKE_THESE
    suite_items: int = 0  # how many the suite has, for a claim about these items

    @property
    def about_these(self) -> bool:
        return self.population is ClaimPopulation.THESE

    @property
    def most_answers(self) -> int:
        return 2 * self.planned_items * self.epochs

    def as_json(self) -> dict[str, object]:
        """Leaves out what does not concern the plan."""
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
