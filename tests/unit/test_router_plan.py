"""A route as planning sees it, who is charged, and the class of an answer."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.table import Arm
from router.protocols.provider_failures import classify_error, classify_status
from router.snapshot.route_plans import is_arm_charged

F = FailureClass
# Each line: of whom, the status, the body as published, and the class.
REFUSALS: Final[list[dict[str, Any]]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "golden" / "refusals.jsonl")
    .read_text("utf-8")
    .splitlines()
]


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
def test_providers_words_as_they_are_published_say_whose_fault_it_was() -> None:
    wrong = []
    for refusal in REFUSALS:
        body = refusal["body"]
        text = body if isinstance(body, str) else json.dumps(body)
        found = classify_status(refusal["status"], text.encode())
        if found != refusal["class"]:
            wrong.append((refusal["of"], found.value))

    assert len(REFUSALS) > 200
    assert not wrong


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
