"""The shipped models over the shipped suites, judged by the real scorers.

Tolerances: a model's accuracy on a whole suite is its skill to half an item. Two models within
five points of skill disagree on 10 % to 25 % of the items.
"""

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.scorers import ScoreResult
from evals.sim import answers, profiles, server
from evals.sim.profiles import Profile
from evals.sim.simulated_model import BankItem, ItemBank, SimulatedModel
from evals.suites import suite as suites
from harness import package_data
from harness.domain.settings import SuiteSettings

SCORERS = {
    "arithmetic": "numeric",
    "extraction": "json_fields",
    "tickets": "label",
    "instructions": "instructions",
}
MODELS = tuple(profiles.load_profiles())
SIM = server.simulator(time_scale=0)
each_suite = pytest.mark.parametrize("suite", SCORERS)
each_model = pytest.mark.parametrize("model", MODELS)


@cache
def judged(suite: str) -> suites.Suite:
    path = package_data.path("datasets") / f"{suite}.jsonl"
    return suites.load_suite(SuiteSettings(suite, path=path, scorer=SCORERS[suite]))


@cache
def scores(model: str, suite: str) -> list[ScoreResult]:
    examinee = SIM.models[model]
    return [
        judged(suite).score(
            answers.answer(examinee.sit(item), examinee.profile, prompt=item.input), item.id
        )
        for item in SIM.bank.suites[suite]
    ]


def right(model: str, suite: str) -> list[bool]:
    return [SIM.models[model].sit(item).right for item in SIM.bank.suites[suite]]


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


@each_suite
@each_model
def test_a_models_accuracy_on_a_whole_suite_is_its_skill(model: str, suite: str) -> None:
    nominal = SIM.models[model].profile.skill_in(suite)

    assert share(right(model, suite)) == pytest.approx(nominal, abs=0.5 / 480 + 1e-9)


@each_suite
def test_the_real_scorer_agrees_with_what_the_model_meant(suite: str) -> None:
    found = [s.strict == 1 for s in scores("sim-base", suite)]

    assert found == right("sim-base", suite)


@each_suite
@pytest.mark.parametrize(
    "pair",
    [("sim-base", "sim-equal"), ("sim-base", "sim-backup"), ("sim-better", "sim-fragile")],
)
def test_near_equal_models_disagree_on_some_items_only(
    suite: str, pair: tuple[str, str]
) -> None:
    first, second = (right(model, suite) for model in pair)
    disagreement = share([a != b for a, b in zip(first, second, strict=True)])

    assert 0.10 <= disagreement <= 0.25


@each_suite
def test_harder_items_are_missed_more_often(suite: str) -> None:
    easy, middle, hard = thirds_by_difficulty(suite, MODELS)

    assert easy > middle > hard


def thirds_by_difficulty(suite: str, models: Sequence[str]) -> list[float]:
    """Accuracy of all these models on the easiest, the middle and the hardest third."""
    items = SIM.bank.suites[suite]
    order = sorted(range(len(items)), key=lambda n: items[n].difficulty)
    size = len(items) // 3
    thirds = [order[at * size : (at + 1) * size] for at in range(3)]
    rights = [right(model, suite) for model in models]
    return [share([items[n] for items in rights for n in third]) for third in thirds]


@pytest.mark.req("A8")
def test_the_fenced_model_loses_by_form_and_not_by_substance() -> None:
    found = scores("sim-fenced", "extraction")
    strict = sum(s.strict or 0 for s in found) / len(found)
    lenient = sum(s.lenient or 0 for s in found) / len(found)

    assert strict < 0.3
    assert lenient == pytest.approx(0.85, abs=0.01)


@each_suite
def test_a_request_seed_moves_few_answers_and_the_same_seed_none(suite: str) -> None:
    base, items = SIM.models["sim-base"], SIM.bank.suites[suite]
    first = [base.sit(item, request_seed=1) for item in items]
    moved = share([v.right != base.sit(v.item).right for v in first])

    assert 0.01 < moved < 0.15
    assert first == [base.sit(item, request_seed=1) for item in items]


@given(st.floats(0, 1), st.integers(1, 60))
def test_any_skill_is_met_on_a_suite_of_any_size(nominal: float, size: int) -> None:
    bank = ItemBank(BankItem("s", f"s-{n}", f"question {n}", "yes") for n in range(size))
    examinee = SimulatedModel(Profile("m", default_skill=nominal), bank)

    assert sum(examinee.sit(i).right for i in bank.suites["s"]) == round(nominal * size)
