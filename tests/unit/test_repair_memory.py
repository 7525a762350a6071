"""Which requests a learned repair changes: those with the combination that was refused."""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.runner.provider_client import EvalProviderClient
from harness.providers.target import Provider
from harness.routing.reliability.repair_memory import (
    FIRST_WAIT_S,
    KEPT_S,
    MOST_ACCEPTED,
    MOST_FIELDS,
    MOST_REFUSALS,
    TEST_GAP_S,
    RepairMemory,
    note_answer,
    read_combination,
    remember_refusal,
)
from harness.routing.reliability.request_repair import (
    RepairKind,
    RepairReach,
    RequestRepair,
    find_repair,
    repair_request,
)
from router.frame.body import MESSAGES_PATH
from router.upstream.learned_repairs import LearnedRepairs
from router.upstream.transport import UpstreamRequest
from router.upstream.transports import ConversationTransport, ProviderClient
from tests.support.providers.scripted_chat import KEY, Response, serving
from tests.support.providers.scripted_transport import ScriptedTransport, ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, CHAT, Door

pytestmark = pytest.mark.req("B7")
Json = dict[str, Any]
COLD: Final = RequestRepair(RepairKind.LEAVE_OUT, "temperature")


def learned(
    *refused: Json, repair: RequestRepair = COLD, accepted: Json | None = None
) -> RepairMemory:
    memory = RepairMemory()
    for body in refused[:1]:
        memory = refuse(memory, body, repair)
    if accepted is not None:
        asked = read_combination(accepted)
        assert asked is not None
        memory = note_answer(memory, accepted, asked)
    for body in refused[1:]:
        memory = refuse(memory, body, repair)
    return memory


def refuse(
    memory: RepairMemory, body: Json, repair: RequestRepair, now_s: float = 0.0
) -> RepairMemory:
    asked = read_combination(body)
    assert asked is not None
    return remember_refusal(memory, repair, body, asked, now_s)


def changes(memory: RepairMemory, body: Json, *betas: str) -> bool:
    asked = read_combination(body, betas)
    return asked is not None and any(entry.applies(body, asked) for entry in memory.known)


def test_other_efforts_other_fields_and_other_content_are_other_combinations() -> None:
    hot = {"temperature": 0, "reasoning_effort": "high"}
    memory = learned(hot)

    assert changes(memory, {**hot, "temperature": 0.7, "user": "u", "stream": False})
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}
    for other in (
        {"temperature": 0},
        {"temperature": 0, "reasoning_effort": "none"},
        {**hot, "tools": []},
        {**hot, "stream": True},
        {**hot, "thinking": {"type": "disabled"}},
        {**hot, "messages": [picture]},
    ):
        assert not changes(memory, other)
    assert not changes(memory, hot, "a-beta")


def test_fields_in_which_two_refusals_differ_do_not_count_and_the_effort_always_does() -> None:
    hot = {"temperature": 0, "reasoning_effort": "high"}
    memory = learned({**hot, "tools": [], "top_p": 1}, {**hot, "seed": 1})

    assert len(memory.known) == 1
    assert changes(memory, hot)
    assert changes(memory, {**hot, "seed": 1, "tools": []})
    assert not changes(memory, {**hot, "stop": "x"})
    assert not changes(memory, {"temperature": 0})


def test_two_refusals_are_not_joined_over_a_request_that_the_provider_took() -> None:
    took = {"temperature": 0}
    memory = learned(
        {**took, "top_p": 1},
        {**took, "min_p": 1},
        accepted=took,
    )

    assert len(memory.known) == 2
    assert not changes(memory, took)


def test_a_refused_value_and_fields_that_exclude_one_another_are_never_widened() -> None:
    exact = RequestRepair(RepairKind.LEAVE_OUT, "temperature", reach=RepairReach.EXACT)
    memory = learned(
        {"temperature": 0, "top_p": 1},
        {"temperature": 0, "min_p": 1},
        {"temperature": 2, "top_p": 1},
        repair=exact,
    )

    assert changes(memory, {"temperature": 2, "top_p": 1})
    assert not changes(memory, {"temperature": 2, "min_p": 1})
    assert not changes(memory, {"temperature": 0})


def test_a_field_that_the_endpoint_does_not_know_goes_with_the_beta_headers_alone() -> None:
    unknown = RequestRepair(RepairKind.LEAVE_OUT, "store", reach=RepairReach.OUTRIGHT)
    memory = learned({"store": True, "reasoning_effort": "high"}, repair=unknown)

    assert changes(memory, {"store": False, "tools": []})
    assert not changes(memory, {"store": True}, "store-2026")


def test_a_test_that_is_refused_doubles_the_wait_and_requests_together_count_once() -> None:
    body = {"temperature": 0}
    memory = refuse(refuse(RepairMemory(), body, COLD), body, COLD, 1.0)
    assert [entry.test_at_s for entry in memory.known] == [FIRST_WAIT_S]

    again = refuse(memory, body, COLD, FIRST_WAIT_S)

    assert [entry.wait_s for entry in again.known] == [2 * FIRST_WAIT_S]
    assert [entry.counts(FIRST_WAIT_S + KEPT_S) for entry in again.known] == [False]


