import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from harness.gate.online.guardrails import ExposureRule, Guardrails
from harness.gate.online.reading.scored_exposures import (
    AnswerFault,
    GuardrailSample,
    RequestTraits,
    SampleValues,
)
from harness.providers.models.capabilities import Endpoint
from router.frame.body import read_request
from router.frame.json_spans import parse_object
from router.protocols.answer_signals import MAX_KEPT_CHARS, AnswerSignals
from router.protocols.answers import parse_json
from router.protocols.endpoints import DIALECTS
from router.request.guardrail_probe import (
    GuardrailProbe,
    RequestCost,
    RouteGuardrails,
    are_calls_valid,
)
from router.snapshot.compiled import CompiledRoute
from router.snapshot.compiler import compile_snapshot
from tests.support.router.live_router import snapshot

pytestmark = pytest.mark.req("F3")
RULE = ExposureRule(guardrails=Guardrails().tolerated())
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
CHAT_JSON: dict[str, object] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"schema": CITY},
    }
}
CHAT_TOOLS: dict[str, object] = {
    "tools": [{"type": "function", "function": {"name": "go", "parameters": CITY}}]
}
ASKS: dict[Endpoint, tuple[dict[str, object], dict[str, object]]] = {
    Endpoint.CHAT: (CHAT_JSON, CHAT_TOOLS),
    Endpoint.RESPONSES: (
        {"text": {"format": {"type": "json_schema", "schema": CITY}}},
        {
            "tools": [
                {
                    "type": "function",
                    "name": "go",
                    "parameters": CITY,
                }
            ]
        },
    ),
    Endpoint.MESSAGES: (
        {"output_config": {"format": {"type": "json_schema", "schema": CITY}}},
        {"tools": [{"name": "go", "input_schema": CITY}]},
    ),
}
TIMES = RequestCost(1.0, 0.2, 0.9, 0, 0.001)


@pytest.fixture(scope="module")
def route() -> CompiledRoute:
    return compile_snapshot(snapshot("http://127.0.0.1:1/v1", weight_bps=100)).routes["support"]


def watch(
    route: CompiledRoute,
    body: Mapping[str, object] | None = None,
    endpoint: Endpoint = Endpoint.CHAT,
) -> GuardrailProbe:
    request = read_request(json.dumps({"model": "support", **(body or {})}).encode(), endpoint)
    guardrails = RouteGuardrails.from_route(route, RULE)
    assert guardrails is not None
    return guardrails.probe(request)


def answer(
    endpoint: Endpoint,
    text: str,
    call: str,
    ended: str,
) -> dict[str, object]:
    """Builds an endpoint's answer.

    Args:
        call: arguments of a call of `go`, or "".
    """
    if endpoint is Endpoint.CHAT:
        calls = [
            {
                "type": "function",
                "function": {"name": "go", "arguments": call},
            }
        ]
        message = {
            "content": text or None,
            "tool_calls": calls if call else None,
        }
        return {
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": ended,
                }
            ]
        }
    if endpoint is Endpoint.MESSAGES:
        block = {
            "type": "tool_use",
            "name": "go",
            "input": json.loads(call or "{}"),
        }
        content = [block] if call else [{"type": "text", "text": text}]
        reasons = {"length": "max_tokens", "content_filter": "refusal"}
        return {"content": content, "stop_reason": reasons.get(ended, ended)}
    part = {
        "type": "message",
        "content": [{"type": "output_text", "text": text}],
    }
    made = {
        "type": "function_call",
        "name": "go",
        "arguments": call,
    }
    reason = {"length": "max_output_tokens"}.get(ended, ended)
    return {
        "output": [made if call else part],
        "incomplete_details": {"reason": reason},
    }


def streamed(
    endpoint: Endpoint,
    text: str,
    call: str,
    ended: str,
) -> list[dict[str, object]]:
    """The same in pieces of two characters."""
    pieces = [(call or text)[at : at + 2] for at in range(0, len(call or text), 2)]
    if endpoint is Endpoint.CHAT:
        function = [
            {"name": "go", "arguments": ""},
            *({"arguments": piece} for piece in pieces),
        ]
        deltas: list[dict[str, object]] = (
            [{"tool_calls": [{"index": 0, "function": part}]} for part in function]
            if call
            else [{"content": piece} for piece in pieces]
        )
        choices = [{"index": 0, "delta": delta} for delta in deltas]
        return [
            {"choices": [choice]}
            for choice in (
                *choices,
                {
                    "index": 0,
                    "delta": {},
                    "finish_reason": ended,
                },
            )
        ]
    whole = answer(endpoint, text, call, ended)
    if endpoint is Endpoint.RESPONSES:
        return [{"type": "response.incomplete", "response": whole}]
    kind, field = ("input_json_delta", "partial_json") if call else ("text_delta", "text")
    block = (
        {
            "type": "tool_use",
            "name": "go",
            "input": {},
        }
        if call
        else {"type": "text"}
    )
    return [
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": block,
        },
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": kind, field: piece},
            }
            for piece in pieces
        ),
        {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"]},
        },
    ]


def bad_of(given: GuardrailProbe, signals: AnswerSignals | None) -> AnswerFault:
    return AnswerFault(given.sample(signals, TIMES, failed=False).bad)


