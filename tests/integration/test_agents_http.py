from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from harness.frame.pagination import PageRequest
from harness.operations.queries import list_failovers
from harness.routing.agent import literal_route_name
from harness.routing.reports.traffic_report import load_traffic_report
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    DONE,
    ROLE,
    USAGE,
    ReceivedRequest,
    broken_stream,
    completion,
    error,
    event,
    streamed,
)
from tests.support.router.router_process import eventually
from tests.support.site.agents_site import (
    CHAT,
    AgentsSite,
    agents_site,
    calling,
    error_of,
    events,
    good,
)

pytestmark = pytest.mark.req("E1", "E2")

OPEN_DOOR = {
    "type": "function",
    "function": {
        "name": "open_door",
        "description": "Opens a door",
        "parameters": {
            "type": "object",
            "properties": {"door": {"type": "string"}},
        },
    },
}
BASE = "sim-base"
BETTER = "sim-better"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsSite]:
    with agents_site(tmp_path_factory.mktemp("agents"), with_control=True) as made:
        yield made


@pytest.fixture
def site(shared: AgentsSite) -> AgentsSite:
    shared.upstream.turns = {BASE: either("hello"), BETTER: either("better")}
    shared.upstream.asked.clear()
    return shared


def either(*words: str) -> Any:
    """Whole or streamed, as it is asked."""

    def reply(request: ReceivedRequest) -> ScriptedTurn:
        return streamed(*words) if request.json.get("stream") else completion("".join(words))

    return reply


def scripted(*turns: ScriptedTurn) -> Any:
    left = iter(turns)
    return lambda _: next(left)


def test_the_documented_examples_are_taken(site: AgentsSite) -> None:
    schemas = good(site.client.get("/agents/openapi.json"))["components"]["schemas"]
    examples = {name: schema.get("examples", []) for name, schema in schemas.items()}
    on_route, literal = examples["AgentBody"]
    made = good(site.client.post("/agents", json=on_route))
    agent = f"/agents/{made['id']}"
    loose = good(site.client.post("/agents", json={**literal, "model": "sim:sim-better"}))
    said = "sim never listed its models, so sim-better was not checked: "
    assert (made["notes"], loose["notes"]) == (
        [],
        [f"{said}`swapproof model discover sim` reads its list"],
    )
    for body in examples["AgentPatchBody"]:
        good(site.client.patch(agent, json=body))
    for body in examples["SessionBody"]:
        session = (
            f"{agent}/sessions/{good(site.client.post(f'{agent}/sessions', json=body))['id']}"
        )
    for body in examples["MessageBody"]:
        answer = site.client.post(f"{session}/messages", json=body)
        assert answer.status_code == 200, answer.text
    for body in examples["SwitchModelBody"]:
        asked = site.client.post(
            f"{session}/switch_model", json={**body, "model": "sim-better"}
        )
        assert asked.status_code in (200, 202), asked.text


@pytest.mark.spine
def test_an_agent_is_created_read_changed_and_deleted(site: AgentsSite) -> None:
    made = good(site.client.post("/agents", json={"name": "helper", "model": CHAT}))
    agent = f"/agents/{made['id']}"
    site.client.post(f"{agent}/sessions", json={})

    answered = good(site.client.patch(agent, json={"description": "Helps customers"}))
    read = good(site.client.get(agent))
    listed = [row["id"] for row in good(site.client.get("/agents"))["items"]]

    assert answered == read
    assert (read["name"], read["model"], read["description"]) == (
        "helper",
        CHAT,
        "Helps customers",
    )
    assert made["id"] in listed
    assert site.client.delete(agent).status_code == 204
    assert error_of(site.client.get(agent), 404)["code"] == "agent_not_found"
    assert error_of(site.client.post(f"{agent}/sessions", json={}), 404)


