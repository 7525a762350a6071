import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.gate.online.guardrails import ArmSplit, ExposureRule, Guardrail
from harness.providers.models.capabilities import Endpoint
from harness.routing.table import Arm, Canary, Handover, Snapshot, choose_arm
from router.conversation.intake import mark_piece
from router.frame.body import read_request
from router.recording.shared_files import SharedMarks
from router.request.planner import HandedOver, Handovers, is_under_way
from router.upstream.transport import UpstreamRequest
from tests.support.canary.handed_over_traffic import at_step, keys_between, place
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door
from tests.support.router.live_router import CANDIDATE, INCUMBENT, snapshot

pytestmark = pytest.mark.req("B7", "F3", "F4")
LASTS_S = 1800.0
ASKED = {"role": "user", "content": "hi"}
SAID = {"role": "assistant", "content": "hello"}
CALL = {
    "type": "function_call",
    "call_id": "c",
    "name": "f",
    "arguments": "{}",
}
RESULT = {
    "type": "function_call_output",
    "call_id": "c",
    "output": "1",
}
FUNCTION = {
    "id": "c",
    "type": "function",
    "function": {"name": "f", "arguments": "{}"},
}
# Of an agent's session, which asks again without a word of its user's.
LOOP: list[dict[str, Any]] = [
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [FUNCTION],
    },
    {
        "role": "tool",
        "tool_call_id": "c",
        "content": "1",
    },
]


def opened(settled_bps: int = 0) -> Snapshot:
    """The canary serves everybody from now on, and until now `settled_bps`."""
    first = snapshot("http://up", weight_bps=10_000, rule=ExposureRule(block_size=1))
    route = first.table.routes["support"]
    assert route.canary is not None
    until_s = ManualClock().now().timestamp() + LASTS_S
    moved = replace(route.canary, handover=Handover(until_s, settled_bps))
    routes = {**first.table.routes, "support": replace(route, canary=moved)}
    return replace(first, table=replace(first.table, routes=routes))


async def model(
    door: Door,
    person: str,
    *messages: dict[str, Any],
) -> str:
    asked = [] if messages and messages[-1]["role"] == "tool" else [ASKED]
    body = json.dumps({"model": "support", "messages": [*messages, *asked]}).encode()
    sticky = (b"x-swapproof-sticky", person.encode())
    status, headers, _ = await door.call(
        CHAT,
        body,
        headers=(AUTH, sticky),
    )
    assert status == 200
    return headers[b"x-swapproof-target"].decode().removeprefix("up/")


def counted(door: Door) -> int:
    # A flush must not forget the ledger, which numbers the blocks.
    serving = door.holder.current
    door.recorder.live_rollouts = lambda: serving.rollouts if serving else frozenset()
    door.recorder.flush(final=True)
    return sum(block.units for block in door.kept.blocks.values())


@pytest.mark.parametrize("answer", [[SAID], LOOP], ids=["words", "an agent's tool loop"])
async def test_what_is_under_way_stays_for_the_handover_and_proves_nothing(
    tmp_path: Path, answer: list[dict[str, Any]]
) -> None:
    door = Door(tmp_path, first=opened())

    assert await model(door, "old", ASKED, *answer) == INCUMBENT
    assert counted(door) == 0
    assert await model(door, "new") == CANDIDATE
    assert await model(door, "new", ASKED, *answer) == CANDIDATE
    assert counted(door) == 1

    door.clock.advance(LASTS_S)
    assert await model(door, "old", ASKED, *answer) == CANDIDATE


async def test_workers_of_a_machine_know_together_what_began_within_the_handover(
    tmp_path: Path,
) -> None:
    file = tmp_path / "conversations"
    marks = [SharedMarks(b"secret", file) for _ in range(2)]
    one, other = (Door(tmp_path / "home", first=opened(), begun=known) for known in marks)

    assert await model(one, "new") == CANDIDATE
    assert await model(other, "new", ASKED, SAID) == CANDIDATE
    assert await model(other, "old", ASKED, SAID) == INCUMBENT
    for known in marks:
        known.close()


async def test_what_the_candidate_signed_stays_with_it_at_a_worker_that_never_saw_it(
    tmp_path: Path,
) -> None:
    door = Door(tmp_path, first=opened())
    serving = door.holder.current
    assert serving is not None
    for upstream in serving.routes["support"].upstreams.values():
        google = {"google": {"thought_signature": mark_piece("c2ln", upstream.maker)}}
        signed = {**SAID, "extra_content": google}
        expected = CANDIDATE if CANDIDATE in upstream.name else INCUMBENT
        assert await model(door, "any", ASKED, signed) == expected


async def test_a_larger_share_leaves_with_the_candidate_who_was_there_before(
    tmp_path: Path,
) -> None:
    door = Door(tmp_path, first=opened(settled_bps=9_999))
    assert await model(door, "was there", ASKED, SAID) == CANDIDATE


