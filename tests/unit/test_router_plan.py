import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.failures import FailureClass
from harness.providers.models.capabilities import (
    Capabilities,
    Endpoint,
    Needs,
)
from harness.routing.reliability.breaker import BreakerPolicy, WhenAllOpen
from harness.routing.table import Arm
from router.access.rate_limits import LocalRates
from router.frame.body import read_request
from router.health.target_health import TargetHealth
from router.protocols.provider_failures import (
    classify_error,
    classify_status,
)
from router.recording.shared_files import SharedMarks
from router.request.needs import detect_needs
from router.request.planner import Planner
from router.snapshot.route_plans import is_arm_charged
from router.upstream.translate.provider_errors import aws_error
from tests.support.control.manual_clock import ManualClock
from tests.support.router.live_router import (
    INCUMBENT,
    provider,
    served,
    snapshot,
)

F = FailureClass


def of_a_model(words: str) -> dict[str, Any]:
    said = f"The model returned the following errors: {words}"
    return aws_error(said, "invalid_request_error", "ValidationException")


@pytest.mark.parametrize(
    ("arm", "failures", "expected"),
    [
        (Arm.CANARY, [None], False),
        (Arm.CANARY, [F.SERVER, None], True),
        (Arm.CANARY, [F.SERVER, F.SERVER], True),
        (Arm.CANARY, [F.BAD_REQUEST, None], True),
        (Arm.CANARY, [F.BAD_REQUEST, F.BAD_REQUEST], False),
        (Arm.CANARY, [F.BAD_REQUEST, F.SERVER], False),
        (Arm.CANARY, [F.BAD_REQUEST], False),
        (Arm.INCUMBENT, [F.BAD_REQUEST], False),
        (Arm.INCUMBENT, [F.TIMEOUT, None], True),
        (Arm.INCUMBENT, [F.RATE_LIMITED, F.BAD_REQUEST], True),
        (Arm.INCUMBENT, [], False),
        (Arm.CANARY, [F.CANCELLED], False),
        (Arm.CANARY, [F.UNSUPPORTED, None], True),
        (Arm.CANARY, [F.BLOCKED, None], True),
        # A conversation brought it along from the incumbent.
        (Arm.CANARY, [F.FOREIGN_STATE, None], False),
    ],
)
@pytest.mark.req("F4")
def test_the_assigned_arm_is_charged_whatever_answered(
    arm: Arm,
    failures: list[FailureClass | None],
    *,
    expected: bool,
) -> None:
    assert is_arm_charged(arm, failures) is expected


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # OpenAI's of a response, vLLM, Anthropic, OpenRouter, Google
        (
            {"code": "image_parse_error", "message": "not an image"},
            F.BAD_REQUEST,
        ),
        ({"code": "invalid_prompt", "message": "flagged"}, F.CONTENT_POLICY),
        (
            {
                "type": "BadRequestError",
                "code": 400,
                "message": "no such role",
            },
            F.BAD_REQUEST,
        ),
        (
            {"type": "invalid_request_error", "message": "an odd image"},
            F.BAD_REQUEST,
        ),
        ({"code": 429, "message": "Rate limited upstream"}, F.RATE_LIMITED),
        (
            {
                "code": 503,
                "status": "UNAVAILABLE",
                "message": "try later",
            },
            F.OVERLOADED,
        ),
        ({"code": 7, "message": "what is this"}, F.MALFORMED),
        # AWS, whose models may have a server of their own.
        (of_a_model("`temperature` is deprecated for this model."), F.UNSUPPORTED),
        (
            of_a_model('{"error": {"code": "unknown_parameter", "message": "No model `a`"}}'),
            F.UNSUPPORTED,
        ),
        # TGI, Ollama
        (
            "Input validation error: `inputs` must have less than 1024 tokens",
            F.CONTEXT_WINDOW,
        ),
        ("Model is overloaded", F.OVERLOADED),
        ("what is this", F.MALFORMED),
    ],
)
def test_an_error_in_an_answer_that_began_well_is_whose_fault_it_says(
    error: object, expected: FailureClass
) -> None:
    assert classify_error(error) is expected


