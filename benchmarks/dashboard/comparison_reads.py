"""What the Compare page reads of a large comparison, in seconds of CPU, part by part and in a
process of its own: `python -m benchmarks.dashboard.comparison_reads FOLDER [--items N]
[--decided]`. The folder keeps the installation for the next run.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pandas as pd

from benchmarks.dashboard import large_comparison
from dashboard.data import frames, queries
from dashboard.data.large_comparisons import without_collections
from dashboard.samples import PAGE, TELLING
from harness.app.installation import open_installation
from harness.control.context import Context
from harness.control.proposals import item_texts
from harness.control.proposals.comparison import Comparison, with_texts

T = TypeVar("T")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--decided", action="store_true", help="with a verdict on all items")
    chosen = options.parse_args()
    proposal = large_comparison.find(chosen.folder) or large_comparison.build(
        chosen.folder, chosen.items, decided=chosen.decided
    )
    installation = open_installation(chosen.folder / "swapgate.yaml")
    try:
        ctx = installation.context
        timed("all proposals", lambda: queries.proposals(ctx))
        view = timed("answers and verdict", lambda: queries.comparison(ctx, proposal))
        index = timed("index of the samples", lambda: frames.sample_index(view.comparison))
        shown = index.head(PAGE + TELLING)
        timed("first page of texts", lambda: read_texts(ctx, view.comparison, shown))
        timed(
            "another filter, its second page",
            lambda: read_texts(
                ctx,
                view.comparison,
                frames.filter_rows(index, "improved", "all").iloc[PAGE : 2 * PAGE + TELLING],
            ),
        )
    finally:
        installation.close()


def timed(name: str, read: Callable[[], T]) -> T:
    before = time.process_time()
    with without_collections():
        found = read()
    print(f"{name}: {time.process_time() - before:.2f} s", flush=True)
    return found


def read_texts(ctx: Context, comparison: Comparison, rows: pd.DataFrame) -> None:
    items = {
        str(suite): list(part["item"]) for suite, part in rows.groupby("suite", observed=True)
    }
    whole = with_texts(ctx, comparison, items)
    frames.samples(whole, {}, item_texts.load_item_texts(ctx, whole))


if __name__ == "__main__":
    main()
