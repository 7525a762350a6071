"""Parses a CSV file with both models' scores by item. Each fault names its file and line."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from harness.evals.file_gate.table_rows import TableRow, table_rows
from harness.evals.scored_run import PairRow
from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError

_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def parse_pairs(
    text: str,
    place: str,
    n_max: int | None = None,
    groups: Sequence[str] = (),
) -> tuple[PairRow, ...]:
    """Reads both models' scores by item, in the order of each item's first row. Ignores other
    columns. Raises InputError at the first fault, and for more than n_max items.

    Args:
        groups: columns that name an item's cluster or slices.
    """
    groups = [canonical(name) for name in groups]
    required = ("item", "incumbent", "candidate")
    optional = ("epoch",)
    if reserved := {*groups} & {*required, *optional}:
        raise InputError(f"column {min(reserved)!r} cannot name a cluster or a slice")
    members: dict[str, tuple[str, ...]] = {}
    scores: dict[str, dict[int, tuple[float | None, float | None]]] = {}
    lines: dict[str, int] = {}
    lines_by_epoch: dict[tuple[str, int], int] = {}
    for row in table_rows(text, place, (*required, *dict.fromkeys(groups)), optional):
        item = row.name("item")
        epoch = _read_epoch(row)
        group_names = tuple(row.name(column) for column in groups)
        if members.setdefault(item, group_names) != group_names:
            raise row.error(
                f"item {item!r} is in {', '.join(group_names)} here, but in an earlier row in "
                f"{', '.join(members[item])}"
            )
        earlier_line = lines_by_epoch.setdefault((item, epoch), row.line)
        if earlier_line != row.line:
            raise row.error(_describe_repeat(item, row, earlier_line))
        if item not in scores and n_max is not None and len(scores) == n_max:
            raise row.error(f"item {item!r} exceeds the planned {n_max} items")
        lines[item] = row.line
        epochs = scores.setdefault(item, {})
        epochs[epoch] = (_read_score(row, "incumbent"), _read_score(row, "candidate"))
    _check_epochs(place, scores, lines)
    return tuple(_build_row(item, epochs, members[item]) for item, epochs in scores.items())


def _read_score(row: TableRow, column: str) -> float | None:
    text = row.cells[column]
    if not text:
        return None
    if not _DECIMAL.fullmatch(text):
        raise row.error(f"{column} is {text!r}; a score is a number from 0 to 1, or empty")
    score = float(text)
    if not 0.0 <= score <= 1.0:
        raise row.error(f"{column} is {text}; scores are from 0 to 1")
    return score + 0.0


def _read_epoch(row: TableRow) -> int:
    if "epoch" not in row.cells:
        return 0
    return row.count("epoch")


def _describe_repeat(
    item: str,
    row: TableRow,
    earlier: int,
) -> str:
    if "epoch" in row.cells:
        return f"item {item!r} epoch {row.cells['epoch']} is already in line {earlier}"
    return (
        f"item {item!r} is already in line {earlier}; "
        "several epochs of an item need a column 'epoch'"
    )


def _check_epochs(
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
                f"{place}:{lines[item]}: item {item!r} has epochs {_join_epochs(epochs)}, "
                f"the first item has {_join_epochs(first)}; leave a missing score empty"
            )


def _join_epochs(epochs: Mapping[int, object] | set[int]) -> str:
    return ", ".join(str(epoch) for epoch in sorted(epochs))


def _build_row(
    item: str,
    epochs: Mapping[int, tuple[float | None, float | None]],
    groups: tuple[str, ...],
) -> PairRow:
    ordered = [epochs[epoch] for epoch in sorted(epochs)]
    return PairRow(
        item=item,
        incumbent=tuple(incumbent for incumbent, _ in ordered),
        candidate=tuple(candidate for _, candidate in ordered),
        groups=groups,
    )
