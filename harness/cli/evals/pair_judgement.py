"""Judges the scores of a CSV file as the gate does (`judge_rows`): by items or by clusters, and
with guarded slices, where columns of the file name them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Final

from harness.cli.evals.csv_files import FileTerms
from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import PairRow
from harness.domain.evals.item_groups import MIN_SLICE_UNITS, SLICE_VALUE, Slice, guard_slices
from harness.domain.evals.suite_plan import Claim, SuitePlan, SuiteRole
from harness.domain.evals.verdict import ScorePair, SuiteReport
from harness.gate.offline.pairs import PairedItem, PairedSuite, mean_score
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.planning.budget import EFFECT
from harness.gate.planning.planned_tests import PlannedTest

VERDICT_WORDS: Final = {"infra_error": "not_measured"}
NO_SCORE: Final = ("no score",)
FILL_IN: Final = (
    "fill in the missing scores, or have those items asked again, and decide again."
)


def judge_rows(rows: Sequence[PairRow], terms: FileTerms) -> dict[str, object]:
    ordered, sizes = _in_clusters(rows) if terms.cluster else (list(rows), ())
    units = len(sizes) if terms.cluster else len(ordered)
    n_max = terms.n_max or units
    if units > n_max:
        unit = "cluster" if terms.cluster else "item"
        raise InputError(f"{units} {unit}s are more than the planned {n_max}")
    if terms.slices and units < n_max:
        raise InputError(
            f"--slice needs all planned {n_max} units, of which the file has {units}: their "
            "looks are planned from the items of each slice"
        )
    # Clusters to come are taken to be as large as the others.
    to_come = (round(fmean(sizes)) if sizes else 1,) * (n_max - units) if terms.cluster else ()
    plan = SuitePlan(
        suite="file",
        suite_digest="",
        role=SuiteRole.PRIMARY,
        claim=terms.claim,
        margin=terms.margin,
        alpha=terms.alpha,
        n_max=n_max,
        epochs=1,
        order_seed=0,
        cluster=terms.cluster,
        cluster_sizes=(*sizes, *to_come),
        slices=_guarded(ordered, sizes, terms),
    )
    paired = PairedSuite(tuple(map(_item, ordered)), "", "")
    report = judge_pairs(plan, paired).report
    used = plan.items_in(report.n_used)
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
        **_answer(report),
        **({"items": used} if terms.cluster else {}),
        **({"slices": slices} if terms.slices else {}),
    }


@dataclass(frozen=True, slots=True)
class Sight:
    """Says which differences items can show with power .8. Shares of 1."""

    smallest: float
    items_needed: int  # for a difference of EFFECT


def find_sight(rows: Sequence[PairRow], terms: FileTerms) -> Sight:
    items = [item for item in map(_item, rows) if item.complete]
    differences = [item.pair.candidate - item.pair.incumbent for item in items] or [0.0]
    count = len(differences)
    # The gate's own prior: items without a difference have not shown that there are none.
    sd = max(pstdev(differences), (0.25 / (count + 1)) ** 0.5)
    graded = any(difference not in {-1.0, 0.0, 1.0} for difference in differences)
    margin = 0.0 if terms.claim is Claim.SUPERIOR else terms.margin
    test = PlannedTest(terms.alpha, count, count, graded=graded, margin=margin)
    return Sight(test.smallest_effect(sd, count), test.items_needed(sd, EFFECT))


def _in_clusters(rows: Sequence[PairRow]) -> tuple[list[PairRow], tuple[int, ...]]:
    """Puts the rows of a cluster together, in the order of each first row; and their sizes."""
    clusters: dict[str, list[PairRow]] = {}
    for row in rows:
        clusters.setdefault(row.groups[0], []).append(row)
    members = clusters.values()
    return [row for rows in members for row in rows], tuple(map(len, members))


def _guarded(
    rows: Sequence[PairRow], sizes: Sequence[int], terms: FileTerms
) -> tuple[Slice, ...]:
    """The slices with units enough, the largest first, as a proposal registers them."""
    fields = {
        column: [row.groups[place] for row in rows]
        for place, column in enumerate(terms.slices, start=bool(terms.cluster))
    }
    for value in (value for values in fields.values() for value in values):
        if not SLICE_VALUE.fullmatch(value):
            raise InputError(
                f"{value!r} is no value of a slice: it has at most 64 letters, digits, spaces "
                "and .,:+/()&-"
            )
    found = guard_slices(fields, sizes, len(rows))
    if terms.slices and not found:
        raise InputError(
            f"no slice of {', '.join(terms.slices)} has the {MIN_SLICE_UNITS} units that one "
            "needs to be guarded"
        )
    return found


def _item(row: PairRow) -> PairedItem:
    """A file has one reading of each answer: the worst stands for the lenient one."""
    epochs = len(row.incumbent)
    lost = row.incumbent.count(None), row.candidate.count(None)
    incumbent, candidate = mean_score(row.incumbent, 1.0), mean_score(row.candidate, 0.0)
    return PairedItem(
        ScorePair(row.item, incumbent, candidate, 1.0, 0.0),
        unscored_incumbent=lost[0],
        unscored_candidate=lost[1],
        missing=(lost[0] / epochs, lost[1] / epochs),
        reasons=(NO_SCORE * lost[0], NO_SCORE * lost[1]),
    )


def _answer(found: SuiteReport) -> dict[str, object]:
    figures = found.figures
    return {
        "verdict": VERDICT_WORDS.get(found.outcome, found.outcome),
        "how": found.how,
        "n_used": found.n_used,
        "n": found.n_max,
        "delta": None if found.is_unscored else found.delta,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "ci_method": found.ci_method if found.ci_low is not None else None,
        "log_e_bad": found.log_e_bad,
        "p_final": found.p_final,
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
        **(
            {}
            if figures.measured is None
            else {
                "measured": figures.measured,
                "bound_low": figures.bound_low,
                "bound_high": figures.bound_high,
            }
        ),
        "reason": found.reason,
        **({"next": FILL_IN} if found.outcome == "infra_error" else {}),
    }
