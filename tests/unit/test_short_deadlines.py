"""A client's own deadline proves nothing against a model where the control hardly keeps it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.domain.canary.guardrails import UnitRule
from harness.domain.routing.table import Arm, Canary, Route, choose_arm
from router.observers.guardrail_sampling import KEPT, LEAST, TIMES, ShortDeadlines
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door
from tests.support.router.live_router import CANDIDATE, snapshot

pytestmark = pytest.mark.req("F3", "F4")

ROUTE = Route("support", 1, "t_old", Canary("t_new", 100, "salt", "r-1"))
BAKE = replace(
    ROUTE,
    incumbent="t_new",
    canary=None,
    holdback=Canary("t_old", 100, "salt", "r-1", control=True),
)
RULE = UnitRule(block_size=1)
USUAL_S = 0.1


def knowing(*seconds: float) -> ShortDeadlines:
    haste = ShortDeadlines()
    for second in seconds:
        haste.answered(ROUTE, "t_old", second)
    return haste


def test_a_deadline_below_three_times_what_the_control_usually_takes_is_haste() -> None:
    haste = knowing(*[1.0] * 95, *[9.0] * 5)

    assert haste.is_too_short(ROUTE, TIMES * 1.0 - 0.01)
    assert not haste.is_too_short(ROUTE, TIMES * 1.0)
    assert not haste.is_too_short(BAKE, TIMES * 1.0)  # its control is the same model


def test_while_nobody_knows_what_is_usual_every_deadline_of_a_clients_is_haste() -> None:
    assert knowing(*[1.0] * (LEAST - 1)).is_too_short(ROUTE, 600.0)
    assert not knowing(*[1.0] * LEAST).is_too_short(ROUTE, 600.0)


def test_only_the_controls_latest_answers_say_what_is_usual() -> None:
    haste = knowing(*[1.0] * KEPT)
    for _ in range(KEPT):
        haste.answered(ROUTE, "t_new", 50.0)
        haste.answered(replace(ROUTE, name="other"), "t_old", 50.0)
    assert not haste.is_too_short(ROUTE, 3.0)

    for _ in range(KEPT):
        haste.answered(ROUTE, "t_old", 2.0)
    assert haste.is_too_short(ROUTE, 5.9)


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
        more = ((b"x-swapgate-timeout", limit.encode()),) if limit else ()
        sent = (AUTH, (b"x-swapgate-sticky", who.encode()), *more)
        await self.door.call(CHAT, ASK, headers=sent)

    def canary_counts(self) -> list[tuple[int, int]]:
        self.door.recorder.flush()
        return [
            (block.canary_units, block.failures) for block in self.door.kept.blocks.values()
        ]


async def test_a_haste_that_is_meant_to_fail_the_canary_is_scored_in_neither_arm(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    for who in scene.of[Arm.INCUMBENT][:LEAST]:
        await scene.ask(who)
    before = scene.canary_counts()
    scene.hangs = True

    for arm in (Arm.CANARY, Arm.INCUMBENT):
        for who in scene.of[arm][-3:]:
            await scene.ask(who, limit="0.05")

    assert scene.canary_counts() == before
    assert scene.door.recorder.counters["unscored_in_haste"] == 6


async def test_a_candidate_that_hangs_is_found_by_clients_that_leave_it_its_time(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    for who in scene.of[Arm.INCUMBENT][:LEAST]:
        await scene.ask(who)
    scene.hangs = True

    for who in scene.of[Arm.CANARY][:2]:
        await scene.ask(who, limit="0.4")

    assert scene.canary_counts()[LEAST:] == [(1, 1), (1, 1)]
    assert scene.door.recorder.counters["unscored_in_haste"] == 0
