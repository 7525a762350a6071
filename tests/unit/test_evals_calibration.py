import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from evals.runner.judge_calibration import (
    CalibrationCache,
    RaterAgreement,
    cohens_kappa,
    demand_agreement,
    measure_judge,
    score_band,
)
from evals.suites.items import load_references
from evals.suites.suite import Suite, load_suite
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.errors import InputError, JudgeUnfit
from harness.providers.target import Target
from tests.support.control.manual_clock import ManualClock
from tests.support.evals.scripted_judge import ScriptedJudge

pytestmark = pytest.mark.req("F7")
REFERENCES = 20


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Its references: people like even numbers."""
    data = tmp_path / "s.jsonl"
    references = tmp_path / "references.jsonl"
    data.write_text('{"input": "a", "target": "b"}', encoding="utf-8")
    rows = [
        {
            "input": "n?",
            "answer": f"{n}",
            "score": 0.9 if n % 2 == 0 else 0.1,
        }
        for n in range(REFERENCES)
    ]
    references.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    judge = JudgeSettings(Target("sim", "sim-judge"), references=references, recheck_s=60)
    return load_suite(
        SuiteSettings(
            "replies",
            path=data,
            scorer="rubric",
            scorer_options={"rubric": "x"},
            judge=judge,
        )
    )


def agrees_but_for(wrong: int) -> ScriptedJudge:
    def says(data: dict[str, str]) -> object:
        n = int(data["answer"])
        even = n % 2 == 0
        return {"score": float(even if n >= wrong else not even)}

    return ScriptedJudge(says)  # type: ignore[arg-type]


def confirmed(
    suite: Suite,
    judge: ScriptedJudge,
    checks: CalibrationCache | None = None,
) -> RaterAgreement | None:
    found = asyncio.run(
        measure_judge(
            suite,
            judge,
            checks=checks,
            connections=4,
        )
    )
    if found is None:
        return None
    demand_agreement(suite.settings, found)
    return found


def test_a_judge_that_agrees_is_confirmed_with_its_figure(suite: Suite) -> None:
    agreement = confirmed(suite, agrees_but_for(2))

    assert agreement is not None
    # 18 of 20 agree, and chance gives half.
    assert agreement.kappa == pytest.approx(0.8)
    assert agreement.n == REFERENCES


def test_a_judge_below_the_floor_measures_nothing_and_says_how_far(suite: Suite) -> None:
    with pytest.raises(
        JudgeUnfit,
        match=r"suite replies: on 20 human references the judge sim/sim-judge has Cohen's "
        r"kappa 0\.40 \(95 % interval -?0\.\d\d to 0\.\d\d\), the floor is 0\.60; fix",
    ):
        confirmed(suite, agrees_but_for(6))


def test_a_judge_that_abstains_does_not_agree(suite: Suite) -> None:
    with pytest.raises(JudgeUnfit, match=r"kappa 0\.00"):
        confirmed(suite, ScriptedJudge(lambda _data: {"score": None}))


def test_a_judge_that_is_away_measures_nothing(suite: Suite) -> None:
    with pytest.raises(
        JudgeUnfit,
        match="could not check its judge: the judge did not answer",
    ):
        confirmed(suite, ScriptedJudge(lambda _data: None))


def test_references_of_one_score_tell_nothing(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / "alike.jsonl"
    rows = [
        {
            "input": "n?",
            "answer": "2",
            "score": 1,
        }
        for _ in range(10)
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert suite.settings.judge is not None
    judge = replace(suite.settings.judge, references=file)
    alike = load_suite(replace(suite.settings, judge=judge))

    with pytest.raises(JudgeUnfit, match="agreement cannot be estimated"):
        confirmed(alike, agrees_but_for(0))


def test_an_agreement_is_kept_for_its_time_and_for_its_pin(
    suite: Suite, tmp_path: Path
) -> None:
    clock = ManualClock()
    checks = CalibrationCache(tmp_path / "judges", clock)
    judge = agrees_but_for(0)
    first = confirmed(suite, judge, checks)
    asked = len(judge.asked)

    assert confirmed(suite, judge, checks) == first
    assert len(judge.asked) == asked == REFERENCES
    other = load_suite(replace(suite.settings, scorer_options={"rubric": "y"}))
    confirmed(other, judge, checks)
    assert len(judge.asked) == 2 * REFERENCES
    clock.advance(61)
    confirmed(suite, judge, checks)
    assert len(judge.asked) == 3 * REFERENCES


def test_a_kept_agreement_that_is_damaged_or_from_the_future_is_measured_again(
    suite: Suite, tmp_path: Path
) -> None:
    clock = ManualClock()
    checks = CalibrationCache(tmp_path / "judges", clock)
    judge = agrees_but_for(0)
    confirmed(suite, judge, checks)
    (kept,) = (tmp_path / "judges").iterdir()
    noted = json.loads(kept.read_text(encoding="utf-8"))
    ahead = (clock.now() + timedelta(hours=1)).timestamp()

    for damaged in (
        "",
        "[]",
        "{}",
        '{"at": 1}',
        json.dumps({**noted, "at": ahead}),
    ):
        kept.write_text(damaged, encoding="utf-8")
        before = len(judge.asked)
        confirmed(suite, judge, checks)
        assert len(judge.asked) == before + REFERENCES


@pytest.mark.parametrize(
    ("score", "levels", "found"),
    [
        (0.0, 2, 0),
        (0.49, 2, 0),
        (0.5, 2, 1),
        (1.0, 2, 1),
        (0.5, 5, 2),
        (1.0, 5, 4),
        (None, 5, -1),
    ],
)
def test_scores_fall_into_equal_bands(
    score: float | None,
    levels: int,
    found: int,
) -> None:
    assert score_band(score, levels) == found


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {
                "input": "a",
                "answer": "x",
                "score": 2,
            },
            "a number from 0 to 1",
        ),
        (
            {
                "input": "a",
                "answer": "x",
                "score": "good",
            },
            "a number from 0 to 1",
        ),
        (
            {
                "input": "a",
                "answer": ["x"],
                "score": 1,
            },
            "`answer`, a text",
        ),
        ({"input": "a", "score": 1}, "field 'answer': missing"),
        (
            {
                "input": "a",
                "answer": "x",
                "score": 1,
            },
            "1 references; agreement needs 10",
        ),
    ],
)
def test_references_that_cannot_be_used_are_told(
    tmp_path: Path,
    row: dict[str, object],
    told: str,
) -> None:
    file = tmp_path / "references.jsonl"
    file.write_text(json.dumps(row), encoding="utf-8")

    with pytest.raises(InputError, match=told):
        load_references(file)


Table = list[list[int]]


def pairs_of(table: Table) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, row in enumerate(table)
        for j, count in enumerate(row)
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("table", "kappa", "low", "high"),
    [
        # p_o = 35/50, p_e = (25*30 + 25*20)/2500 = .5
        ([[20, 5], [10, 15]], 0.4, 0.1511, 0.6489),
        # p_o = 60/100, p_e = (60*70 + 40*30)/10000 = .54
        (
            [[45, 15], [25, 15]],
            0.06 / 0.46,
            -0.0629,
            0.3238,
        ),
        # p_o = 77/100, p_e = .36 + .09 + .01: both raters 60, 30 and 10 %
        (
            [
                [50, 8, 2],
                [7, 21, 2],
                [3, 1, 6],
            ],
            (0.77 - 0.46) / 0.54,
            0.4242,
            0.7239,
        ),
        ([[10, 0], [0, 10]], 1.0, 1.0, 1.0),
        (
            [[0, 10], [10, 0]],
            -1.0,
            -1.0,
            -1.0,
        ),
    ],
)
def test_kappa_and_its_interval_of_tables_worked_by_hand(
    table: Table,
    kappa: float,
    low: float,
    high: float,
) -> None:
    """The interval by the delta method."""
    found = cohens_kappa(pairs_of(table))

    assert found.kappa == pytest.approx(kappa)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.n == sum(map(sum, table))


def test_agreement_ends_at_one_and_at_minus_one() -> None:
    nearly = cohens_kappa([(1, 1)] * 6 + [(0, 0)] * 6 + [(1, 0)])
    hardly = cohens_kappa([(1, 0)] * 6 + [(0, 1)] * 6 + [(1, 1)])

    assert (nearly.high, hardly.low) == (1.0, -1.0)
    assert nearly.low is not None
    assert 0.0 < nearly.low < 1.0
    assert hardly.high is not None
    assert -1.0 < hardly.high < 0.0


def test_raters_of_one_category_tell_nothing() -> None:
    assert cohens_kappa([("good", "good")] * 9) == RaterAgreement(None, None, None, 9)
    assert cohens_kappa([("good", "bad")] * 9).kappa == 0.0


def test_no_pair_is_told() -> None:
    with pytest.raises(InputError, match="at least one pair"):
        cohens_kappa([])
