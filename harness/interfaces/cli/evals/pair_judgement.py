"""Parses the CSV files of `gate decide` and `canary decide`, and judges scores as the gate does
(`judge_rows`), by item or by cluster, and with guarded slices. Each fault of a file raises an
InputError that begins with FILE:LINE.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Final

from harness.evals.scored_run import ExportedPairs, PairRow
from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean
from harness.frame.text_files import csv_rows
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
from harness.interfaces.cli.evals.file_decision import FileTerms
from harness.routing.similar_texts import find_alike

_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COUNT = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class BlockRow:
    block: str
    line: int
    requests: int
    canary_requests: int
    failures: int
    canary_failures: int
    missing: int = 0  # outcomes that never arrived; `failures` does not include them
    canary_missing: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    line: int
    cells: Mapping[str, str]

    def error(self, message: str) -> InputError:
        return InputError(f"{self.place}:{self.line}: {message}")


def parse_pairs(
    text: str,
    place: str,
    n_max: int | None = None,
    groups: Sequence[str] = (),
) -> tuple[PairRow, ...]:
    """Reads both models' scores by item, in the order of each item's first row. Ignores other
    columns. Raises InputError at the first fault, and for more than n_max items.

    groups: columns that name an item's cluster or slices.
    """
    groups = [canonical(name) for name in groups]
    required = ("item", "incumbent", "candidate")
    optional = ("epoch",)
    if taken := {*groups} & {*required, *optional}:
        raise InputError(f"column {min(taken)!r} cannot name a cluster or a slice")
    members: dict[str, tuple[str, ...]] = {}
    scores: dict[str, dict[int, tuple[float | None, float | None]]] = {}
    lines: dict[str, int] = {}
    seen: dict[tuple[str, int], int] = {}
    for row in _rows(text, place, (*required, *dict.fromkeys(groups)), optional):
        item = _name(row, "item")
        epoch = _epoch(row)
        named = tuple(_name(row, column) for column in groups)
        if members.setdefault(item, named) != named:
            raise row.error(
                f"item {item!r} is in {', '.join(named)} here, but in an earlier row in "
                f"{', '.join(members[item])}"
            )
        earlier = seen.setdefault((item, epoch), row.line)
        if earlier != row.line:
            raise row.error(_twice(item, row, earlier))
        if item not in scores and n_max is not None and len(scores) == n_max:
            raise row.error(f"item {item!r} exceeds the planned {n_max} items")
        lines[item] = row.line
        epochs = scores.setdefault(item, {})
        epochs[epoch] = (_score(row, "incumbent"), _score(row, "candidate"))
    _same_epochs(place, scores, lines)
    return tuple(_item_row(item, epochs, members[item]) for item, epochs in scores.items())


def parse_blocks(text: str, place: str) -> tuple[BlockRow, ...]:
    counts = ("requests", "canary_requests", "failures", "canary_failures")
    missing = ("missing", "canary_missing")
    seen: dict[str, int] = {}
    blocks = []
    for row in _rows(text, place, ("block", *counts), missing):
        name = _name(row, "block")
        earlier = seen.setdefault(name, row.line)
        if earlier != row.line:
            raise row.error(f"block {name!r} is already in line {earlier}")
        known = {column: _count(row, column) for column in counts}
        known |= {column: _count(row, column) for column in missing if column in row.cells}
        block = BlockRow(name, row.line, **known)
        if block.canary_missing > block.missing:
            raise row.error(
                f"canary_missing is {block.canary_missing}, but missing, which includes it, is "
                f"only {block.missing}"
            )
        blocks.append(block)
    return tuple(blocks)


def _rows(
    text: str,
    place: str,
    required: Sequence[str],
    optional: Sequence[str],
) -> Iterator[_Row]:
    numbered = csv_rows(text, lambda line, wrong: InputError(f"{place}:{line}: {wrong}"))
    try:
        line, names = next(numbered)
    except StopIteration:
        columns = ",".join(required)
        raise InputError(f"{place}:1: the file is empty; it needs a line {columns}") from None
    header = [canonical(name).strip().lower() for name in names]
    _check_header(f"{place}:{line}", header, required, optional)
    for line, values in numbered:
        if len(values) != len(header):
            raise InputError(
                f"{place}:{line}: {len(values)} fields, but the header has {len(header)}"
            )
        plain = (canonical(value).strip() for value in values)
        cells = dict(zip(header, plain, strict=True))
        yield _Row(place, line, cells)


def _check_header(
    where: str,
    header: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
) -> None:
    for name in (*required, *optional):
        if header.count(name) > 1:
            raise InputError(f"{where}: column {name!r} occurs twice")
    for name in required:
        if name in header:
            continue
        unknown = [column for column in header if column not in (*required, *optional)]
        columns = f"; the file has {', '.join(header)}, and needs {', '.join(required)}"
        hint = did_you_mean(name, unknown, otherwise=columns)
        raise InputError(f"{where}: column {name!r} is missing{hint}")


def _name(row: _Row, column: str) -> str:
    if not row.cells[column]:
        raise row.error(f"{column} is empty")
    return row.cells[column]


def _score(row: _Row, column: str) -> float | None:
    text = row.cells[column]
    if not text:
        return None
    if not _DECIMAL.fullmatch(text):
        raise row.error(f"{column} is {text!r}; a score is a number from 0 to 1, or empty")
    score = float(text)
    if not 0.0 <= score <= 1.0:
        raise row.error(f"{column} is {text}; scores are from 0 to 1")
    return score + 0.0


def _epoch(row: _Row) -> int:
    if "epoch" not in row.cells:
        return 0
    return _count(row, "epoch")


def _count(row: _Row, column: str) -> int:
    text = row.cells[column]
    if not _COUNT.fullmatch(text):
        raise row.error(f"{column} is {text!r}; it must be a whole number, 0 or more")
    return int(text)


def _twice(
    item: str,
    row: _Row,
    earlier: int,
) -> str:
    if "epoch" in row.cells:
        return f"item {item!r} epoch {row.cells['epoch']} is already in line {earlier}"
    return (
        f"item {item!r} is already in line {earlier}; "
        "several epochs of an item need a column 'epoch'"
    )


def _same_epochs(
    place: str,
    scores: Mapping[str, Mapping[int, object]],
    lines: Mapping[str, int],
) -> None:
    """Checks that all items have the same epochs, as in a registered run."""
    first: set[int] = set()
    for item, epochs in scores.items():
        first = first or set(epochs)
        if set(epochs) != first:
            raise InputError(
                f"{place}:{lines[item]}: item {item!r} has epochs {_listed(epochs)}, "
                f"the first item has {_listed(first)}; leave a missing score empty"
            )


def _listed(epochs: Mapping[int, object] | set[int]) -> str:
    return ", ".join(str(epoch) for epoch in sorted(epochs))


def _item_row(
    item: str,
    epochs: Mapping[int, tuple[float | None, float | None]],
    groups: tuple[str, ...],
) -> PairRow:
    ordered = [epochs[epoch] for epoch in sorted(epochs)]
    return PairRow(
        item=item,
        incumbent=tuple(ours for ours, _ in ordered),
        candidate=tuple(theirs for _, theirs in ordered),
        groups=groups,
    )


VERDICT_WORDS: Final = {"infra_error": "not_measured"}
UNDECIDED: Final = ("inconclusive", "running")
NO_SCORE: Final = ("no score",)
FILL_IN: Final = "fill in the missing scores, or measure those items again; then decide again."


def judge_rows(
    rows: Sequence[PairRow],
    terms: FileTerms,
    file_score: Callable[[float], float] = float,
) -> dict[str, object]:
    """Judges all rows together; their order changes no byte of the answer.

    file_score: converts a mean of the rows to the file's own range and direction.
    """
    ordered, sizes = _in_order(rows, clustered=bool(terms.cluster))
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
    to_come = (round(fmean(sizes)) if sizes else 1,) * (n_max - units) if terms.cluster else ()
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
        cluster_sizes=(*sizes, *to_come),
        slices=_guarded(ordered, sizes, terms),
        look=terms.look,
        spend=FIRST_FULL,
        looks=terms.looks,
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
        **_answer(report, file_score),
        **({"items": used} if terms.cluster else {}),
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
    found: dict[str, list[float]] = {}
    for row, item in zip(rows, map(_item, rows), strict=True):
        if item.complete:
            unit = row.groups[0] if terms.cluster else row.item
            found.setdefault(unit, []).append(item.pair.candidate - item.pair.incumbent)
    differences = [fmean(of_unit) for of_unit in found.values()] or [0.0]
    count = len(differences)
    # The gate's prior: if all items tie, the standard deviation may still be above 0.
    sd: float = max(pstdev(sorted(differences)), (0.25 / (count + 1)) ** 0.5)
    graded = any(difference not in {-1.0, 0.0, 1.0} for difference in differences)
    margin = 0.0 if terms.claim is Claim.SUPERIOR else terms.margin
    test = PlannedTest(
        spend_alpha(terms.alpha, terms.look),
        count,
        count,
        graded=graded,
        margin=margin,
        looks=terms.looks,
    )

    def spread(effect: float) -> float:
        # A mean difference of `effect` needs at least that share of differing pass/fail items.
        return sd if graded or margin else max(sd, sd_pass_fail(effect, effect))

    smallest = 0.0
    for _ in range(_STEPS):
        smallest = test.smallest_effect(spread(smallest), count)
    return Sight(smallest, test.items_needed(spread(EFFECT), EFFECT))


_RowKey = tuple[object, ...]


def _in_order(
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


def _guarded(
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
    found = guard_slices(fields, sizes, len(rows))
    if terms.slices and not found:
        raise InputError(
            f"no slice of {', '.join(terms.slices)} has the {MIN_SLICE_UNITS} units that a "
            "guarded slice needs"
        )
    return found


def _item(row: PairRow) -> PairedItem:
    """Builds an item. A file has no lenient scores, so the worst case replaces them."""
    epochs = len(row.incumbent)
    lost = row.incumbent.count(None), row.candidate.count(None)
    incumbent = mean_score(row.incumbent, 1.0)
    candidate = mean_score(row.candidate, 0.0)
    return PairedItem(
        ScorePair(row.item, incumbent, candidate, 1.0, 0.0),
        unscored_incumbent=lost[0],
        unscored_candidate=lost[1],
        missing=(lost[0] / epochs, lost[1] / epochs),
        reasons=(NO_SCORE * lost[0], NO_SCORE * lost[1]),
    )


def _answer(
    found: SuiteReport,
    file_score: Callable[[float], float],
) -> dict[str, object]:
    figures = found.figures
    means = [
        None if mean is None else file_score(mean)
        for mean in (figures.incumbent_mean, figures.candidate_mean)
    ]
    return {
        "verdict": VERDICT_WORDS.get(found.outcome, found.outcome),
        "how": found.how,
        "n_used": found.n_used,
        "n": found.n_max,
        "incumbent_score": means[0],
        "candidate_score": means[1],
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
        "points_to": find_direction((found.ci_low, found.ci_high), found.claim, found.margin)
        if found.outcome in UNDECIDED
        else None,
        "more_items": figures.more_items if found.outcome in UNDECIDED else None,
        "look": figures.look,
        "alpha": figures.alpha,
        "reason": found.reason,
        **({"next": FILL_IN} if found.outcome == "infra_error" else {}),
    }
