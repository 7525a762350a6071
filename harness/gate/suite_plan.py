"""A suite plan registers, before the first candidate score, how the gate judges a suite: its
role and claim, the gate's settings, the pin of the suite, and the order of its items. Pure.

A cluster of an item group is one unit of the gate (statistics.md §1.12). Its items are
neighbours in the order, and the seed shuffles whole clusters. A renamed or copied suite counts
as the same suite, by the overlap of item texts. A suite stores sorted text hashes of 40 bits
each, so 10,000 items take 67 KB.

Nothing here reads a data file: `evals.suites` does. `harness.proposals.registration` writes the
plans, and `harness.gate.offline` follows them.
"""

import re
import unicodedata
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import accumulate, groupby
from typing import Final

from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError
from harness.frame.formatting import INVISIBLE_CHARACTERS, format_excerpt
from harness.frame.plain_data import digest, hash_content, short_hash
from harness.gate.order_seeds import SeedOrigin
from harness.gate.pins import ServedPin

MAX_VALUE_LENGTH: Final = 200  # characters of a cluster's name
EXCERPT: Final = 40
_SLICE_VALUE: Final = re.compile(r"[\w .,:+/()&-]{1,64}")
MIN_SLICE_UNITS: Final = 60  # a slice with fewer units shows only extreme losses
MOST_SLICES: Final = 20  # more slices would leave each slice too little of the error
# Stands for the cluster field if Swapproof found the clusters by text, caller and conversation.
FOUND_CLUSTERS: Final = "similar text or same caller"
# With a smaller effect, items stay the units: found clusters raise a test's level from .05 to
# .054 at most, even if the items of a cluster agree completely.
NEGLIGIBLE_EFFECT: Final = 1.05
LARGE_CLUSTER: Final = 0.05  # of the items; a larger cluster is a warning


@dataclass(frozen=True, slots=True)
class Slice:
    """The items of a suite with one value of a metadata field."""

    field: str
    value: str
    positions: tuple[int, ...]  # of its items in the registered order, from 0

    @property
    def name(self) -> str:
        return f"{self.field} = {self.value}"


@dataclass(frozen=True, slots=True)
class ItemGroups:
    """A suite's items, and how its metadata groups them."""

    items: tuple[str, ...]  # ids
    # Item → name of its cluster; empty if the suite names no cluster field.
    clusters: Mapping[str, str] = field(default_factory=dict)
    cluster_field: str = ""  # the metadata field that contains the cluster's name
    # Slice field → item → the item's value.
    slices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # For a suite of traffic: who judges, and cluster → its requests in the log; else empty.
    judged_by: str = ""
    requests: Mapping[str, int] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Counts the units of the gate: clusters, or items if the suite has no clusters."""
        return len(set(self.clusters.values())) if self.clusters else len(self.items)

    def order(self, order_seed: int) -> tuple[str, ...]:
        """Returns the item ids in the order of this seed, whole clusters together."""
        return shuffle_items(self.items, order_seed, self.clusters)

    def cluster_sizes(self, order_seed: int) -> tuple[int, ...]:
        """Returns the clusters' numbers of items in this order; empty without clusters."""
        if not self.clusters:
            return ()
        ordered = map(self.clusters.__getitem__, self.order(order_seed))
        return tuple(len(list(members)) for _, members in groupby(ordered))

    def unit_requests(self, order_seed: int) -> tuple[int, ...]:
        """Returns the clusters' requests in this order; empty for other suites."""
        if not self.requests:
            return ()
        ordered = map(self.clusters.__getitem__, self.order(order_seed))
        return tuple(self.requests[cluster] for cluster, _ in groupby(ordered))

    @property
    def largest(self) -> tuple[str, int]:
        """Returns the name and the number of items of the largest cluster; 0 without one."""
        sizes = Counter(self.clusters.values())
        return sizes.most_common(1)[0] if sizes else ("", 0)

    def guarded_slices(self, order_seed: int, n_max: int) -> tuple[Slice, ...]:
        """Lists the slices with enough units among the first n_max units, the largest first."""
        order = self.order(order_seed)
        fields = {name: [of[item] for item in order] for name, of in self.slices.items()}
        return guard_slices(fields, self.cluster_sizes(order_seed), n_max)