def judged(
    given: GuardrailProbe,
    text: str,
    call: str,
    ended: str,
) -> tuple[AnswerFault, AnswerFault]:
    endpoint = given.request.endpoint
    signals = given.new_signals()
    assert signals is not None
    whole = parse_object(json.dumps(answer(endpoint, text, call, ended)).encode())
    DIALECTS[endpoint].note_signals(signals, whole)
    events = DIALECTS[endpoint].stream(given.request, None)
    events.listen(given.new_signals)
    events.silence = True
    for chunk in streamed(endpoint, text, call, ended):
        events.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assert not events.failure
    return bad_of(given, signals), bad_of(given, events.signals)


@pytest.mark.parametrize("endpoint", ASKS)
@pytest.mark.parametrize(
    ("text", "call", "ended", "bad"),
    [
        ('{"city": "Bern"}', "", "stop", AnswerFault(0)),
        (
            '{"city": "Be',
            "",
            "length",
            AnswerFault.TRUNCATED | AnswerFault.JSON,
        ),
        ('```json\n{"city": "Bern"}\n```', "", "stop", AnswerFault.JSON),
        ('{"town": "Bern"}', "", "stop", AnswerFault.JSON),
        ("", "", "stop", AnswerFault.JSON),
        ("", "", "content_filter", AnswerFault.REFUSED),
        (
            "I'm sorry, but I can't help with that.",
            "",
            "stop",
            AnswerFault.REFUSED,
        ),
        ("", '{"city": "Bern"}', "stop", AnswerFault(0)),
        ("", '{"town": "Bern"}', "stop", AnswerFault.TOOLS),
    ],
)
def test_an_answer_is_judged_alike_whole_and_streamed(
    route: CompiledRoute,
    endpoint: Endpoint,
    text: str,
    call: str,
    ended: str,
    bad: AnswerFault,
) -> None:
    json_wanted, tools = ASKS[endpoint]
    given = watch(route, {**json_wanted, **tools}, endpoint)

    assert RequestTraits.JSON | RequestTraits.TOOLS in RequestTraits(given.traits)
    assert judged(given, text, call, ended) == (bad, bad)


def test_a_call_of_a_tool_that_was_not_offered_or_that_does_not_parse_is_bad(
    route: CompiledRoute,
) -> None:
    other: dict[str, object] = {"tools": [{"type": "function", "function": {"name": "stay"}}]}

    assert judged(watch(route, other), "", "{}", "tool_calls") == (AnswerFault.TOOLS,) * 2
    cut = AnswerFault.TOOLS | AnswerFault.TRUNCATED
    assert judged(watch(route, CHAT_TOOLS), "", "{oops", "length") == (cut,) * 2
    assert judged(watch(route, CHAT_TOOLS), "no call", "", "stop") == (AnswerFault(0),) * 2


@pytest.mark.parametrize(
    "text",
    [
        "Sorry to hear that. I can't wait to help!",
        "You said: I'm sorry, but I can't help.",
        "I can help with that.",
        "I cannot recommend this enough",
    ],
)
def test_an_answer_that_only_sounds_like_a_refusal_is_none(
    route: CompiledRoute, text: str
) -> None:
    assert judged(watch(route), text, "", "stop") == (
        AnswerFault(0),
        AnswerFault(0),
    )


def test_of_a_huge_answer_little_is_kept_and_its_json_is_not_judged(
    route: CompiledRoute,
) -> None:
    given = watch(route, CHAT_JSON)
    signals = given.new_signals()
    assert signals is not None
    for _ in range(3):
        signals.text(0, "x" * (MAX_KEPT_CHARS // 2))

    assert signals.cut
    assert sum(len(text) for text in signals.texts()) <= MAX_KEPT_CHARS
    assert bad_of(given, signals) == AnswerFault(0)
    modest = watch(route).new_signals()
    assert modest is not None
    modest.text(0, "x" * 10_000)
    assert sum(len(text) for text in modest.texts()) <= 200


def test_the_times_of_a_stream_and_of_a_failure(route: CompiledRoute) -> None:
    given = watch(route, {"stream": True})
    spent = RequestCost(2.0, 0.5, 1.5, 11, 0.25)

    values = given.sample(given.new_signals(), spent, failed=False).values
    assert values == SampleValues(2.0, 0.5, 0.1, 11.0, 0.25)
    failed = given.sample(given.new_signals(), spent, failed=True)
    assert failed == GuardrailSample(SampleValues(), 0)
    hung_up = given.sample(None, spent._replace(first_token_s=None), failed=False).values
    assert (hung_up.time_to_first_token, hung_up.inter_token_latency) == (2.0, 0.0)


def test_what_applies_is_known_before_the_answer(route: CompiledRoute) -> None:
    assert watch(route, {"stream": True}).traits == (
        RequestTraits.WORDS | RequestTraits.STREAMS | RequestTraits.SERVED
    )
    assert watch(route, None, Endpoint.EMBEDDINGS).traits == RequestTraits.SERVED
    assert not watch(route, None, Endpoint.EMBEDDINGS).listens
    priced = {
        id_: replace(upstream, price=route.upstreams[route.route.incumbent].price)
        for id_, upstream in route.upstreams.items()
    }
    assert watch(replace(route, upstreams=priced)).traits & RequestTraits.PRICED
    assert RouteGuardrails.from_route(route, ExposureRule()) is None


def test_json_is_strict_and_calls_may_take_any_text() -> None:
    assert parse_json("[1, 2]") == [1, 2]
    assert not isinstance(parse_json("[NaN]"), list)
    assert not isinstance(parse_json("[1]]"), list)
    assert are_calls_valid([("free", "any { text")], {"free": None})
    assert are_calls_valid([("none", {})], {"none": {}})
