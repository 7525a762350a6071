import json
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from harness.routing.reliability.breaker import BreakerPolicy, WhenAllOpen
from harness.routing.reliability.slowdown import LONGEST_PAUSE_S
from harness.routing.route_settings import RouteSettings, StreamCommit
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    ROLE,
    broken_stream,
    completion,
    error,
    event,
    streamed,
)
from tests.support.router.asgi_router import (
    ASK,
    AUTH,
    CHAT,
    Place,
    Script,
    leaving,
)
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    QUICK,
)

STREAM = ASK[:-1] + b',"stream":true}'
MESSAGE = ASK[:-1] + b',"max_tokens":9}'
OPEN_S = BreakerPolicy().open_s
FAIL_FAST = replace(QUICK, breaker=BreakerPolicy(when_all_open=WhenAllOpen.FAIL_FAST))


@pytest.mark.req("B4")
@pytest.mark.parametrize("jump_s", [-3600.0, -1.0, 1.0, 3600.0])
async def test_a_wall_clock_that_is_set_ends_no_rest_of_a_target(
    jump_s: float, tmp_path: Path
) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(500), FALLBACK: completion("spare")},
        fallback=True,
    )
    await place.ask(times=6)
    asked = place.asked[INCUMBENT]

    place.clock.jump(jump_s)
    await place.ask(times=5)
    assert (await place.state(), place.asked[INCUMBENT]) == (2, asked)

    place.clock.advance(OPEN_S)
    await place.ask()
    assert place.asked[INCUMBENT] == asked + 1


@pytest.mark.req("B4", "A5")
@pytest.mark.parametrize(
    "turn",
    [
        error(401),
        error(402),
        error(403),
        error(429, code="insufficient_quota"),
        error(404, code="model_not_found"),
    ],
    ids=["key", "payment", "suspended", "quota", "model unknown"],
)
async def test_what_the_next_request_would_meet_as_well_opens_at_once(
    tmp_path: Path, turn: ScriptedTurn
) -> None:
    place = Place(tmp_path, {INCUMBENT: turn, FALLBACK: completion()}, fallback=True)

    assert (await place.ask(times=3))[0] == 200

    assert place.asked == {INCUMBENT: 1, FALLBACK: 3}
    assert await place.state() == 2


@pytest.mark.req("A5", "B3", "B4")
async def test_only_when_no_key_is_left_the_circuit_opens(tmp_path: Path) -> None:
    script: Script = {INCUMBENT: error(401), FALLBACK: completion()}
    place = Place(
        tmp_path,
        script,
        fallback=True,
        more_keys=("UP_KEY_2",),
    )

    assert (await place.ask(times=3))[0] == 200

    keys = [sent.key and sent.key.name for sent in place.transport.seen[:2]]
    assert keys == ["UP_KEY", "UP_KEY_2"]
    assert place.asked == {INCUMBENT: 2, FALLBACK: 3}
    assert await place.state() == 2


@pytest.mark.req("A5")
@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_what_clients_send_wrong_harms_no_target(tmp_path: Path, status: int) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(status), FALLBACK: completion()},
        fallback=True,
    )

    answered, headers = await place.ask(times=20)

    assert (answered, headers[b"x-swapproof-attempts"]) == (status, b"1")
    assert place.asked == {INCUMBENT: 20}
    assert await place.state() == 0


def in_the_future(clock: ManualClock) -> str:
    return format_datetime(clock.now(), usegmt=True)


@pytest.mark.req("A5")
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms", "x-ms-retry-after-ms"])
@pytest.mark.parametrize("text", ["0.01", "date"])
async def test_a_pause_that_fits_the_budget_is_made_and_the_same_target_answers(
    tmp_path: Path,
    name: str,
    text: str,
) -> None:
    date = in_the_future(ManualClock())
    limited = replace(error(429), headers={name: date if text == "date" else text})
    answers = iter([limited, completion("after the pause")])
    place = Place(
        tmp_path,
        {INCUMBENT: lambda: next(answers), FALLBACK: completion()},
        fallback=True,
    )

    status, _ = await place.ask()

    assert (status, place.asked) == (200, {INCUMBENT: 2})


