import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.runner.judge_calibration import JudgeBill
from evals.sim import server
from evals.suites.configured_suites import ConfiguredSuites
from harness.evals.ports import EvalJob
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.evals.spending import JudgingCost, sum_judging_cost
from harness.gate.offline.pairs import pair_samples
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.run import AnswerColumns, Sample, SampleError
from harness.gate.suite_plan import Claim, SuitePlan, SuiteRole
from harness.providers.target import Price, Provider, Target
from tests.support.evals.eval_process import Assignment, carry_out
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_chat import Response, Served, serving
from tests.support.store.records import PLAIN_RUN

ITEMS = 24
MODELS = """
base: {skill: {replies: 0.5}, seed: 3}
sim-judge: {skill: {judge: 1.0}}
sim-fool: {skill: {judge: 0.5}}
"""
JUDGE = JudgeSettings(Target("sim", "sim-judge"))
RUBRIC = {"rubric": "1 when the answer says what the reference says, else 0."}
Results = dict[str, dict[str, Any]]


def suites_in(folder: Path) -> dict[str, SuiteSettings]:
    data = folder / "replies.jsonl"
    references = folder / "references.jsonl"
    rows = [
        {
            "input": f"What is the code of drawer {n}?",
            "target": f"It is {n * 37 % 101}-{n}.",
        }
        for n in range(ITEMS)
    ]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    rated = [
        {
            "input": f"Drawer {n}?",
            "answer": f"It is {n + n % 2}.",
            "score": 1 - n % 2,
            "metadata": {"target": f"It is {n}."},
        }
        for n in range(40)
    ]
    references.write_text("\n".join(map(json.dumps, rated)), encoding="utf-8")
    checked = replace(JUDGE, references=references)
    plain = SuiteSettings(
        "replies",
        path=data,
        scorer="rubric",
        scorer_options=RUBRIC,
        judge=JUDGE,
    )
    pair = {"criteria": "Tell more."}
    return {
        "rubric": replace(plain, judge=checked),
        "gone": replace(
            plain,
            judge=replace(JUDGE, target=Target("sim", "no-such-judge")),
        ),
        "few": replace(plain, judge=replace(JUDGE, max_calls=5)),
        "dear": replace(plain, judge=replace(JUDGE, max_cost_usd=1e-9)),
        "fool": replace(plain, judge=replace(checked, target=Target("sim", "sim-fool"))),
        "pairs": replace(plain, scorer="pairwise", scorer_options=pair),
        "nobody": plain,
    }


def assignment(
    name: str,
    suite: SuiteSettings,
    url: str,
) -> Assignment:
    target = Target("sim", "base")
    prices = {"sim-judge": Price(1.0, 1.0)}
    provider = Provider("sim", "openai", f"{url}/v1", prices=prices)
    pin = ConfiguredSuites({"replies": suite}).pin("replies").digest
    run = replace(
        PLAIN_RUN,
        id=f"run-{name}",
        suite="replies",
        suite_digest=pin,
        order_seed=7,
        wanted=ITEMS,
    )
    job = EvalJob(
        run,
        target,
        provider,
        None,
        max_connections=1 if name in ("few", "dear") else 4,
        judge_provider=None if name == "nobody" else provider,
    )
    return Assignment({"replies": suite}, job)


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SuiteSettings]:
    return suites_in(tmp_path_factory.mktemp("judges"))


@pytest.fixture(scope="module")
def results(
    suites: dict[str, SuiteSettings],
    tmp_path_factory: pytest.TempPathFactory,
) -> Results:
    models = tmp_path_factory.mktemp("models") / "models.yaml"
    models.write_text(MODELS, encoding="utf-8")
    simulator = server.simulator(profiles=models, suites=[suites["rubric"]], time_scale=0)
    with simulator_thread.serve_in_thread(simulator) as url:
        assignments = [assignment(name, suite, url) for name, suite in suites.items()]
        return dict(zip(suites, carry_out(assignments), strict=True))


def samples(result: Mapping[str, Any]) -> list[Sample]:
    return [
        Sample(
            **{
                **sample,
                "error": SampleError(sample["error"]) if sample["error"] else None,
            }
        )
        for sample in result["samples"]
    ]


@pytest.mark.req("F7")
def test_a_rubrics_score_is_the_judges(results: Results, suites: Mapping[str, Any]) -> None:
    items = ConfiguredSuites({"replies": suites["rubric"]}).suite("replies").items
    found = samples(results["rubric"])

    assert (
        results["rubric"]["state"],
        results["rubric"]["error"],
        len(found),
    ) == (
        "done",
        "",
        ITEMS,
    )
    right = {sample.item: str(items[sample.item].target) in sample.answer for sample in found}
    assert {sample.item: sample.strict for sample in found} == {
        item: float(holds) for item, holds in right.items()
    }
    assert set(right.values()) == {True, False}


