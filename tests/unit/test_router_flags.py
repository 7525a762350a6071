"""A route as a flag: OFREP's evaluations, as the canary of the route counts them."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.domain.canary.guardrails import ArmSplit, ErrorTally, Guardrail
from tests.support.router.asgi_router import AUTH, CHAT
from tests.support.router.live_router import NARROW_KEY
from tests.unit.test_router_feedback import RULE, SIZE, World

pytestmark = pytest.mark.req("A1")
FLAGS = "/ofrep/v1/evaluate/flags"
X_API_KEY = (b"x-api-key", AUTH[1].removeprefix(b"Bearer "))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def evaluate(
    world: World, flag: str, body: object, key: tuple[bytes, bytes] = AUTH
) -> tuple[int, Any]:
    path = f"{FLAGS}/{flag}" if flag else FLAGS
    status, _, answer = await world.call(path, json.dumps(body).encode(), headers=(key,))
    return status, json.loads(answer)


def context(caller: object) -> dict[str, object]:
    return {"context": {"targetingKey": caller, "plan": "pro"}}


@pytest.mark.parametrize("key", [AUTH, X_API_KEY], ids=["bearer", "x-api-key"])
async def test_a_flag_has_the_model_and_the_arm_that_a_chat_of_its_caller_gets(
    world: World, key: tuple[bytes, bytes]
) -> None:
    status, flag = await evaluate(world, "support", context("ann"), key)
    said = json.dumps({"model": "support", "messages": [{"role": "user", "content": "hi"}]})
    sticky = (AUTH, (b"x-swapgate-sticky", b"ann"))
    _, headers, _ = await world.call(CHAT, said.encode(), headers=sticky)

    assert status == 200
    assert flag["key"] == "support"
    assert (flag["variant"], flag["reason"]) == ("canary", "SPLIT")
    assert flag["variant"] == headers[b"x-swapgate-arm"].decode()
    assert flag["metadata"]["target"] == headers[b"x-swapgate-target"].decode()
    assert flag["metadata"]["target"].endswith(f"/{flag['value']}")
    assert {"revision", "rollout", "request_id"} < set(flag["metadata"])


async def test_feedback_is_the_outcome_of_an_evaluation_and_without_it_the_outcome_is_missing(
    world: World,
) -> None:
    flags = [
        (await evaluate(world, "support", context(f"user-{number}")))[1]
        for number in range(SIZE)
    ]
    again = (await evaluate(world, "support", context("user-0")))[1]
    bulk = (await evaluate(world, "", context("user-of-bulk")))[1]["flags"]
    said = [
        await world.say(flag["metadata"]["request_id"], thumb=thumb)
        for flag, thumb in zip([*flags[:3], again], ["down", "up", "up", "down"], strict=True)
    ]
    world.recorder.flush()
    assert not world.kept.blocks  # it waits for the other outcomes
    world.clock.advance(RULE.missing_s + 1)
    world.recorder.flush()
    late = await world.say(flags[3]["metadata"]["request_id"], thumb="up")

    # A caller counts once a day, and what is fetched ahead of use is no exposure.
    outcomes = [answer.body["outcome"] for answer in (*said, late)]
    assert outcomes == ["counted", "counted", "counted", "not_scored", "late"]
    assert all("request_id" not in flag["metadata"] for flag in bulk)
    (block,) = world.kept.blocks.values()
    assert (block.units, block.failures, block.missing) == (SIZE, 4, 3)
    errors = block.counts[Guardrail.ERRORS]
    assert isinstance(errors, ErrorTally)
    assert errors.classes == {"bad_feedback": ArmSplit(1, 1), "missing": ArmSplit(3, 3)}


async def test_a_bulk_evaluation_lists_the_routes_of_the_key_and_is_sent_once_by_its_etag(
    world: World,
) -> None:
    body = json.dumps(context("ann")).encode()
    status, headers, answer = await world.call(FLAGS, body)
    tag = headers[b"etag"]
    same, _, nothing = await world.call(FLAGS, body, headers=(AUTH, (b"if-none-match", tag)))
    narrow = (b"authorization", f"Bearer {NARROW_KEY}".encode())
    _, few = await evaluate(world, "", context("ann"), narrow)

    flags = {flag["key"]: flag for flag in json.loads(answer)["flags"]}
    assert status == 200
    assert {"support", "other"} <= set(flags)
    assert (flags["other"]["variant"], flags["other"]["reason"]) == ("incumbent", "STATIC")
    assert (same, nothing) == (304, b"")
    assert len(few["flags"]) < len(flags)


@pytest.mark.parametrize(
    ("flag", "body", "status", "code"),
    [
        ("suport", {"context": {"targetingKey": "ann"}}, 404, "FLAG_NOT_FOUND"),
        ("support", {}, 400, "TARGETING_KEY_MISSING"),
        ("support", {"context": {"targetingKey": ""}}, 400, "TARGETING_KEY_MISSING"),
        ("support", {"context": "ann"}, 400, "INVALID_CONTEXT"),
        ("support", {"context": {"targetingKey": 7}}, 400, "INVALID_CONTEXT"),
        ("support", {"context": {"targetingKey": "x" * 1025}}, 400, "INVALID_CONTEXT"),
        ("support", ["ann"], 400, "PARSE_ERROR"),
        ("other", {}, 200, None),
        ("", {}, 200, None),
    ],
)
async def test_a_flag_that_cannot_be_evaluated_says_why_in_the_protocols_words(
    world: World, flag: str, body: object, status: int, code: str | None
) -> None:
    got, answer = await evaluate(world, flag, body)

    assert (got, answer.get("errorCode")) == (status, code)
    assert code is None or (answer["key"] == flag and answer["errorDetails"])


async def test_a_flag_of_a_route_that_the_key_may_not_use_is_not_found(world: World) -> None:
    narrow = (b"authorization", f"Bearer {NARROW_KEY}".encode())
    _, listed = await evaluate(world, "", context("ann"), narrow)
    allowed = {flag["key"] for flag in listed["flags"]}
    (barred,) = {"support", "other"} - allowed

    assert (await evaluate(world, barred, context("ann"), narrow))[0] == 404
    assert (await evaluate(world, "support", context("ann"), (b"x-api-key", b"no")))[0] == 401
    assert (await world.call(f"{FLAGS}/support", method="GET"))[0] == 405