@given(st.integers(300, 599), st.binary(max_size=50))
def test_any_answer_has_a_class(status: int, body: bytes) -> None:
    assert isinstance(classify_status(status, body), FailureClass)
    assert isinstance(classify_status(status, b"[" * 100_000), FailureClass)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}
PICTURE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64," + "A" * 9000},
}
SOUND = {
    "type": "input_audio",
    "input_audio": {"data": "A" * 9000, "format": "wav"},
}
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
jsons = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "content", "text", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def needs(endpoint: Endpoint = Endpoint.CHAT, **fields: Any) -> Needs:
    return detect_needs(read_request(json.dumps({"model": "m", **fields}).encode(), endpoint))


def user_messages(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.req("A4", "B7")
def test_what_is_asked_for_is_needed_and_nothing_else() -> None:
    assert needs() == Needs()
    assert needs(tools=[TOOL]).tools
    assert needs(functions=[TOOL]).tools
    assert not needs(tools=[]).tools
    assert needs(tools=[TOOL], parallel_tool_calls=True).parallel_tools
    assert not needs(tools=[TOOL], parallel_tool_calls=False).parallel_tools
    assert not needs(tools=[TOOL]).parallel_tools
    assert needs(response_format=SCHEMA).json_schema
    assert not needs(response_format={"type": "json_object"}).json_schema
    assert needs(text={"format": SCHEMA}).json_schema
    assert needs(messages=user_messages(PICTURE)).vision
    assert not needs(messages=user_messages(SOUND)).vision
    assert needs(stream=True).stream


@pytest.mark.req("A4")
def test_tokens_are_those_of_the_text_and_no_pictures() -> None:
    text = {"type": "text", "text": "word " * 400}

    alone = needs(messages=user_messages(text)).approx_input_tokens
    assert 500 <= alone <= 510
    with_data = needs(messages=user_messages(text, PICTURE, SOUND)).approx_input_tokens
    assert with_data == alone
    assert needs(max_tokens=7).max_output_tokens == 7
    assert needs(max_tokens=7, max_completion_tokens=9).max_output_tokens == 9
    assert needs(max_tokens=True).max_output_tokens == 0
    assert needs(max_tokens=-5).max_output_tokens == 0


def test_of_many_texts_to_embed_the_longest_must_fit() -> None:
    wanted = needs(Endpoint.EMBEDDINGS, input=["a" * 400, "b" * 40])

    assert wanted == Needs(Endpoint.EMBEDDINGS, approx_input_tokens=100)
    assert needs(Endpoint.EMBEDDINGS, input="a" * 400) == wanted
    assert needs(Endpoint.EMBEDDINGS, input=[]).tokens == 0


def test_where_nothing_is_configured_the_ready_plan_is_taken_as_it_is() -> None:
    planner = Planner(
        TargetHealth(BreakerPolicy(), lambda: 0.0, LocalRates(), SharedMarks(b"s")),
        ManualClock(),
        WhenAllOpen.TRY,
        SharedMarks(b"s"),
    )
    body = json.dumps(
        {
            "model": "support",
            "tools": [TOOL],
            "messages": user_messages(PICTURE),
        }
    ).encode()
    request = read_request(body, Endpoint.CHAT)

    def planned(models: dict[str, Capabilities]) -> tuple[bool, tuple[str, ...]]:
        first = snapshot("http://up", providers=[provider("http://up", models=models)])
        route = served(first).routes["support"]
        plan = planner.plan(route, Arm.INCUMBENT, request)
        return plan is route.plans[Endpoint.CHAT][Arm.INCUMBENT], plan.targets

    (own,) = planned({})[1]
    assert planned({}) == (True, (own,))
    assert planned({INCUMBENT: Capabilities(stream=False)}) == (True, (own,))
    assert planned({INCUMBENT: Capabilities(vision=False)}) == (False, ())


@given(
    st.dictionaries(
        st.sampled_from(["messages", "tools", "max_tokens", "response_format", "text"]),
        jsons,
    )
)
def test_any_json_has_needs_and_the_estimate_is_no_more_than_its_bytes(
    fields: dict[str, Any],
) -> None:
    body = json.dumps({"model": "m", **fields}, ensure_ascii=False)
    size = len(body.encode("utf-8", "surrogatepass"))

    assert needs(**fields).approx_input_tokens <= size // 4
