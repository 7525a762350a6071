import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.evals.month_spending import SpendingPurpose
from harness.gate.online.guardrails import (
    ArmSplit,
    CanaryJudge,
    Guardrail,
    Guardrails,
    JudgeTally,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import build_exposure_rule
from harness.gate.policy import CanaryPolicy
from harness.providers.target import NO_DATA_CLASSES, DataClasses, Price
from harness.routing.route_settings import RouteSettings
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    completion,
    error,
    streamed,
)
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door
from tests.support.router.live_router import CANDIDATE, provider, snapshot

pytestmark = pytest.mark.req("F3")

JUDGE = "m-judge"
CRITIC = CanaryJudge(f"critic/{JUDGE}", "It helps.", max_usd=1.0)
POLICY = CanaryPolicy(
    block_size=8,
    guardrails=replace(Guardrails.none(), judge=1.25),
    judge=CRITIC,
)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PRICE = Price(1.0, 2.0)
Says = Callable[[dict[str, Any]], ScriptedTurn]


def verdict_turn(verdict: str) -> ScriptedTurn:
    return completion(json.dumps({"reason": "so", "verdict": verdict}))


class Scene:
    def __init__(
        self,
        folder: Path,
        says: Says = lambda _: verdict_turn("good"),
        *,
        policy: CanaryPolicy = POLICY,
        data_class: str = "",
        classes: DataClasses = NO_DATA_CLASSES,
        price: Price | None = PRICE,
    ) -> None:
        self.judged: list[dict[str, Any]] = []
        self.says = says
        self.callers = 0
        self.answers: dict[str, ScriptedTurn] = {}
        self.more: dict[str, str] = {}
        prices = {JUDGE: price} if price else {}
        first = snapshot(
            "http://up/v1",
            weight_bps=5000,
            rule=build_exposure_rule(replace(policy, window_s=0.0), BEGAN),
            settings=RouteSettings(data_class=data_class),
            providers=[provider("http://critic/v1", "critic", prices=prices)],
        )
        self.door = Door(
            folder,
            self._script_turn,
            first=first,
            classes=classes,
        )
        self.door.holder.tell_followers()

    def _script_turn(self, request: Any) -> ScriptedTurn:
        body = json.loads(request.body)
        if body["model"] != JUDGE:
            return self.answers.get(body["model"], completion("hello"))
        self.judged.append(body)
        return self.says(body)

    async def ask(
        self,
        times: int,
        *,
        stream: bool = False,
        **more: Any,
    ) -> None:
        for _ in range(times):
            self.callers += 1
            user = f"user-{self.callers}"
            body = {
                **json.loads(ASK),
                "stream": stream,
                "user": user,
                **self.more,
            }
            status, _, _ = await self.door.call(
                CHAT,
                json.dumps(body).encode(),
                **more,
            )
            assert status == 200

    async def settled(self) -> None:
        await asyncio.gather(*self.door.app._judges._running)

    def count(self, name: str) -> int:
        return self.door.recorder.counters[f"judge_{name}"]

    def block(self) -> ObservationBlock:
        self.door.recorder.flush(final=True)
        (block,) = self.door.kept.blocks.values()
        return block


def whose(body: dict[str, Any]) -> str:
    shown: str = body["messages"][-1]["content"]
    return shown


@pytest.mark.parametrize("stream", [False, True])
async def test_a_candidate_whose_answers_are_bad_is_found_bad_and_the_incumbent_is_not(
    tmp_path: Path, *, stream: bool
) -> None:
    scene = Scene(
        tmp_path,
        lambda request: verdict_turn("bad" if "dreadful" in whose(request) else "good"),
    )
    make = streamed if stream else completion
    scene.answers = {
        CANDIDATE: make("dreadful"),
        "m-incumbent": make("hello"),
    }

    await scene.ask(8, stream=stream)
    await scene.settled()
    block = scene.block()

    tally = block.counts[Guardrail.JUDGE]
    assert isinstance(tally, JudgeTally)
    assert (tally.units, tally.canary) == (8, block.canary_units)
    assert tally.failures == tally.canary_failures == block.canary_units > 0
    assert tally.cost_usd > 0
    assert tally.no_verdict == ArmSplit(0, 0)
    scene.door.holder.tell_followers()
    [(purpose, spent_usd, calls, unpriced)] = scene.door.kept.spent
    assert (purpose, calls, unpriced) == (SpendingPurpose.JUDGES, 8, 0)
    assert spent_usd == pytest.approx(tally.cost_usd)
    first = scene.judged[0]
    assert first["temperature"] == 0
    assert not any(name in whose(first) for name in (CANDIDATE, "m-incumbent", "canary"))


