"""A route as planning sees it, who is charged, and the class of an answer."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Needs
from harness.domain.routing.plan import PlanContext, plan_request
from harness.domain.routing.table import Arm, Canary, Route, RouteSettings, Stakes
from router.protocols.provider_failures import classify_error, classify_status
from router.snapshot.route_plans import is_arm_charged, route_targets

F = FailureClass
# Each line: of whom, the status, the body as published, and the class.
REFUSALS: Final[list[dict[str, Any]]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "golden" / "refusals.jsonl")
    .read_text("utf-8")
    .splitlines()
]


@pytest.mark.req("A4")
@pytest.mark.parametrize("stakes", Stakes)
def test_the_plan_is_the_arm_the_incumbent_and_the_fallbacks_that_the_stakes_allow(
    stakes: Stakes,
) -> None:
    route = Route(
        "r",
        1,
        "inc",
        Canary("can", 100, "s", "r-1"),
        ("spare", "last"),
        RouteSettings(stakes=stakes, capable=("last",)),
    )
    targets = route_targets(route)

    def plan(arm: Arm) -> tuple[str, ...]:
        return plan_request(targets, arm, Needs(), PlanContext()).targets

    chain = ("spare", "last") if stakes is Stakes.LOW else ("last",)
    assert plan(Arm.CANARY) == ("can", "inc", *chain)
    assert plan(Arm.INCUMBENT) == ("inc", *chain)


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
    arm: Arm, failures: list[FailureClass | None], *, expected: bool
) -> None:
    assert is_arm_charged(arm, failures) is expected


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (429, None, F.RATE_LIMITED),
        (429, "insufficient_quota", F.QUOTA),
        (402, None, F.QUOTA),
        (403, None, F.QUOTA),
        (401, "invalid_api_key", F.OUR_KEY),
        (503, None, F.OVERLOADED),
        (529, None, F.OVERLOADED),
        (500, None, F.SERVER),
        (502, None, F.SERVER),
        (504, None, F.SERVER),
        (408, None, F.TIMEOUT),
        (400, None, F.BAD_REQUEST),
        (413, None, F.UNSUPPORTED),
        (415, None, F.BAD_REQUEST),
        (422, "context_length_exceeded", F.CONTEXT_WINDOW),
        (400, "context_length_exceeded", F.CONTEXT_WINDOW),
        (400, "content_policy_violation", F.CONTENT_POLICY),
        (400, "model_not_found", F.MODEL_UNKNOWN),
        (404, None, F.FOREIGN_STATE),
        (405, None, F.ENDPOINT_MISSING),
        (501, None, F.ENDPOINT_MISSING),
        (302, None, F.MALFORMED),
    ],
)
def test_an_answer_has_the_class_of_the_table(
    status: int, code: str | None, expected: FailureClass
) -> None:
    body = json.dumps({"error": {"message": "m", "code": code, "type": None}}).encode()

    assert classify_status(status, body) is expected


@pytest.mark.parametrize(
    "body",
    [
        # OpenAI and vLLM, older versions of vLLM, llama.cpp
        {"error": {"message": "This model's maximum context length is 9 tokens.", "code": 400}},
        {"object": "error", "message": "This model's maximum context length is 9", "code": 400},
        {
            "error": {
                "message": "the request exceeds the available context size",
                "type": "exceed_context_size_error",
            }
        },
    ],
)
def test_a_full_context_window_is_known_by_the_servers_words(body: dict[str, object]) -> None:
    assert classify_status(400, json.dumps(body).encode()) is F.CONTEXT_WINDOW


def test_words_about_our_account_are_believed_in_anthropics_errors_alone() -> None:
    error = {"message": "role 'credit balance is too low' is unknown", "type": "BadRequest"}

    assert classify_status(400, json.dumps({"error": error}).encode()) is F.BAD_REQUEST


def test_input_that_a_moderation_flagged_is_the_clients_and_not_our_keys() -> None:
    metadata = {"reasons": ["violence"], "flagged_input": "I will ...", "provider_name": "p"}
    error = {"code": 403, "message": "Your input was flagged", "metadata": metadata}

    assert classify_status(403, json.dumps({"error": error}).encode()) is F.CONTENT_POLICY
    coded = {"error": {"code": "content_filter", "message": "no"}}
    assert classify_status(403, json.dumps(coded).encode()) is F.CONTENT_POLICY
    plain = {"error": {"code": 403, "message": "this key may not"}}
    assert classify_status(403, json.dumps(plain).encode()) is F.QUOTA


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # About the model: vLLM, Ollama, Google, Azure, DeepSeek, OpenRouter
        (404, {"object": "error", "message": "The model `x` does not exist."}, F.MODEL_UNKNOWN),
        (404, {"error": "model 'x' not found"}, F.MODEL_UNKNOWN),
        (404, {"error": {"message": "models/x is not found for API v1"}}, F.MODEL_UNKNOWN),
        (404, {"error": {"code": "DeploymentNotFound", "message": "-"}}, F.MODEL_UNKNOWN),
        (400, {"error": {"message": "Model Not Exist"}}, F.MODEL_UNKNOWN),
        (404, {"error": {"message": "No endpoints found for a/b."}}, F.MODEL_UNKNOWN),
        # About the endpoint: FastAPI, Groq, llama.cpp, OpenAI
        (404, {"detail": "Not Found"}, F.ENDPOINT_MISSING),
        (404, {"error": {"message": "Unknown request URL: POST /v1/x"}}, F.ENDPOINT_MISSING),
        (404, {"error": {"message": "File Not Found", "code": 404}}, F.ENDPOINT_MISSING),
        (404, {"error": {"message": "This is not a chat model"}}, F.ENDPOINT_MISSING),
        (404, {"error": {"message": "Only supported in v1/responses"}}, F.ENDPOINT_MISSING),
        (501, {"error": {"message": "No embeddings; start it so"}}, F.ENDPOINT_MISSING),
        # About something that the request names
        (404, {"error": {"message": "Response with id 'r_1' not found."}}, F.FOREIGN_STATE),
        (404, {"error": {"message": "Item 'the model x is not found'"}}, F.FOREIGN_STATE),
        (400, {"error": {"code": "invalid_encrypted_content"}}, F.FOREIGN_STATE),
        (404, {"error": {"message": "File not found: file_7"}}, F.FOREIGN_STATE),
        # Something that another target may take
        (500, {"error": {"message": "image input is not supported"}}, F.UNSUPPORTED),
        (400, {"error": {"code": "unsupported_value", "param": "seed"}}, F.UNSUPPORTED),
        (400, {"error": {"message": "max_tokens: 9 > 8, the maximum"}}, F.UNSUPPORTED),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["seed"]}]}, F.UNSUPPORTED),
        (403, {"error": {"code": "unsupported_country_region_territory"}}, F.REGION),
    ],
)
def test_a_status_counts_only_with_its_body(
    status: int, body: dict[str, object], expected: FailureClass
) -> None:
    assert classify_status(status, json.dumps(body).encode()) is expected


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize("body", [b"", b"<html>403 Forbidden</html>", b"{}"])
def test_a_page_of_something_before_the_provider_says_nothing_of_key_and_account(
    body: bytes,
) -> None:
    assert classify_status(403, body) is F.BLOCKED
    assert classify_status(401, body) is F.BLOCKED
    assert classify_status(404, body) is F.ENDPOINT_MISSING


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize("refusal", REFUSALS, ids=[refusal["of"] for refusal in REFUSALS])
def test_providers_words_as_they_are_published_say_whose_fault_it_was(
    refusal: dict[str, Any],
) -> None:
    body = refusal["body"]
    text = body if isinstance(body, str) else json.dumps(body)

    assert classify_status(refusal["status"], text.encode()) == refusal["class"]


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # OpenAI's of a response, vLLM, Anthropic, OpenRouter, Google
        ({"code": "image_parse_error", "message": "not an image"}, F.BAD_REQUEST),
        ({"code": "invalid_prompt", "message": "flagged"}, F.CONTENT_POLICY),
        ({"type": "BadRequestError", "code": 400, "message": "no such role"}, F.BAD_REQUEST),
        ({"type": "invalid_request_error", "message": "an odd image"}, F.BAD_REQUEST),
        ({"code": 429, "message": "Rate limited upstream"}, F.RATE_LIMITED),
        ({"code": 503, "status": "UNAVAILABLE", "message": "try later"}, F.OVERLOADED),
        ({"code": 7, "message": "what is this"}, F.MALFORMED),
    ],
)
def test_an_error_in_an_answer_that_began_well_is_whose_fault_it_says(
    error: dict[str, object], expected: FailureClass
) -> None:
    assert classify_error(error) is expected


@given(st.integers(300, 599), st.binary(max_size=50))
def test_any_answer_has_a_class(status: int, body: bytes) -> None:
    assert isinstance(classify_status(status, body), FailureClass)
    assert isinstance(classify_status(status, b"[" * 100_000), FailureClass)