def design_effect(cluster_sizes: Sequence[int], correlation: float) -> float:
    """Computes by how much clusters raise the variance of the mean over items.

    Source: Kish 1965, "Survey Sampling", 5.4: 1 + (m − 1)ρ. For clusters of different sizes, m
    is the mean size of the cluster of an item.
    """
    mean_size = sum(size * size for size in cluster_sizes) / sum(cluster_sizes)
    return 1.0 + (mean_size - 1.0) * correlation


def guard_slices(
    fields: Mapping[str, Sequence[str]],
    cluster_sizes: Sequence[int],
    n_max: int,
) -> tuple[Slice, ...]:
    """Lists slices as `guarded_slices` does.

    Args:
        fields: slice values in the items' order.
        cluster_sizes: empty if each item is a unit.
    """
    units = [unit for unit, size in enumerate(cluster_sizes) for _ in range(size)]
    found: list[Slice] = []
    for name, values in fields.items():
        members: dict[str, list[int]] = {}
        for position, value in enumerate(values):
            if (units[position] if units else position) < n_max:
                members.setdefault(value, []).append(position)
        found += [
            Slice(name, value, tuple(positions))
            for value, positions in members.items()
            if len({units[at] for at in positions} if units else positions) >= MIN_SLICE_UNITS
        ]
    found.sort(
        key=lambda slice_: (
            -len(slice_.positions),
            slice_.field,
            slice_.value,
        )
    )
    return tuple(found[:MOST_SLICES])


def shuffle_items(
    item_ids: Collection[str],
    order_seed: int,
    clusters: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Permutes the ids; the result depends only on the ids, their clusters and the seed.

    Sorts by a hash instead of `random`: the order is the same in every version of Python, and
    removing an item does not reorder the remaining items.
    """

    def place(item: str) -> tuple[str, str, str]:
        own = hash_content(f"{order_seed}:{item}")
        if not clusters:
            return own, "", ""
        cluster = clusters[item]
        # The name breaks ties of equal hashes, so that a cluster always stays together.
        return hash_content(f"{order_seed}:cluster:{cluster}"), cluster, own

    return tuple(sorted(item_ids, key=place))


def is_slice_value(value: str) -> bool:
    """Tells whether pages may show a slice's value. Marks count as parts of their letters."""
    letters = "".join(char for char in value if unicodedata.category(char)[0] != "M")
    return len(value) <= MAX_VALUE_LENGTH and bool(_SLICE_VALUE.fullmatch(letters))


def read_slice(
    metadata: Mapping[str, object],
    name: str,
    place: str,
) -> str:
    """Reads a slice's value. Raises InputError for markup, because pages show the value."""
    value = read_group(metadata, name, place)
    if not is_slice_value(value):
        raise InputError(
            f"{place}: field 'metadata.{name}': the value of a slice has at most 64 letters, "
            "digits, spaces and .,:+/()&-"
        )
    return value


def read_group(
    metadata: Mapping[str, object],
    name: str,
    place: str,
) -> str:
    """Reads the value of one metadata field that groups items.

    Raises InputError if it is missing, or neither a text nor a whole number.
    """
    value = metadata.get(name)
    if value is None:
        value = {canonical(key): part for key, part in metadata.items()}.get(canonical(name))
    if value is None:
        raise InputError(
            f"{place}: field 'metadata.{name}': missing; the suite groups its items by it. "
            "Give "
            "an item that belongs to no group a value of its own"
        )
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(
            f"{place}: field 'metadata.{name}': must be a text or a whole number, not "
            f"{format_excerpt(repr(value), EXCERPT)}"
        )
    text = canonical(str(value)).strip()
    if not text or len(text) > MAX_VALUE_LENGTH or not text.isprintable():
        raise InputError(
            f"{place}: field 'metadata.{name}': must have 1 to {MAX_VALUE_LENGTH} characters "
            "that can be printed"
        )
    return text


HASH_BYTES: Final = 5
# Matches every character that is not a visible letter or digit.
SEPARATORS: Final = re.compile(rf"[\W_{''.join(sorted(INVISIBLE_CHARACTERS))}]+")
# For ASCII texts, which contain no marks and no invisible letters: faster.
ASCII_SEPARATORS: Final = {code: None for code in range(128) if not chr(code).isalnum()}
# Two suites that share at least this part of the smaller suite ask the same questions.
SAME_ITEMS_SHARE: Final = 0.1


def normalize_text(text: str) -> str:
    """Returns the text's letters and digits, without case and marks: `Crème, brûlée?` is
    `cremebrulee`.

    Equal results mean the same item. A few different texts have equal results (12 + 3 and
    1 + 23). Such a pair can add a look too many, but never hide a look.
    """
    if text.isascii():
        return text.lower().translate(ASCII_SEPARATORS)
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return SEPARATORS.sub("", folded)


def compared_texts(spoken: Sequence[str], whole: Sequence[str]) -> Sequence[str]:
    """Lists the items' texts, to find the same items in suites of another form.

    Args:
        spoken: without system messages, which another suite may have in its settings.
        whole: with them.

    Uses the whole text of items whose spoken texts are equal.
    """
    counted = Counter(spoken)
    return [
        text if counted[text] == 1 else full for text, full in zip(spoken, whole, strict=True)
    ]


def texts_fingerprint(texts: Iterable[str]) -> str:
    """Returns a fingerprint of a suite's items that ignores order and duplicates."""
    hashes = {short_hash(normalize_text(text) or text, HASH_BYTES) for text in texts}
    return b64encode(b"".join(sorted(hashes))).decode()


def overlap_share(one: str, other: str) -> float:
    """Returns the share of the smaller suite's items in the other suite; 0 for no items."""
    ours = _read_hashes(one)
    theirs = _read_hashes(other)
    smaller = min(len(ours), len(theirs))
    return len(ours & theirs) / smaller if smaller else 0.0


def _read_hashes(stored: str) -> frozenset[bytes]:
    raw = b64decode(stored)
    return frozenset(raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES))


