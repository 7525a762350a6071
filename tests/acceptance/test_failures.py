"""Providers fail: chains, circuit breakers, streams, and what is told of it."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance import gateway
from tests.acceptance.conftest import Installing
from tests.acceptance.gateway import (
    alerts,
    chain,
    hits,
    metric,
    model,
    models,
    served,
)
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.traffic import ask_all
from tests.acceptance.webhook import SECRET, VARIABLE, Webhook, receiving

HIGH = models("high")
ROUTES = {
    "low": chain("low"),
    "high": {
        "incumbent": HIGH[0],
        "fallbacks": [HIGH[1], {"target": HIGH[2], "capable": True}],
        "stakes": "high",
    },
    "wrong": chain("wrong"),
    "ours": chain("ours"),
    "breaker": chain("breaker"),
    "early": chain("early"),
    "late": chain("late"),
    "log": chain("log"),
    "warm": {**chain("warm", keep_warm="1%")},
    "headers": chain("headers"),
    "tools": chain("tools"),
    "fast": {
        "incumbent": "main",
        "fallbacks": ["backup"],
        "task": "triage",
    },
    "frontier": {"incumbent": "main", "fallbacks": ["backup"]},
    "cheap": {
        "incumbent": "backup",
        "fallbacks": [{"provider": "main", "tier": "fast"}],
    },
}
TIERS = {
    "main": {"fast": "main-small", "frontier": "main-large"},
    "backup": {
        "fast": "backup-small",
        "frontier": "backup-large",
        "cheap": "backup-tiny",
    },
}
OTHERS = [model for tiers in TIERS.values() for model in tiers.values()]
USERS = 2000
# Of so many callers 1 % is 20.
FEWEST = 4
MOST = 50
# It calls both of the doctor's tools, one after the other, and uses what they return.
TOOL_LOOP: list[Document] = [
    {
        "newest": r"(?P<price>\d{4})",
        "earlier": r"(?P<stock>\d{4})",
        "text": "There are $stock lamps, at $price EUR.",
    },
    {
        "newest": r"\d{4}|Say good morning",
        "tool": "price_of",
        "arguments": {"item": "lamp", "currency": "EUR"},
    },
    {
        "newest": "lamps",
        "tool": "stock_of",
        "arguments": {"item": "lamp"},
    },
]
CONTENT = "the-customer-has-a-red-bicycle"


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def world(installing_once: Installing, webhook: Webhook) -> tuple[Installation, Simulator]:
    sims = []

    def settings(made: Installation) -> Document:
        sims.append(Simulator(made, profiles=gateway.profiles(ROUTES, *OTHERS)))
        return {
            "providers": {
                name: sims[0].settings(
                    tiers=TIERS.get(name, {}),
                    models={f"tools-{name}": {"parallel_tools": False}},
                )
                for name in gateway.PROVIDERS
            },
            "router": {
                "flush_interval_s": 0.2,
                "health_check_interval_s": 0,
                "breaker": gateway.BREAKER,
                "retry": gateway.RETRY,
            },
            "alerts": webhook.settings(),
            "routes": ROUTES,
        }

    place = installing_once(settings)
    place.serve("router")
    place.serve("control", env={VARIABLE: SECRET})
    return place, sims[0]


@pytest.fixture
def place(world: tuple[Installation, Simulator]) -> Installation:
    return world[0]


@pytest.fixture
def sim(world: tuple[Installation, Simulator]) -> Iterator[Simulator]:
    yield world[1]
    world[1].heal()


def attempts(answer: httpx.Response) -> list[str]:
    """The targets of all attempts that an error names."""
    return [attempt["target"] for attempt in answer.json()["error"]["attempts"]]


@pytest.mark.req("A4", "A5", "B3")
@pytest.mark.parametrize("status", [429, 500, 503, 529, 401, 402, 403, 404])
def test_with_low_stakes_a_request_goes_down_the_whole_chain(
    place: Installation,
    sim: Simulator,
    status: int,
) -> None:
    first, second, third = models("low")
    fault = {"kind": "not_found"} if status == 404 else {"kind": "status", "status": status}
    for target in (first, second):
        sim.fault(model(target), **fault)

    assert served(place.chat("low")) == third


@pytest.mark.req("A4", "A5")
def test_when_the_whole_chain_fails_the_error_names_every_attempt(
    place: Installation, sim: Simulator
) -> None:
    for target in models("log"):
        sim.fault(model(target), "status", status=503)
    answer = place.chat("log")

    assert answer.status_code == httpx.codes.BAD_GATEWAY
    assert set(attempts(answer)) == set(models("log"))


@pytest.mark.req("A4")
def test_with_high_stakes_only_a_capable_fallback_answers_and_then_the_error_is_loud(
    place: Installation, sim: Simulator
) -> None:
    first, second, third = models("high")
    sim.fault(model(first), "status", status=503)
    assert served(place.chat("high")) == third
    sim.fault(model(third), "status", status=503)
    answer = place.chat("high")

    assert answer.status_code in (
        httpx.codes.BAD_GATEWAY,
        httpx.codes.SERVICE_UNAVAILABLE,
    )
    assert set(attempts(answer)) == {first, third}
    assert second in answer.text  # as one that was not allowed
    assert hits(sim, second) == 0


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_malformed_request_is_asked_once_and_nowhere_else(
    place: Installation,
    sim: Simulator,
    status: int,
) -> None:
    first, second, third = models("wrong")
    sim.fault(model(first), "status", status=status)
    before = [hits(sim, target) for target in (first, second, third)]
    answer = place.chat("wrong")

    assert answer.status_code == status
    after = [hits(sim, target) for target in (first, second, third)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 0, 0]


@pytest.mark.req("A5", "B9")
def test_a_key_that_the_provider_refuses_falls_over_and_raises_an_alert(
    place: Installation, sim: Simulator
) -> None:
    first, second, _ = models("ours")
    sim.fault(model(first), "status", status=401)

    assert served(place.chat("ours")) == second
    eventually(lambda: [a for a in alerts(place, "our_key") if second in a["text"]])


@pytest.mark.req("A6", "B4", "B9")
def test_a_circuit_opens_lets_a_trickle_through_and_closes_and_its_alert_says_who_serves(
    place: Installation,
    sim: Simulator,
    webhook: Webhook,
) -> None:
    first, second, _ = models("breaker")
    sim.fault(model(first), "status", status=503)

    def state() -> float:
        return metric(place, "swapproof_breaker_state", target=first)

    def opened() -> bool:
        assert served(place.chat("breaker")) == second
        return state() > 0

    eventually(opened)
    raised = eventually(lambda: named(alerts(place, "breaker_open"), first))
    assert f"{second} carries its load now" in raised[0]["text"]
    (told, *_) = eventually(lambda: webhook.messages("breaker_open", first))
    assert (told["alert"], told["state"]) == (raised[0]["id"], "raised")
    assert f"{second} carries its load now" in told["text"]

    # While it fails, it is asked now and then, and no user is answered by it.
    asked = hits(sim, first)

    def tried() -> bool:
        assert served(place.chat("breaker")) == second
        return hits(sim, first) > asked + 1

    eventually(tried)
    sim.heal(model(first))
    eventually(lambda: served(place.chat("breaker")) == first and state() == 0)
    eventually(lambda: not named(alerts(place, "breaker_open"), first))
    eventually(
        lambda: [m for m in webhook.messages("breaker_open", first) if m["state"] == "resolved"]
    )
    assert webhook.unsigned == []


def named(found: list[Document], target: str) -> list[Document]:
    return [alert for alert in found if target in json.dumps(alert)]


@pytest.mark.req("B8", "A5")
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "close"},
        {"kind": "error_in_stream"},
        {"kind": "truncate", "after_chunks": 0},
        {"kind": "status", "status": 529},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_stream_that_breaks_before_its_first_token_is_answered_by_another_target(
    place: Installation,
    sim: Simulator,
    fault: Document,
) -> None:
    first, second, _ = models("early")
    sim.fault(model(first), **fault)
    answer = place.chat("early", "Tell me 9 words", stream=True)

    assert served(answer) == second
    text, ended = streamed(answer)
    assert len(text.split()) == 9
    assert ended == "[DONE]"


@pytest.mark.req("B8")
@pytest.mark.parametrize("kind", ["reset", "close", "error_in_stream", "truncate"])
def test_a_stream_that_breaks_after_its_first_token_ends_in_an_error_and_never_in_done(
    place: Installation,
    sim: Simulator,
    kind: str,
) -> None:
    first, second, third = models("late")
    sim.fault(model(first), kind, after_chunks=3)
    before = hits(sim, second) + hits(sim, third)
    answer = place.chat("late", "Tell me 9 words", stream=True)

    assert served(answer) == first
    text, ended = streamed(answer)
    assert 0 < len(text.split()) < 9
    assert "error" in json.loads(ended)
    assert "[DONE]" not in answer.text
    assert hits(sim, second) + hits(sim, third) == before


def streamed(answer: httpx.Response) -> tuple[str, str]:
    """The text of a stream, and its last event."""
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(one["delta"].get("content") or "" for one in choices), events[-1]


@pytest.mark.req("B5")
def test_each_failover_is_logged_without_content_and_is_found_by_its_user(
    place: Installation, sim: Simulator
) -> None:
    first, second, _ = models("log")
    sim.fault(model(first), "status", status=503)
    assert served(place.chat("log", CONTENT, user="alice-of-acme")) == second

    def logged() -> list[Document]:
        found: list[Document] = place.json("route", "failovers", "--user", "alice-of-acme")
        return [row for row in found if row["target"] == first]

    row = eventually(logged)[0]
    assert (row["route"], row["next_target"]) == ("log", second)
    assert row["failure"]
    assert place.json("route", "failovers", "--user", "bob-of-acme") == []
    over_http = place.api("GET", "/failovers?user=alice-of-acme").json()["items"]
    assert first in {item["target"] for item in over_http}
    written = [
        place.database.file.read_bytes(),
        place.processes[1].log_file.read_bytes(),
    ]
    for text in written:
        assert CONTENT.encode() not in text
        assert b"alice-of-acme" not in text


@pytest.mark.req("B9")
def test_requests_latency_errors_and_failovers_are_in_the_metrics(
    place: Installation, sim: Simulator
) -> None:
    first, second, _ = models("headers")
    before = metric(place, "swapproof_requests_total", route="headers")
    assert served(place.chat("headers")) == first
    sim.fault(model(first), "status", status=503)
    assert served(place.chat("headers")) == second

    eventually(lambda: metric(place, "swapproof_requests_total", route="headers") == before + 2)
    assert (
        metric(
            place,
            "swapproof_failovers_total",
            route="headers",
            target=first,
        )
        >= 1
    )
    assert metric(place, "swapproof_attempts_total", target=second) >= 1
    assert metric(place, "swapproof_request_duration_seconds_count", route="headers") >= 2
    control = place.client.get(
        place.url("control") + "/metrics",
        headers={"authorization": f"Bearer {place.admin_key}"},
    )
    assert control.status_code == httpx.codes.OK
    assert "swapproof_" in control.text
    assert place.router("GET", "/metrics", key="sk-sg-wrong").status_code == 401


@pytest.mark.req("A3", "B2")
def test_an_answer_says_who_served_it(place: Installation) -> None:
    answer = place.chat("headers", user="carol")
    found = {
        name.removeprefix("x-swapproof-"): value
        for name, value in answer.headers.items()
        if name.startswith("x-swapproof-")
    }

    assert (found["route"], found["arm"]) == ("headers", "incumbent")
    assert found["target"] in models("headers")
    assert int(found["revision"]) >= 1
    assert int(found["attempts"]) >= 1
    assert found["request-id"]
    assert answer.json()["model"] == "headers"
    listed = place.router("GET", "/v1/models").json()["data"]
    assert {one["id"] for one in listed} == set(ROUTES)


@pytest.mark.req("B2", "A3")
def test_a_tier_is_a_route_and_each_provider_has_its_own_model_for_it(
    place: Installation, sim: Simulator
) -> None:
    assert served(place.chat("fast")) == "main/main-small"
    assert served(place.chat("frontier")) == "main/main-large"
    assert served(place.chat("cheap")) == "backup/backup-tiny"
    by_task = place.chat("frontier", headers={"x-swapproof-task": "triage"})
    assert (served(by_task), by_task.headers["x-swapproof-route"]) == (
        "main/main-small",
        "fast",
    )

    sim.fault("main-small", "status", status=503)
    assert served(place.chat("fast")) == "backup/backup-small"


@pytest.mark.req("B6")
def test_one_percent_of_the_callers_keeps_other_providers_warm_and_no_failure_reaches_them(
    place: Installation, sim: Simulator
) -> None:
    first, *warmed = models("warm")
    users = [f"caller-{number}" for number in range(USERS)]
    answers = ask_all(place, "warm", users)

    assert {answer.status for answer in answers.values()} == {200}
    warm = {user for user, answer in answers.items() if answer.arm == "keep_warm"}
    assert 2 * FEWEST <= len(warm) <= 2 * MOST  # 1 % for each of two providers
    assert {answers[user].target for user in warm} == set(warmed)
    assert {answers[user].target for user in set(users) - warm} == {first}

    for target in warmed:
        sim.fault(model(target), "status", status=503)
    again = ask_all(place, "warm", sorted(warm))
    assert {(answer.status, answer.target) for answer in again.values()} == {(200, first)}


@pytest.mark.verify
@pytest.mark.req("B7")
def test_the_doctor_runs_the_same_tool_loop_on_every_target_of_a_route(
    place: Installation, sim: Simulator
) -> None:
    sim.profile(model(models("tools")[0]), script=TOOL_LOOP)
    good = place.json("doctor", "--tools", models("tools")[0])
    assert "does not" not in json.dumps(good)
    # Its other targets answer without asking the tools, which is found and named.
    for other in models("tools")[1:]:
        sim.profile(
            model(other),
            script=[{"newest": "(?s).", "text": "I ask no tool."}],
        )
    every = place.cli("doctor", "--tools", "tools", code=1).out
    assert all(target in every for target in models("tools"))
    assert "does not" in every
    assert "forced choice" in every
    assert "strict schema" in every
