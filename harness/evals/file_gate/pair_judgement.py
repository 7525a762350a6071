"""Judges the scores of a file as the gate does: by item or by cluster, with guarded slices."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Final

from harness.evals.file_gate.pair_files import parse_pairs
from harness.evals.file_gate.terms import FileTerms
from harness.evals.run_pairs import turned_round
from harness.evals.run_statement import Direction
from harness.evals.scored_run import ExportedPairs, PairRow
from harness.frame.errors import InputError
from harness.gate.budget import (
    EFFECT,
    FIRST_FULL,
    PlannedTest,
    sd_pass_fail,
    spend_alpha,
)
from harness.gate.offline.pairs import PairedItem, PairedSuite, mean_score
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.sentences import find_direction
from harness.gate.suite_plan import (
    FOUND_CLUSTERS,
    MIN_SLICE_UNITS,
    NEGLIGIBLE_EFFECT,
    Claim,
    Slice,
    SuitePlan,
    SuiteRole,
    design_effect,
    guard_slices,
    is_slice_value,
)
from harness.gate.verdict import ScorePair, SuiteReport
from harness.routing.similar_texts import find_alike

VERDICT_WORDS: Final = {"infra_error": "not_measured"}
UNDECIDED: Final = ("inconclusive", "running")
NO_SCORE: Final = ("no score",)
FILL_IN: Final = "fill in the missing scores, or measure those items again; then decide again."


def judge_file(
    text: str,
    place: str,
    terms: FileTerms,
    direction: Direction | None = None,
) -> dict[str, object]:
    """Judges the CSV file of pairs with this text. Raises InputError, which names the file.

    Args:
        direction: whether higher or lower scores are better; None if the user did not say.
    """
    rows = parse_pairs(text, place, None if terms.cluster else terms.n_max, terms.columns)
    if not rows and terms.n_max is None:
        raise InputError(
            f"{place}:2: no items; to judge a run that has no items yet, give --n-max"
        )
    stated = {} if direction is None else {"direction": direction.value}
    try:
        if direction is Direction.LOWER:
            answer = judge_rows(turned_round(rows), terms, lambda score: 1.0 - score)
        else:
            answer = judge_rows(rows, terms)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return {**stated, **answer}


def judge_rows(
    rows: Sequence[PairRow],
    terms: FileTerms,
    file_score: Callable[[float], float] = float,
) -> dict[str, object]:
    """Judges all rows together; their order changes no byte of the answer.

    Args:
        file_score: converts a mean of the rows to the file's own range and direction.
    """
    ordered, sizes = _sort_rows(rows, clustered=bool(terms.cluster))
    units = len(sizes) if terms.cluster else len(ordered)
    n_max = terms.n_max or units
    if units > n_max:
        unit = "cluster" if terms.cluster else "item"
        raise InputError(f"{units} {unit}s are more than the planned {n_max}")
    if terms.slices and units < n_max:
        raise InputError(
            f"--slice needs all planned {n_max} units, but the file has {units}: each slice is "
            "tested once, on all its items"
        )
    # Clusters that are missing in the file count with the mean size.
    absent_sizes = (
        (round(fmean(sizes)) if sizes else 1,) * (n_max - units) if terms.cluster else ()
    )
    plan = SuitePlan(
        suite="file",
        suite_digest="",
        role=SuiteRole.PRIMARY,
        claim=terms.claim,
        margin=terms.margin,
        alpha=spend_alpha(terms.alpha, terms.look),
        n_max=n_max,
        epochs=1,
        order_seed=0,
        cluster=terms.cluster,
        cluster_sizes=(*sizes, *absent_sizes),
        slices=_find_slices(ordered, sizes, terms),
        look=terms.look,
        spend=FIRST_FULL,
        looks=terms.looks,
    )
    paired = PairedSuite(tuple(map(_build_item, ordered)), "", "")
    report = judge_pairs(plan, paired).report
    used_items = plan.items_in(report.n_used)
    slices = [
        {
            "slice": slice_.name,
            "n_used": slice_.n_used,
            "n": slice_.n_max,
            "delta": slice_.delta if slice_.n_used else None,
            "ci_low": slice_.ci_low,
            "ci_high": slice_.ci_high,
            "worse": slice_.worse,
        }
        for slice_ in report.figures.slices or ()
    ]
    return {
        **_build_answer(report, file_score),
        **({"items": used_items} if terms.cluster else {}),
        **({"slices": slices} if terms.slices else {}),
    }


_STEPS: Final = 20  # each halves the error of the smallest difference


@dataclass(frozen=True, slots=True)
class Sight:
    """The power of a number of items. smallest: the smallest difference that they show with a
    power of 0.8, as a share of 1. items_needed: the items that show a difference of EFFECT.
    """

    smallest: float
    items_needed: int


def group_similar(exported: ExportedPairs) -> ExportedPairs:
    """Returns the pairs with their clusters of similar questions, and a note.

    Changes nothing if all questions are one text, or the clusters are too small to matter
    (statistics.md §1.12).
    """
    rows = exported.pairs
    texts = {row.item: row.question for row in rows if row.question}
    if len({*texts.values()}) < 2:
        return exported
    cluster = {row.item: row.item for row in rows}
    for members in find_alike(texts):
        cluster |= dict.fromkeys(members, members[0])
    sizes = Counter(cluster.values())
    if design_effect([*sizes.values()], 1.0) <= NEGLIGIBLE_EFFECT:
        return exported
    note = (
        f"the {len(rows):,} questions form {len(sizes):,} clusters of similar texts: a cluster "
        "counts as one item, also of --n-max"
    )
    return replace(
        exported,
        pairs=tuple(replace(row, groups=(cluster[row.item],)) for row in rows),
        cluster=FOUND_CLUSTERS,
        notes=(*exported.notes, note),
    )


def find_sight(rows: Sequence[PairRow], terms: FileTerms) -> Sight:
    """Estimates the power of the file's items from the differences of their scores."""
    differences_by_unit: dict[str, list[float]] = {}
    for row, item in zip(rows, map(_build_item, rows), strict=True):
        if item.complete:
            unit = row.groups[0] if terms.cluster else row.item
            differences_by_unit.setdefault(unit, []).append(
                item.pair.candidate - item.pair.incumbent
            )
    differences = [fmean(of_unit) for of_unit in differences_by_unit.values()] or [0.0]
    count = len(differences)
    # The gate's prior: if all items tie, the standard deviation may still be above 0.
    sd: float = max(pstdev(sorted(differences)), (0.25 / (count + 1)) ** 0.5)
    is_graded = any(difference not in {-1.0, 0.0, 1.0} for difference in differences)
    margin = 0.0 if terms.claim is Claim.SUPERIOR else terms.margin
    test = PlannedTest(
        spend_alpha(terms.alpha, terms.look),
        count,
        count,
        graded=is_graded,
        margin=margin,
        looks=terms.looks,
    )

    def spread(effect: float) -> float:
        # A mean difference of `effect` needs at least that share of differing pass/fail items.
        return sd if is_graded or margin else max(sd, sd_pass_fail(effect, effect))

    smallest = 0.0
    for _ in range(_STEPS):
        smallest = test.smallest_effect(spread(smallest), count)
    return Sight(smallest, test.items_needed(spread(EFFECT), EFFECT))


