"""GSM8K, IFEval and our own four sets, by the door that any user's data comes through."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evals.suites import Catalog, Suite, load_suite
from harness import shipped
from harness.domain.evaluation import EvalRun, RunState
from harness.domain.settings import SuiteSettings
from harness.domain.targets import Target
from harness.ports import EvalJob
from tests.eval_process import Assignment, carry_out
from tests.scripted_provider import Response, Served, serving

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SWAPGATE_SHARED", ROOT.parent / "shared")) / "evaldata"
ITEMS = 30

OURS = {
    "arithmetic": SuiteSettings(
        "arithmetic", scorer="numeric", scorer_options={"final_line": "ANSWER:"}
    ),
    "extraction": SuiteSettings("extraction", scorer="json_fields"),
    "tickets": SuiteSettings("tickets", scorer="label"),
    "instructions": SuiteSettings("instructions", scorer="instructions"),
}


def spoken(suite: str, answer: object) -> str:
    """The answer as the suite's prompts ask for it."""
    if suite == "arithmetic":
        return f"Step by step.\nANSWER: {answer}"
    return answer if isinstance(answer, str) else json.dumps(answer)


def shipped_suite(name: str) -> Suite:
    settings = OURS[name]
    path = shipped.path("datasets") / f"{name}.jsonl"
    return load_suite(
        SuiteSettings(
            name, path=path, scorer=settings.scorer, scorer_options=settings.scorer_options
        )
    )


@pytest.mark.parametrize("name", OURS)
def test_in_our_sets_every_target_is_right_and_every_distractor_wrong(name: str) -> None:
    suite = shipped_suite(name)

    assert (len(suite.items) >= 400, suite.left_out) == (True, {})
    for item in suite.items.values():
        assert suite.score(spoken(name, item.target), item.id).strict == 1, item.id
        for wrong in item.metadata["distractors"]:
            assert suite.score(spoken(name, wrong), item.id).strict == 0, (item.id, wrong)


@pytest.fixture(scope="module")
def public() -> dict[str, SuiteSettings]:
    if not SHARED.is_dir():
        pytest.skip(f"no public eval data at {SHARED}; set SWAPGATE_SHARED to its folder")
    return {
        "gsm8k": SuiteSettings(
            "gsm8k",
            path=SHARED / "gsm8k_test.jsonl",
            scorer="numeric",
            input_field="question",
            target_field="target",
        ),
        "ifeval": SuiteSettings(
            "ifeval",
            path=SHARED / "ifeval.jsonl",
            scorer="ifeval",
            input_field="prompt",
            target_field="instruction_id_list+kwargs",
        ),
    }


def job(catalog: Catalog, suite: str, url: str) -> EvalJob:
    target = Target("sim", "m")
    run = EvalRun(
        id=f"run-{suite}",
        suite=suite,
        suite_digest=catalog.pin(suite).digest,
        target=target.id,
        order_seed=1,
        epochs=1,
        wanted=ITEMS,
        state=RunState.RUNNING,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return EvalJob(run, target, Served(url).provider(), None)


def test_ifeval_counts_the_items_that_it_cannot_judge(public: dict[str, SuiteSettings]) -> None:
    catalog = Catalog(public)
    left_out = catalog.left_out("ifeval")

    assert catalog.pin("ifeval").items + sum(left_out.values()) == 541
    assert catalog.pin("ifeval").items >= 500
    assert all(reason.startswith("language ") for reason in left_out)


@pytest.mark.slow
def test_gsm8k_and_ifeval_run_through_inspect(public: dict[str, SuiteSettings]) -> None:
    catalog = Catalog(public)
    gsm8k = catalog.suite("gsm8k")
    by_prompt = {item.input: item for item in gsm8k.items.values()}
    half = {each for n, each in enumerate(sorted(gsm8k.items)) if n % 2}

    def answer(body: Mapping[str, Any]) -> Response:
        item = by_prompt.get(body["messages"][-1]["content"])
        if item is None:
            return Response('"all in small letters and without any comma."')
        shown = item.target if item.id in half else "-1"
        return Response(f"Thinking it through, the total comes to {shown}.")

    with serving(answer) as served:
        jobs = [job(catalog, name, served.url) for name in public]
        math, writing = carry_out([Assignment(public, each) for each in jobs])

    assert (math["state"], writing["state"]) == ("done", "done")
    assert {each["item"]: each["strict"] for each in math["samples"]} == {
        each["item"]: float(each["item"] in half) for each in math["samples"]
    }
    assert len(math["samples"]) == len(writing["samples"]) == ITEMS
    scores = {each["item"]: (each["strict"], each["lenient"]) for each in writing["samples"]}
    ifeval = catalog.suite("ifeval")
    for each in writing["samples"]:
        again = ifeval.score(each["answer"], each["item"])
        assert scores[each["item"]] == (again.strict, again.lenient)
    assert {strict for strict, _ in scores.values()} == {0, 1}
