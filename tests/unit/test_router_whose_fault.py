import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.frame.failures import describe_failures
from harness.gate.online.guardrails import ErrorTally, Guardrail
from router.frame.failure import read_code, read_place
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Place, Script, code
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT

MESSAGES = "/v1/messages"
MESSAGE = ASK[:-1] + b',"max_tokens":9}'
PAGE = b"<html><head><title>Access denied</title></head></html>"
FIREWALL = ScriptedTurn(403, {"content-type": "text/html"}, (PAGE,))
TOO_LONG = "This model's maximum context length is 4096 tokens. However, you asked for 5000."


def read_error(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)["error"]
    return found


@pytest.mark.req("A5", "B4")
async def test_a_firewalls_page_for_one_caller_leaves_key_and_circuit_alone(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {INCUMBENT: FIREWALL}, more_keys=("UP_KEY_2",))

    sticky = (b"x-swapproof-sticky", b"always the same")
    for _ in range(10):
        status, headers, body = await place.call(
            CHAT,
            ASK,
            headers=(AUTH, sticky),
        )

    assert (status, code(body)) == (403, "blocked")
    assert "Access denied" in read_error(body)["message"]
    assert headers[b"x-should-retry"] == b"false"
    # No other key is tried with it.
    assert place.asked[INCUMBENT] == 10
    assert await place.state() == 0
    assert place.kept.alerts == []


@pytest.mark.req("A5", "B4")
async def test_a_firewall_that_refuses_several_callers_in_a_row_opens_the_circuit(
    tmp_path: Path,
) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: FIREWALL, FALLBACK: completion()},
        fallback=True,
    )

    await place.ask(times=2)
    place.script[INCUMBENT] = completion()
    await place.ask()
    place.script[INCUMBENT] = FIREWALL
    await place.ask(times=2)
    assert await place.state() == 0

    assert (await place.ask())[0] == 200
    assert await place.state() == 2


@pytest.mark.req("A5", "B4")
@pytest.mark.parametrize("status", [404, 405, 501])
async def test_an_endpoint_that_a_target_lacks_is_asked_of_the_next_and_closes_nothing(
    tmp_path: Path, status: int
) -> None:
    lacking = ScriptedTurn(status=status, steps=(b'{"detail":"Not Found"}',))
    place = Place(tmp_path, {INCUMBENT: lacking, FALLBACK: completion()}, fallback=True)

    assert (await place.ask(times=6))[0] == 200
    assert place.asked == {INCUMBENT: 6, FALLBACK: 6}
    assert await place.state() == 0
    assert place.kept.alerts == []

    place.script[FALLBACK] = lacking
    given, _, body = await place.call(CHAT, ASK)
    assert (given, code(body)) == (
        404 if status == 404 else 422,
        "endpoint_missing",
    )


@pytest.mark.req("A5", "B4")
async def test_what_a_provider_never_stored_is_the_clients_own_in_the_providers_words(
    tmp_path: Path,
) -> None:
    place = Place(
        tmp_path,
        {
            INCUMBENT: error(404, "Response with id 'r_9' not found."),
            FALLBACK: completion(),
        },
        fallback=True,
    )

    status, headers, body = await place.call(CHAT, ASK)

    assert (status, read_error(body)["message"]) == (
        404,
        "Response with id 'r_9' not found.",
    )
    assert headers[b"x-should-retry"] == b"false"
    assert place.asked == {INCUMBENT: 1}
    assert await place.state() == 0


@pytest.mark.req("A5", "F4")
async def test_a_canary_is_not_charged_with_what_another_provider_had_made(
    tmp_path: Path,
) -> None:
    gone = error(404, "Item with id 'i_1' not found.")
    place = Place(
        tmp_path,
        {INCUMBENT: completion(), CANDIDATE: gone},
        weight_bps=10_000,
    )

    status, headers = await place.ask(ASK[:-1] + b',"file_id":"i_1"}', times=5)

    assert (status, headers[b"x-swapproof-arm"]) == (200, b"canary")
    assert await place.state(CANDIDATE) == 0
    place.recorder.flush(final=True)
    (row,) = place.kept.traffic
    assert (row.requests, row.charged) == (5, 0)


