"""A router's guard stops a canary whose later turns fail, without a control plane."""

import json
from pathlib import Path

import pytest

from harness.frame.alerts.alert import AlertKind
from harness.gate.canary_sentences import guard_sentence
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.worker_guard import read_guard_count
from router.observers.canary_guard import SPARE_S
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.live_router import CANDIDATE, snapshot

pytestmark = pytest.mark.req("F3", "F4")

CALLERS = 60
RULE = ExposureRule(local_alpha=0.01, window_s=600.0)


def answer(request: UpstreamRequest) -> ScriptedTurn:
    """The candidate fails at each turn but the first one."""
    asked = json.loads(request.body)
    later = asked["messages"][-1]["content"] == "and then?"
    return error(500) if later and asked["model"] == CANDIDATE else completion()


async def take_turn(door: Door, caller: int, text: str) -> str:
    """Sends a caller's request, which succeeds; returns its arm."""
    body = json.dumps({"model": "support", "messages": [{"role": "user", "content": text}]})
    sticky = (b"x-swapproof-sticky", b"%d" % caller)
    status, headers, _ = await door.call(CHAT, body.encode(), headers=(AUTH, sticky))
    assert status == 200
    return headers[b"x-swapproof-arm"].decode()


@pytest.mark.spine
async def test_a_canary_whose_later_turns_fail_is_stopped_by_the_router(tmp_path: Path) -> None:
    first = snapshot("http://up", weight_bps=2_500, rule=RULE)
    door = Door(tmp_path, answer, first=first)
    arms = [await take_turn(door, caller, "hi") for caller in range(CALLERS)]
    harmed = arms.index("canary")

    for caller in range(CALLERS):
        await take_turn(door, caller, "and then?")
    door.clock.advance(600.0 + 120.0)
    assert await take_turn(door, harmed, "hi") == "canary"

    # Now every request that may belong to a window has ended. The next answer is the last one
    # before the router knows it.
    door.clock.advance(SPARE_S)
    await take_turn(door, CALLERS, "hi")
    assert await take_turn(door, harmed, "hi") == "incumbent"
    door.recorder.flush()
    (alert,) = (one for one in door.kept.alerts if one.kind is AlertKind.LOCAL_ABORT)
    callers = arms.count("canary")
    count = read_guard_count(alert.details)
    assert count is not None
    assert (count.exposures, count.canary_failures) == (callers, callers)
    assert (count.control_exposures, count.control_failures) == (CALLERS - callers, 0)
    assert count.window_s == 600.0
    # The circuit opened after the first failures, which are its cause.
    assert count.canary_classes["server"] == 4
    assert count.canary_classes["circuit_open"] > 4
    assert count.error is not None
    assert (count.error.failure, count.error.status) == ("server", 500)
    assert alert.text == guard_sentence(count)
