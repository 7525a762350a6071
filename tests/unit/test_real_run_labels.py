"""Does the real run's script label by the truth alone, and does its judge read forms alone?"""

import json
from pathlib import Path

import pytest

from benchmarks.gate.people_pairs import VOTES, count_votes
from benchmarks.real.orders import QUESTION, orders
from benchmarks.real.schema_judge import choose_winner
from benchmarks.real.scripted_labels import choose_key

pytestmark = pytest.mark.req("F2")

ORDER = orders()[0]
RIGHT = json.dumps(ORDER["target"])
WRONG = json.dumps(ORDER["target"] | {"quantity": 0})
CUT = RIGHT[:20]


@pytest.mark.parametrize(
    ("a", "b", "key"),
    [(RIGHT, WRONG, "a"), (CUT, RIGHT, "b"), (RIGHT, RIGHT, "t"), (WRONG, CUT, "t")],
)
def test_the_script_prefers_the_only_right_answer(a: str, b: str, key: str) -> None:
    request = f"\n── pair 1 ── request\n{QUESTION}{ORDER['input']}\n"

    assert choose_key(f"{request}\n── answer A\n{a}\n\n── answer B\n{b}\n") == key


@pytest.mark.parametrize(
    ("a", "b", "winner"),
    [(RIGHT, CUT, "A"), (CUT, WRONG, "B"), (RIGHT, WRONG, "tie"), (CUT, "", "tie")],
)
def test_the_rule_prefers_the_only_answer_in_the_form_of_an_order(
    a: str, b: str, winner: str
) -> None:
    def read(answer: str) -> object:
        return json.loads(answer) if answer.endswith("}") else answer

    prompt = f"Compare.\n\nDATA:\n{json.dumps({'A': read(a), 'B': read(b)})}"

    assert choose_winner(prompt) == winner


def test_votes_are_counted_by_the_judges_preference_and_the_persons(tmp_path: Path) -> None:
    people = "id,winner\n0,left\n0,tie\n1,right\n2,left\n"
    (tmp_path / "crowd-comparisons.csv").write_text(people, encoding="utf-8")
    for name in ("gpt4", "gpt3"):
        file = tmp_path / f"{name}-crowd-comparisons.csv"
        file.write_text("id,winner\n0,left\n1,left\n", encoding="utf-8")

    found = count_votes(tmp_path)

    assert found[0].votes == ((0, 0, 0), (0, 0, 0), (1, 1, 1))


def test_the_population_of_measured_votes_has_the_wanted_win_share() -> None:
    for judge in VOTES:
        counts = judge.pairs(0.45, 3_000)

        assert counts.sum() == 3_000
        assert counts.sum(axis=0) @ [0.0, 0.5, 1.0] / 3_000 == pytest.approx(0.45, abs=5e-4)
