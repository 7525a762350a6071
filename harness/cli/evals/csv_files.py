"""The terms of `gate decide`, and its CSV files and those of `canary decide`, parsed into
checked rows. Every fault is an InputError that begins with FILE:LINE.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.domain.errors import InputError
from harness.domain.evals.exports.scored_run import PairRow
from harness.domain.evals.suite_plan import Claim
from harness.domain.evals.text_files import csv_rows, decode_text
from harness.domain.suggestions import did_you_mean

_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COUNT = re.compile(r"[0-9]{1,12}")
# About four million items; they are judged in memory.
MAX_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class FileTerms:
    claim: Claim
    margin: float
    alpha: float
    n_max: int | None  # planned units; None for all in the file
    cluster: str = ""  # the column that names an item's cluster
    slices: tuple[str, ...] = ()  # columns whose values are guarded

    @property
    def columns(self) -> tuple[str, ...]:
        return (*((self.cluster,) if self.cluster else ()), *self.slices)


@dataclass(frozen=True, slots=True)
class BlockRow:
    block: str
    line: int
    requests: int
    canary_requests: int
    failures: int
    canary_failures: int
    missing: int = 0  # outcomes that did not come, and are no failures
    canary_missing: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    line: int
    cells: Mapping[str, str]

    def error(self, message: str) -> InputError:
        return InputError(f"{self.place}:{self.line}: {message}")


def read_text(path: str) -> str:
    """Reads the file's text, without its byte order mark. Raises InputError, naming the file.

    A pipe will do; what is larger than MAX_BYTES, or never ends, is refused.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise InputError(
            f"{path}: larger than {MAX_BYTES // 2**20} MiB; keep only the columns that count"
        )
    return decode_text(data, path)


def parse_pairs(
    text: str, place: str, n_max: int | None = None, groups: Sequence[str] = ()
) -> tuple[PairRow, ...]:
    """Reads the scores of both models by item, in the order of each item's first row. Other
    columns are left alone.

    groups: columns that say what items have in common. Raises InputError at the first fault,
    also for more than n_max items.
    """
    required, optional = ("item", "incumbent", "candidate"), ("epoch",)
    if taken := {*groups} & {*required, *optional}:
        raise InputError(f"column {min(taken)!r} holds no groups of items")
    members: dict[str, tuple[str, ...]] = {}
    scores: dict[str, dict[int, tuple[float | None, float | None]]] = {}
    lines: dict[str, int] = {}
    seen: dict[tuple[str, int], int] = {}
    for row in _rows(text, place, (*required, *dict.fromkeys(groups)), optional):
        item, epoch = _name(row, "item"), _epoch(row)
        named = tuple(_name(row, column) for column in groups)
        if members.setdefault(item, named) != named:
            raise row.error(
                f"item {item!r} is in {', '.join(named)} here, and in "
                f"{', '.join(members[item])} before"
            )
        earlier = seen.setdefault((item, epoch), row.line)
        if earlier != row.line:
            raise row.error(_twice(item, row, earlier))
        if item not in scores and n_max is not None and len(scores) == n_max:
            raise row.error(f"item {item!r} is one more than the planned {n_max} items")
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
            raise row.error(f"block {name!r} is there already, in line {earlier}")
        known = {column: _count(row, column) for column in counts}
        known |= {column: _count(row, column) for column in missing if column in row.cells}
        block = BlockRow(name, row.line, **known)
        if block.canary_missing > block.missing:
            raise row.error(f"{block.canary_missing} canary_missing of {block.missing} missing")
        blocks.append(block)
    return tuple(blocks)


def _rows(
    text: str, place: str, required: Sequence[str], optional: Sequence[str]
) -> Iterator[_Row]:
    numbered = csv_rows(text, lambda line, wrong: InputError(f"{place}:{line}: {wrong}"))
    try:
        line, names = next(numbered)
    except StopIteration:
        wanted = ",".join(required)
        raise InputError(f"{place}:1: the file is empty; it begins with {wanted}") from None
    header = [name.strip().lower() for name in names]
    _check_header(f"{place}:{line}", header, required, optional)
    for line, values in numbered:
        if len(values) != len(header):
            raise InputError(
                f"{place}:{line}: {len(values)} fields, but the header has {len(header)}"
            )
        cells = {name: value.strip() for name, value in zip(header, values, strict=True)}
        yield _Row(place, line, cells)


def _check_header(
    where: str, header: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> None:
    for name in (*required, *optional):
        if header.count(name) > 1:
            raise InputError(f"{where}: column {name!r} is there twice")
    for name in required:
        if name in header:
            continue
        others = [other for other in header if other not in (*required, *optional)]
        columns = f"; the file has {', '.join(header)}, and {', '.join(required)} are needed"
        hint = did_you_mean(name, others, otherwise=columns)
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


def _twice(item: str, row: _Row, earlier: int) -> str:
    if "epoch" in row.cells:
        return f"item {item!r} epoch {row.cells['epoch']} is there already, in line {earlier}"
    return (
        f"item {item!r} is there already, in line {earlier}; "
        "several epochs of an item need a column 'epoch'"
    )


def _same_epochs(
    place: str, scores: Mapping[str, Mapping[int, object]], lines: Mapping[str, int]
) -> None:
    """Epochs are registered before the run: an item that lacks one is not comparable."""
    wanted: set[int] = set()
    for item, epochs in scores.items():
        wanted = wanted or set(epochs)
        if set(epochs) != wanted:
            raise InputError(
                f"{place}:{lines[item]}: item {item!r} has epochs {_listed(epochs)}, "
                f"the first item has {_listed(wanted)}; leave a score empty when there is none"
            )


def _listed(epochs: Mapping[int, object] | set[int]) -> str:
    return ", ".join(str(epoch) for epoch in sorted(epochs))


def _item_row(
    item: str, epochs: Mapping[int, tuple[float | None, float | None]], groups: tuple[str, ...]
) -> PairRow:
    ordered = [epochs[epoch] for epoch in sorted(epochs)]
    return PairRow(
        item=item,
        incumbent=tuple(ours for ours, _ in ordered),
        candidate=tuple(theirs for _, theirs in ordered),
        groups=groups,
    )
