"""`POST /v1/feedback`: what callers say of answers, in the canary's blocks and the metrics."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from harness.domain.canary.guardrails import (
    ArmSplit,
    FeedbackTally,
    Guardrail,
    Guardrails,
    UnitRule,
)
from tests.support.providers.scripted_upstream import Upstream, completion, running_upstream
from tests.support.router.live_router import (
    CANDIDATE,
    INCUMBENT,
    KEY,
    NARROW_KEY,
    World,
    running_router,
    snapshot,
    wait_until,
)

pytestmark = pytest.mark.req("F3")
SIZE = 6
RULE = UnitRule(block_size=SIZE, guardrails=Guardrails().tolerated())


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        upstream.turns = {INCUMBENT: completion(), CANDIDATE: completion()}
        yield upstream


@pytest.fixture
def world(upstream: Upstream, tmp_path: Path) -> Iterator[World]:
    """Every caller is in the canary arm of `support`; `other` has no canary."""
    with running_router(snapshot(upstream.url, weight_bps=10_000, rule=RULE), tmp_path) as made:
        yield made


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    bearer = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=world.url, headers=bearer) as client:
        yield client


CALLERS = itertools.count()


def ask(client: httpx.Client, route: str = "support") -> str:
    """The id of an answer."""
    said = [{"role": "user", "content": "hi"}]
    body = {"model": route, "messages": said, "user": f"user-{next(CALLERS)}"}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    return answer.headers["x-swapgate-request-id"]


def say(client: httpx.Client, request_id: str, **opinion: object) -> httpx.Response:
    return client.post("/v1/feedback", json={"request_id": request_id, **opinion})


def counted(client: httpx.Client) -> list[str]:
    lines = client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith("swapgate_feedback_total")]


@pytest.mark.verify
def test_bad_feedback_counts_against_the_canary_until_its_block_is_out(
    world: World, client: httpx.Client
) -> None:
    ids = [ask(client) for _ in range(SIZE - 1)]
    bad = say(client, ids[0], thumb="down", label="wrong")
    low = say(client, ids[1], score=0.2)
    high = say(client, ids[2], score=0.9)
    words = say(client, ids[3], label="tone")
    ask(client)
    # Once somebody gave feedback, a block waits for more of it for a minute.
    wait_until(lambda: world.store.blocks, timeout_s=180.0)
    late = say(client, ids[4], thumb="down")

    assert [answer.status_code for answer in (bad, low, high, words, late)] == [
        200,
        200,
        200,
        202,
        202,
    ]
    assert bad.json()["counted"] is True
    assert (words.json()["outcome"], late.json()["outcome"]) == ("not_scored", "late")
    assert bad.headers["x-swapgate-request-id"] not in ids
    (block,) = world.store.blocks.values()
    assert block.counts[Guardrail.FEEDBACK] == FeedbackTally(SIZE, SIZE, 2, 2, ArmSplit(3, 3))
    assert (
        'swapgate_feedback_total{arm="canary",label="wrong",route="support",verdict="bad"} 1.0'
        in counted(client)
    )


def test_without_a_canary_feedback_is_in_the_metrics_alone(client: httpx.Client) -> None:
    told = say(client, ask(client, "other"), thumb="up")

    assert (told.status_code, told.json()["outcome"]) == (202, "not_scored")
    (line,) = counted(client)
    assert 'route="other"' in line
    assert 'verdict="good"' in line


def test_nobody_speaks_of_another_keys_request_and_no_one_of_an_unknown_one(
    client: httpx.Client,
) -> None:
    request_id = ask(client)
    other = {"authorization": f"Bearer {NARROW_KEY}"}
    stranger = client.post(
        "/v1/feedback", json={"request_id": request_id, "thumb": "down"}, headers=other
    )

    for answer in (stranger, say(client, "req_gone-1", thumb="up"), say(client, "x", score=1)):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "request_not_found"
    nobody = client.post("/v1/feedback", json={}, headers={"authorization": "Bearer none"})
    assert nobody.status_code == 401
    assert counted(client) == []


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
def test_feedback_that_is_none_is_refused_with_the_field(
    client: httpx.Client, body: dict[str, object], param: str | None
) -> None:
    answer = client.post("/v1/feedback", json=body)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_feedback", param)


def test_feedback_is_small_and_has_one_method(client: httpx.Client) -> None:
    nan = client.post(
        "/v1/feedback",
        content=b'{"request_id": "r", "score": NaN}',
        headers={"content-type": "application/json"},
    )
    assert nan.status_code == 400
    assert say(client, "r", label="x" * 20_000).status_code == 413
    assert client.get("/v1/feedback").status_code == 405


def test_a_rollout_without_this_guardrail_does_not_count_feedback(
    upstream: Upstream, tmp_path: Path
) -> None:
    rule = replace(RULE, guardrails={Guardrail.LATENCY: 1.25})
    first = snapshot(upstream.url, weight_bps=10_000, rule=rule)
    bearer = {"authorization": f"Bearer {KEY}"}
    with (
        running_router(first, tmp_path) as world,
        httpx.Client(base_url=world.url, headers=bearer) as client,
    ):
        assert say(client, ask(client), thumb="down").json()["outcome"] == "not_scored"