@pytest.mark.req("B5", "F4")
async def test_a_refusals_code_and_place_explain_a_canary_and_its_sentence_is_kept_redacted(
    tmp_path: Path,
) -> None:
    said = {
        "message": "tools[3]: ask a.person@example.org, you sent "
        "'a text of a client that no log may ever repeat'",
        "code": "invalid_function_parameters",
        "param": "tools[3].function.parameters.properties.salary",
    }
    refusal = ScriptedTurn(400, steps=(json.dumps({"error": said}).encode(),))
    place = Place(
        tmp_path,
        {INCUMBENT: completion(), CANDIDATE: refusal},
        weight_bps=10_000,
    )

    await place.ask(times=5)
    place.recorder.flush(final=True)

    (row, *_) = place.kept.failovers
    assert (row.status, row.code, row.place) == (
        400,
        said["code"],
        "tools[3]",
    )
    assert row.sentence == "tools[3]: ask [EMAIL_1], you sent '…'"
    (block, *_) = place.kept.blocks.values()
    errors = block.counts[Guardrail.ERRORS]
    assert isinstance(errors, ErrorTally)
    (cause,) = errors.classes
    assert cause == "unsupported: 400 invalid_function_parameters at tools[3]"
    assert describe_failures({cause: 5}) == f"5 {cause.replace('bad_request', 'bad request')}"


@pytest.mark.req("B5", "B10")
async def test_the_alert_of_a_circuit_has_the_words_that_opened_it(tmp_path: Path) -> None:
    refusal = error(404, "The model `m` does not exist", code="model_not_found")
    place = Place(tmp_path, {INCUMBENT: refusal, FALLBACK: completion()}, fallback=True)

    await place.ask()
    place.recorder.flush(final=True)

    (alert,) = place.kept.alerts
    assert alert.text.endswith(
        "Its provider said (404 model_not_found): The model `m` does not exist"
    )


@pytest.mark.req("B5")
@pytest.mark.parametrize(
    ("body", "code", "where"),
    [
        (
            {"param": "messages[3].content[0].image_url"},
            "",
            "messages[3].content[0]",
        ),
        (
            {"param": "metadata.salary", "code": "unknown_name"},
            "unknown_name",
            "metadata",
        ),
        (
            {
                "type": "invalid_request_error",
                "message": "tools.2.input_schema: no schema",
            },
            "invalid_request_error",
            "tools.2",
        ),
        (
            {
                "code": 400,
                "status": "INVALID_ARGUMENT",
                "details": [{"fieldViolations": [{"field": "tools[0].declarations[4].name"}]}],
            },
            "INVALID_ARGUMENT",
            "tools[0].declarations[4]",
        ),
        ({"code": "you said hello", "message": "Hello: who is it"}, "", ""),
    ],
    ids=["param", "map", "anthropic", "google", "words"],
)
def test_a_refusals_place_ends_before_a_clients_own_names(
    body: dict[str, object],
    code: str,
    where: str,
) -> None:
    assert (read_code(body), read_place(body)) == (code, where)


@pytest.mark.req("A5")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":"no images here"}', "no images here"),
        (
            b'{"object":"error","message":"no images here","code":400}',
            "no images here",
        ),
        (b'[{"error":{"message":"no images here"}}]', "no images here"),
        (
            b'{"detail":[{"loc":["body","top_k"],"msg":"too low"}]}',
            "too low",
        ),
    ],
    ids=["ollama", "vllm", "google", "fastapi"],
)
async def test_a_refusal_in_another_shape_reaches_the_client_in_its_own_protocols(
    tmp_path: Path,
    body: bytes,
    message: str,
) -> None:
    refusal = ScriptedTurn(400, {"content-type": "application/json"}, (body,))
    place = Place(tmp_path, {INCUMBENT: refusal})

    status, _, answer = await place.call(CHAT, ASK)

    found = read_error(answer)
    assert status == 400
    assert message in found["message"]
    assert (found["type"], found["code"]) == (
        "invalid_request_error",
        code(answer),
    )


