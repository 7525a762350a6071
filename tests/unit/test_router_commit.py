import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.gate.online.guardrails import ExposureRule
from harness.providers.models.capabilities import Capabilities
from harness.routing.reliability import latency
from harness.routing.reliability.breaker import BreakerPolicy, WhenAllOpen
from harness.routing.reliability.latency import (
    FEW_ANSWERS,
    MIN_ANSWERS,
    MIN_LIMIT_S,
)
from harness.routing.route_settings import (
    OnBadEvent,
    OnContentPolicy,
    RouteSettings,
    Stakes,
    StreamCommit,
)
from harness.routing.settings import RouterSettings
from router.request.request_state import Attempt, RoutedRequest
from router.request.stream_relay import MOST_HELD_BYTES
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    DONE,
    ROLE,
    broken_stream,
    completion,
    error,
    event,
    streamed,
)
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Place, Script
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT, QUICK

STREAM = ASK[:-1] + b',"stream":true}'
WHOLE = RouteSettings(commit=StreamCommit.WHOLE)
SKIP = RouteSettings(on_bad_event=OnBadEvent.SKIP)
QUIET = replace(QUICK, between_chunks_timeout_s=0.1)
HALF = (ROLE, event({"content": "half"}))
END = event(finish="stop")


class Routed(Place):
    def __init__(
        self,
        folder: Path,
        turns: Script,
        route: RouteSettings = WHOLE,
        settings: RouterSettings = QUICK,
        *,
        fallback: bool = True,
        models: dict[str, Capabilities] | None = None,
    ) -> None:
        super().__init__(
            folder,
            turns,
            settings,
            fallback=fallback,
            route=route,
            models=models,
        )

    async def answer(
        self, body: bytes = STREAM, *more: tuple[bytes, bytes]
    ) -> tuple[int, dict[bytes, bytes], str]:
        status, headers, answer = await self.call(
            CHAT,
            body,
            headers=(AUTH, *more),
        )
        assert self.transport.open_replies == 0
        return status, headers, answer.decode()


def streamed_text(answer: str) -> str:
    data = (line[6:] for line in answer.splitlines() if line.startswith("data: {"))
    choices = (load for line in data for load in json.loads(line).get("choices", ()))
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.req("B8")
@pytest.mark.parametrize(
    "rest",
    [
        (),
        (ScriptedEvent.RESET,),
        (ScriptedEvent.HANG,),
        (b"data: {oops}\n\n",),
        (b'data: {"error":{"message":"overloaded"}}\n\n',),
    ],
    ids=["cut", "reset", "silent", "malformed", "error event"],
)
async def test_a_stream_that_breaks_after_its_first_words_is_answered_whole_by_the_next_target(
    tmp_path: Path, rest: tuple[Any, ...]
) -> None:
    broken = broken_stream(*HALF, *rest)
    routed = Routed(
        tmp_path,
        {INCUMBENT: broken, FALLBACK: streamed("spare")},
        settings=QUIET,
    )

    status, headers, answer = await routed.answer()

    assert (status, headers[b"x-swapproof-target"]) == (
        200,
        f"up/{FALLBACK}".encode(),
    )
    assert streamed_text(answer) == "spare"
    assert answer.endswith("data: [DONE]\n\n")
    # Charged once, with its failure, and nobody's success.
    assert await routed.state() == 0
    attempts = 'swapproof_attempts_total{{failure_class="none",provider="up",target="up/{}"}}'
    found = await routed.metrics()
    assert attempts.format(INCUMBENT) not in found
    assert found[attempts.format(FALLBACK)] == 1


@pytest.mark.req("B8")
async def test_an_answer_that_is_held_back_is_given_byte_for_byte_and_counted_once(
    tmp_path: Path,
) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
    turn = broken_stream(ROLE, event({"content": "all of it"}), END, usage, DONE)
    answers = []
    for route in (RouteSettings(), WHOLE):
        routed = Routed(tmp_path / route.commit, {INCUMBENT: turn}, route, fallback=False)
        answers.append((await routed.answer())[2])
        routed.recorder.flush(final=True)
        (row,) = routed.kept.traffic
        assert (
            row.requests,
            row.failed,
            row.input_tokens,
            row.output_tokens,
        ) == (1, 0, 3, 4)

    assert answers[0] == answers[1]
    assert streamed_text(answers[0]) == "all of it"