# The scorer of a suite of traffic: a judge compares each answer with the answer of the log.
TRAFFIC_SCORER: Final = "preference"
# The rule of a score whose judge preferred one answer in one order, the other in the other.
ORDERS_DISAGREE: Final = "orders_disagree"
# The cluster field of a suite of traffic whose items are the turns of agents' runs.
RUN_CLUSTER: Final = "run"
JUDGE_SEPARATOR: Final = "+judge:"  # in a suite's pin, between the scorer and its judge


class Claim(StrEnum):
    SUPERIOR = "superior"
    NON_INFERIOR = "non_inferior"
    CHEAPER = "cheaper_and_not_worse"  # non-inferior, and cheaper by the declared share

    @property
    def quality(self) -> "Claim":
        """The part of the claim that scores must show."""
        return Claim.NON_INFERIOR if self is Claim.CHEAPER else self


QUALITY_CLAIMS: Final = (Claim.SUPERIOR, Claim.NON_INFERIOR)


class Looks(StrEnum):
    """Says when the gate looks at the items."""

    PLANNED = "planned"  # at planned numbers of items, in an order that a seed draws
    WHOLE = "whole"  # once, at all items of a finished file, whose order does not matter
    GROWING = "growing"  # at any number of items of a file that grows to n_max


class SuiteRole(StrEnum):
    PRIMARY = "primary"  # decides the claim
    REQUIRED = "required"  # must be shown to be within the allowed loss
    GUARD = "guard"  # must not be shown to lose more; too little evidence does not block


class PrimaryCombination(StrEnum):
    WEIGHTED = "weighted"  # the claim, on the weighted mean of the suites' scores
    ANY = "any"  # superiority on at least one suite, by Holm's rule


class ClaimPopulation(StrEnum):
    LIKE_THESE = "like_these"  # the population from which the suite's items were drawn
    THESE = "these"  # the suite's own items; needs two or more answers to each


@dataclass(frozen=True, slots=True)
class SuitePin:
    """Records a suite's content and scoring, hashed piece by piece."""

    name: str
    version: str
    data_sha256: str
    scorer: str
    template: str
    items: int
    # Result of `texts_fingerprint`; `data_sha256` covers it. Empty in older pins.
    texts: str = field(default="", compare=False, repr=False)

    @property
    def judged(self) -> bool:
        """Tells whether a model scores the answers: the scorer's pin then names the judge."""
        return bool(self.judge)

    @property
    def judge(self) -> str:
        """The target id of the judge; empty if no model scores the answers."""
        return self.judge_pin.partition("/")[0]

    @property
    def judge_pin(self) -> str:
        """The judge's part of the scorer pin; empty without a judge."""
        return self.scorer.partition(JUDGE_SEPARATOR)[2]

    @property
    def judge_subject(self) -> str:
        """Names the subject of the judge's calibration; it covers the whole scorer pin."""
        return f"judge {digest([self.name, self.scorer])[:24]}"

    @property
    def is_traffic(self) -> bool:
        """Tells whether the items are a draw from traffic, and the targets logged answers."""
        return self.scorer.startswith(f"{TRAFFIC_SCORER}@")

    @property
    def scorer_alone(self) -> str:
        return self.scorer.partition(JUDGE_SEPARATOR)[0]

    @property
    def digest(self) -> str:
        """A hash of all that results depend on.

        `texts` is left out, because `data_sha256` covers it.
        """
        return digest(
            [
                self.name,
                self.version,
                self.data_sha256,
                self.scorer,
                self.template,
                self.items,
            ]
        )