@pytest.mark.req("F2", "F4")
async def test_a_circuit_that_the_candidate_opened_makes_its_assigned_requests_failures(
    tmp_path: Path,
) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: completion(), CANDIDATE: error(500)},
        weight_bps=5_000,
    )

    await place.ask(times=60)

    place.recorder.flush(final=True)
    blocks = place.kept.blocks.values()
    assert place.asked[CANDIDATE] == 5  # then its circuit opens
    failed = sum(block.canary_failures for block in blocks)
    assert failed == sum(block.canary_units for block in blocks) > 15
    assert sum(block.units for block in blocks) == 60
    assert not any(block.uncounted for block in blocks)


@pytest.mark.req("F2", "F4")
@pytest.mark.parametrize("limited", [CANDIDATE, INCUMBENT], ids=["candidate", "incumbent"])
async def test_a_pause_that_a_provider_asks_for_counts_in_neither_arm(
    tmp_path: Path, limited: str
) -> None:
    pause = ScriptedTurn(
        429,
        {"retry-after": "500"},
        steps=(b'{"error": {"message": "slow"}}',),
    )
    script: Script = {
        **dict.fromkeys((INCUMBENT, CANDIDATE, FALLBACK), completion()),
        limited: pause,
    }
    place = Place(
        tmp_path,
        script,
        fallback=True,
        weight_bps=5_000,
    )

    await place.ask(times=60)

    place.recorder.flush(final=True)
    blocks = place.kept.blocks.values()
    assert sum(block.failures for block in blocks) == 0
    assigned = [key for block in blocks for key in block.assigned_outcomes]
    assert set(assigned) - {"answered"} == {
        "limited: rate",
        "not_sent: pause",
        "not_measured: other_held",
    }
    sums = Counter[str]()
    for block in blocks:
        for key, split in block.assigned_outcomes.items():
            sums[key] += split.failures
    assert sum(sums.values()) == sum(block.assigned.failures for block in blocks) == 60
    # Each arm has its keys' share of them.
    ratio = sums["not_sent: pause"] / sums["not_measured: other_held"]
    assert 0.4 < ratio < 2.5


@pytest.mark.req("A5")
async def test_what_another_target_may_take_is_asked_of_it_and_else_said_in_the_providers_words(
    tmp_path: Path,
) -> None:
    refusal = error(500, "image input is not supported - hint: load a projector")
    place = Place(tmp_path, {INCUMBENT: refusal, FALLBACK: completion()}, fallback=True)

    assert (await place.ask())[0] == 200
    place.script[FALLBACK] = refusal
    status, _, body = await place.call(CHAT, ASK)

    assert status == 422
    assert "load a projector" in read_error(body)["message"]
    assert await place.state() == 0


@pytest.mark.req("A5")
async def test_a_prompt_that_is_too_long_is_said_so_that_each_protocols_clients_shorten_it(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {INCUMBENT: error(400, TOO_LONG)})

    _, _, body = await place.call(CHAT, ASK)
    assert code(body) == "context_length_exceeded"
    assert read_error(body)["message"] == TOO_LONG

    status, _, body = await place.call(MESSAGES, MESSAGE)
    assert status == 400
    assert read_error(body)["message"] == "prompt is too long: 5000 tokens > 4096 maximum"


@pytest.mark.req("A5")
async def test_words_about_the_request_stand_in_the_error_that_none_answered_and_no_others(
    tmp_path: Path,
) -> None:
    place = Place(
        tmp_path,
        {
            INCUMBENT: error(400, "tools are not supported", code="unsupported_value"),
            FALLBACK: error(500, "disk of host db-7 is full"),
        },
        fallback=True,
    )

    _, _, body = await place.call(CHAT, ASK)

    refused, *failed = read_error(body)["attempts"]
    assert refused["message"] == "tools are not supported (unsupported_value)"
    assert {attempt["message"] for attempt in failed} == {None}
    assert "tools are not supported" in read_error(body)["message"]
    assert "db-7" not in body.decode()


@pytest.mark.req("A4", "B7")
async def test_what_a_target_that_is_down_keeps_is_not_denied_by_the_next_one(
    tmp_path: Path,
) -> None:
    unknown = error(
        400,
        "Previous response 'r' not found.",
        "previous_response_not_found",
    )
    place = Place(tmp_path, {INCUMBENT: error(503), FALLBACK: unknown}, fallback=True)

    status, _ = await place.ask()

    assert status >= 500
    assert place.asked[FALLBACK] == 1