async def test_a_conversation_that_began_before_the_step_counts_for_neither_arm(
    tmp_path: Path,
) -> None:
    first = opened(settled_bps=5_000)
    route = first.table.routes["support"]
    assert route.canary is not None
    canary = replace(route.canary, weight_bps=7_500)
    routes = {**first.table.routes, "support": replace(route, canary=canary)}
    door = Door(tmp_path, first=replace(first, table=replace(first.table, routes=routes)))

    served = {await model(door, f"old-{n}", ASKED, SAID) for n in range(40)}
    assert served == {INCUMBENT, CANDIDATE}
    assert counted(door) == 0


@pytest.mark.parametrize(
    ("since_step_s", "settled_bps"),
    [(LASTS_S - 1.0, 100), (LASTS_S, 500)],
)
def test_a_share_is_settled_once_its_handover_is_over(
    since_step_s: float, settled_bps: int
) -> None:
    canary = Canary("t", 500, "salt", "r-1", handover=Handover(LASTS_S, 100))
    assert canary.find_settled_bps(since_step_s) == settled_bps


def test_what_the_candidate_began_stays_with_it_over_a_step_within_the_handover() -> None:
    handovers = Handovers(lambda: 0.0, SharedMarks(b"secret"))
    key = next(keys_between(0, 100))
    place(handovers, at_step(0, 100), key, under_way=False)
    later = place(handovers, at_step(0, 500), key, under_way=True)
    assert later == HandedOver(Arm.CANARY, scored=False)


@pytest.mark.parametrize(
    ("endpoint", "fields", "under_way"),
    [
        (Endpoint.CHAT, {"messages": [ASKED]}, False),
        (Endpoint.CHAT, {"messages": [ASKED, SAID]}, False),  # it begins the answer
        (Endpoint.CHAT, {"messages": [ASKED, SAID, ASKED]}, True),
        (Endpoint.CHAT, {"messages": [SAID, ASKED]}, False),  # a greeting is no answer
        (
            Endpoint.CHAT,
            {"messages": [SAID, {"role": "tool", "content": "1"}]},
            True,
        ),
        (Endpoint.MESSAGES, {"messages": [ASKED, SAID, ASKED]}, True),
        (Endpoint.RESPONSES, {"input": "hi"}, False),
        (Endpoint.RESPONSES, {"input": [ASKED, ASKED]}, False),
        (Endpoint.RESPONSES, {"input": [ASKED, CALL, RESULT]}, True),
        (
            Endpoint.RESPONSES,
            {"input": "hi", "previous_response_id": "r"},
            True,
        ),
        (Endpoint.CHAT, {"messages": "odd"}, False),
        (Endpoint.CHAT, {"messages": [1, None, ASKED]}, False),
    ],
)
def test_a_request_shows_whether_its_conversation_is_under_way(
    endpoint: Endpoint,
    fields: dict[str, Any],
    *,
    under_way: bool,
) -> None:
    asked = read_request(json.dumps({"model": "m", **fields}).encode(), endpoint)
    assert is_under_way(asked) is under_way


WAIT_S = 0.05
RULE = ExposureRule(
    block_size=1,
    guardrails={Guardrail.LEAVING: 1.25},
    first_wait_s=WAIT_S,
    gap_wait_s=WAIT_S,
)
USUAL_S = 0.1


class Scene:
    """Half of the callers are in the canary arm, whose model hangs once `hangs` is set."""

    def __init__(self, folder: Path) -> None:
        self.hangs = False
        first = snapshot("http://up", weight_bps=5_000, rule=RULE)
        self.door = Door(folder, self._script_turn, first=first)
        names = [f"user-{n}" for n in range(200)]
        route = first.table.routes["support"]
        self.of = {
            arm: [n for n in names if choose_arm(route, f"header:{n}") is arm] for arm in Arm
        }

    def _script_turn(self, request: UpstreamRequest) -> ScriptedTurn:
        if self.hangs and json.loads(request.body)["model"] == CANDIDATE:
            return ScriptedTurn(hang=True)
        self.door.clock.advance(USUAL_S)
        return completion()

    async def ask(self, who: str, limit: str = "") -> None:
        more = ((b"x-swapproof-timeout", limit.encode()),) if limit else ()
        sent = (AUTH, (b"x-swapproof-sticky", who.encode()), *more)
        await self.door.call(CHAT, ASK, headers=sent)

    def outcomes(self) -> list[dict[str, ArmSplit]]:
        self.door.recorder.flush()
        return [dict(block.outcomes) for block in self.door.kept.blocks.values()]


@pytest.mark.parametrize(
    ("limit", "canary", "incumbent"),
    [
        ("0.05", "left: deadline_early", "left: deadline_early"),
        ("0.15", "left: deadline_waited", "left: deadline_waited"),
        ("0.4", "left: deadline_waited", "answered"),
    ],
)
async def test_a_missed_deadline_is_left_at_the_same_share_of_it_in_both_arms(
    tmp_path: Path,
    limit: str,
    canary: str,
    incumbent: str,
) -> None:
    scene = Scene(tmp_path)
    scene.hangs = True

    for arm in (Arm.CANARY, Arm.INCUMBENT):
        for who in scene.of[arm][:2]:
            await scene.ask(who, limit=limit)

    # Each plan has two targets at most, so the arm's target has half of the deadline.
    assert scene.outcomes() == [
        *[{canary: (1, 1)}] * 2,
        *[{incumbent: (1, 0)}] * 2,
    ]
