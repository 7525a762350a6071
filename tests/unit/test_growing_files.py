"""Files that grow, and the words about data that point to a result without showing it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.file_gate.terms import FileTerms
from harness.frame.errors import InputError
from harness.gate.offline.design import Design, growing_level, spent_alpha
from harness.gate.offline.sequential import judge_batch, judge_differences
from harness.gate.sentences import PointsTo, find_direction
from harness.gate.suite_plan import Claim, Looks
from harness.interfaces.cli.program import program

pytestmark = pytest.mark.req("F2", "A7")

# 15 losses and 5 wins point to a loss, and do not show it.
PROBABLY_WORSE = [(1, 0)] * 15 + [(0, 1)] * 5 + [(1, 1)] * 14
SIDES = ("incumbent", "candidate")


def judged(folder: Path, rows: list[tuple[int, int]], command: str, *options: str) -> Result:
    file = folder / "pairs.csv"
    lines = (f"q{n},{a},{b}" for n, (a, b) in enumerate(rows))
    file.write_text("\n".join(["item,incumbent,candidate", *lines]), encoding="utf-8")
    words = ["gate", "decide"] if command == "gate decide" else ["try"]
    return CliRunner().invoke(program, [*words, str(file), *options])


def answered(folder: Path, rows: list[tuple[int, int]], *options: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(judged(folder, rows, "try", "--json", *options).stdout)
    return answer


def swapped(rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(b, a) for a, b in rows]


def test_data_that_point_to_a_loss_are_probably_worse_in_text_and_json(tmp_path: Path) -> None:
    done = judged(tmp_path, PROBABLY_WORSE, "try")
    answer = answered(tmp_path, PROBABLY_WORSE)

    assert done.exit_code == 4
    more = answer["more_items"]
    assert answer["points_to"] == "worse"
    assert f"; about {more} more items would show it." in done.stdout
    assert "candidate is probably worse (" in done.stdout
    assert "It is probably worse: about" in answer["reason"]


def test_nothing_advises_items_to_show_the_opposite_of_a_probable_loss(tmp_path: Path) -> None:
    done = judged(tmp_path, PROBABLY_WORSE, "try")
    answer = answered(tmp_path, PROBABLY_WORSE)

    assert "next: keep the incumbent" in done.stdout
    assert "better" not in done.stdout.partition("Means of")[2]
    assert "5 points" not in done.stdout
    assert answer["items_for_5_points"] is None


@pytest.mark.parametrize("losses", range(0, 41, 5))
def test_try_says_worse_exactly_where_the_gate_says_failed(tmp_path: Path, losses: int) -> None:
    rows = [(1, 0)] * losses + [(0, 1)] * (40 - losses) + [(1, 1)] * 20

    said = judged(tmp_path, rows, "try").stdout
    verdict = json.loads(judged(tmp_path, rows, "gate decide", "--json").stdout)["verdict"]

    assert ("that shows that it is worse" in said) == (verdict == "failed")
    assert ("that shows that it is better" in said) == (verdict == "passed")


@given(
    delta=st.floats(-1.0, 1.0),
    width=st.floats(0.0, 1.0),
)
def test_the_direction_of_a_difference_is_the_mirror_of_its_opposite(
    delta: float, width: float
) -> None:
    mirror = {PointsTo.BETTER: PointsTo.WORSE, PointsTo.WORSE: PointsTo.BETTER, None: None}

    def direction(value: float) -> PointsTo | None:
        return find_direction((value - width, value + width), Claim.SUPERIOR, 0.05)

    assert direction(-delta) == mirror[direction(delta)]


@pytest.mark.parametrize(
    ("interval", "wanted"),
    [
        ((-0.04, 0.0), PointsTo.WITHIN_MARGIN),
        ((-0.06, 0.02), None),
        ((-0.06, -0.02), None),
        ((-0.13, -0.04), None),
        ((-0.13, -0.06), PointsTo.WORSE),
        ((-0.2, 0.02), None),
        ((None, None), None),
    ],
)
def test_a_claim_with_a_margin_points_to_the_margin_or_to_a_loss_beyond_it(
    interval: tuple[float | None, float | None],
    wanted: PointsTo | None,
) -> None:
    assert find_direction(interval, Claim.NON_INFERIOR, 0.05) is wanted


def test_a_further_look_at_a_file_gets_the_alpha_of_its_number(tmp_path: Path) -> None:
    rows = [(0, 1)] * 16 + [(1, 0)] * 6 + [(1, 1)] * 30

    first, third = answered(tmp_path, rows), answered(tmp_path, rows, "--look", "3")

    assert (first["verdict"], first["look"], first["alpha"]) == ("passed", 1, 0.05)
    assert (third["verdict"], third["look"]) == ("inconclusive", 3)
    assert third["alpha"] == pytest.approx(0.05 / 12)
    assert third["next_command"].endswith("--look 4")
    assert third["points_to"] == "better"


def test_a_planned_file_is_judged_again_and_again_at_one_alpha(tmp_path: Path) -> None:
    rows = [(0, 1)] * 12 + [(1, 0)] * 8 + [(1, 1)] * 20

    found = answered(tmp_path, rows, "--n-max", "100")

    assert (found["verdict"], found["n_used"], found["n"]) == ("running", 40, 100)
    assert "the same --n-max: repeats cost nothing" in found["next"]
    assert found["alpha"] == 0.05


def test_the_advice_to_add_questions_names_the_next_look_and_the_plan(tmp_path: Path) -> None:
    rows = [(0, 1)] * 10 + [(1, 0)] * 8 + [(1, 1)] * 20

    answer = answered(tmp_path, rows)
    said = answer["next"]

    assert said.startswith("add questions")
    assert answer["next_command"].endswith("--look 2")
    assert "--n-max" in said


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"n_max": 100, "look": 2}, "give one of them"),
        ({"n_max": None, "look": 0}, "--look is 0; it must be 1 or more"),
        ({"n_max": 0}, "--n-max is 0; it must be 1 or more"),
    ],
)
def test_a_plan_and_a_count_of_looks_exclude_each_other(
    terms: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        FileTerms(Claim.SUPERIOR, 0.05, 0.05, **terms)


def test_the_levels_of_a_growing_file_rise_to_half_of_what_all_looks_spend() -> None:
    levels = [growing_level(items / 200, 0.05) for items in range(1, 201)]

    assert levels == sorted(levels)
    assert levels[-1] == pytest.approx(spent_alpha(0.05) / 2, rel=1e-5)


@pytest.mark.parametrize("looks", [Looks.WHOLE, Looks.GROWING])
def test_one_analysis_uses_all_rows_and_no_earlier_one(looks: Looks) -> None:
    rows = [1.0] * 100 + [-1.0] * 100
    n_max = 200 if looks is Looks.WHOLE else 400
    design = Design(Claim.SUPERIOR, 0.05, n_max, looks=looks)

    for d in (rows, rows[::-1]):
        found = judge_differences(d, design)
        assert found.n_used == 200
        assert found.outcome in {"inconclusive", "running"}
    assert not judge_batch(np.array([rows]), design).rejected.any()