@pytest.mark.req("A5", "B4")
@pytest.mark.parametrize(
    ("told_s", "rests_s"),
    [
        (30, 30),
        (7200, 7200),
        (999_999_999, LONGEST_PAUSE_S),
    ],
)
async def test_a_pause_past_the_budget_is_kept_for_a_day_at_most_and_a_person_may_end_it(
    tmp_path: Path,
    told_s: int,
    rests_s: float,
) -> None:
    used_up = {"retry-after": str(told_s), "x-ratelimit-remaining-requests": "0"}
    limited = replace(error(429), headers=used_up)
    place = Place(tmp_path, {INCUMBENT: limited, FALLBACK: completion()}, fallback=True)

    await place.ask(times=5)
    place.clock.advance(rests_s - 1)
    await place.ask()
    assert place.asked == {INCUMBENT: 1, FALLBACK: 6}
    # Its breaker knows nothing of it: a limit is no fault.
    assert await place.state() == 0

    place.clock.advance(2)
    await place.ask()
    assert place.asked[INCUMBENT] == 2
    target = place.holder.current.routes["support"].route.incumbent  # type: ignore[union-attr]
    place.app._health.reopen(target)
    await place.ask()
    assert place.asked[INCUMBENT] == 3


@pytest.mark.req("A5", "B3")
async def test_a_pause_is_not_waited_for_while_another_target_stands_by(tmp_path: Path) -> None:
    policy = replace(QUICK.retry, max_wait_s=0.0)
    limited = replace(error(429), headers={"retry-after-ms": "10"})
    script: Script = {INCUMBENT: limited, FALLBACK: completion()}
    place = Place(tmp_path, script, replace(QUICK, retry=policy), fallback=True)

    assert (await place.ask())[0] == 200
    assert place.asked == {INCUMBENT: 1, FALLBACK: 1}

    # The other one is down: then waiting is better than no answer.
    script |= {FALLBACK: error(401)}
    place.clock.advance(1)
    await place.ask()
    answers = iter([limited, completion("after the pause")])
    place.script[INCUMBENT] = lambda: next(answers)
    place.clock.advance(1)
    place.asked.clear()

    assert (await place.ask())[0] == 200
    assert place.asked == {INCUMBENT: 2}


@pytest.mark.req("A5", "B4")
async def test_a_pause_keeps_no_request_from_a_lone_target(tmp_path: Path) -> None:
    for_long = ScriptedTurn(429, {"retry-after": "600"}, error(429).steps)
    for_short = ScriptedTurn(429, {"retry-after-ms": "10"}, error(429).steps)
    answers = iter([for_long, for_short, completion()])
    place = Place(tmp_path, {INCUMBENT: lambda: next(answers)})

    assert (await place.ask())[0] == 429
    place.clock.advance(1)

    status, headers = await place.ask()
    assert (status, headers[b"x-swapproof-attempts"]) == (200, b"2")


@pytest.mark.req("A5", "B4")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, ASK),
        (CHAT, STREAM),
        ("/v1/messages", MESSAGE),
    ],
)
async def test_when_all_are_paused_each_is_named_with_the_time_and_nobody_waits(
    tmp_path: Path,
    path: str,
    body: bytes,
) -> None:
    def limited(seconds: int) -> ScriptedTurn:
        used_up = {"retry-after": str(seconds), "x-ratelimit-remaining-requests": "0"}
        return replace(error(429), headers=used_up)

    script: Script = {INCUMBENT: limited(3600), FALLBACK: limited(500)}
    place = Place(tmp_path, script, fallback=True)

    first = await place.call(path, body)
    second = await place.call(path, body)

    for status, headers, _ in (first, second):
        assert (status, headers[b"retry-after"]) == (429, b"500")
        # Longer than official clients heed: they would try again at once.
        assert headers[b"x-should-retry"] == b"false"
    # Who was asked is not asked again.
    assert place.asked == {INCUMBENT: 1, FALLBACK: 1}
    tried, passed_over = (json.loads(body)["error"] for _, _, body in (first, second))
    names = [f"up/{INCUMBENT}", f"up/{FALLBACK}"]
    assert [attempt["target"] for attempt in tried["attempts"]] == names
    assert [target["target"] for target in passed_over["targets"]] == names
    assert all(name in refusal["message"] for refusal in (tried, passed_over) for name in names)


