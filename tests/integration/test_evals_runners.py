"""What the runner makes of assignments, in a process of its own. The provider finds its answer
by the prompt, as any provider must.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.suites.configured_suites import ConfiguredSuites
from harness.evals.ports import EvalJob
from harness.evals.settings import SuiteSettings
from harness.gate.suite_plan import shuffle_items
from harness.providers.target import Provider, RequestPatch, Target
from tests.support.evals.eval_process import Assignment, carry_out
from tests.support.providers.scripted_chat import (
    KEY,
    Response,
    Served,
    serving,
)
from tests.support.site.small_disk import small_disk
from tests.support.store.records import PLAIN_RUN

ITEMS = 40
COLOURS = ("red", "blue")
NUMBERED = re.compile(r"number (\d+)")
Results = Mapping[str, Mapping[str, Any]]

pytestmark = pytest.mark.slow


def says(n: int, model: str) -> str:
    if model == "down" or n == 7:
        return "HTTP 401: key refused"
    if model == "base":
        return f"Number {n}? Let us think of it."
    colour = COLOURS[n % 2]
    if n == 8:
        return "I would rather not say."
    if n == 9:
        return "red"
    return f"```\n{colour}\n```" if n == 10 else colour


def tool_answer(body: Mapping[str, Any]) -> Response:
    """A call of the tool; and with its result, the answer."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return Response(f"The sum {last['content']}")
    function = {
        "name": body["tools"][0]["function"]["name"],
        "arguments": '{"a": 1, "b": 1}',
    }
    call = {
        "id": "call-1",
        "type": "function",
        "function": function,
    }
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call],
    }
    choice = {"message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    return Response(raw=json.dumps({"choices": [choice], "usage": usage}).encode())


def provider_says(body: Mapping[str, Any]) -> Response:
    if "tools" in body:
        return tool_answer(body)
    found = NUMBERED.search(body["messages"][-1]["content"])
    assert found
    text = says(int(found[1]), body["model"])
    if text.startswith("HTTP 401: "):
        refusal = {"error": {"message": text.removeprefix("HTTP 401: ")}}
        return Response(status=401, raw=json.dumps(refusal).encode())
    return Response(text)


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SuiteSettings]:
    folder = tmp_path_factory.mktemp("suites")
    data = folder / "colours.jsonl"
    data.write_text(
        "\n".join(
            json.dumps(
                {
                    "input": f"Which colour has number {n}?",
                    "target": COLOURS[n % 2],
                }
            )
            for n in range(ITEMS)
        ),
        encoding="utf-8",
    )
    task = shutil.copy(
        Path(__file__).parents[1] / "support/evals/user_suite.py",
        folder / "neighbour.py",
    )
    (folder / "mine.py").write_text("from neighbour import graded\n", encoding="utf-8")
    colours = SuiteSettings(
        name="colours",
        path=data,
        scorer="label",
        system="One word.",
    )
    mine = SuiteSettings(name="mine", task=str(folder / "mine.py"))
    return {
        "colours": colours,
        "mine": mine,
        "tooled": replace(mine, name="tooled", task=f"{task}:tooled"),
        "two": replace(mine, name="two", task=f"{task}:two_scores"),
        "chosen": replace(
            mine,
            name="chosen",
            task=f"{task}:two_scores",
            scorer_options={"metric": "second"},
        ),
    }


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(provider_says) as running:
        yield running


def job(
    suites: Mapping[str, SuiteSettings],
    provider: Provider,
    suite: str = "colours",
    **run: Any,
) -> EvalJob:
    target = Target(
        "sim",
        run.pop("model", "m"),
        request_patch=RequestPatch({"seed": 5}, "Please."),
    )
    # A @task's pin needs Inspect; the child process fills it in.
    pin = "" if suites[suite].task else ConfiguredSuites(suites).pin(suite).digest
    fields = {
        "wanted": 12,
        "order_seed": 7,
        **run,
    }
    eval_run = replace(
        PLAIN_RUN,
        suite=suite,
        suite_digest=pin,
        target=target.id,
        **fields,
    )
    return EvalJob(eval_run, target, provider, KEY, max_connections=4)


def assignments(
    suites: Mapping[str, SuiteSettings], provider: Provider
) -> dict[str, Assignment]:
    whole = job(
        suites,
        provider,
        wanted=100,
        epochs=2,
    )
    return {
        "whole": Assignment(suites, whole),
        "nothing left": Assignment(suites, whole, resume=True),
        "stopped": Assignment(suites, whole, stop_after=20),
        "resumed": Assignment(suites, whole, resume=True),
        "over budget": Assignment(suites, whole, over_after=20),
        "store away": Assignment(suites, whole, fail_after=20),
        "stale": Assignment(suites, replace(whole, run=replace(whole.run, suite_digest="0"))),
        "down": Assignment(
            suites,
            job(
                suites,
                provider,
                model="down",
                wanted=40,
                epochs=2,
            ),
        ),
        "rambling": Assignment(
            suites,
            job(
                suites,
                provider,
                model="base",
                wanted=40,
            ),
        ),
        "unknown": Assignment({}, whole),
    }


