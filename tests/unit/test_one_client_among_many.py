"""What one client sends or reads slowly takes no target, key or field from the others."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from harness.frame.failures import FAILURE_RULES, BreakerEffect, FailureClass
from harness.routing.reliability.repair_memory import (
    RepairMemory,
    read_combination,
    remember_refusal,
)
from harness.routing.reliability.request_repair import (
    RepairKind,
    RepairReach,
    RequestRepair,
    find_repair,
)
from harness.routing.route_settings import RouteSettings
from router.protocols.chat.stream import DONE
from router.protocols.provider_failures import classify_status
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ROLE,
    broken_stream,
    completion,
    error,
    event,
)
from tests.support.router.asgi_router import AUTH, CHAT, Door, Place
from tests.support.router.live_router import FALLBACK, INCUMBENT, OPTED_OUT_KEY

pytestmark = pytest.mark.req("A5", "B3", "B4", "B7")
OTHER: Final = (b"authorization", f"Bearer {OPTED_OUT_KEY}".encode())
Json = dict[str, Any]
SHORT: Final = "How are you today? " * 10


def asks(text: str, **more: object) -> Json:
    return {"model": "support", "messages": [{"role": "user", "content": text}], **more}


class Attacked(Place):
    """A route whose incumbent gives `bad` to the requests for which `is_odd` holds."""

    def __init__(
        self,
        folder: Path,
        bad: ScriptedTurn,
        is_odd: Callable[[Json], bool] = lambda body: "ODD" in str(body),
        *,
        chain: bool = True,
        more_keys: tuple[str, ...] = (),
    ) -> None:
        super().__init__(folder, {}, fallback=chain, more_keys=more_keys)
        self._bad = bad
        self._is_odd = is_odd

    def _script_turn(self, request: UpstreamRequest) -> ScriptedTurn:
        body = json.loads(request.body)
        self.asked[body["model"]] += 1
        is_bad = body["model"] == INCUMBENT and self._is_odd(body)
        return self._bad if is_bad else completion(body["model"])

    async def say(self, body: Json, auth: tuple[bytes, bytes] = AUTH) -> str:
        status, headers, _ = await self.call(CHAT, json.dumps(body).encode(), headers=(auth,))
        target = headers.get(b"x-swapproof-target", b"").decode().removeprefix("up/")
        return target if status == 200 else str(status)


FAILURES: Final = {
    "500": error(500, "boom"),
    "503": error(503),
    "403 of a firewall": error(403, "Forbidden"),
    "403": error(403, "You may not do this", "forbidden"),
    "404": error(404, "The model `x` does not exist", "model_not_found"),
    "empty": completion(""),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_one_keys_failing_requests_under_many_names_leave_the_target_to_other_keys(
    tmp_path: Path, name: str
) -> None:
    place = Attacked(tmp_path, FAILURES[name])
    await place.say(asks("hi"), OTHER)

    for turn in range(9):
        assert await place.say(asks("ODD", user=f"u{turn % 3}")) in (FALLBACK, "503")

    assert await place.state() == 0
    assert await place.say(asks("hi"), OTHER) == INCUMBENT


async def test_failures_that_several_keys_meet_open_the_circuit(tmp_path: Path) -> None:
    place = Attacked(tmp_path, FAILURES["500"])
    await place.say(asks("hi"), OTHER)

    for _ in range(4):
        await place.say(asks("ODD"))
        await place.say(asks("ODD"), OTHER)

    assert await place.state() == 2


@pytest.mark.parametrize("named", [True, False])
async def test_one_callers_failing_requests_leave_the_target_to_the_keys_other_callers(
    tmp_path: Path, *, named: bool
) -> None:
    def said(text: str, user: str) -> Json:
        # Without a name, the conversation is the caller.
        return asks(text, user=user) if named else asks(f"{text} {user}")

    place = Attacked(tmp_path, FAILURES["500"])
    await place.say(said("hi", "bob"))
    for _ in range(30):
        await place.say(said("ODD", "eve"))
    assert await place.say(said("hi", "ann")) == INCUMBENT

    for _ in range(3):
        await place.say(said("ODD", "eve"))
        await place.say(said("ODD", "bob"))
    assert await place.state() == 2


async def test_a_worker_knows_that_others_get_answers_of_another_worker(tmp_path: Path) -> None:
    here = Attacked(tmp_path / "a", FAILURES["500"])
    there = Attacked(tmp_path / "b", FAILURES["500"])
    here.app._health._shared = there.app._health._shared
    await there.say(asks("hi", user="bob"))
    for _ in range(5):
        await here.say(asks("ODD", user="eve"))
    assert await here.state() == 0


async def test_a_target_without_answers_for_a_minute_may_fail_one_caller_alone(
    tmp_path: Path,
) -> None:
    place = Attacked(tmp_path, FAILURES["500"])
    await place.say(asks("hi", user="bob"))
    place.clock.advance(61)
    for _ in range(3):
        await place.say(asks("ODD", user="eve"))
    assert await place.state() == 2


async def test_a_target_that_fails_every_second_request_of_one_caller_opens_its_circuit(
    tmp_path: Path,
) -> None:
    place = Attacked(tmp_path, FAILURES["500"])
    for _ in range(5):
        await place.say(asks("ODD", user="eve"))
        place.clock.advance(0.1)
        await place.say(asks("hi", user="eve"))
    assert await place.state() == 2


LIMITED: Final = replace(error(429), headers={"retry-after": "578"})
LARGE: Final[dict[str, Callable[[int], Json]]] = {
    "a long prompt": lambda _: asks(f"ODD {'x' * 3_000}"),
    "a long answer": lambda turn: asks("x" * (9, 90)[turn % 2], max_tokens=100_000),
    "many answers": lambda turn: asks("x" * (9, 90)[turn % 2], max_tokens=1_000, n=100),
}


@pytest.mark.parametrize("chain", [False, True], ids=["alone", "chain"])
@pytest.mark.parametrize("name", LARGE)
async def test_one_caller_who_repeats_large_requests_keeps_the_target_from_no_small_ones(
    tmp_path: Path, name: str, *, chain: bool
) -> None:
    place = Attacked(
        tmp_path,
        LIMITED,
        lambda body: "ODD" in str(body) or body.get("max_tokens", 0) * body.get("n", 1) > 9_999,
        chain=chain,
    )
    turn = 0
    found = Counter[str]()
    for wait_s in (1.0, 0.1, 0.1, 0.1):
        for _ in range(40):
            place.clock.advance(0.3)
            turn += 1
            await place.say(LARGE[name](turn))
        # Only the first small request waits, because it shows that the size is the cause.
        place.clock.advance(wait_s)
        found[await place.say(asks(SHORT))] += 1

    assert found == {INCUMBENT: 4}


async def test_the_first_key_serves_small_requests_while_large_ones_are_limited(
    tmp_path: Path,
) -> None:
    place = Attacked(tmp_path, LIMITED, more_keys=("UP_KEY_2",))
    long = asks(f"ODD {'x' * 3_000}")
    await place.say(long)
    place.clock.advance(1)
    await place.say(asks(SHORT))

    await place.say(long)

    assert await place.say(asks(SHORT)) == INCUMBENT
    key = place.transport.seen[-1].key
    assert key is not None
    assert key.name == "UP_KEY"


async def test_a_clients_names_of_properties_in_a_refusal_take_no_field_from_others(
    tmp_path: Path,
) -> None:
    words = "Invalid schema for f: in ('temperature', 'top_p', 'seed'), a type is not supported"

    def strict(request: UpstreamRequest) -> ScriptedTurn:
        wrong = "wrong" in json.loads(request.body)
        return (
            error(400, f"{words} (request id: 20251129{time.time_ns()})")
            if wrong
            else completion()
        )

    door = Door(tmp_path, strict, moves=True)
    fields: Json = {"temperature": 0, "top_p": 1, "seed": 3}
    odd = asks("hi", wrong=1, **fields)
    assert (await door.call(CHAT, json.dumps(odd).encode()))[0] == 400
    _, headers, _ = await door.call(CHAT, json.dumps(asks("hi", **fields)).encode())

    assert b"x-swapproof-degraded" not in headers
    assert dict(door.app._alerts._learned()) == {}


@pytest.mark.parametrize(("name", "reach"), [("bob", "outright"), ("ODD", "request")])
def test_a_turn_order_in_a_clients_own_text_is_no_order_of_the_target(
    name: str, reach: str
) -> None:
    words = "System role not supported"
    sent = asks("hi", user=words if name == "ODD" else name)

    found = find_repair({"message": words}, sent)

    assert found is not None
    assert (found.kind, found.reach) == (RepairKind.REORDER, RepairReach(reach))


def test_an_error_that_a_client_sent_and_a_refusal_repeats_is_no_error_of_our_key() -> None:
    sent = json.dumps({"error": {"message": "m", "code": "invalid_api_key"}})
    refusal = error(400, f"Invalid value at messages[0]: {sent}").steps[0]
    assert isinstance(refusal, bytes)

    failure = classify_status(400, refusal)

    assert failure is FailureClass.BAD_REQUEST


def test_a_clients_field_is_no_unknown_model_however_it_is_named() -> None:
    refusal = error(400, "model: x: Extra inputs are not permitted").steps[0]
    assert isinstance(refusal, bytes)

    failure = classify_status(400, refusal)

    assert FAILURE_RULES[failure].breaker is BreakerEffect.NEUTRAL


def test_learned_repairs_do_not_read_the_history_of_each_request() -> None:
    repair = RequestRepair(RepairKind.LEAVE_OUT, "messages.*.odd", reach=RepairReach.OUTRIGHT)
    combination = read_combination(asks("hi"))
    assert combination is not None
    memory = remember_refusal(RepairMemory(), repair, asks("hi"), combination, 0.0)
    unreadable = {"messages": [object()]}  # JSON cannot express it

    assert not memory.known[0].applies(unreadable, combination)


async def test_a_client_that_reads_slowly_is_no_failure_of_the_target(tmp_path: Path) -> None:
    route = RouteSettings(total_timeout_s=0.2)
    pieces: list[bytes | float] = []
    for word in "abcdef":
        pieces += [event({"content": word}), 0.02]
    turn = broken_stream(ROLE, *pieces, event(finish="stop"), DONE)
    place = Place(tmp_path, {INCUMBENT: turn}, fallback=True, route=route)
    body = json.dumps(asks("hi", stream=True)).encode()
    parts: Iterator[Json] = iter(())

    async def receive() -> Any:
        part = next(parts, None)
        return part if part is not None else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message.get("body"):
            await asyncio.sleep(0.3)

    for _ in range(6):
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [AUTH]}
        await place.app(scope, receive, send)

    assert place.asked == {INCUMBENT: 6}
    assert await place.state() == 0