def test_a_memory_is_bounded_and_a_request_with_too_many_fields_is_not_remembered() -> None:
    memory = RepairMemory()
    for number in range(3 * MOST_REFUSALS):
        body = {"temperature": 0, "reasoning_effort": f"e{number}"}
        memory = refuse(memory, body, COLD)
        asked = read_combination({"temperature": 0, "think": f"e{number}"})
        assert asked is not None
        memory = note_answer(memory, {"temperature": 0}, asked)

    assert (len(memory.known), len(memory.accepted)) == (MOST_REFUSALS, MOST_ACCEPTED)
    assert read_combination({f"f{number}": 1 for number in range(MOST_FIELDS + 1)}) is None
    assert read_combination({"f" * 1000: 1}) is None
    assert read_combination({"logit_bias": {str(n): "a" for n in range(1000)}}) is None


EFFORTS = st.sampled_from([None, "none", "low", "high"])
BODIES = st.fixed_dictionaries(
    {"temperature": st.just(0), "reasoning_effort": EFFORTS},
    optional={name: st.just(1) for name in ("top_p", "seed", "tools")},
)


@given(refused=st.lists(BODIES, min_size=1, max_size=6), asked=BODIES)
def test_no_repair_crosses_an_effort_and_each_refused_request_is_repaired(
    refused: list[Json], asked: Json
) -> None:
    memory = learned(*refused)

    assert all(changes(memory, body) for body in refused)
    efforts = {body["reasoning_effort"] for body in refused}
    assert asked["reasoning_effort"] in efforts or not changes(memory, asked)


WORDS = "Unsupported parameter: 'temperature' is not supported with this model."
REFUSAL = error(400, WORDS, "unsupported_parameter")


def with_fields(**fields: object) -> bytes:
    return json.dumps({**json.loads(ASK), **fields}).encode()


NONE = with_fields(temperature=0, reasoning_effort="none")
HIGH = with_fields(temperature=0, reasoning_effort="high")
PLAIN = with_fields(temperature=0.2)


def hot_thinker(request: UpstreamRequest) -> ScriptedTurn:
    body = json.loads(request.body)
    refused = "temperature" in body and body.get("reasoning_effort") == "high"
    return REFUSAL if refused else completion()


async def test_one_callers_refused_combination_changes_no_other_callers_requests(
    tmp_path: Path,
) -> None:
    door = Door(tmp_path, hot_thinker, moves=True)
    for _ in range(2):
        status, headers, _ = await door.call(CHAT, HIGH)
        assert (status, headers[b"x-swapproof-degraded"]) == (200, b"temperature")
    assert len(door.transport.seen) == 3

    for body in (NONE, PLAIN, NONE):
        _, headers, _ = await door.call(CHAT, body)
        assert b"x-swapproof-degraded" not in headers
        sent = json.loads(door.transport.seen[-1].body)
        assert sent["temperature"] == json.loads(body)["temperature"]

    door.app._alerts.evaluate()
    door.recorder.flush()
    (alert,) = door.kept.alerts
    assert "refuses temperature with reasoning_effort=high as clients" in alert.title


async def test_after_a_good_answer_to_an_unchanged_request_the_router_changes_none(
    tmp_path: Path,
) -> None:
    takes = False
    door = Door(
        tmp_path,
        lambda request: completion() if takes else hot_thinker(request),
        moves=True,
    )
    await door.call(CHAT, HIGH)
    door.clock.advance(FIRST_WAIT_S)
    await door.call(CHAT, HIGH)
    assert len(door.transport.seen) == 4  # a refused test, and its repair
    door.clock.advance(TEST_GAP_S)
    await door.call(CHAT, HIGH)
    assert len(door.transport.seen) == 5  # the wait is twice as long

    takes = True
    door.clock.advance(2 * FIRST_WAIT_S)
    for _ in range(2):
        _, headers, _ = await door.call(CHAT, HIGH)
        assert b"x-swapproof-degraded" not in headers
        assert json.loads(door.transport.seen[-1].body)["temperature"] == 0
    door.app._alerts.evaluate()
    assert "swapproof_learned_repairs{" not in "".join(await door.metrics())


async def test_a_limit_learned_without_a_beta_header_does_not_bind_one_with_it() -> None:
    words = "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens"
    beta = (b"anthropic-beta", b"output-128k-2025-02-19")

    def limited(request: UpstreamRequest) -> ScriptedTurn:
        much = json.loads(request.body)["max_tokens"] > 64_000
        return error(400, words) if much and beta not in request.headers else completion()

    wire = ScriptedTransport(limited)
    transport = ConversationTransport("custom", wire, LearnedRepairs(time.monotonic))
    for headers in ((), (beta,), ()):
        request = UpstreamRequest(
            Provider("p", "custom", "http://127.0.0.1:1/v1"),
            with_fields(max_tokens=100_000),
            stream=False,
            path=MESSAGES_PATH,
            headers=headers,
            bridged=frozenset(),
        )
        reply = await transport.send(request)
        assert reply.status == 200
        await reply.body()
        await reply.aclose()

    sent = [json.loads(request.body)["max_tokens"] for request in wire.seen]
    assert sent == [100_000, 64_000, 100_000, 64_000]