@pytest.mark.req("B8")
async def test_what_is_too_long_to_be_held_is_sent_on_from_there(tmp_path: Path) -> None:
    large = event({"content": "x" * (MOST_HELD_BYTES // 4)})
    turn = broken_stream(ROLE, *[large] * 5)
    routed = Routed(tmp_path, {INCUMBENT: turn, FALLBACK: streamed("spare")})

    _, headers, answer = await routed.answer()

    assert headers[b"x-swapproof-target"] == f"up/{INCUMBENT}".encode()
    assert len(streamed_text(answer)) == 5 * (MOST_HELD_BYTES // 4)
    assert "upstream_error" in answer


@pytest.mark.req("B8")
async def test_a_lone_target_that_breaks_off_is_an_error_without_a_word(tmp_path: Path) -> None:
    routed = Routed(tmp_path, {INCUMBENT: broken_stream(*HALF)}, fallback=False)

    status, headers, answer = await routed.answer()

    assert (status, headers[b"x-should-retry"]) == (502, b"false")
    assert "half" not in answer


@pytest.mark.req("B8")
@pytest.mark.parametrize("place", [1, 2])
async def test_an_event_that_cannot_be_read_is_left_out_where_the_route_says_so(
    tmp_path: Path, place: int
) -> None:
    steps = [
        ROLE,
        event({"content": "a"}),
        event({"content": "b"}),
        END,
        b"data: [DONE]\n\n",
    ]
    steps.insert(place, b'data: {"choices": [{"delta": {"content": \n\n')
    turns: Script = {
        INCUMBENT: broken_stream(*steps),
        FALLBACK: streamed("spare"),
    }

    _, _, answer = await (skipping := Routed(tmp_path / "skip", turns, SKIP)).answer()
    assert streamed_text(answer) == "ab"
    assert answer.endswith("data: [DONE]\n\n")
    told = f'{{target="up/{INCUMBENT}",what="skipped_event"}}'
    assert (await skipping.metrics())[f"swapproof_irregular_answers_total{told}"] == 1

    failing = Routed(tmp_path / "fail", turns, RouteSettings())
    _, _, answer = await failing.answer()
    assert "upstream_error" in answer or streamed_text(answer) == "spare"


@pytest.mark.req("B8")
async def test_a_stream_of_nothing_that_can_be_read_is_still_passed_over(
    tmp_path: Path,
) -> None:
    turns: Script = {
        INCUMBENT: broken_stream(*[b"data: {oops\n\n"] * 3),
        FALLBACK: streamed("spare"),
    }

    _, _, answer = await Routed(tmp_path, turns, SKIP).answer()

    assert streamed_text(answer) == "spare"


@pytest.mark.req("B3")
@pytest.mark.parametrize("where", ["router", "model", "route"])
@pytest.mark.parametrize("stream", [True, False], ids=["first token", "first byte"])
async def test_a_silent_target_is_left_after_the_limit_of_route_model_or_router(
    tmp_path: Path,
    where: str,
    *,
    stream: bool,
) -> None:
    name = "first_token_timeout_s" if stream else "first_byte_timeout_s"
    # The more special one rules: the others would wait for the whole budget.
    limits: dict[str, Any] = {level: {name: 500.0} for level in ("router", "model", "route")}
    limits[where] = {name: 0.05}
    if where != "route":
        limits["route"] = {}
    if where == "router":
        limits["model"] = {}
    routed = Routed(
        tmp_path,
        {
            INCUMBENT: ScriptedTurn(hang=True),
            FALLBACK: streamed("spare") if stream else completion("spare"),
        },
        RouteSettings(**limits["route"]),
        replace(QUICK, **limits["router"]),
        models={INCUMBENT: Capabilities(**limits["model"])},
    )

    _, headers, _ = await routed.answer(STREAM if stream else ASK)

    assert headers[b"x-swapproof-target"] == f"up/{FALLBACK}".encode()
    assert routed.asked == {INCUMBENT: 1, FALLBACK: 1}


@pytest.mark.req("B3")
async def test_a_plain_answer_that_has_begun_keeps_the_rest_of_its_time(tmp_path: Path) -> None:
    (body,) = completion("slow").steps
    assert isinstance(body, bytes)
    slow = ScriptedTurn(steps=(body[:9], 0.3, body[9:]))
    limited = RouteSettings(first_byte_timeout_s=0.1)
    routed = Routed(tmp_path, {INCUMBENT: slow, FALLBACK: error(500)}, limited)

    status, headers, _ = await routed.answer(ASK)

    assert (status, headers[b"x-swapproof-attempts"]) == (200, b"1")


def seen_limits(routed: Place, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    limits = routed.app._calls.dispatcher._limits
    seen: list[tuple[str, float]] = []
    plain = limits.first_s

    def first_s(job: RoutedRequest, made: Attempt) -> float:
        seen.append((made.upstream.target.model, plain(job, made)))
        return seen[-1][1]

    monkeypatch.setattr(limits, "first_s", first_s)
    return seen


@pytest.mark.req("B3", "F4")
@pytest.mark.parametrize(
    ("body", "answer", "limit_s"),
    [(ASK[:-1] + b',"max_tokens":100}', completion(), 60.0), (STREAM, streamed("a"), 45.0)],
)
async def test_a_candidate_has_three_times_the_wait_that_is_unusual_for_the_incumbent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
    answer: ScriptedTurn,
    limit_s: float,
) -> None:
    rule = ExposureRule(block_size=1, first_wait_s=20.0, stream_wait_s=15.0)
    turns: Script = {CANDIDATE: answer, INCUMBENT: error(500)}
    place = Place(tmp_path, turns, RouterSettings(), weight_bps=10_000, rule=rule)
    used = seen_limits(place, monkeypatch)

    await place.ask(body)

    assert used == [(CANDIDATE, limit_s)]


def allowing(max_tokens: int, more: str = "") -> bytes:
    return ASK[:-1] + f',"max_tokens":{max_tokens}{more}}}'.encode()


@pytest.mark.req("B3")
async def test_what_a_worker_has_measured_limits_whoever_has_somebody_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: Script = {INCUMBENT: completion(), FALLBACK: completion("spare")}
    routed = Routed(tmp_path, turns, RouteSettings())
    used = seen_limits(routed, monkeypatch)
    for _ in range(MIN_ANSWERS + 1):
        await routed.answer(ASK)
    routed.script[INCUMBENT] = error(503)
    await routed.answer(ASK)

    assert used[:MIN_ANSWERS] == [(INCUMBENT, math.inf)] * MIN_ANSWERS
    assert used[MIN_ANSWERS:] == [
        *[(INCUMBENT, MIN_LIMIT_S)] * 3,
        (FALLBACK, math.inf),
    ]


@pytest.mark.req("B3")
async def test_what_a_client_allows_limits_a_target_that_nobody_has_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: Script = {INCUMBENT: completion(), FALLBACK: completion("spare")}
    routed = Routed(tmp_path, turns, RouteSettings())
    used = seen_limits(routed, monkeypatch)

    for body in (
        allowing(200),
        allowing(9000),
        allowing(200, ',"reasoning_effort":"high"'),
    ):
        await routed.answer(body)

    limits_s = [limit_s for _, limit_s in used]
    assert limits_s == [MIN_LIMIT_S, 450.0, math.inf]


@pytest.mark.req("B3")
async def test_a_fresh_router_leaves_a_hanging_target_and_a_slow_one_only_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "MIN_LIMIT_S", 0.01)  # else this took two minutes
    turns: Script = {
        INCUMBENT: ScriptedTurn(hang=True),
        FALLBACK: completion("spare"),
    }
    routed = Routed(tmp_path, turns, RouteSettings())
    used = seen_limits(routed, monkeypatch)

    for _ in range(FEW_ANSWERS + 1):
        _, headers, _ = await routed.answer(allowing(0, ',"max_completion_tokens":3'))
        assert headers[b"x-swapproof-target"] == f"up/{FALLBACK}".encode()
    (body,) = completion("slow").steps
    routed.script[INCUMBENT] = ScriptedTurn(steps=(0.17, body))
    _, headers, _ = await routed.answer(allowing(0, ',"max_completion_tokens":3'))

    own = [limit_s for model, limit_s in used if model == INCUMBENT]
    assert own[:-1] == [0.15] * (FEW_ANSWERS + 1)
    assert own[-1] > 2 * 0.15
    assert headers[b"x-swapproof-target"] == f"up/{INCUMBENT}".encode()


FILTERED = error(400, code="content_policy_violation")


@pytest.mark.req("A5")
@pytest.mark.parametrize(
    ("rule", "spare", "asked"),
    [
        (OnContentPolicy.FAIL, completion(), {INCUMBENT: 1}),
        (
            OnContentPolicy.FALLBACK,
            completion(),
            {INCUMBENT: 1, FALLBACK: 1},
        ),
        (OnContentPolicy.FALLBACK, FILTERED, {INCUMBENT: 1, FALLBACK: 1}),
    ],
)
async def test_a_content_filters_refusal_falls_only_where_the_route_says_so(
    tmp_path: Path,
    rule: OnContentPolicy,
    spare: ScriptedTurn,
    asked: dict[str, int],
) -> None:
    turns: Script = {INCUMBENT: FILTERED, FALLBACK: spare}
    routed = Routed(tmp_path, turns, RouteSettings(on_content_policy=rule))

    status, headers, answer = await routed.answer(ASK)

    assert routed.asked == asked
    assert headers[b"x-swapproof-target"] == f"up/{[*asked][-1]}".encode()
    answers = FALLBACK in asked and spare is not FILTERED
    assert (status, "content_policy_violation" in answer) == (
        200 if answers else 400,
        not answers,
    )


@pytest.mark.req("A4", "B4")
async def test_high_stakes_whose_capable_circuits_are_open_name_the_targets_that_are_forbidden(
    tmp_path: Path,
) -> None:
    turns: Script = {INCUMBENT: error(401), FALLBACK: completion()}
    fail_fast = replace(QUICK, breaker=BreakerPolicy(when_all_open=WhenAllOpen.FAIL_FAST))
    routed = Routed(tmp_path, turns, RouteSettings(stakes=Stakes.HIGH), fail_fast)
    await routed.answer(ASK)

    status, _, answer = await routed.answer(ASK)

    told = json.loads(answer)["error"]
    assert (status, told["code"]) == (503, "all_circuits_open")
    assert [target["left_out"] for target in told["targets"]] == [
        "open",
        "stakes",
    ]
    assert "marked capable" in told["message"]
    assert routed.asked == {INCUMBENT: 1}