_RowKey = tuple[object, ...]


def _sort_rows(
    rows: Sequence[PairRow],
    *,
    clustered: bool,
) -> tuple[list[PairRow], tuple[int, ...]]:
    """Sorts rows by their scores, whole clusters together. Returns rows and clusters' sizes.

    Sums of floats depend on the order of their terms, so equal rows need one order. Rows with
    equal keys differ in their names at most.
    """
    if not clustered:
        return sorted(rows, key=_row_key), ()
    clusters: dict[str, list[PairRow]] = {}
    for row in rows:
        clusters.setdefault(row.groups[0], []).append(row)
    members = [sorted(cluster, key=_row_key) for cluster in clusters.values()]
    members.sort(key=lambda cluster: [_row_key(row) for row in cluster])
    return [row for cluster in members for row in cluster], tuple(map(len, members))


def _row_key(row: PairRow) -> _RowKey:
    """Orders rows by scores; a missing score comes before all scores."""
    sides = (
        sorted(-1.0 if score is None else score for score in side)
        for side in (row.incumbent, row.candidate)
    )
    return (*sides, row.groups, row.item)


def _find_slices(
    rows: Sequence[PairRow],
    sizes: Sequence[int],
    terms: FileTerms,
) -> tuple[Slice, ...]:
    """Returns the slices that have enough units, largest first, as a proposal does."""
    fields = {
        column: [row.groups[place] for row in rows]
        for place, column in enumerate(terms.slices, start=bool(terms.cluster))
    }
    for value in (value for values in fields.values() for value in values):
        if not is_slice_value(value):
            raise InputError(
                f"{value!r} is not a slice name: use at most 64 letters, digits, spaces "
                "and .,:+/()&-"
            )
    slices = guard_slices(fields, sizes, len(rows))
    if terms.slices and not slices:
        raise InputError(
            f"no slice of {', '.join(terms.slices)} has the {MIN_SLICE_UNITS} units that a "
            "guarded slice needs"
        )
    return slices


def _build_item(row: PairRow) -> PairedItem:
    """Builds an item. A file has no lenient scores, so the worst case replaces them."""
    epochs = len(row.incumbent)
    missing_counts = row.incumbent.count(None), row.candidate.count(None)
    incumbent = mean_score(row.incumbent, 1.0)
    candidate = mean_score(row.candidate, 0.0)
    return PairedItem(
        ScorePair(row.item, incumbent, candidate, 1.0, 0.0),
        unscored_incumbent=missing_counts[0],
        unscored_candidate=missing_counts[1],
        missing=(missing_counts[0] / epochs, missing_counts[1] / epochs),
        reasons=(NO_SCORE * missing_counts[0], NO_SCORE * missing_counts[1]),
    )


def _build_answer(
    report: SuiteReport,
    file_score: Callable[[float], float],
) -> dict[str, object]:
    figures = report.figures
    means = [
        None if mean is None else file_score(mean)
        for mean in (figures.incumbent_mean, figures.candidate_mean)
    ]
    return {
        "verdict": VERDICT_WORDS.get(report.outcome, report.outcome),
        "how": report.how,
        "n_used": report.n_used,
        "n": report.n_max,
        "incumbent_score": means[0],
        "candidate_score": means[1],
        "delta": None if report.is_unscored else report.delta,
        "ci_low": report.ci_low,
        "ci_high": report.ci_high,
        "ci_method": report.ci_method if report.ci_low is not None else None,
        "log_e_bad": report.log_e_bad,
        "p_final": report.p_final,
        "wins": report.wins,
        "ties": report.ties,
        "losses": report.losses,
        **(
            {}
            if figures.measured is None
            else {
                "measured": figures.measured,
                "bound_low": figures.bound_low,
                "bound_high": figures.bound_high,
            }
        ),
        "points_to": find_direction(
            (report.ci_low, report.ci_high), report.claim, report.margin
        )
        if report.outcome in UNDECIDED
        else None,
        "more_items": figures.more_items if report.outcome in UNDECIDED else None,
        "look": figures.look,
        "alpha": figures.alpha,
        "reason": report.reason,
        **({"next": FILL_IN} if report.outcome == "infra_error" else {}),
    }