async def test_a_published_limit_does_not_bind_a_request_with_an_output_beta_header() -> None:
    wire = ScriptedTransport(lambda _: completion())
    transport = ConversationTransport("anthropic", wire, LearnedRepairs(time.monotonic))
    beta = (b"anthropic-beta", b"interleaved-thinking-2025-05-14,output-128k-2025-02-19")
    for headers in ((), (beta,), ()):
        request = UpstreamRequest(
            Provider("p", "anthropic", "http://127.0.0.1:1"),
            with_fields(model="claude-sonnet-4-5", max_tokens=100_000),
            stream=False,
            path=MESSAGES_PATH,
            headers=headers,
            bridged=frozenset(),
        )
        reply = await transport.send(request)
        await reply.body()
        await reply.aclose()

    sent = [json.loads(request.body)["max_tokens"] for request in wire.seen]
    assert sent == [64_000, 100_000, 64_000]


async def test_fields_that_are_refused_one_after_the_other_cost_later_requests_nothing(
    tmp_path: Path,
) -> None:
    def picky(request: UpstreamRequest) -> ScriptedTurn:
        body = json.loads(request.body)
        named = next((name for name in ("temperature", "top_p", "seed") if name in body), "")
        words = f"Unsupported parameter: '{named}' is not supported with this model."
        return error(400, words, "unsupported_parameter") if named else completion()

    door = Door(tmp_path, picky, moves=True)
    body = with_fields(temperature=0, top_p=0.5, seed=1)
    for requests in (4, 5, 6):
        status, headers, _ = await door.call(CHAT, body)
        assert (status, len(door.transport.seen)) == (200, requests)
        assert headers[b"x-swapproof-degraded"] == b"temperature, top_p, seed"
    door.clock.advance(FIRST_WAIT_S)
    assert (await door.call(CHAT, body))[0] == 200
    assert len(door.transport.seen) == 8


async def test_a_client_takes_no_field_from_others_by_a_name_that_looks_like_a_path(
    tmp_path: Path,
) -> None:
    def strict(request: UpstreamRequest) -> ScriptedTurn:
        body = json.loads(request.body)
        named = next((name for name in body if "." in name or "[" in name), "")
        return error(400, f"Unknown parameter: '{named}'.") if named else completion()

    door = Door(tmp_path, strict, moves=True)
    high = with_fields(reasoning_effort="high")
    message = {"role": "user", "name": "bob", "content": "hi"}
    for name in ("messages[0].content", "messages[0].name", "reasoning.effort"):
        odd = {"messages": [message], "reasoning": {"effort": "low"}, name: "x"}
        assert (await door.call(CHAT, with_fields(**odd)))[0] == 400

    for body in (high, with_fields(messages=[message], reasoning={"effort": "low"})):
        _, headers, _ = await door.call(CHAT, body)
        sent = json.loads(door.transport.seen[-1].body)
        assert b"x-swapproof-degraded" not in headers
        assert {name: sent[name] for name in json.loads(body) if name != "model"} == {
            name: value for name, value in json.loads(body).items() if name != "model"
        }


def test_a_kind_in_a_path_means_the_entries_of_this_kind_alone() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "text": "b"}]
    sent = {"messages": [{"role": "assistant", "content": parts}]}
    words = "messages.0.content.1.tool_use.text: Extra inputs are not permitted"

    repair = find_repair({"message": words}, sent)

    assert repair is not None
    (turn,) = repair_request(sent, [repair])[0]["messages"]
    assert turn["content"] == [parts[0], {"type": "tool_use", "id": "t"}]


async def test_evals_and_traffic_send_the_same(tmp_path: Path) -> None:
    bodies = [NONE, HIGH, PLAIN, HIGH, NONE]
    door = Door(tmp_path, hot_thinker, moves=True)
    for body in bodies:
        await door.call(CHAT, body)

    def respond(body: Mapping[str, Any]) -> Response:
        refused = "temperature" in body and body.get("reasoning_effort") == "high"
        if not refused:
            return Response("ok")
        answer = {"error": {"message": WORDS, "code": "unsupported_parameter"}}
        return Response(status=400, raw=json.dumps(answer).encode())

    with serving(respond) as served:
        await asyncio.to_thread(ask_as_evals, served.provider(), bodies)

    assert [fields(body) for body in served.requests] == [
        fields(json.loads(request.body)) for request in door.transport.seen
    ]


def ask_as_evals(provider: Provider, bodies: list[bytes]) -> None:
    async def ask() -> None:
        client = EvalProviderClient(provider, KEY, calls=ProviderClient, connections=1)
        for body in bodies:
            await client.ask(json.loads(body))
        await client.close()

    asyncio.run(ask())


def fields(body: Mapping[str, Any]) -> Json:
    return {name: body[name] for name in ("temperature", "reasoning_effort") if name in body}
