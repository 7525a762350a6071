"""Evals of the models in use run by a cron expression, and their scores land in SQL."""

import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import before_simulator


@pytest.mark.verify
@pytest.mark.req("F7")
def test_a_suite_with_a_cron_expression_is_asked_and_its_scores_are_stored(
    installing: Installing,
) -> None:
    def settings(made: Installation) -> Document:
        items = made.folder / "capitals.jsonl"
        items.write_text(
            "".join(
                f'{{"id": "c{number}", "input": "Name capital {number}.", "target": "x"}}\n'
                for number in range(12)
            )
        )
        said = before_simulator(
            Simulator(made, options=("--suite", f"capitals={items}")),
            support={"suites": ["capitals"]},
        )
        suite = {
            "path": str(items),
            "scorer": "exact",
            "every": "* * * * *",
        }
        return said | {"suites": {"capitals": suite}}

    place = installing(settings)
    place.serve("control")

    def ended() -> list[Document]:
        return place.database.rows("SELECT * FROM eval_run WHERE state = 'done'")

    run = eventually(ended, "no run has ended")[0]
    (target,) = place.database.rows(
        "SELECT provider, model FROM target WHERE id = :id", id=run["target"]
    )
    assert (run["suite"], target) == (
        "capitals",
        {"provider": "sim", "model": "sim-base"},
    )
    scores = place.database.rows(
        "SELECT item, strict, error FROM sample WHERE run = :run ORDER BY item",
        run=run["id"],
    )
    assert {row["item"] for row in scores} == {f"c{number}" for number in range(12)}
    assert all(row["error"] is None and 0 <= row["strict"] <= 1 for row in scores)
    # Nothing was decided by it.
    assert place.database.all_rows("verdict") == []
