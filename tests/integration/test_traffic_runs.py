"""Runs of a suite of traffic: the incumbent's answers are given, the candidate's are judged."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.sim import server
from evals.sim.answers import write_filler
from evals.suites.configured_suites import ConfiguredSuites
from evals.suites.suite import load_suite
from harness.evals.ports import EvalJob
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.errors import ConfigError
from harness.gate.run import Sample, SampleError
from harness.providers.target import Price, Provider, Target
from tests.support.evals.eval_process import Assignment, carry_out
from tests.support.providers import simulator_thread
from tests.support.store.records import PLAIN_RUN

pytestmark = pytest.mark.req("F2", "F6")

MODELS = """
base: {seed: 1}
other: {seed: 2}
sim-judge: {skill: {judge: 1.0}}
"""
ITEMS = 24
QUESTION = "Please tell customer {} about order {}."
INCUMBENT = Target("sim", "base")


def line(number: int, target: str, *, answered: bool = True) -> dict[str, Any]:
    question = QUESTION.format(number, number * 37 % 101)
    return {
        "id": f"drw_{number:02}",
        "input": question,
        "target": target,
        "metadata": {
            "messages": [{"role": "user", "content": question}],
            "caller": f"caller-{number}",
            "requests": 1 + number % 3,
            "production": {
                "model": "base",
                "answered": answered,
                "settings": {"temperature": None, "max_tokens": None, "top_p": 0.5},
            },
        },
    }


def suite_of(folder: Path, name: str, lines: Sequence[Mapping[str, Any]]) -> SuiteSettings:
    data = folder / f"{name}.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return SuiteSettings(
        "traffic",
        path=data,
        scorer="preference",
        scorer_options={"answers_of": INCUMBENT.name, "draw": name},
        cluster="caller",
        judge=JudgeSettings(Target("sim", "sim-judge")),
    )


def assignment(suite: SuiteSettings, model: str, url: str, name: str) -> Assignment:
    provider = Provider("sim", "openai", f"{url}/v1", prices={"other": Price(1.0, 1.0)})
    pin = ConfiguredSuites({"traffic": suite}).pin("traffic").digest
    run = replace(
        PLAIN_RUN,
        id=f"run-{name}",
        suite="traffic",
        suite_digest=pin,
        order_seed=7,
        wanted=ITEMS,
    )
    job = EvalJob(
        run,
        Target("sim", model),
        provider,
        None,
        max_connections=4,
        judge_provider=provider,
        incumbent=INCUMBENT,
        incumbent_provider=provider,
    )
    return Assignment({"traffic": suite}, job)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Runs whose record has the model's answers of now, except for the stale one."""
    folder = tmp_path_factory.mktemp("traffic")
    models = folder / "models.yaml"
    models.write_text(MODELS, encoding="utf-8")
    same = [
        line(
            n, "" if n < 3 else write_filler(QUESTION.format(n, n * 37 % 101)), answered=n >= 3
        )
        for n in range(ITEMS)
    ]
    fresh = suite_of(folder, "fresh", same)
    stale = suite_of(folder, "stale", [line(n, "Short.") for n in range(ITEMS)])
    simulator = server.simulator(profiles=models, time_scale=0)
    with simulator_thread.serve_in_thread(simulator) as url:
        runs = {
            "incumbent": assignment(fresh, "base", url, "incumbent"),
            "candidate": assignment(fresh, "other", url, "candidate"),
            "stale": assignment(stale, "base", url, "stale"),
        }
        return dict(zip(runs, carry_out([*runs.values()]), strict=True))


def samples(result: Mapping[str, Any]) -> list[Sample]:
    return [
        Sample(**{**one, "error": SampleError(one["error"]) if one["error"] else None})
        for one in result["samples"]
    ]


def test_the_incumbents_arm_is_the_logged_answers_at_one_half(
    results: Mapping[str, Any],
) -> None:
    found = samples(results["incumbent"])

    assert results["incumbent"]["state"] == "done"
    assert len(found) == ITEMS
    assert {one.strict for one in found} == {0.5}
    assert {one.judge_calls for one in found} == {0}
    # Retention finds the texts of a run by its prompts.
    assert all(one.prompt for one in found)
    # The log has no answer to three items, so people compare with the answers of now.
    now = {n: write_filler(QUESTION.format(n, n * 37 % 101)) for n in range(3)}
    answers = {one.item: one.answer for one in found}
    assert {n: answers[f"drw_{n:02}"] for n in range(3)} == now


def test_the_candidate_is_compared_with_the_answer_of_now_where_the_log_has_none(
    results: Mapping[str, Any],
) -> None:
    found = samples(results["candidate"])

    assert results["candidate"]["state"] == "done"
    assert {one.error for one in found} == {None}
    # Both models of the simulator write the same filler, so no pair needed a judge.
    assert {one.strict for one in found} == {0.5}
    assert {one.judge_calls for one in found} == {0}


def test_a_record_that_the_incumbent_no_longer_answers_so_is_stale(
    results: Mapping[str, Any],
) -> None:
    assert results["stale"]["samples"] == []
    assert "RecordStale" in results["stale"]["error"]
    assert "so its record is stale" in results["stale"]["error"]


@pytest.mark.parametrize("missing", ["answers_of", "draw"])
def test_a_comparison_with_answers_of_no_draw_is_refused(tmp_path: Path, missing: str) -> None:
    suite = suite_of(tmp_path, "own", [line(n, "Short.") for n in range(ITEMS)])
    options = {**suite.scorer_options, missing: ""}

    with pytest.raises(ConfigError, match=f"has no {missing} in scorer_options"):
        load_suite(replace(suite, scorer_options=options))
