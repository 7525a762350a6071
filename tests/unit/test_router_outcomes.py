"""How the router decides an exposure's outcome: a real router, one scripted provider a case."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.frame.failures import FailureClass
from harness.gate.online.guardrails import (
    ArmSplit,
    ErrorTally,
    ExposureRule,
    Guardrail,
)
from harness.gate.online.observation import ObservationBlock
from harness.providers.models.capabilities import Capabilities, Prefill
from router.frame.asgi import BODY, HEAD_FACTS
from router.frame.failure import UpstreamFailed
from router.observers.request_accounting import RequestAccounting
from router.request.dispatch import Dispatcher
from router.upstream.learned_repairs import LearnedRepairs
from router.upstream.transports import ConversationTransport
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
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
    leaving,
)
from tests.support.router.code_faults import broken
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT

pytestmark = pytest.mark.req("F3", "F4")
STREAMED = ASK[:-1] + b',"stream":true}'
HANGS = ScriptedTurn(hang=True)
CUT = broken_stream(event({"content": "half"}), ScriptedEvent.RESET)
LIMITED = error(429, code="rate_limit_exceeded")
FOREIGN = error(404, "Item with id 'i_1' not found.")


def place(
    folder: Path,
    candidate: ScriptedTurn,
    incumbent: ScriptedTurn | None = None,
    kind: str = "custom",
) -> Place:
    """A canary that gets all callers. Guardrails are on, so that streams are read."""
    script = {CANDIDATE: candidate, INCUMBENT: incumbent or completion()}
    return Place(
        folder,
        dict(script),
        weight_bps=10_000,
        kind=kind,
        rule=ExposureRule(block_size=1, guardrails={Guardrail.REPEATS: 2.0}),
    )


def blocks_of(scene: Place) -> list[ObservationBlock]:
    scene.recorder.flush(final=True)
    return list(scene.kept.blocks.values())


def outcomes_of(scene: Place) -> list[Mapping[str, ArmSplit]]:
    return [block.outcomes for block in blocks_of(scene)]


ONE = ArmSplit(1, 1)


@pytest.mark.spine
@pytest.mark.req("H7")
@pytest.mark.parametrize(
    ("candidate", "incumbent", "body", "outcome"),
    [
        (completion(), None, ASK, "answered"),
        (streamed("a", "b"), None, STREAMED, "answered"),
        (error(500), None, ASK, "failed: provider"),
        (error(401), None, ASK, "failed: ours"),
        (error(400), None, ASK, "failed: client"),
        (error(400), error(400), ASK, "refused: client"),
        (LIMITED, None, ASK, "limited: rate"),
        (error(429, code="insufficient_quota"), None, ASK, "limited: quota"),
        (FOREIGN, None, ASK[:-1] + b',"file_id":"i_1"}', "not_measured: foreign_state"),
        (FOREIGN, None, ASK, "failed: client"),
        (CUT, None, STREAMED, "cut: provider"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_exposure_ends_as_its_own_target_did(
    tmp_path: Path,
    candidate: ScriptedTurn,
    incumbent: ScriptedTurn | None,
    body: bytes,
    outcome: str,
) -> None:
    scene = place(tmp_path, candidate, incumbent)
    await scene.ask(body)
    assert outcomes_of(scene) == [{outcome: ONE}]


async def test_a_pause_that_the_provider_requested_keeps_requests_from_the_candidate(
    tmp_path: Path,
) -> None:
    limited = ScriptedTurn(429, {**LIMITED.headers, "retry-after": "60"}, LIMITED.steps)
    scene = place(tmp_path, limited)
    await scene.ask()
    await scene.ask()
    assert outcomes_of(scene)[0] == {"limited: rate": ONE}


async def test_a_caller_who_leaves_before_any_output_has_left(tmp_path: Path) -> None:
    scene = place(tmp_path, HANGS)
    await leaving(scene, ASK)
    assert outcomes_of(scene) == [{"left: early": ONE}]


async def test_a_caller_who_ends_a_stream_that_flowed_has_stopped_it(tmp_path: Path) -> None:
    scene = place(
        tmp_path,
        broken_stream(event({"content": "half"}), ScriptedEvent.HANG),
    )
    await leaving(scene, STREAMED)
    assert outcomes_of(scene) == [{"stopped": ONE}]


async def test_a_failure_before_the_caller_left_is_the_candidates(tmp_path: Path) -> None:
    scene = place(tmp_path, error(500), HANGS)
    await leaving(scene, ASK)
    assert outcomes_of(scene) == [{"failed: provider": ONE}]


async def test_a_failure_before_the_callers_deadline_is_the_candidates(tmp_path: Path) -> None:
    turns = iter([error(500)])
    scene = place(tmp_path, completion())
    scene.script[CANDIDATE] = lambda: next(turns, HANGS)  # its retry hangs
    deadline = (b"x-swapproof-timeout", b"0.5")
    status, _, _ = await scene.call(CHAT, ASK, headers=(AUTH, deadline))
    assert status == 200
    assert outcomes_of(scene) == [{"failed: provider": ONE}]


async def test_a_connection_that_was_closed_while_idle_is_no_failure_of_the_candidate(
    tmp_path: Path,
) -> None:
    failures = iter([UpstreamFailed(FailureClass.CONNECT, "closed while idle", stale=True)])

    def turn() -> ScriptedTurn:
        for failure in failures:
            raise failure
        return HANGS

    scene = place(tmp_path, HANGS)
    scene.script[CANDIDATE] = turn
    await leaving(scene, ASK)
    assert scene.asked[CANDIDATE] == 2
    assert outcomes_of(scene) == [{"left: early": ONE}]


async def test_a_stream_that_the_router_ended_is_not_measured(tmp_path: Path) -> None:
    scene = place(
        tmp_path,
        broken_stream(event({"content": "half"}), ScriptedEvent.HANG),
    )
    output = asyncio.Event()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if b"half" in message.get("body", b""):
            output.set()

    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "headers": [AUTH],
        BODY: STREAMED,
        HEAD_FACTS: {},
    }
    serving = asyncio.create_task(scene.app(scope, receive, send))
    await output.wait()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert outcomes_of(scene) == [{"not_measured: router_fault": ONE}]


@pytest.mark.parametrize("part", [Dispatcher._attempt, RequestAccounting.after_answer])
async def test_a_request_that_meets_a_fault_of_the_routers_own_code_is_not_measured(
    tmp_path: Path, part: Any
) -> None:
    scene = place(tmp_path, completion())
    with broken(part.__code__, [part], times=1):
        assert (await scene.ask())[0] == 200
    assert outcomes_of(scene) == [{"not_measured: router_fault": ONE}]


def with_headers(turn: ScriptedTurn, **headers: str) -> ScriptedTurn:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ScriptedTurn(turn.status, {**turn.headers, **named}, turn.steps)


@pytest.mark.parametrize(
    ("candidate", "body"),
    [(completion(), ASK), (streamed("a", "b"), STREAMED)],
    ids=["plain", "streamed"],
)
async def test_an_answer_that_a_gateway_marks_as_its_fallbacks_is_not_measured(
    tmp_path: Path,
    candidate: ScriptedTurn,
    body: bytes,
) -> None:
    scene = place(tmp_path, with_headers(candidate, x_litellm_attempted_fallbacks="1"))
    await scene.ask(body)
    (block,) = blocks_of(scene)
    assert block.outcomes == {"not_measured: gateway_fallback": ONE}
    assert block.served == {}, "the name is not the candidate's"
    assert block.unknown_exposures == ONE


@pytest.mark.parametrize(
    ("candidate", "body"),
    [(completion(model="alias"), ASK), (streamed("a", "b"), STREAMED)],
    ids=["plain", "streamed"],
)
async def test_a_header_names_the_model_before_the_body_does(
    tmp_path: Path,
    candidate: ScriptedTurn,
    body: bytes,
) -> None:
    scene = place(
        tmp_path,
        with_headers(candidate, x_ms_served_model="gpt-5-2026-01-01"),
    )
    await scene.ask(body)
    (block,) = blocks_of(scene)
    assert block.outcomes == {"answered": ONE}
    assert block.served == {"gpt-5-2026-01-01": ONE}


async def test_a_name_that_the_caller_let_a_gateway_choose_says_nothing(
    tmp_path: Path,
) -> None:
    scene = place(tmp_path, completion(model="vendor/other"))
    await scene.ask(ASK[:-1] + b',"models":["vendor/other"]}')
    (block,) = blocks_of(scene)
    assert block.outcomes == {"answered": ONE}
    assert block.served == {}


NO_TOKENS = b'"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'


def without_tokens(turn: ScriptedTurn) -> ScriptedTurn:
    """The turn with a usage of 0 tokens."""
    steps = [
        re.sub(rb'"usage":\{[^}]*\}', NO_TOKENS, step) if isinstance(step, bytes) else step
        for step in turn.steps
    ]
    return ScriptedTurn(turn.status, turn.headers, tuple(steps))


async def test_a_text_without_tokens_fails_once_the_target_has_counted_tokens(
    tmp_path: Path,
) -> None:
    scene = place(tmp_path, completion())
    await scene.ask()
    scene.script = {
        CANDIDATE: without_tokens(completion()),
        INCUMBENT: completion(),
    }
    status, headers = await scene.ask()
    assert status == 200
    assert headers[b"x-swapproof-attempts"] != b"1", "the incumbent answers in its place"
    assert outcomes_of(scene) == [
        {"answered": ONE},
        {"failed: provider": ONE},
    ]
    errors = blocks_of(scene)[1].counts[Guardrail.ERRORS]
    assert isinstance(errors, ErrorTally)
    assert "malformed" in next(iter(errors.classes))


async def test_a_server_that_never_counts_tokens_answers(tmp_path: Path) -> None:
    scene = place(tmp_path, without_tokens(completion()))
    await scene.ask(times=2)
    assert outcomes_of(scene) == [{"answered": ONE}] * 2


MESSAGE_STREAM = (
    {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 7}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "no"}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 5},
    },
    {"type": "message_stop"},
)


def message(tokens: tuple[int, int]) -> ScriptedTurn:
    """A plain message.

    Args:
        tokens: its usage, input and output.
    """
    body = {
        "type": "message",
        "model": "m",
        "content": [{"type": "text", "text": "no"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
    }
    return ScriptedTurn(steps=(json.dumps(body).encode(),))


def message_stream(tokens: tuple[int, int]) -> ScriptedTurn:
    usage = {"input_tokens": tokens[0], "output_tokens": tokens[1]}
    events = [
        {**one, "usage": usage} if one["type"] == "message_delta" else one
        for one in MESSAGE_STREAM
    ]
    if not any(tokens):
        events[0] = {"type": "message_start", "message": {"model": "m", "usage": usage}}
    return broken_stream(*(f"data: {json.dumps(one)}\n\n".encode() for one in events))


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
@pytest.mark.parametrize(
    ("good", "stream"),
    [(completion(), False), (streamed("no"), True)],
    ids=["plain", "streamed"],
)
async def test_a_translated_text_without_tokens_fails_as_a_chats_does(
    tmp_path: Path,
    path: str,
    good: ScriptedTurn,
    stream: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    scene = place(tmp_path, good, good)
    scene.transport = ConversationTransport(  # type: ignore[assignment]  # but for `seen`
        "custom",
        scene.transport,
        LearnedRepairs(time.monotonic),
    )
    words = "input" if path.endswith("responses") else "messages"
    body = {
        "model": "support",
        "max_tokens": 9,
        "stream": stream,
        words: [{"role": "user", "content": "hi"}],
    }
    for caller, turn in enumerate((good, without_tokens(good))):
        scene.script[CANDIDATE] = turn
        sticky = (b"x-swapproof-sticky", b"%d" % caller)
        await scene.call(path, json.dumps(body).encode(), headers=(AUTH, sticky))
    assert outcomes_of(scene) == [{"answered": ONE}, {"failed: provider": ONE}]


@pytest.mark.parametrize("turn", [message, message_stream], ids=["plain", "streamed"])
async def test_a_message_without_tokens_fails_as_a_chat_does(
    tmp_path: Path, turn: Callable[[tuple[int, int]], ScriptedTurn]
) -> None:
    scene = place(tmp_path, turn((7, 5)), kind="anthropic")
    body = {
        "model": "support",
        "max_tokens": 9,
        "stream": turn is message_stream,
        "messages": [{"role": "user", "content": "hi"}],
    }
    for caller, tokens in enumerate([(7, 5), (0, 0)]):
        scene.script = {CANDIDATE: turn(tokens), INCUMBENT: turn((7, 5))}
        sticky = (b"x-swapproof-sticky", b"%d" % caller)
        await scene.call("/v1/messages", json.dumps(body).encode(), headers=(AUTH, sticky))
    assert outcomes_of(scene) == [{"answered": ONE}, {"failed: provider": ONE}]


@pytest.mark.spine
@pytest.mark.req("H7")
async def test_the_models_that_answered_are_counted_by_arm(tmp_path: Path) -> None:
    scene = place(tmp_path, completion(model="vendor/new"))
    await scene.ask()
    (block,) = blocks_of(scene)
    assert block.served == {"vendor/new": ONE}


MESSAGES = "/v1/messages"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
BLIND = Capabilities(vision=False)


def seen(content: object, **more: object) -> bytes:
    turns = [{"role": "user", "content": content}]
    return json.dumps({"model": "support", "messages": turns, **more}).encode()


def blind_place(folder: Path, *, weight_bps: int = 10_000) -> Place:
    return Place(
        folder,
        {CANDIDATE: completion(), INCUMBENT: completion()},
        weight_bps=weight_bps,
        models={CANDIDATE: BLIND},
        rule=ExposureRule(block_size=1),
    )


@pytest.mark.parametrize("weight_bps", [10_000, 1])
async def test_a_request_that_the_candidate_cannot_take_counts_in_neither_arm(
    tmp_path: Path, weight_bps: int
) -> None:
    scene = blind_place(tmp_path, weight_bps=weight_bps)
    status, _ = await scene.ask(seen([PICTURE]))
    await scene.ask()

    (block,) = blocks_of(scene)
    in_canary = int(weight_bps == 10_000)
    assert status == 200
    assert block.outcomes == {"answered": ArmSplit(1, in_canary)}
    assert block.uncounted == {"unsupported": ArmSplit(1, in_canary)}
    assert block.failures == 0


async def test_a_caller_in_a_loop_counts_once_among_the_requests_that_a_candidate_lacks(
    tmp_path: Path,
) -> None:
    scene = blind_place(tmp_path)
    for caller in ("ann", "ann", "ben", "ann"):
        await scene.call(CHAT, seen([PICTURE], user=caller), headers=(AUTH,))
    await scene.ask()

    (block,) = blocks_of(scene)
    assert block.uncounted == {"unsupported": ArmSplit(2, 2)}


async def test_a_prefill_that_the_candidate_would_not_continue_counts_in_neither_arm(
    tmp_path: Path,
) -> None:
    scene = Place(
        tmp_path,
        {CANDIDATE: completion(), INCUMBENT: completion()},
        weight_bps=10_000,
        models={
            CANDIDATE: Capabilities(prefill=Prefill.BEGINS_ANEW),
            INCUMBENT: Capabilities(prefill=Prefill.CONTINUES),
        },
        rule=ExposureRule(block_size=1),
    )
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{"}]
    await scene.ask(json.dumps({"model": "support", "messages": begun}).encode())
    await scene.ask()
    (block,) = blocks_of(scene)
    assert block.outcomes == {"answered": ONE}
    assert block.uncounted == {"unsupported": ONE}


def whole_message() -> ScriptedTurn:
    """A whole answer of Messages."""
    usage = {"input_tokens": 7, "output_tokens": 5}
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    return ScriptedTurn(
        200, {"content-type": "application/json"}, (json.dumps(answer).encode(),)
    )


def hinted_place(folder: Path) -> Place:
    """A canary whose incumbent alone serves Messages itself."""
    return Place(
        folder,
        {CANDIDATE: completion(), INCUMBENT: whole_message()},
        weight_bps=10_000,
        models={INCUMBENT: Capabilities(messages="native")},
        moves=True,
        rule=ExposureRule(block_size=1),
    )


async def test_a_request_without_a_translation_is_no_failure_of_the_candidate(
    tmp_path: Path,
) -> None:
    scene = hinted_place(tmp_path)
    stored = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
    status, _, _ = await scene.call(MESSAGES, seen([stored], max_tokens=9), headers=(AUTH,))

    assert status == 200
    assert outcomes_of(scene) == [{"not_measured: unsupported": ONE}]


async def test_a_target_without_a_translation_leaves_the_request_to_a_fallback(
    tmp_path: Path,
) -> None:
    scene = Place(
        tmp_path,
        {INCUMBENT: completion(), FALLBACK: whole_message()},
        fallback=True,
        models={FALLBACK: Capabilities(messages="native")},
        moves=True,
    )
    stored = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
    body = seen([stored], max_tokens=9)
    assert (await scene.call(MESSAGES, body, headers=(AUTH,)))[0] == 200

    alone = Place(tmp_path / "alone", {INCUMBENT: completion()}, moves=True)
    status, _, said = await alone.call(MESSAGES, body, headers=(AUTH,))
    assert (status, b"leave it out" in said) == (422, True)