@pytest.mark.spine
def test_a_session_keeps_its_conversation_and_streams_its_answers(site: AgentsSite) -> None:
    site.upstream.turns[BASE] = either("It ", "is 7.")
    session = site.session()
    good(site.send(session, "My number is 7."))

    told = events(site.send(session, "What is my number?", stream=True))

    pieces = [fields["text"] for name, fields in told if name == "message.delta"]
    assert "".join(pieces) == told[-1][1]["content"] == "It is 7."
    assert told[-1][0] == "turn.completed"
    sent = site.upstream.asked[-1].json["messages"]
    assert [message["content"] for message in sent] == [
        "My number is 7.",
        "It is 7.",
        "What is my number?",
    ]


def test_a_stream_that_breaks_off_ends_in_an_error_and_a_failed_message(
    site: AgentsSite,
) -> None:
    site.upstream.turns[BASE] = broken_stream(ROLE, event({"content": "Hel"}))
    session = site.session()

    told = events(site.send(session, "Hi", stream=True))

    assert told[-1][0] == "error"
    assert "turn.completed" not in [name for name, _ in told]
    user, failed = site.messages(session)
    assert (
        user["state"],
        failed["state"],
        failed["content"],
    ) == (
        "complete",
        "failed",
        "",
    )
    site.upstream.turns[BASE] = completion("again")
    good(site.send(session, "And now?"))
    sent = site.upstream.asked[-1].json["messages"]
    assert [message["content"] for message in sent] == ["Hi", "And now?"]


def test_a_function_of_the_client_is_returned_and_its_result_goes_to_the_model(
    site: AgentsSite,
) -> None:
    session = site.session(tools=[OPEN_DOOR], instructions="Be brief.")
    site.upstream.turns[BASE] = calling(
        ("c1", "open_door", '{"door": "a"}'),
        ("c2", "open_door", '{"door": "b"}'),
    )

    asked = good(site.send(session, "Open both"))
    assert [call["id"] for call in asked["openCalls"]] == ["c1", "c2"]
    assert asked["openCalls"][0]["arguments"] == '{"door": "a"}'

    busy = error_of(site.send(session, "Never mind"), 409)
    assert busy["code"] == "tool_results_missing"
    unknown = site.send(
        session,
        "x",
        role="tool",
        toolCallId="c9",
    )
    assert error_of(unknown, 400)["code"] == "unknown_tool_call"
    site.upstream.turns[BASE] = completion("Both are open.")
    second = good(
        site.send(
            session,
            "done",
            role="tool",
            toolCallId="c2",
        )
    )
    assert [call["id"] for call in second["openCalls"]] == ["c1"]
    assert (second["role"], second["steps"]) == ("tool", 0)
    last = good(
        site.send(
            session,
            "stuck",
            role="tool",
            toolCallId="c1",
        )
    )

    assert last["content"] == "Both are open."
    sent = site.upstream.asked[-1].json["messages"]
    assert [message["role"] for message in sent] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
    ]
    # In the order of the calls, whatever order they came in.
    assert [message["content"] for message in sent[3:]] == ["stuck", "done"]


def test_half_a_character_of_a_model_breaks_no_session(site: AgentsSite) -> None:
    halves = "\ud83d\ude00, \ud83d"
    named = calling(("c\ud83d", "close\ud83d", '{"door": "\ud83d"}'))
    site.upstream.turns[BASE] = scripted(
        streamed("\ud83d", "\ude00"),
        named,
        completion(halves),
        error(400, "no \ud83d"),
    )
    session = site.session()

    assert events(site.send(session, "Hi", stream=True))[-1][1]["content"] == "\U0001f600"
    assert good(site.send(session, "Hi"))["content"] == "\U0001f600, \ufffd"
    assert "no \ufffd" in error_of(site.send(session, "Hi"), 400)["message"]
    called = site.messages(session)[3]
    failed = site.messages(session)[-1]
    assert called["toolCalls"][0]["arguments"] == '{"door": "\ufffd"}'
    assert "no \ufffd" in failed["error"]


