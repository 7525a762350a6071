from dataclasses import replace
from datetime import timedelta

import pytest

from harness.agents.caller import APPROVAL_PATH, ApprovalLinks
from harness.agents.switch_request import (
    ModelSwitchRequest,
    SwitchState,
    decision_text,
    inert_text,
    switch_facts,
    switch_lines,
    switch_question,
    visible_text,
)
from harness.providers.target import MeasuredScore, ModelFigures, Price
from tests.support.store.records import NOW

pytestmark = pytest.mark.req("C4")

CHEAP = ModelFigures("sim/base", Price(0.15, 0.6), 8_000)
MEASURED = ModelFigures(
    "sim/better",
    Price(3.0, 15.0),
    200_000,
    (MeasuredScore("tickets", 0.9, 0.85, 0.95, 120),),
    "PASSED on chat, 2026-11-01",
)
REQUEST = ModelSwitchRequest(
    id="sw_1",
    agent="ag_1",
    session="se_1",
    model_requested="better",
    targets=("sim/better",),
    reason="long contracts",
    asked_at=NOW,
    expires_at=NOW + timedelta(hours=1),
    facts=switch_facts(CHEAP, [MEASURED], ["the reasoning of sim is left out"]),
)


def test_the_question_has_prices_quality_reason_and_time_left() -> None:
    assert switch_question(REQUEST, "helper") == (
        "helper wants to switch to sim/better. Approve?"
    )
    assert dict(switch_lines(REQUEST, NOW + timedelta(minutes=18))) == {
        "Model": "sim/better",
        "Price": "$3.00 in and $15.00 out per million tokens",
        "Quality": "tickets 90 % (85 % to 95 %, 120 items); last verdict PASSED on chat, "
        "2026-11-01",
        "Context window": "200,000 tokens",
        "Model now": "sim/base",
        "Price now": "$0.15 in and $0.60 out per million tokens",
        "Quality now": "not measured",
        "Left out": "the reasoning of sim is left out",
        "The agent's reason": "long contracts",
        "Time left": "42 min",
    }


def test_a_set_of_sub_tasks_shows_each_task() -> None:
    facts = switch_facts(CHEAP, [MEASURED], tasks=[("sum up\u202e", "sim/better")])
    request = replace(REQUEST, for_children=True, facts=facts)

    assert "run sub-tasks on sim/better. Approve?" in switch_question(request, "a")
    assert ("Sub-task", "sim/better: sum up") in switch_lines(request, NOW)


@pytest.mark.parametrize(
    ("text", "shown", "inert"),
    [
        (
            "two\nlines\tand\x00more",
            "two lines and more",
            "two lines and more",
        ),
        ("turned \u202earound", "turned around", "turned around"),
        ("<script>", "<script>", "·script·"),
        ("<!channel> @here", "<!channel> @here", "·!channel· ·here"),
        (
            "[yes](https://e.example/a)",
            "[yes](https://e.example/a)",
            "·yes·(https //e. example/a)",
        ),
        ("*all* `code` _x_", "*all* `code` _x_", "·all· ·code· ·x·"),
        (
            "costs $1.50, 20 % less",
            "costs $1.50, 20 % less",
            "costs $1.50, 20 % less",
        ),
        ("half \ud800", "half", "half"),
        (
            "x" * 1_001,
            "x" * 999 + "…",
            "x" * 299 + "·",
        ),
    ],
)
def test_what_an_agent_wrote_is_one_line_of_data(
    text: str,
    shown: str,
    inert: str,
) -> None:
    assert visible_text(text) == shown
    assert inert_text(text) == inert


@pytest.mark.parametrize(
    "change",
    [
        {"id": "sw_2"},
        {"session": "se_2"},
        {"model_requested": "other"},
        {"targets": ("sim/worse",)},
        {"reason": "none"},
        {"for_children": True},
        {"facts": ()},
        {"expires_at": NOW + timedelta(days=9)},
    ],
)
def test_another_request_has_another_hash(change: dict[str, object]) -> None:
    assert replace(REQUEST, **change).hash != REQUEST.hash  # type: ignore[arg-type]


def test_a_link_is_of_its_request_as_it_is_alone() -> None:
    links = ApprovalLinks("http://swapproof.test/", b"a secret of the tests")
    token = links.link(REQUEST).removeprefix(f"http://swapproof.test{APPROVAL_PATH}")

    assert links.is_of(token, REQUEST)
    for wrong in (
        "",
        token[:-1],
        token.replace("sw_1", "sw_2"),
        "\ud800",
        "é",
    ):
        assert not links.is_of(wrong, REQUEST)
    assert not links.is_of(token, replace(REQUEST, reason="another"))
    assert not replace(links, secret=b"another").is_of(token, REQUEST)


def test_the_agent_is_told_of_every_end() -> None:
    decided = replace(REQUEST, decided_by="ben", decision_reason="too dear")

    def text_of(state: SwitchState) -> str:
        return decision_text(decided, state)

    assert text_of(SwitchState.PENDING) == ""
    assert text_of(SwitchState.REJECTED) == (
        "ben rejected the switch to sim/better: too dear. The model stays."
    )
    assert "in force from the next message" in text_of(SwitchState.APPROVED)
    assert text_of(SwitchState.EXPIRED).startswith("No person decided")
    assert "was cancelled" in text_of(SwitchState.CANCELLED)
