"""`POST /v1/feedback`: what callers say of answers; and a route as a flag, by OFREP."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from harness.gate.online.guardrails import (
    ArmSplit,
    ErrorTally,
    ExposureRule,
    FeedbackTally,
    Guardrail,
    Guardrails,
)
from router.observers.otlp_outcomes import MOST_OUTCOMES, PROTOBUF
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.live_router import NARROW_KEY, snapshot

pytestmark = pytest.mark.req("A1", "F3")
SIZE = 6
RULE = ExposureRule(block_size=SIZE, guardrails=Guardrails().tolerated())
FEEDBACK = "/v1/feedback"
JSON_TYPE = b"application/json"


class FeedbackAnswer(NamedTuple):
    status: int
    body: Any

    @property
    def error(self) -> Any:
        return self.body["error"]


class World(Door):
    """Every caller is in the canary arm of `support`; `other` has no canary."""

    def __init__(self, folder: Path, rule: ExposureRule = RULE) -> None:
        super().__init__(folder, first=snapshot("http://up", weight_bps=10_000, rule=rule))
        self.callers = 0

    async def ask(self, route: str = "support") -> str:
        self.callers += 1
        said = [{"role": "user", "content": "hi"}]
        body = {
            "model": route,
            "messages": said,
            "user": f"user-{self.callers}",
        }
        status, headers, _ = await self.call(CHAT, json.dumps(body).encode())
        assert status == 200
        return headers[b"x-swapproof-request-id"].decode()

    async def post(self, body: object, key: tuple[bytes, bytes] = AUTH) -> FeedbackAnswer:
        status, _, answer = await self.call(
            FEEDBACK,
            json.dumps(body).encode(),
            headers=(key,),
        )
        return FeedbackAnswer(status, json.loads(answer))

    async def say(self, request_id: str, **opinion: object) -> FeedbackAnswer:
        return await self.post({"request_id": request_id, **opinion})

    async def counted(self) -> list[str]:
        _, _, text = await self.call("/metrics", method="GET")
        lines = text.decode().splitlines()
        return [line for line in lines if line.startswith("swapproof_feedback_total")]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_bad_feedback_counts_against_the_canary_as_long_as_other_outcomes(
    world: World,
) -> None:
    ids = [await world.ask() for _ in range(SIZE - 1)]
    bad = await world.say(ids[0], thumb="down", label="wrong")
    await world.say(ids[0], thumb="down")  # a second word of one request counts once
    low = await world.say(ids[1], score=0.2)
    high = await world.say(ids[2], score=0.9)
    words = await world.say(ids[3], label="tone")
    await world.ask()
    world.recorder.flush()
    world.clock.advance(RULE.missing_s - 1)
    world.recorder.flush()
    assert [block.late_of for block in world.kept.blocks.values()] == [0]
    world.clock.advance(2)
    late = await world.say(ids[4], thumb="down")

    answers = (bad, low, high, words, late)
    assert [answer.status for answer in answers] == [200, 200, 200, 202, 202]
    assert bad.body["counted"] is True
    assert (words.body["outcome"], late.body["outcome"]) == (
        "not_scored",
        "late",
    )
    world.recorder.flush()
    block, heard = world.kept.blocks.values()
    assert Guardrail.FEEDBACK not in block.counts
    assert (heard.late_of, heard.units, heard.counted) == (block.sequence, 0, (SIZE, SIZE))
    assert heard.counts[Guardrail.FEEDBACK] == FeedbackTally(SIZE, SIZE, 2, 2, ArmSplit(3, 3))
    series = (
        'swapproof_feedback_total{arm="canary",label="wrong",route="support",verdict="bad"}'
    )
    assert f"{series} 1.0" in await world.counted()


async def test_without_a_canary_feedback_is_in_the_metrics_alone(world: World) -> None:
    told = await world.say(await world.ask("other"), thumb="up")

    assert (told.status, told.body["outcome"]) == (202, "not_scored")
    (line,) = await world.counted()
    assert 'route="other"' in line
    assert 'verdict="good"' in line


async def test_nobody_speaks_of_another_keys_request_and_no_one_of_an_unknown_one(
    world: World,
) -> None:
    own = {"request_id": await world.ask(), "thumb": "down"}
    narrow = b"authorization", f"Bearer {NARROW_KEY}".encode()
    for answer in (
        await world.post(own, narrow),
        await world.say("req_gone-1", thumb="up"),
        await world.say("x", score=1),
    ):
        assert (answer.status, answer.error["code"]) == (
            404,
            "request_not_found",
        )
    assert (await world.post({}, (b"authorization", b"Bearer none"))).status == 401
    assert await world.counted() == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "request_id"),
        ({"request_id": "r"}, None),
        ({"request_id": 7, "thumb": "up"}, "request_id"),
        ({"request_id": "r", "thumb": "sideways"}, "thumb"),
        ({"request_id": "r", "score": 1.5}, "score"),
        ({"request_id": "r", "score": True}, "score"),
        ({"request_id": "r", "label": "x" * 65}, "label"),
        ({"request_id": "r", "label": "a\nb"}, "label"),
        ({"request_id": "r", "thumbs": "up"}, "thumbs"),
    ],
)
async def test_feedback_that_is_none_is_refused_with_the_field(
    world: World,
    body: dict[str, object],
    param: str | None,
) -> None:
    answer = await world.post(body)

    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == (
        "invalid_feedback",
        param,
    )


async def test_feedback_is_small_and_has_one_method(world: World) -> None:
    assert (await world.say("r", score=float("nan"))).status == 400
    assert (await world.say("r", label="x" * 20_000)).status == 413
    assert (await world.call(FEEDBACK, method="GET"))[0] == 405


async def test_a_rollout_without_this_guardrail_does_not_count_feedback(tmp_path: Path) -> None:
    world = World(tmp_path, replace(RULE, guardrails={Guardrail.LATENCY: 1.25}))

    assert (await world.say(await world.ask(), thumb="down")).body["outcome"] == "not_scored"


FLAGS = "/ofrep/v1/evaluate/flags"
X_API_KEY = (b"x-api-key", AUTH[1].removeprefix(b"Bearer "))


async def evaluate(
    world: World,
    flag: str,
    body: object,
    key: tuple[bytes, bytes] = AUTH,
) -> tuple[int, Any]:
    path = f"{FLAGS}/{flag}" if flag else FLAGS
    status, _, answer = await world.call(
        path,
        json.dumps(body).encode(),
        headers=(key,),
    )
    return status, json.loads(answer)


def context(caller: object) -> dict[str, object]:
    return {"context": {"targetingKey": caller, "plan": "pro"}}


@pytest.mark.parametrize("key", [AUTH, X_API_KEY], ids=["bearer", "x-api-key"])
async def test_a_flag_has_the_model_and_the_arm_that_a_chat_of_its_caller_gets(
    world: World, key: tuple[bytes, bytes]
) -> None:
    status, flag = await evaluate(
        world,
        "support",
        context("ann"),
        key,
    )
    said = json.dumps({"model": "support", "messages": [{"role": "user", "content": "hi"}]})
    sticky = (AUTH, (b"x-swapproof-sticky", b"ann"))
    _, headers, _ = await world.call(
        CHAT,
        said.encode(),
        headers=sticky,
    )

    assert status == 200
    assert flag["key"] == "support"
    assert (flag["variant"], flag["reason"]) == ("canary", "SPLIT")
    assert flag["variant"] == headers[b"x-swapproof-arm"].decode()
    assert flag["metadata"]["target"] == headers[b"x-swapproof-target"].decode()
    assert flag["metadata"]["target"].endswith(f"/{flag['value']}")
    assert {"revision", "rollout", "request_id"} < set(flag["metadata"])


async def test_feedback_is_the_outcome_of_an_evaluation_and_without_it_the_outcome_is_missing(
    world: World,
) -> None:
    flags = [
        (await evaluate(world, "support", context(f"user-{number}")))[1]
        for number in range(SIZE)
    ]
    again = (await evaluate(world, "support", context("user-0")))[1]
    bulk = (await evaluate(world, "", context("user-of-bulk")))[1]["flags"]
    said = [
        await world.say(flag["metadata"]["request_id"], thumb=thumb)
        for flag, thumb in zip([*flags[:3], again], ["down", "up", "up", "down"], strict=True)
    ]
    world.recorder.flush()
    assert not world.kept.blocks  # it waits for the other outcomes
    world.clock.advance(RULE.missing_s + 1)
    world.recorder.flush()
    late = await world.say(flags[3]["metadata"]["request_id"], thumb="up")

    # A caller counts once a day, and what is fetched ahead of use is no exposure.
    outcomes = [answer.body["outcome"] for answer in (*said, late)]
    assert outcomes == [
        "counted",
        "counted",
        "counted",
        "not_scored",
        "late",
    ]
    assert all("request_id" not in flag["metadata"] for flag in bulk)
    block, _ = world.kept.blocks.values()  # the second one has the feedback
    assert (block.units, block.failures, block.missing) == (SIZE, 4, 3)
    errors = block.counts[Guardrail.ERRORS]
    assert isinstance(errors, ErrorTally)
    assert errors.classes == {
        "bad_feedback": ArmSplit(1, 1),
        "missing": ArmSplit(3, 3),
    }


def flag_span(
    context_id: str,
    *,
    code: int,
    inside: bool = True,
) -> dict[str, object]:
    given = {
        "feature_flag.key": "support",
        "feature_flag.context.id": context_id,
    }
    pairs = [{"key": key, "value": {"stringValue": value}} for key, value in given.items()]
    event = {"name": "feature_flag.evaluation", "attributes": pairs}
    noted = {"events": [event]} if inside else {"attributes": pairs}
    return {
        "name": "ask",
        "status": {"code": code},
        **noted,
    }


def as_protobuf(batch: object) -> bytes:
    parsed = json_format.ParseDict(batch, ExportTraceServiceRequest())
    return bytes(parsed.SerializeToString())


@pytest.mark.parametrize("form", [JSON_TYPE, PROTOBUF], ids=["json", "protobuf"])
async def test_a_span_in_which_a_flag_was_evaluated_is_the_outcome_of_its_exposure(
    world: World, form: bytes
) -> None:
    callers = [context(f"user-{number}") for number in range(SIZE)]
    flags = [(await evaluate(world, "support", caller))[1]["metadata"] for caller in callers]
    await evaluate(world, "support", context("user-1"))  # is no exposure
    spans = [
        flag_span(flags[0]["contextId"], code=2),
        flag_span("user-1", code=2),
        flag_span("user-1", code=0),
        flag_span("user-2", code=1, inside=False),
        flag_span("of another flag system", code=2),
        flag_span("req_w0-77", code=2),
        {"name": "without a flag"},
        {
            **flag_span("user-3", code=0, inside=False),
            "name": "feature_flag.evaluation",
        },
        *(flag_span(f"req_w0-{number}", code=2) for number in range(78, 78 + MOST_OUTCOMES)),
    ]
    batch = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    body = json.dumps(batch).encode() if form == JSON_TYPE else as_protobuf(batch)
    sent = (AUTH, (b"content-type", form + b"; charset=utf-8"))
    status, headers, answer = await world.call(
        "/v1/traces",
        body,
        headers=sent,
    )
    world.clock.advance(RULE.missing_s + 1)
    world.recorder.flush()

    assert (status, headers[b"content-type"]) == (200, form)
    said = json.loads(answer) if form == JSON_TYPE else {}
    if form == PROTOBUF:
        said = json_format.MessageToDict(ExportTraceServiceResponse.FromString(answer))
    assert said["partialSuccess"]["rejectedSpans"] == f"{1 + MOST_OUTCOMES}"
    assert "; 4 spans: a batch has at most 1,000 outc" in said["partialSuccess"]["errorMessage"]
    block, _ = world.kept.blocks.values()  # the second one has the feedback
    assert (block.units, block.failures, block.missing) == (SIZE, 5, 3)
    for wrong in (b"[]", b'{"resourceSpans": 1}', b"\xff\xff"):
        assert (await world.call("/v1/traces", wrong, headers=sent))[0] == 400


async def test_a_bulk_evaluation_lists_the_routes_of_the_key_and_is_sent_once_by_its_etag(
    world: World,
) -> None:
    body = json.dumps(context("ann")).encode()
    status, headers, answer = await world.call(FLAGS, body)
    tag = headers[b"etag"]
    same, _, nothing = await world.call(
        FLAGS,
        body,
        headers=(AUTH, (b"if-none-match", tag)),
    )
    narrow = (b"authorization", f"Bearer {NARROW_KEY}".encode())
    _, few = await evaluate(
        world,
        "",
        context("ann"),
        narrow,
    )

    flags = {flag["key"]: flag for flag in json.loads(answer)["flags"]}
    assert status == 200
    assert {"support", "other"} <= set(flags)
    assert (flags["other"]["variant"], flags["other"]["reason"]) == (
        "incumbent",
        "STATIC",
    )
    assert (same, nothing) == (304, b"")
    assert len(few["flags"]) < len(flags)


@pytest.mark.parametrize(
    ("flag", "body", "status", "code"),
    [
        (
            "suport",
            {"context": {"targetingKey": "ann"}},
            404,
            "FLAG_NOT_FOUND",
        ),
        ("support", {}, 400, "TARGETING_KEY_MISSING"),
        (
            "support",
            {"context": {"targetingKey": ""}},
            400,
            "TARGETING_KEY_MISSING",
        ),
        ("support", {"context": "ann"}, 400, "INVALID_CONTEXT"),
        (
            "support",
            {"context": {"targetingKey": 7}},
            400,
            "INVALID_CONTEXT",
        ),
        (
            "support",
            {"context": {"targetingKey": "x" * 1025}},
            400,
            "INVALID_CONTEXT",
        ),
        ("support", ["ann"], 400, "PARSE_ERROR"),
        ("other", {}, 200, None),
        ("", {}, 200, None),
    ],
)
async def test_a_flag_that_cannot_be_evaluated_says_why_in_the_protocols_words(
    world: World,
    flag: str,
    body: object,
    status: int,
    code: str | None,
) -> None:
    got, answer = await evaluate(
        world,
        flag,
        body,
    )

    assert (got, answer.get("errorCode")) == (status, code)
    assert code is None or (answer["key"] == flag and answer["errorDetails"])


async def test_a_flag_of_a_route_that_the_key_may_not_use_is_not_found(world: World) -> None:
    narrow = (b"authorization", f"Bearer {NARROW_KEY}".encode())
    _, listed = await evaluate(
        world,
        "",
        context("ann"),
        narrow,
    )
    allowed = {flag["key"] for flag in listed["flags"]}
    (barred,) = {"support", "other"} - allowed

    assert (await evaluate(world, barred, context("ann"), narrow))[0] == 404
    assert (await evaluate(world, "support", context("ann"), (b"x-api-key", b"no")))[0] == 401
    assert (await world.call(f"{FLAGS}/support", method="GET"))[0] == 405