def test_a_message_that_the_model_refuses_breaks_no_session(site: AgentsSite) -> None:
    session = site.session()
    site.upstream.turns[BASE] = error(400, "no picture")
    refused = error_of(site.send(session, "broken"), 400)
    site.upstream.turns[BASE] = error(503)
    error_of(site.send(session, "Hi"), 502)
    site.upstream.turns[BASE] = either("hello")
    site.upstream.asked.clear()
    good(site.send(session, "Again"))

    sent = [message["content"] for message in site.upstream.asked[0].json["messages"]]
    assert sent == ["Hi", "Again"]
    found = site.messages(session)
    assert [row["content"] for row in found] == [
        "broken",
        "",
        "Hi",
        "",
        "Again",
        "hello",
    ]
    assert found[1]["error"] in refused["message"]


@pytest.mark.parametrize(("finish", "says"), [("length", "length limit"), ("stop", None)])
def test_an_answer_that_was_cut_off_says_so(
    site: AgentsSite,
    finish: str,
    says: str | None,
) -> None:
    pieces = (
        ROLE,
        event({"content": "It is"}),
        event(finish=finish),
        USAGE,
        DONE,
    )
    whole = completion("It is").steps[0]
    assert isinstance(whole, bytes)
    plain = whole.replace(b'"finish_reason":"stop"', f'"finish_reason":"{finish}"'.encode())
    site.upstream.turns[BASE] = scripted(ScriptedTurn(steps=(plain,)), broken_stream(*pieces))
    session = site.session()

    answered = good(site.send(session, "What is it?"))
    streamed_ = events(site.send(session, "And?", stream=True))[-1][1]

    for answer in (answered, streamed_, site.messages(session)[-1]):
        assert (answer["content"], answer["state"]) == ("It is", "complete")
        assert says in answer["error"] if says else answer["error"] is None


@pytest.mark.req("E5")
@pytest.mark.spine
def test_the_fallback_answers_a_retryable_failure_and_the_answer_says_so(
    site: AgentsSite,
) -> None:
    site.upstream.turns[BASE] = error(503)
    session = site.session(config={"fallbackModel": "sim:sim-better"})

    answer = site.send(session, "Hi")

    assert good(answer)["content"] == "better"
    assert answer.json()["fallback"]["from"] == "chat"
    assert answer.headers["x-swapproof-agent-fallback"] == "chat"
    assert answer.json()["model"] == "sim:sim-better"
    assert site.messages(session)[-1]["fallback"]["from"] == "chat"


@pytest.mark.req("B9")
def test_an_answer_that_the_fallback_model_saved_is_no_error_to_callers(
    site: AgentsSite,
) -> None:
    ctx = site.world.installation.context
    secret = site.world.installation.secret
    route = literal_route_name("sim/sim-worse")
    site.upstream.turns["sim-worse"] = error(503)

    def failures() -> tuple[int, int]:
        report = load_traffic_report(ctx, timedelta(hours=1), route)
        return report.all.left, report.all.failed

    def asked_next() -> list[str | None]:
        found = list_failovers(
            ctx,
            PageRequest(9),
            secret=secret,
            route=route,
        )
        return [failover.next_target for failover in found]

    saved = site.session(model="sim:sim-worse", config={"fallbackModel": CHAT})
    good(site.send(saved, "Hi"))
    eventually(lambda: failures() == (1, 0))
    lost = site.session(model="sim:sim-worse")
    assert site.send(lost, "Hi").status_code == 502
    eventually(lambda: failures() == (2, 1))
    assert asked_next() == [None, "chat (fallbackModel)"]


def test_the_same_message_again_gets_the_same_answer(site: AgentsSite) -> None:
    headers = {"Idempotency-Key": "k-1"}
    session = site.session()
    answers = [site.send(session, "Hi", headers=headers) for _ in range(2)]
    assert answers[1].headers["idempotent-replayed"] == "true"
    other = site.send(session, "Hello", headers=headers)
    assert error_of(other, 409)["code"] == "idempotency_key_reused"
    as_stream = site.send(
        session,
        "Hi",
        headers=headers,
        stream=True,
    )
    assert answers[0].json() == answers[1].json()
    assert events(as_stream) == [("turn.completed", answers[0].json())]
    assert len(site.messages(session)) == 2
