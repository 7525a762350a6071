import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from evals.suites.configured_suites import ConfiguredSuites
from harness.domain.routing.target import Target
from harness.domain.settings import SuiteSettings
from harness.ports import EvalJob
from tests.support.evals.eval_process import Assignment, carry_out
from tests.support.providers.scripted_chat import Response, Served, serving
from tests.support.store.records import PLAIN_RUN

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
OTHER = {"type": "function", "function": {"name": "clock", "parameters": {}}}
CALL = {"name": "weather", "arguments": {"city": "A"}}
ROWS: list[dict[str, Any]] = [
    *({"id": name, "input": name, "target": CALL} for name in ("right", "text", "broken")),
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
    for name, wanted in (("one", 1), ("two", 2), ("uno", 1))
]
Results = Sequence[Mapping[str, Any]]


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
        "tool_calls": [{"id": "c1", "type": "function", "function": call}],
    }
    choice = {"message": message, "finish_reason": "tool_calls"}
    return Response(raw=json.dumps({"choices": [choice], "model": "m"}).encode())


def assignment(suite: SuiteSettings, items: int, served: Served) -> Assignment:
    suites, target = {suite.name: suite}, Target("sim", "m")
    pin = ConfiguredSuites(suites).pin(suite.name).digest
    run = replace(PLAIN_RUN, suite=suite.name, suite_digest=pin, wanted=items)
    return Assignment(suites, EvalJob(run, target, served.provider(), None))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Served]:
    """All runs in one process: tools, code outside of a container, and code within one."""
    folder = tmp_path_factory.mktemp("suites")
    calls, code = folder / "calls.jsonl", folder / "code.jsonl"
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
        asked = (with_tools, ROWS), (uncontained, CODE_ROWS), (contained, CODE_ROWS)
        results = carry_out([assignment(suite, len(rows), served) for suite, rows in asked])
    return results, served


@pytest.mark.req("A8")
def test_tools_are_sent_as_written_and_the_calls_are_scored_and_stored(
    answers: tuple[Results, Served],
) -> None:
    (result, *_), served = answers
    sent = {request["messages"][-1]["content"]: request for request in served.requests}
    found = {sample["item"]: sample for sample in result["samples"]}

    assert (result["state"], len(served.requests)) == ("done", len(ROWS) + len(CODE_ROWS))
    assert (sent["right"]["tools"], sent["right"]["tool_choice"]) == ([TOOL], "auto")
    assert (sent["none"]["tools"], sent["none"]["tool_choice"]) == ([OTHER], "none")
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
def test_code_is_run_and_scored(answers: tuple[Results, Served]) -> None:
    (_, result, refused), _ = answers

    scores = {
        sample["item"]: (sample["strict"], sample["lenient"]) for sample in result["samples"]
    }
    assert (result["state"], scores) == ("done", {"one": (0, 1), "two": (0, 0), "uno": (1, 1)})
    assert (refused["state"], refused["samples"]) == ("", [])
    assert "runs a model's code in a Docker container, and " in refused["error"]
