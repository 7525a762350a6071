"""A sample of each route's requests is counted by need, off the requests' path."""

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from harness.gate.online.observation import NEED
from harness.providers.models.capabilities import Endpoint, Needs
from router.frame.body import read_request
from router.observers import needs_sample
from router.observers.needs_sample import (
    LOOK_EVERY_S,
    MAX_CHARACTERS,
    REPORT_EVERY_S,
    NeedsSample,
)
from router.recording.sums import CompletedRequest
from router.request.needs import need_names
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import AUTH, CHAT, Place
from tests.support.router.live_router import INCUMBENT, served, snapshot

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**more: object) -> bytes:
    turns = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": "support", "messages": turns} | more).encode()


def counted(scene: Place) -> Counter[str]:
    scene.recorder.flush(final=True)
    found: Counter[str] = Counter()
    for row in scene.kept.asked_names:
        if row.route == "support" and row.name.startswith(NEED):
            found[row.name] += row.requests
    return found


async def test_requests_are_counted_by_what_they_need(tmp_path: Path) -> None:
    scene = Place(tmp_path, {INCUMBENT: completion()})
    await scene.ask(chat())
    await scene.ask(chat(tools=[TOOL], parallel_tool_calls=True))
    assert counted(scene) == {
        NEED: 2,
        f"{NEED}chat": 2,
        f"{NEED}tools": 1,
        f"{NEED}parallel_tools": 1,
    }


async def test_an_answer_that_the_request_begins_is_a_prefill(tmp_path: Path) -> None:
    scene = Place(tmp_path, {INCUMBENT: completion()})
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{"}]
    await scene.ask(chat(messages=begun, continue_final_message=True))
    assert counted(scene)[f"{NEED}prefill"] == 1


async def test_a_body_that_nothing_can_read_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Place(tmp_path, {INCUMBENT: completion()})
    await scene.ask(chat())

    def fail(*_: object) -> Needs:
        raise TypeError

    monkeypatch.setattr(needs_sample, "detect_needs", fail)
    assert counted(scene)[NEED] == 1  # the request counts, with unknown needs
    assert scene.kept.traffic


async def test_only_answered_embeddings_show_that_a_route_serves_them(tmp_path: Path) -> None:
    scene = Place(tmp_path, {INCUMBENT: error(400)})
    body = json.dumps({"model": "support", "input": "a"}).encode()
    await scene.call("/v1/embeddings", body, headers=(AUTH,))
    await scene.call(CHAT, chat(), headers=(AUTH,))
    assert f"{NEED}embeddings" not in counted(scene)


async def test_no_body_is_kept_that_is_too_long(tmp_path: Path) -> None:
    scene = Place(tmp_path, {INCUMBENT: completion()})
    await scene.ask(chat(metadata={"x": "y" * MAX_CHARACTERS}))
    await scene.ask(chat())
    assert counted(scene)[NEED] == 1


def test_a_look_takes_the_waiting_requests_and_tells_its_counts_in_turns() -> None:
    clock = ManualClock()
    sample = NeedsSample(clock)
    request = read_request(chat(), Endpoint.CHAT)
    route = served(snapshot("http://up")).routes["support"]

    def come(times: int) -> int:
        for _ in range(times):
            sample.waiting.append((CompletedRequest("support", "incumbent"), request, route))
        return sum(row.requests for row in sample.take() if row.name == NEED)

    assert come(4) == 4
    assert come(1) == 0
    clock.advance(LOOK_EVERY_S)
    assert come(2) == 0
    clock.advance(REPORT_EVERY_S)
    assert come(1) == 4
    clock.advance(timedelta(hours=1).total_seconds())
    assert come(0) == 0


def test_needs_are_named_as_their_fields() -> None:
    needs = Needs(Endpoint.MESSAGES, stream=True, vision=True)
    assert need_names(needs) == ("messages", "stream", "vision")