async def test_a_reply_that_forbids_a_retry_names_no_short_time_for_it(tmp_path: Path) -> None:
    place = Place(
        tmp_path, {INCUMBENT: error(401), FALLBACK: error(401)}, FAIL_FAST, fallback=True
    )

    status, headers, _ = await place.call(CHAT, ASK)

    assert (status, headers[b"x-should-retry"]) == (503, b"false")
    assert b"retry-after" not in headers


@pytest.mark.req("B4")
async def test_when_every_circuit_is_open_the_answer_is_a_fast_503(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(401), FALLBACK: error(401)},
        FAIL_FAST,
        fallback=True,
    )
    await place.ask()
    place.clock.advance(4)

    status, headers, body = await place.call(CHAT, ASK)

    assert (status, headers[b"retry-after"]) == (503, b"6")
    assert headers[b"x-should-retry"] == b"true"
    assert headers[b"x-swapproof-attempts"] == b"0"
    assert place.asked == {INCUMBENT: 1, FALLBACK: 1}
    told = json.loads(body)["error"]
    assert told["code"] == "all_circuits_open"
    assert [target["target"] for target in told["targets"]] == [
        f"up/{INCUMBENT}",
        f"up/{FALLBACK}",
    ]


@pytest.mark.req("B4")
async def test_a_last_resort_is_asked_once_and_its_answer_counts(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(401), FALLBACK: error(401)},
        fallback=True,
    )
    await place.ask()
    place.script[INCUMBENT] = completion("back")

    status, headers = await place.ask()

    assert (status, headers[b"x-swapproof-attempts"]) == (200, b"1")
    # No probe: the state moves when its time has come.
    assert await place.state() == 2


@pytest.mark.req("B4", "B8")
@pytest.mark.parametrize(
    "rest",
    [
        (),
        (ScriptedEvent.RESET,),
        (b"data: {oops}\n\n",),
    ],
)
async def test_a_stream_counts_at_its_end(tmp_path: Path, rest: tuple[Any, ...]) -> None:
    broken = broken_stream(ROLE, event({"content": "half"}), *rest)
    place = Place(
        tmp_path,
        {INCUMBENT: broken, FALLBACK: streamed("spare")},
        fallback=True,
    )

    await place.ask(STREAM, times=7)

    assert place.asked == {INCUMBENT: 5, FALLBACK: 2}
    assert await place.state() == 2


@pytest.mark.req("B4")
@pytest.mark.parametrize("body", [ASK, STREAM])
async def test_a_probe_whose_caller_leaves_is_set_free(tmp_path: Path, body: bytes) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(401), FALLBACK: streamed("x")},
        fallback=True,
    )
    await place.ask(STREAM)
    place.clock.advance(OPEN_S)
    half = broken_stream(ROLE, event({"content": "half"}), ScriptedEvent.HANG)
    place.script[INCUMBENT] = half if body is STREAM else ScriptedTurn(hang=True)

    await leaving(place, body)
    assert await place.state() == 1
    place.script[INCUMBENT] = streamed("well")
    await place.ask(STREAM, times=3)

    assert place.asked[INCUMBENT] == 5
    assert await place.state() == 0
    assert place.transport.open_replies == 0


