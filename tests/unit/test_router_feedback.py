"""`POST /v1/feedback`: what callers say of answers, in the canary's blocks and the metrics."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.domain.canary.guardrails import (
    ArmSplit,
    FeedbackTally,
    Guardrail,
    Guardrails,
    UnitRule,
)
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.live_router import NARROW_KEY, snapshot

pytestmark = pytest.mark.req("F3")
SIZE = 6
RULE = UnitRule(block_size=SIZE, guardrails=Guardrails().tolerated())
FEEDBACK = "/v1/feedback"


class FeedbackAnswer(NamedTuple):
    status: int
    body: Any

    @property
    def error(self) -> Any:
        return self.body["error"]


class World(Door):
    """Every caller is in the canary arm of `support`; `other` has no canary."""

    def __init__(self, folder: Path, rule: UnitRule = RULE) -> None:
        super().__init__(folder, first=snapshot("http://up", weight_bps=10_000, rule=rule))
        self.callers = 0

    async def ask(self, route: str = "support") -> str:
        self.callers += 1
        said = [{"role": "user", "content": "hi"}]
        body = {"model": route, "messages": said, "user": f"user-{self.callers}"}
        status, headers, _ = await self.call(CHAT, json.dumps(body).encode())
        assert status == 200
        return headers[b"x-swapgate-request-id"].decode()

    async def post(self, body: object, key: tuple[bytes, bytes] = AUTH) -> FeedbackAnswer:
        status, _, answer = await self.call(FEEDBACK, json.dumps(body).encode(), headers=(key,))
        return FeedbackAnswer(status, json.loads(answer))

    async def say(self, request_id: str, **opinion: object) -> FeedbackAnswer:
        return await self.post({"request_id": request_id, **opinion})

    async def counted(self) -> list[str]:
        _, _, text = await self.call("/metrics", method="GET")
        lines = text.decode().splitlines()
        return [line for line in lines if line.startswith("swapgate_feedback_total")]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_bad_feedback_counts_against_the_canary_until_its_block_is_out(
    world: World,
) -> None:
    ids = [await world.ask() for _ in range(SIZE - 1)]
    bad = await world.say(ids[0], thumb="down", label="wrong")
    await world.say(ids[0], thumb="down")  # a second word of one request counts once
    low = await world.say(ids[1], score=0.2)
    high = await world.say(ids[2], score=0.9)
    words = await world.say(ids[3], label="tone")
    await world.ask()
    world.recorder.flush()
    assert not world.kept.blocks  # once somebody gave feedback, a block waits for more of it
    world.clock.advance(61)
    world.recorder.flush()
    late = await world.say(ids[4], thumb="down")

    answers = (bad, low, high, words, late)
    assert [answer.status for answer in answers] == [200, 200, 200, 202, 202]
    assert bad.body["counted"] is True
    assert (words.body["outcome"], late.body["outcome"]) == ("not_scored", "late")
    (block,) = world.kept.blocks.values()
    assert block.counts[Guardrail.FEEDBACK] == FeedbackTally(SIZE, SIZE, 2, 2, ArmSplit(3, 3))
    series = 'swapgate_feedback_total{arm="canary",label="wrong",route="support",verdict="bad"}'
    assert f"{series} 1.0" in await world.counted()


async def test_without_a_canary_feedback_is_in_the_metrics_alone(world: World) -> None:
    told = await world.say(await world.ask("other"), thumb="up")

    assert (told.status, told.body["outcome"]) == (202, "not_scored")
    (line,) = await world.counted()
    assert 'route="other"' in line
    assert 'verdict="good"' in line


async def test_nobody_speaks_of_another_keys_request_and_no_one_of_an_unknown_one(
    world: World,
) -> None:
    own = {"request_id": await world.ask(), "thumb": "down"}
    narrow = b"authorization", f"Bearer {NARROW_KEY}".encode()
    for answer in (
        await world.post(own, narrow),
        await world.say("req_gone-1", thumb="up"),
        await world.say("x", score=1),
    ):
        assert (answer.status, answer.error["code"]) == (404, "request_not_found")
    assert (await world.post({}, (b"authorization", b"Bearer none"))).status == 401
    assert await world.counted() == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "request_id"),
        ({"request_id": "r"}, None),
        ({"request_id": 7, "thumb": "up"}, "request_id"),
        ({"request_id": "r", "thumb": "sideways"}, "thumb"),
        ({"request_id": "r", "score": 1.5}, "score"),
        ({"request_id": "r", "score": True}, "score"),
        ({"request_id": "r", "label": "x" * 65}, "label"),
        ({"request_id": "r", "label": "a\nb"}, "label"),
        ({"request_id": "r", "thumbs": "up"}, "thumbs"),
    ],
)
async def test_feedback_that_is_none_is_refused_with_the_field(
    world: World, body: dict[str, object], param: str | None
) -> None:
    answer = await world.post(body)

    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == ("invalid_feedback", param)


async def test_feedback_is_small_and_has_one_method(world: World) -> None:
    assert (await world.say("r", score=float("nan"))).status == 400
    assert (await world.say("r", label="x" * 20_000)).status == 413
    assert (await world.call(FEEDBACK, method="GET"))[0] == 405


async def test_a_rollout_without_this_guardrail_does_not_count_feedback(tmp_path: Path) -> None:
    world = World(tmp_path, replace(RULE, guardrails={Guardrail.LATENCY: 1.25}))

    assert (await world.say(await world.ask(), thumb="down")).body["outcome"] == "not_scored"