@pytest.mark.req("F7")
def test_without_its_judge_an_answer_is_kept_unscored_and_nothing_passes(
    results: Results,
) -> None:
    found = samples(results["gone"])

    assert all(sample.error is SampleError.INFRA and sample.answer for sample in found)
    assert all(
        "the judge sim/no-such-judge did not answer: HTTP 404" in sample.error_text
        for sample in found
    )
    plan = SuitePlan(
        suite="replies",
        suite_digest="",
        role=SuiteRole.PRIMARY,
        claim=Claim.SUPERIOR,
        margin=0.05,
        alpha=0.05,
        n_max=ITEMS,
        epochs=1,
        order_seed=7,
    )
    scored = samples(results["rubric"])
    for incumbent, candidate in (
        (scored, found),
        (found, scored),
        (found, found),
    ):
        stopped = ("infra_error", results["gone"]["remark"])
        paired = pair_samples(plan, incumbent, candidate)
        report = judge_pairs(plan, paired, stopped=stopped).report
        assert report.outcome == "infra_error"
        assert " × the judge sim/no-such-judge did not answer: HTTP 404" in report.reason
    assert (
        "first 5 answers have no score: the judge sim/no-such-judge"
        in results["gone"]["remark"]
    )


@pytest.mark.req("F7")
def test_a_judge_is_asked_within_its_budget_and_the_run_ends_there(results: Results) -> None:
    few = samples(results["few"])
    dear = samples(results["dear"])

    assert results["few"]["state"] == results["dear"]["state"] == "failed"
    assert [sample.error for sample in few[:6]] == [None] * 5 + [SampleError.INFRA]
    assert "has had 5 calls, the most that `judge` allows" in few[5].error_text
    assert [sample.error for sample in dear[:2]] == [None, SampleError.INFRA]
    assert "of under $0.0001" in dear[1].error_text
    assert len(few) < ITEMS > len(dear)
    assert results["few"]["remark"] == few[5].error_text


@pytest.mark.req("F7")
def test_a_judge_that_disagrees_with_people_measures_nothing(results: Results) -> None:
    assert results["fool"]["samples"] == []
    told = "JudgeUnfit: suite replies: on 40 human references the judge sim/sim-fool has"
    assert told in results["fool"]["error"]
    assert "sim/sim-judge has Cohen's kappa 1.00" in results["rubric"]["remark"]
    # What was measured is noted, of the refused one too.
    good = results["rubric"]["calibration"]
    fool = results["fool"]["calibration"]
    assert good == {"references": 40, "kappa": 1.0}
    assert fool["references"] == 40
    assert (
        "there is no provider 'sim' for its judge sim/sim-judge" in (results["nobody"]["error"])
    )


@pytest.mark.req("A3")
def test_what_judging_an_answer_took_stands_with_it(results: Results) -> None:
    cost = sum_judging_cost(AnswerColumns.from_samples(samples(results["rubric"])), judged=True)
    found = samples(results["pairs"])
    # Both orders.
    pairs = [sample for sample in found if sample.judge_calls]

    assert len(found) == ITEMS
    assert {pair.strict for pair in found} <= {0, 0.5, 1}

    assert cost.calls == ITEMS
    assert cost.usd is not None
    assert cost.usd > 0
    assert {pair.judge_calls for pair in pairs} == {2}
    # A call that is not answered is not paid for.
    gone = sum_judging_cost(AnswerColumns.from_samples(samples(results["gone"])), judged=True)
    assert gone.calls > 0
    assert gone.usd == 0.0


@pytest.mark.req("A3")
def test_a_suite_without_a_judge_costs_no_judging_and_old_answers_tell_nothing(
    results: Results,
) -> None:
    old = [replace(sample, judge_calls=0) for sample in samples(results["rubric"])]

    assert sum_judging_cost(AnswerColumns.from_samples(old), judged=False) == JudgingCost(
        0, 0.0
    )
    assert sum_judging_cost(AnswerColumns.from_samples(old), judged=True) == JudgingCost(
        0, None
    )