async def test_the_user_has_his_answer_before_the_judge_is_asked(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    await scene.ask(1)
    assert scene.judged == []
    await scene.settled()
    assert len(scene.judged) == 1


async def test_a_judge_that_is_down_is_left_alone_and_is_bad_news_of_nobody(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, lambda _: error(503))

    await scene.ask(3)
    await scene.settled()
    asked = len(scene.judged)
    await scene.ask(5)
    await scene.settled()

    # It rests: who comes then is not drawn, whichever arm it is.
    assert len(scene.judged) == asked <= 3
    assert scene.count("resting") == 8 - asked
    tally = scene.block().counts[Guardrail.JUDGE]
    assert isinstance(tally, JudgeTally)
    assert tally.units == tally.failures == tally.no_verdict.failures == asked
    assert tally.canary == tally.canary_failures


@pytest.mark.parametrize("words", ["good", "no idea", '{"verdict": "fair"}'])
async def test_what_cannot_be_read_is_no_verdict_and_its_price_is_paid(
    tmp_path: Path, words: str
) -> None:
    scene = Scene(tmp_path, lambda _: completion(words))

    await scene.ask(8)
    await scene.settled()

    tally = scene.block().counts[Guardrail.JUDGE]
    assert isinstance(tally, JudgeTally)
    assert tally.no_verdict.failures == tally.failures == 8
    assert tally.cost_usd > 0


async def test_an_answer_that_never_came_is_an_error_and_nothing_to_judge(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    scene.answers = {CANDIDATE: error(500)}

    await scene.ask(4)  # the circuit is closed yet
    await scene.settled()
    block = scene.block()

    assert block.canary_failures == block.canary_units > 0
    tally = block.counts[Guardrail.JUDGE]
    assert (tally.units, tally.canary, tally.failures) == (
        4 - block.canary_units,
        0,
        0,
    )
    assert len(scene.judged) == 4 - block.canary_units


async def test_money_that_is_spent_ends_it_for_both_arms(tmp_path: Path) -> None:
    poor = replace(POLICY, judge=replace(CRITIC, max_usd=1e-9))
    scene = Scene(tmp_path, policy=poor)

    await scene.ask(1)
    await scene.settled()
    await scene.ask(7)

    assert len(scene.judged) == 1
    assert scene.count("over_budget") == 7
    assert scene.block().counts[Guardrail.JUDGE].units == 1


async def test_what_others_spent_counts_and_while_nobody_knows_nobody_is_asked(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    spent = JudgeTally(4, 2, 0, 0, cost_usd=5.0)
    at = scene.door.clock.now()
    other = ObservationBlock(
        "r-1",
        "another",
        1,
        5000,
        8,
        4,
        0,
        0,
        0,
        at,
        at,
        counts={Guardrail.JUDGE: spent},
    )
    scene.door.kept.blocks["r-1", "another", 1] = other

    scene.door.holder.stale = True
    await scene.ask(1)
    assert scene.count("budget_unknown") == 1

    scene.door.holder.stale = False
    scene.door.clock.advance(10)
    scene.door.holder.tell_followers()
    await scene.ask(1)
    assert scene.count("over_budget") == 1
    assert scene.judged == []


@pytest.mark.parametrize("header", [b"x-swapproof-shadow", b"x-swapproof-capture"])
async def test_who_declines_copies_of_his_words_is_not_judged(
    tmp_path: Path, header: bytes
) -> None:
    scene = Scene(tmp_path)

    await scene.ask(3, headers=(AUTH, (header, b"off")))

    assert (scene.judged, scene.count("declined")) == ([], 3)


async def test_a_caller_is_judged_once_by_his_first_answer(tmp_path: Path) -> None:
    scene = Scene(tmp_path, policy=replace(POLICY))
    scene.more = {"user": "kim"}

    await scene.ask(5)
    await scene.settled()

    assert len(scene.judged) == 1


@pytest.mark.req("D8")
@pytest.mark.parametrize(
    ("allowed", "price", "asked"),
    [
        ({"up"}, PRICE, 0),
        ({"up", "critic"}, None, 0),
        ({"up", "critic"}, PRICE, 3),
    ],
)
async def test_no_judge_reads_what_it_may_not_see_or_at_a_price_that_is_unknown(
    tmp_path: Path,
    allowed: set[str],
    price: Price | None,
    asked: int,
) -> None:
    classes = {"personal": frozenset(allowed)}
    scene = Scene(
        tmp_path,
        data_class="personal",
        classes=classes,
        price=price,
    )

    await scene.ask(3)
    await scene.settled()

    assert len(scene.judged) == asked
