"""Runs of agents in a gateway's log prove a swap, turn by turn."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Document, Installation
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import SHORT, await_phase, await_up, before_simulator, propose

CALLERS: Final = 120
DAY_S: Final = 86_400
FIND: Final[Document] = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
POLICY: Final[Document] = {
    **SHORT,
    "proof": "judge",
    "gate": {**SHORT["gate"], "claim": "non_inferior", "margin": 0.1},
}


def row(number: int, at: datetime, text: str, answer: object, **body: object) -> Document:
    messages = [{"role": "user", "content": text}]
    return {
        "request_id": f"r{number}",
        "call_type": "acompletion",
        "startTime": at.isoformat(),
        "model": "openai/sim-base",
        "messages": {},
        "response": answer,
        "proxy_server_request": {"model": "sim-base", "messages": messages, **body},
        "status": "success",
        "end_user": f"customer-{number}",
        "session_id": "",
    }


def drive_settings(made: list[Simulator]) -> Callable[[Installation], Document]:
    """Settings of the route `support` before a simulator, which `made` then has."""

    def settings(place: Installation) -> Document:
        made.append(Simulator(place))
        plain = before_simulator(made[0], support={})
        return {**plain, "policies": {**plain["policies"], "short": POLICY}}

    return settings


def agents_log(place: Installation, file: Path) -> None:
    """What a gateway stored of agents' runs: a call of a function, then the answer in words."""
    midnight = datetime.fromtimestamp(file.parent.stat().st_mtime // DAY_S * DAY_S, UTC)
    rows = []
    for number in range(CALLERS):
        text = f"Agent {number} has to find parcel {number * 37 % 1009}."
        messages: list[Document] = [{"role": "user", "content": text}]
        forced = {"type": "function", "function": {"name": "find"}}
        for turn, choice in enumerate((forced, "auto")):
            asked: Document = {"messages": [*messages], "tools": [FIND], "tool_choice": choice}
            answer = place.chat("support", **asked).json()
            at = midnight - timedelta(days=1 + number % 4) + timedelta(minutes=turn)
            plain = row(number, at, text, answer)
            named = {"session_id": f"run-{number}", "request_id": f"r{number}-{turn}"}
            rows.append({**plain, **named, "proxy_server_request": asked})
            message = answer["choices"][0]["message"]
            calls = message.get("tool_calls") or [{"id": ""}]
            result = f"parcel {number} is on shelf {number * 7}"
            messages += [
                message,
                {"role": "tool", "tool_call_id": calls[0]["id"], "content": result},
            ]
    file.write_text("".join(f"{json.dumps(one)}\n" for one in rows), encoding="utf-8")


@pytest.mark.req("F2", "F9", "D8")
def test_runs_of_agents_prove_a_swap_turn_by_turn_and_no_function_runs(
    installing: Installing,
) -> None:
    made: list[Simulator] = []
    place = installing(drive_settings(made))
    await_up(place, "router", "control")
    agents_log(place, place.folder / "spend.jsonl")
    drawn = place.json(
        *("suite", "draw", "traffic", "--route", "support", "--from", "spend.jsonl"),
        *("--judge", "sim/sim-judge", "--judge-anyway", "a simulated model has no maker"),
    )
    assert drawn["runs"] == {"complete": CALLERS}
    assert drawn["items"] == 2 * CALLERS
    place.cli("route", "settings", "support", "--suite", "traffic", "--reason", "our agents")

    ann = place.management_key("ann", "proposer")
    swap = propose(place, "support", "sim/sim-better", token=ann)
    await_phase(place, swap, "canary")

    (verdict,) = place.database.rows("SELECT * FROM verdict WHERE proposal = :id", id=swap)
    assert verdict["outcome"] == "passed"
    assert "says nothing about whole runs of the candidate" in verdict["reason"]
    shown = place.json("proposal", "show", swap)["recorded_runs"]["traffic"]
    # Simulated models make up the same arguments.
    assert shown["same"] == shown["runs"] > 0
    assert shown["unknown"] == {}
