"""Parses a CSV file with a canary's counts by block, and judges them as the guardrail of errors
does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.evals.file_gate.table_rows import table_rows
from harness.frame.errors import InputError
from harness.gate.online.evidence_paths import counts_path, distance_to_trip, odds_grid
from harness.gate.online.fisher import check_counts
from harness.gate.online.guardrails import FailureTally


@dataclass(frozen=True, slots=True)
class BlockRow:
    """Counts of a block of requests. `requests`, `failures` and `missing` count both arms."""

    block: str
    line: int
    requests: int
    canary_requests: int
    failures: int
    canary_failures: int
    missing: int = 0  # outcomes that never arrived; `failures` does not include them
    canary_missing: int = 0


def parse_blocks(text: str, place: str) -> tuple[BlockRow, ...]:
    """Reads the counts of each block, in the file's order. Raises InputError at the first
    fault.
    """
    counts = ("requests", "canary_requests", "failures", "canary_failures")
    missing = ("missing", "canary_missing")
    lines: dict[str, int] = {}
    blocks = []
    for row in table_rows(text, place, ("block", *counts), missing):
        name = row.name("block")
        earlier_line = lines.setdefault(name, row.line)
        if earlier_line != row.line:
            raise row.error(f"block {name!r} is already in line {earlier_line}")
        counted = {column: row.count(column) for column in counts}
        counted |= {column: row.count(column) for column in missing if column in row.cells}
        block = BlockRow(name, row.line, **counted)
        if block.canary_missing > block.missing:
            raise row.error(
                f"canary_missing is {block.canary_missing}, but missing, which includes it, is "
                f"only {block.missing}"
            )
        blocks.append(block)
    return tuple(blocks)


def judge_blocks(
    rows: Sequence[BlockRow],
    place: str,
    alpha: float,
    rho: float,
) -> dict[str, object]:
    """Returns whether the canary holds or rolls back, with the evidence of harm. Reads the
    blocks in order, up to the first block that trips the guardrail.

    Args:
        alpha: the chance of a false rollback.
        rho: the tolerated odds ratio of failure.
    """
    try:
        odds_grid(rho)
    except InputError as error:
        raise InputError(f"--rho: {error}") from None
    bounds = [_bound_tallies(row, place) for row in rows]
    favour = [pair[0] for pair in bounds]
    against = [pair[1] for pair in bounds]
    path = counts_path(favour, rho, weights=()).tolist()
    limit = math.log(1.0 / alpha)
    tripped = next((index for index, log_e in enumerate(path) if log_e >= limit), None)
    rows_read = len(path) if tripped is None else tripped + 1
    log_e = path[rows_read - 1] if path else 0.0
    answer: dict[str, object] = {
        "action": "hold" if tripped is None else "rollback",
        "log_e": log_e,
        "block": None if tripped is None else rows[tripped].block,
        "distance_to_trip": distance_to_trip(log_e, limit),
        "exposures": sum(count.canary for count in favour[:rows_read]),
    }
    if missing := sum(row.missing for row in rows[:rows_read]):
        worst = counts_path(against[:rows_read], rho, weights=())
        answer |= {
            "missing": missing,
            "log_e_if_missing_failed": float(worst.max()),
        }
    return answer


def _bound_tallies(row: BlockRow, place: str) -> tuple[FailureTally, FailureTally]:
    """Returns two tallies: missing outcomes count in favour of the canary, and against it."""
    requests = (row.requests, row.canary_requests)
    failed = row.failures
    missing = row.missing
    control_missing = missing - row.canary_missing
    canary_missing = row.canary_missing
    counts_to_check = [
        (*requests, failed, row.canary_failures),
        (*requests, failed + control_missing, row.canary_failures),
        (*requests, failed + canary_missing, row.canary_failures + canary_missing),
    ]
    try:
        for counts in counts_to_check:
            check_counts(*counts)
    except InputError as error:
        raise InputError(f"{place}:{row.line}: {error}") from None
    favour, against = (FailureTally(*counts) for counts in counts_to_check[1:])
    return favour, against