@dataclass(frozen=True, slots=True)
class SliceTerms:
    """The terms of a slice that is proposed as a route of its own (statistics.md §1.24).

    predicate: selects the slice's requests at the router, unless one of `after` selects them.
    slices: the number of slices that share alpha by Holm's rule.
    """

    name: str  # such as `team = billing`
    whole: str  # the route that is split
    proposal: str  # the id of the proposal for the whole route
    predicate: str
    after: tuple[str, ...]
    slices: int


@dataclass(frozen=True, slots=True)
class SuitePlan:
    """One suite's registration, stored in the proposal and in the verdict's inputs.

    A unit is an item, or a cluster if `cluster` is set. Margin and alpha are shares of 1.
    """

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
    looks: Looks = Looks.PLANNED
    seed_origin: SeedOrigin = SeedOrigin.DIGEST
    # judged_by, unit_requests: for a suite of traffic, as `ItemGroups` has them, in the
    # registered order; else empty.
    judged_by: str = ""
    unit_requests: tuple[int, ...] = ()
    # Only for a slice's own route: `alpha` is the level before any other slice has passed.
    slice_terms: SliceTerms | None = None

    @property
    def unit(self) -> str:
        return "cluster" if self.cluster else "item"

    @property
    def has_recorded_runs(self) -> bool:
        """Tells whether the items are turns of agents' runs, each with its recorded history."""
        return bool(self.judged_by) and self.cluster == RUN_CLUSTER

    @property
    def n_max_text(self) -> str:
        return f"{self.n_max:,}{' clusters' if self.cluster else ''}"

    @property
    def planned_items(self) -> int:
        return self.items_in(self.n_max)

    def effective_items(self, correlation: float) -> int:
        """Computes how many independent items the planned items are worth (`design_effect`)."""
        if not self.cluster_sizes:
            return self.planned_items
        return round(self.planned_items / design_effect(self.cluster_sizes, correlation))

    def items_in(self, units: int) -> int:
        """Counts the items of the first `units` units."""
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
        """The maximum number of answers of both models together."""
        return 2 * self.planned_items * self.epochs

    def as_json(self) -> dict[str, object]:
        """Writes the plan for JSON, without the settings that do not apply to it."""
        more: dict[str, object] = {}
        if self.spend:
            more |= {"look": self.look, "spend": self.spend}
        if self.served_pin is not ServedPin.NONE:
            more |= {"served_pin": self.served_pin.value}
        if self.claim is Claim.CHEAPER:
            more |= {
                "min_saving": self.min_saving,
                "cost_ceiling": self.cost_ceiling,
            }
        if self.combine:
            more |= {"combine": self.combine.value, "weight": self.weight}
        if self.cluster:
            more |= {
                "cluster": self.cluster,
                "cluster_sizes": list(self.cluster_sizes),
            }
        if self.about_these:
            more |= {
                "population": self.population.value,
                "suite_items": self.suite_items,
            }
        if self.judged_by:
            more |= {
                "judged_by": self.judged_by,
                "unit_requests": list(self.unit_requests),
            }
        if self.slices:
            more |= {"slices": [asdict(slice_) for slice_ in self.slices]}
        if self.slice_terms:
            after = list(self.slice_terms.after)
            more |= {"slice_terms": {**asdict(self.slice_terms), "after": after}}
        single = {
            "candidates": self.candidates if self.candidates > 1 else None,
            "futility": self.futility or None,
            "looks": self.looks.value if self.looks is not Looks.PLANNED else None,
            "seed_origin": self.seed_origin.value
            if self.seed_origin is not SeedOrigin.DIGEST
            else None,
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
