import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.gate.online.guardrails import ArmSplit, ErrorTally, Guardrail
from harness.gate.online.observation import ObservationBlock, TrafficMinute
from harness.routing.settings import RouterSettings
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
from tests.support.router.asgi_router import (
    ASK,
    CHAT,
    Place,
    Script,
    leaving,
)
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    OPTED_OUT_KEY,
    QUICK,
)

# A busy machine's pause of a second is not the end of the request.
PATIENT = replace(QUICK, first_token_timeout_s=0.1, between_chunks_timeout_s=0.3)
# Of the budget something is left for the next target after a silence.
HURRIED = replace(PATIENT, total_timeout_s=3.0)
STREAM = ASK[:-1] + b',"stream":true}'
HTML = ScriptedTurn(
    headers={"content-type": "text/html"},
    steps=(b"<html>Bad gateway</html>",),
)
NAN = ScriptedTurn(steps=(b'{"choices":[{"index":0}],"x":NaN}',))
DEEP = ScriptedTurn(steps=(b'{"choices":' + b"[" * 10_000 + b"]" * 10_000 + b"}",))
EMPTY = ScriptedTurn(steps=(b'{"choices":[]}',))
FAILURES = {
    "500": error(500),
    "503": error(503),
    "529": error(529),
    "429": error(429),
    "401": error(401),
    **{str(status): error(status) for status in (400, 413, 422)},
    "404": error(404, code="model_not_found"),
    "reset": ScriptedTurn(steps=(ScriptedEvent.RESET,)),
    "reset in the body": ScriptedTurn(steps=(b'{"choices":[', ScriptedEvent.RESET)),
    "hang": ScriptedTurn(hang=True),
    "html": HTML,
    "nan": NAN,
    "deep": DEEP,
    "empty choices": EMPTY,
    "no words": completion(""),
    "redirect": ScriptedTurn(302, {"location": "http://127.0.0.1:1/"}),
}
# The classes of those that are not malformed answers.
CLASSES = {
    "500": "server",
    "503": "overloaded",
    "529": "overloaded",
    "429": "rate_limited",
    "401": "our_key",
    **{str(status): "bad_request" for status in (400, 413, 422)},
    "404": "model_unknown: 404 model_not_found",
    "reset": "connect",
    "reset in the body": "connect",
    "hang": "timeout",
    "no words": "empty",
}
LIMITED = {"429": "limited: rate"}
STREAM_FAILURES = {
    "role, then an error": broken_stream(ROLE, b'data: {"error":{"message":"boom"}}\n\n'),
    "role, then the end": broken_stream(ROLE),
    "role, then a false end": broken_stream(ROLE, DONE),
    "role, then a reset": broken_stream(ROLE, ScriptedEvent.RESET),
    "pings, then a hang": broken_stream(b": ping\n\n", ROLE, ScriptedEvent.HANG),
    "an error first": broken_stream(b'data: {"error":{"message":"boom"}}\n\n'),
    "garbage": broken_stream(b"data: {oops}\n\n"),
    "no stream": completion(),
    "500": error(500),
}


class CanaryPlace(Place):
    """Every key is in the canary arm."""

    def __init__(
        self,
        folder: Path,
        candidate: ScriptedTurn,
        incumbent: ScriptedTurn,
        settings: RouterSettings = PATIENT,
    ) -> None:
        script: Script = {CANDIDATE: candidate, INCUMBENT: incumbent}
        super().__init__(folder, script, settings, weight_bps=10_000)

    def books(self) -> tuple[TrafficMinute, ObservationBlock]:
        self.recorder.flush(final=True)
        (row,) = self.kept.traffic
        (block,) = self.kept.blocks.values()
        return row, block

    def charged_units(self) -> tuple[int, int]:
        _, block = self.books()
        return block.canary_units, block.canary_failures


@pytest.mark.spine
@pytest.mark.req("F3", "F4", "A5", "B3")
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_canary_failure_is_answered_by_the_incumbent_and_charged_by_its_class(
    tmp_path: Path, failure: str
) -> None:
    settings = HURRIED if failure == "hang" else PATIENT
    place = CanaryPlace(tmp_path, FAILURES[failure], completion(), settings)

    status, headers = await place.ask()

    assert status == 200
    assert headers[b"x-swapproof-arm"] == b"canary"
    assert headers[b"x-swapproof-target"] == f"up/{INCUMBENT}".encode()
    assert int(headers[b"x-swapproof-attempts"]) >= 2
    row, block = place.books()
    assert (row.arm, row.requests, row.failed, row.charged) == (
        "canary",
        1,
        0,
        1,
    )
    errors = block.counts[Guardrail.ERRORS]
    assert isinstance(errors, ErrorTally)
    if failure in LIMITED:
        # The guardrail of limits reads it, and the guardrail of errors does not.
        assert (block.canary_units, block.canary_failures) == (1, 0)
        assert (errors.classes, errors.unknown) == ({}, ArmSplit(1, 1))
        assert block.outcomes == {LIMITED[failure]: ArmSplit(1, 1)}
        return
    assert (block.canary_units, block.canary_failures) == (1, 1)
    assert errors.classes == {CLASSES.get(failure, "malformed"): ArmSplit(1, 1)}