@pytest.mark.req("A3")
def test_one_call_without_a_price_makes_a_bill_unknown() -> None:
    bill = JudgeBill()
    for cost_usd in (0.25, None, 0.5):
        bill.pay(cost_usd)

    assert bill.cost_usd is None


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
        },
    },
}
OTHER = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"name": "weather", "arguments": {"city": "A"}}
ROWS: list[dict[str, Any]] = [
    *(
        {
            "id": name,
            "input": name,
            "target": CALL,
        }
        for name in ("right", "text", "broken")
    ),
    {
        "id": "none",
        "input": "none",
        "target": [],
        "metadata": {"tools": [OTHER], "tool_choice": "none"},
    },
]
CODE_ROWS = [
    {
        "id": name,
        "input": f"def {name}():",
        "target": {
            "prompt": f"def {name}():\n",
            "test": f"def check(made):\n    assert made() == {wanted}",
            "entry_point": name,
        },
    }
    for name, wanted in (
        ("one", 1),
        ("two", 2),
        ("uno", 1),
    )
]
ToolResults = Sequence[Mapping[str, Any]]


def provider_says(body: Mapping[str, Any]) -> Response:
    asked = body["messages"][-1]["content"]
    call = {"name": "weather", "arguments": '{"city": "A"}'}
    if asked == "def one():":
        return Response("```python\ndef one():\n    return 1\n```")
    if asked.startswith("def "):
        return Response("    return 1")
    if asked == "text":
        return Response(json.dumps(CALL))
    if asked == "none":
        return Response("No tool of mine tells that.")
    if asked == "broken":
        call["arguments"] = "{'city': 'A'}"
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": call,
            }
        ],
    }
    choice = {"message": message, "finish_reason": "tool_calls"}
    return Response(raw=json.dumps({"choices": [choice], "model": "m"}).encode())


def tool_assignment(
    suite: SuiteSettings,
    items: int,
    served: Served,
) -> Assignment:
    suites = {suite.name: suite}
    target = Target("sim", "m")
    pin = ConfiguredSuites(suites).pin(suite.name).digest
    run = replace(
        PLAIN_RUN,
        suite=suite.name,
        suite_digest=pin,
        wanted=items,
    )
    return Assignment(suites, EvalJob(run, target, served.provider(), None))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[ToolResults, Served]:
    """All runs in one process: tools, code outside of a container, and code within one."""
    folder = tmp_path_factory.mktemp("suites")
    calls = folder / "calls.jsonl"
    code = folder / "code.jsonl"
    for file, rows in ((calls, ROWS), (code, CODE_ROWS)):
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with_tools = SuiteSettings(
        "calls",
        path=calls,
        scorer="tool_call",
        request={"tools": [TOOL], "tool_choice": "auto"},
    )
    contained = SuiteSettings("code", path=code, scorer="code")
    # Inspect's sandbox `local`: no machine of the tests has Docker.
    uncontained = replace(contained, code_uncontained=True)
    with serving(provider_says) as served:
        asked = (
            (with_tools, ROWS),
            (uncontained, CODE_ROWS),
            (contained, CODE_ROWS),
        )
        results = carry_out(
            [tool_assignment(suite, len(rows), served) for suite, rows in asked]
        )
    return results, served


@pytest.mark.req("A8")
def test_tools_are_sent_as_written_and_the_calls_are_scored_and_stored(
    answers: tuple[ToolResults, Served],
) -> None:
    (result, *_), served = answers
    sent = {request["messages"][-1]["content"]: request for request in served.requests}
    found = {sample["item"]: sample for sample in result["samples"]}

    assert (result["state"], len(served.requests)) == (
        "done",
        len(ROWS) + len(CODE_ROWS),
    )
    assert (sent["right"]["tools"], sent["right"]["tool_choice"]) == (
        [TOOL],
        "auto",
    )
    assert (sent["none"]["tools"], sent["none"]["tool_choice"]) == (
        [OTHER],
        "none",
    )
    scores = {item: (sample["strict"], sample["rule"]) for item, sample in found.items()}
    assert scores == {
        "right": (1, ""),
        "text": (0, "call_as_text"),
        "broken": (0, "single_quotes"),
        "none": (1, ""),
    }
    assert all(sample["lenient"] == 1 for sample in found.values())
    assert json.loads(found["right"]["answer"])["tool_calls"] == [CALL]
    assert found["none"]["answer"] == "No tool of mine tells that."


@pytest.mark.req("A8")
def test_code_is_run_and_scored(answers: tuple[ToolResults, Served]) -> None:
    (_, result, refused), _ = answers

    scores = {
        sample["item"]: (sample["strict"], sample["lenient"]) for sample in result["samples"]
    }
    assert (result["state"], scores) == (
        "done",
        {
            "one": (0, 1),
            "two": (0, 0),
            "uno": (1, 1),
        },
    )
    assert (refused["state"], refused["samples"]) == ("", [])
    assert "runs a model's code in a Docker container, and " in refused["error"]
