from dataclasses import replace
from typing import Any

import pytest

from harness.providers.calls.tool_probe import (
    PRICE_TOOL,
    STOCK_TOOL,
    TOOL_ANSWERS,
    ProbeToolCall,
    ToolFinding,
    ToolLoopTrace,
    ToolOutcome,
    ToolProbeResult,
    tool_findings,
)
from harness.providers.models.capabilities import Capabilities
from harness.providers.target import Provider, Target

pytestmark = pytest.mark.req("B7")
TARGET = Target("up", "m")
ASKS_STOCK = ProbeToolCall(STOCK_TOOL, '{"item": "lamp"}')
ASKS_PRICE = ProbeToolCall(PRICE_TOOL, '{"item": "lamp", "currency": "EUR"}')
SAID = f"{TOOL_ANSWERS[STOCK_TOOL]} lamps, {TOOL_ANSWERS[PRICE_TOOL]} EUR each"
AT_ONCE = ToolLoopTrace([[ASKS_STOCK, ASKS_PRICE], []], SAID)
IN_TURN = ToolLoopTrace(
    [
        [ASKS_STOCK],
        [ASKS_PRICE],
        [],
    ],
    SAID,
)
FORCED = ToolLoopTrace([[ASKS_PRICE]])
GOOD = ToolProbeResult(AT_ONCE, FORCED, AT_ONCE)


def judged(result: ToolProbeResult, **can: Any) -> dict[str, ToolFinding]:
    models = {"m": Capabilities(**can)} if can else {}
    provider = Provider("up", "custom", "http://127.0.0.1:9/v1", models=models)
    return {finding.subject: finding for finding in tool_findings(provider, TARGET, result)}


def failed(found: dict[str, ToolFinding]) -> set[str]:
    return {subject for subject, finding in found.items() if finding.failed}


def test_a_good_loop_works_in_every_respect() -> None:
    found = judged(GOOD)

    assert {finding.outcome for finding in found.values()} == {ToolOutcome.WORKS}
    assert not failed(found)
    assert not any(finding.next_step for finding in found.values())


def test_calls_one_at_a_time_fail_who_is_declared_to_make_them_at_once() -> None:
    found = judged(replace(GOOD, whole=IN_TURN), parallel_tools=True)

    assert failed(found) == {"parallel calls"}
    assert found["parallel calls"].outcome is ToolOutcome.ONE_AT_A_TIME
    assert (
        found["parallel calls"].next_step == "set providers.up.models.m.parallel_tools: false"
    )


def test_what_nothing_is_said_of_is_taken_to_do_everything() -> None:
    finding = judged(replace(GOOD, whole=IN_TURN))["parallel calls"]

    assert finding.failed
    assert finding.found.startswith("assumed to have parallel_tools, which is not declared")


def test_a_model_that_calls_no_tool_is_not_said_to_fail_in_streams() -> None:
    silent = ToolLoopTrace([[]], "The price is 7.")
    found = judged(ToolProbeResult(silent, silent, silent))

    assert failed(found) == {"tools", "forced choice"}


def test_calls_one_at_a_time_are_well_where_they_are_declared() -> None:
    assert not failed(judged(replace(GOOD, whole=IN_TURN), parallel_tools=False))


def test_a_target_that_does_more_than_is_declared_may_be_declared_so() -> None:
    found = judged(GOOD, parallel_tools=False)

    assert not failed(found)
    assert found["parallel calls"].next_step == "set providers.up.models.m.parallel_tools: true"


def test_a_loop_that_got_no_answer_leaves_the_rest_not_seen() -> None:
    found = judged(ToolProbeResult(ToolLoopTrace(error="503: nobody answers")))

    assert failed(found) == {"tools"}
    assert found["tools"].found.endswith("503: nobody answers")
    assert found.pop("tools").next_step.startswith("fix the cause of the error")
    assert {finding.outcome for finding in found.values()} == {ToolOutcome.NOT_SEEN}


NO_TOOLS = "set providers.up.models.m.tools: false"


@pytest.mark.parametrize(
    ("about", "loop", "why"),
    [
        (
            "tools",
            ToolLoopTrace([[]], "I would look it up"),
            "it answers with text",
        ),
        (
            "tools",
            ToolLoopTrace([[ProbeToolCall("weather", "{}")]]),
            "an unknown tool",
        ),
        (
            "tools",
            ToolLoopTrace([[ProbeToolCall(STOCK_TOOL, "{a: lamp")]]),
            "not a JSON object",
        ),
        (
            "tools",
            ToolLoopTrace([[ProbeToolCall(STOCK_TOOL, "[1]")]]),
            "not a JSON object",
        ),
        (
            "results",
            replace(AT_ONCE, text="Many."),
            "omits the result of price_of, stock_of",
        ),
        ("results", replace(AT_ONCE, text=" "), "is empty"),
        (
            "results",
            ToolLoopTrace([[ASKS_STOCK], []], str(TOOL_ANSWERS[STOCK_TOOL])),
            "without calling price_of",
        ),
        (
            "results",
            replace(AT_ONCE, error="400: no such role"),
            "400: no such role",
        ),
    ],
)
def test_what_is_no_call_of_a_tool_or_does_not_use_its_results_is_said(
    about: str,
    loop: ToolLoopTrace,
    why: str,
) -> None:
    finding = judged(replace(GOOD, whole=loop))[about]

    assert finding.failed
    assert why in finding.found
    assert about != "tools" or finding.next_step == NO_TOOLS


@pytest.mark.parametrize("said", ["4,817 and 2,963", "4.817 und 2 963", "4'817 at 2963 EUR"])
def test_results_are_found_however_numbers_are_written(said: str) -> None:
    assert (
        judged(replace(GOOD, whole=replace(AT_ONCE, text=said)))["results"].outcome == "works"
    )


@pytest.mark.parametrize(
    "loop",
    [
        ToolLoopTrace([[ASKS_STOCK]]),
        ToolLoopTrace([[]], "Good morning."),
        AT_ONCE,
    ],
)
def test_a_forced_choice_that_is_not_kept_is_said(loop: ToolLoopTrace) -> None:
    assert judged(replace(GOOD, forced=loop))["forced choice"].failed


@pytest.mark.parametrize(
    "arguments",
    ["{}", '{"item": "lamp"}', '{"item": "lamp", "currency": "GBP"}', "{"],
)
def test_arguments_outside_of_a_strict_schema_are_said(arguments: str) -> None:
    found = judged(
        replace(
            GOOD,
            forced=ToolLoopTrace([[ProbeToolCall(PRICE_TOOL, arguments)]]),
        )
    )

    assert failed(found) == {"strict schema"}


def test_pieces_that_come_to_no_json_fail_the_stream() -> None:
    streamed = ToolLoopTrace([[ProbeToolCall(STOCK_TOOL, '{"item": "la')], []], SAID)

    assert "streamed" in failed(judged(replace(GOOD, streamed=streamed)))
    assert "streamed" not in failed(judged(replace(GOOD, streamed=streamed), stream=False))