@pytest.mark.req("F4", "B4")
@pytest.mark.parametrize(
    ("own", "weight_bps", "arm"),
    [(CANDIDATE, 10_000, "canary"), (INCUMBENT, 0, "incumbent")],
)
async def test_an_arm_that_is_left_out_as_open_is_charged_and_each_caller_is_evidence(
    tmp_path: Path,
    own: str,
    weight_bps: int,
    arm: str,
) -> None:
    script: Script = {
        INCUMBENT: completion(),
        FALLBACK: completion(),
        own: error(401),
    }
    place = Place(
        tmp_path,
        script,
        fallback=True,
        weight_bps=weight_bps,
    )
    await place.ask()

    status, headers = await place.ask(times=3)
    place.recorder.flush()

    assert (status, headers[b"x-swapproof-attempts"]) == (200, b"1")
    assert place.asked[own] == 1
    rows = place.kept.traffic
    assert {row.arm for row in rows} == {arm}
    assert sum(row.charged for row in rows) == 4
    assert sum(row.failed for row in rows) == 0
    blocks = place.kept.blocks.values()
    assert sum(block.canary_failures for block in blocks) == (4 if weight_bps else 0)


@pytest.mark.req("F4", "B4")
async def test_an_incumbent_left_out_during_a_rollout_is_charged_like_a_canary(
    tmp_path: Path,
) -> None:
    script: Script = {
        INCUMBENT: error(401),
        FALLBACK: completion(),
        CANDIDATE: completion(),
    }
    place = Place(
        tmp_path,
        script,
        fallback=True,
        weight_bps=1,
    )

    await place.ask(times=4)
    place.recorder.flush()

    blocks = place.kept.blocks.values()
    assert [(block.failures, block.canary_units) for block in blocks] == [(1, 0)] * 4
    assert place.asked == {INCUMBENT: 1, FALLBACK: 4}


@pytest.mark.req("A5", "B4")
@pytest.mark.parametrize("how", ["silent", "in mid-stream", "held back"])
async def test_a_client_in_a_hurry_opens_no_circuit_for_the_others(
    tmp_path: Path, how: str
) -> None:
    slow = broken_stream(event({"content": "a"}), 0.2, event(finish="stop"))
    turn = ScriptedTurn(hang=True) if how == "silent" else slow
    whole = RouteSettings(commit=StreamCommit.WHOLE) if how == "held back" else None
    place = Place(tmp_path, {INCUMBENT: turn}, route=whole)
    hurried = (AUTH, (b"x-swapproof-timeout", b"0.05"))

    for _ in range(6):
        _, _, body = await place.call(
            CHAT,
            STREAM,
            headers=hurried,
        )
        assert b"timeout" in body

    assert await place.state() == 0


@pytest.mark.req("A5", "B4")
async def test_limits_of_our_own_count_however_little_time_a_client_gives(
    tmp_path: Path,
) -> None:
    quick = replace(QUICK, first_token_timeout_s=0.05)
    script: Script = {
        INCUMBENT: ScriptedTurn(hang=True),
        FALLBACK: streamed("spare"),
    }
    place = Place(tmp_path, script, quick, fallback=True)
    headers = (AUTH, (b"x-swapproof-timeout", b"2"))

    # Slow starts count from the third in a row on.
    for _ in range(6):
        await place.call(CHAT, STREAM, headers=headers)
    assert await place.state() == 0
    await place.call(CHAT, STREAM, headers=headers)
    assert await place.state() == 2


@pytest.mark.req("A5", "B4")
async def test_slow_starts_open_no_circuit_of_a_target_that_answers_in_between(
    tmp_path: Path,
) -> None:
    quick = replace(QUICK, first_token_timeout_s=0.05)
    script: Script = {
        INCUMBENT: streamed("well"),
        FALLBACK: streamed("spare"),
    }
    place = Place(tmp_path, script, quick, fallback=True)

    for n in range(20):
        place.script[INCUMBENT] = ScriptedTurn(hang=True) if n % 2 else streamed("well")
        await place.ask(STREAM)

    assert place.asked == {INCUMBENT: 20, FALLBACK: 10}
    assert await place.state() == 0


@pytest.mark.req("A5", "B3")
async def test_the_last_target_of_a_plan_is_waited_for_until_the_deadline(
    tmp_path: Path,
) -> None:
    quick = replace(QUICK, first_token_timeout_s=0.01)
    thinking = broken_stream(0.2, event({"content": "42"}), event(finish="stop"))
    place = Place(tmp_path, {INCUMBENT: thinking}, quick)

    status, _, body = await place.call(CHAT, STREAM)

    assert (status, b"42" in body) == (200, True)