@pytest.mark.req("F4", "B8")
@pytest.mark.parametrize("failure", STREAM_FAILURES)
async def test_a_canary_stream_that_fails_before_its_first_token_is_answered_by_the_incumbent(
    tmp_path: Path, failure: str
) -> None:
    place = CanaryPlace(tmp_path, STREAM_FAILURES[failure], streamed("whole", "!"))

    _, _, body = await place.call(CHAT, STREAM)

    assert b'"whole"' in body
    assert body.endswith(DONE)
    row, block = place.books()
    assert (row.failed, row.charged, row.streams) == (0, 1, 1)
    assert (block.canary_units, block.canary_failures) == (1, 1)


@pytest.mark.req("F4")
async def test_a_healthy_canary_answers_and_is_not_charged(tmp_path: Path) -> None:
    parts = streamed("a", "b", "c").steps
    slow = broken_stream(*[step for part in parts for step in (part, 0.05)])  # is no stall
    place = CanaryPlace(tmp_path, slow, error(500), QUICK)

    _, headers, body = await place.call(CHAT, STREAM)

    assert body.endswith(DONE)
    assert headers[b"x-swapproof-target"] == f"up/{CANDIDATE}".encode()
    assert place.books()[0].charged == 0
    assert place.charged_units() == (1, 0)


@pytest.mark.req("G3")
async def test_a_key_that_opted_out_meets_the_routes_own_model_and_counts_in_no_block(
    tmp_path: Path,
) -> None:
    place = CanaryPlace(tmp_path, completion(), completion())
    out = (b"authorization", f"Bearer {OPTED_OUT_KEY}".encode())

    _, headers, _ = await place.call(
        CHAT,
        ASK,
        headers=(out,),
    )

    assert headers[b"x-swapproof-arm"] == b"incumbent"
    assert place.asked == {INCUMBENT: 1}
    place.recorder.flush(final=True)
    (block,) = place.kept.blocks.values()
    assert (block.units, block.outcomes) == (0, {})
    assert block.uncounted == {"opt_out": ArmSplit(1, 0)}


@pytest.mark.req("F4", "A5")
async def test_a_request_that_both_reject_charges_nobody(tmp_path: Path) -> None:
    theirs = (
        error(400, "says the candidate"),
        error(400, "says the incumbent"),
    )
    place = CanaryPlace(tmp_path, *theirs)

    status, _, body = await place.call(CHAT, ASK)

    assert (status, json.loads(body)["error"]["message"]) == (
        400,
        "says the incumbent",
    )
    row, _ = place.books()
    assert (row.failed, row.charged) == (0, 0)
    assert place.charged_units() == (1, 0)
    assert place.asked == {CANDIDATE: 1, INCUMBENT: 1}


@pytest.mark.req("A4", "A5")
async def test_when_all_fail_the_error_names_every_attempt_and_stops_the_clients_retries(
    tmp_path: Path,
) -> None:
    script: Script = {
        CANDIDATE: error(500, "sk-secret of the provider"),
        INCUMBENT: error(503),
        FALLBACK: HTML,
    }
    place = Place(
        tmp_path,
        script,
        fallback=True,
        weight_bps=10_000,
    )

    status, headers, body = await place.call(CHAT, ASK)

    told = json.loads(body)["error"]
    assert (status, told["code"]) == (502, "all_targets_failed")
    assert headers[b"x-should-retry"] == b"false"
    assert [(attempt["target"], attempt["failure"]) for attempt in told["attempts"]] == [
        (f"up/{CANDIDATE}", "server"),
        (f"up/{CANDIDATE}", "server"),
        (f"up/{INCUMBENT}", "overloaded"),
        (f"up/{INCUMBENT}", "overloaded"),
        (f"up/{FALLBACK}", "malformed"),
    ]
    assert b"sk-secret" not in body
    assert headers[b"x-swapproof-attempts"] == b"5"
    place.recorder.flush(final=True)
    (row,) = place.kept.traffic
    assert (row.requests, row.failed, row.charged, row.target) == (
        1,
        1,
        1,
        "",
    )


@pytest.mark.req("B8")
@pytest.mark.parametrize("body", [STREAM, ASK], ids=["stream", "plain"])
async def test_a_client_who_leaves_cancels_the_upstream_and_charges_nobody(
    tmp_path: Path, body: bytes
) -> None:
    half = broken_stream(ROLE, event({"content": "half"}), ScriptedEvent.HANG)
    hanging = half if body is STREAM else ScriptedTurn(hang=True)
    place = CanaryPlace(tmp_path, hanging, completion(), QUICK)

    await leaving(place, body)

    assert place.transport.open_replies == 0
    row, _ = place.books()
    assert (row.requests, row.failed, row.charged) == (1, 0, 0)
    assert row.output_tokens == (1 if body is STREAM else 0)
    assert place.charged_units() == (1, 0)