@pytest.fixture(scope="module")
def results(suites: dict[str, SuiteSettings], served: Served) -> Results:
    both = assignments(suites, served.provider()) | {
        name: Assignment(suites, job(suites, served.provider(), name))
        for name in ("mine", "tooled", "two", "chosen")
    }
    return dict(zip(both, carry_out(list(both.values())), strict=True))


def pairs(result: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(sample["item"], sample["epoch"]) for sample in result["samples"]]


def by_item(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {sample["item"]: sample for sample in result["samples"]}


def test_a_whole_run_asks_every_item_in_every_epoch_once(results: Results) -> None:
    result = results["whole"]

    assert result["state"] == "done"
    assert len(pairs(result)) == len(set(pairs(result))) == 2 * ITEMS
    assert {sample["run"] for sample in result["samples"]} == {"run-1"}
    expected = shuffle_items([f"colours-{n:04}" for n in range(1, ITEMS + 1)], 7)
    for sample in result["samples"]:
        assert expected[sample["position"]] == sample["item"]


def test_a_run_whose_samples_are_all_stored_asks_nothing(results: Results) -> None:
    assert (
        results["nothing left"]["state"],
        results["nothing left"]["samples"],
    ) == (
        "done",
        [],
    )


def test_a_stopped_run_can_be_continued_and_nothing_is_asked_twice(results: Results) -> None:
    stopped = pairs(results["stopped"])
    resumed = pairs(results["resumed"])

    assert (results["stopped"]["state"], results["resumed"]["state"]) == (
        "stopped",
        "done",
    )
    assert 20 <= len(stopped) <= 24  # four were under way
    assert set(stopped).isdisjoint(resumed)
    assert len(stopped) + len(resumed) == 2 * ITEMS


def test_a_run_over_budget_ends_with_what_was_under_way(results: Results) -> None:
    assert results["over budget"]["state"] == "over_budget"
    assert 20 <= len(results["over budget"]["samples"]) <= 24


def test_an_error_of_the_store_ends_the_run_and_is_raised(results: Results) -> None:
    assert results["store away"]["error"] == "OSError: the store is away"
    assert len(results["store away"]["samples"]) == 20


def test_a_suite_that_changed_since_registration_is_not_run(results: Results) -> None:
    assert "StaleEvidence: run run-1: suite 'colours' has changed" in results["stale"]["error"]
    assert "NotFound: run run-1: suite 'colours'" in results["unknown"]["error"]


@pytest.mark.parametrize(
    ("name", "error", "remark"),
    [
        (
            "down",
            "infra",
            "down's first 5 answers have no score: HTTP 401: key refused",
        ),
        (
            "rambling",
            None,
            "base's first 5 answers contain no label: the model may lack a chat template, or",
        ),
    ],
)
def test_a_run_ends_after_its_first_answers_if_none_of_them_can_be_scored(
    results: Results,
    name: str,
    error: str | None,
    remark: str,
) -> None:
    result = results[name]

    assert result["state"] == "failed"
    assert 5 <= len(result["samples"]) <= 9
    assert {sample["error"] for sample in result["samples"]} == {error}
    assert result["remark"].startswith(remark)


def test_scores_errors_and_broken_rules_reach_the_sample(results: Results) -> None:
    found = by_item(results["whole"])
    right, failed, silent, wrong, fenced = (
        found[f"colours-{n + 1:04}"] for n in (6, 7, 8, 9, 10)
    )

    assert (
        right["answer"],
        right["strict"],
        right["lenient"],
        right["error"],
    ) == (
        "red",
        1,
        1,
        None,
    )
    assert (
        failed["answer"],
        failed["strict"],
        failed["error"],
    ) == (
        "",
        None,
        "infra",
    )
    assert failed["error_text"] == "HTTP 401: key refused"
    assert (silent["answer"], silent["strict"]) == (
        "I would rather not say.",
        0,
    )
    assert (silent["error"], silent["rule"]) == (None, "no_label")
    assert (wrong["strict"], wrong["error"]) == (0, None)
    assert (
        fenced["strict"],
        fenced["lenient"],
        fenced["rule"],
    ) == (
        0,
        1,
        "code_fence",
    )


def test_no_error_text_holds_the_prompt_or_the_key(results: Results) -> None:
    for result in results.values():
        for sample in result["samples"]:
            assert "Which colour" not in sample["error_text"]
            assert KEY not in sample["error_text"]


def test_a_suite_of_ours_loads_no_vendors_sdk_and_no_protocol_for_agents_clients(
    results: Results,
) -> None:
    assert results["whole"]["needless"] == []


def test_inspect_reports_tokens_cost_time_and_who_served(results: Results) -> None:
    sample = by_item(results["whole"])["colours-0001"]

    assert (sample["input_tokens"], sample["output_tokens"]) == (10, 2)
    assert sample["cost_usd"] == pytest.approx((10 * 1 + 2 * 10) / 1e6)
    assert sample["duration_s"] > 0
    assert (sample["served_model"], sample["served_build"]) == (
        "served-1",
        "fp",
    )
    assert sample["prompt"] == "Which colour has number 0?"


@pytest.mark.usefixtures("results")
def test_inspect_asks_with_the_suites_settings_and_the_targets_patch(served: Served) -> None:
    request = next(
        request for request in served.requests if "Which colour" in str(request["messages"])
    )

    assert request["model"] in ("m", "down")
    assert request["authorization"] == f"Bearer {KEY}"
    assert (
        request["temperature"],
        request["max_completion_tokens"],
        request["seed"],
    ) == (0.0, 512, 5)
    assert request["messages"][0] == {
        "role": "system",
        "content": "One word.\n\nPlease.",
    }


def test_a_users_task_is_run_with_its_own_solver_and_scorer(
    results: Results, served: Served
) -> None:
    result = results["mine"]
    found = by_item(result)

    assert (result["state"], len(result["samples"])) == ("done", 12)
    assert (found["mine-0001"]["strict"], found["mine-0010"]["strict"]) == (1, 0)
    assert found["mine-0001"]["prompt"] == "Say the number 0"
    assert found["mine-0008"]["error"] == "infra"
    assert any("Be brief." in str(request["messages"]) for request in served.requests)


def test_a_users_scorer_that_fails_leaves_the_sample_unscored(results: Results) -> None:
    sample = by_item(results["mine"])["mine-0009"]

    assert (sample["strict"], sample["error"]) == (None, "unscored")
    assert sample["error_text"] == "the scorer failed with ValueError"


def test_a_users_task_may_call_tools_and_all_its_calls_are_paid(
    results: Results, served: Served
) -> None:
    [sample] = results["tooled"]["samples"]

    assert (sample["answer"], sample["strict"]) == ("The sum 2", 1)
    assert (sample["input_tokens"], sample["output_tokens"]) == (20, 4)
    [*_, back] = (request for request in served.requests if request.get("tools"))
    assert back["messages"][-1] == {
        "role": "tool",
        "tool_call_id": "call-1",
        "content": "2",
    }
    assert back["messages"][-2]["tool_calls"][0]["function"]["name"] == "add"


def test_of_several_scores_of_a_task_one_must_be_named(results: Results) -> None:
    unnamed = by_item(results["two"])
    named = by_item(results["chosen"])

    assert "set scorer_options.metric: first, second" in unnamed["two-0001"]["error_text"]
    assert (
        named["chosen-0001"]["strict"],
        named["chosen-0002"]["strict"],
    ) == (0.5, 0)


DISK_ITEMS = 200


@pytest.fixture
def disk_suites(tmp_path: Path) -> Mapping[str, SuiteSettings]:
    data = tmp_path / "colours.jsonl"
    padding = "x" * 4_000
    lines = [
        json.dumps(
            {
                "input": f"Which colour has number {n}? {padding}",
                "target": "red",
            }
        )
        for n in range(DISK_ITEMS)
    ]
    data.write_text("\n".join(lines), encoding="utf-8")
    return {"colours": SuiteSettings(name="colours", path=data, scorer="label")}


def sample_keys(result: Mapping[str, Any]) -> set[tuple[str, int]]:
    return {(sample["item"], sample["epoch"]) for sample in result["samples"]}


@pytest.mark.req("G5")
@pytest.mark.verify
def test_a_run_whose_disk_gets_full_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path, disk_suites: Mapping[str, SuiteSettings]
) -> None:
    with small_disk(tmp_path) as disk, serving(provider_says) as served:
        whole = job(disk_suites, served.provider(), wanted=DISK_ITEMS)
        stopped, resumed = carry_out(
            [
                Assignment(
                    disk_suites,
                    whole,
                    fill=disk,
                    fill_after=60,
                ),
                Assignment(disk_suites, whole, resume=True),
            ],
            environment={"TMPDIR": str(disk)},
        )
        left = [file.name for file in disk.iterdir()]
    assert (stopped["state"], stopped["error"]) == ("failed", "")
    assert stopped["remark"].startswith(f"the disk of {disk}, with Inspect's log, is full")
    # What was answered before is kept, and not asked again.
    first = sample_keys(stopped)
    rest = sample_keys(resumed)
    assert 60 <= len(first) < DISK_ITEMS
    assert (len(first) + len(rest), first & rest) == (DISK_ITEMS, set())
    assert (resumed["state"], resumed["remark"], left) == ("done", "", [])
