import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.agents import switches
from harness.frame.people.access import SYSTEM
from harness.providers.registry import targets
from harness.providers.target import Target
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ReceivedRequest,
    completion,
    error,
)
from tests.support.router.router_process import eventually
from tests.support.site.agents_site import (
    AgentsSite,
    agents_site,
    calling,
    error_of,
    good,
)
from tests.support.site.processes import free_port
from tests.support.site.tool_server import tool_server_process

pytestmark = pytest.mark.req("C6", "E1")
BASE = "sim-base"
BETTER = "sim-better"
OTHER = "sim-other"
FUNCTION = {"type": "function", "function": {"name": "files__add"}}
Script = Callable[[ReceivedRequest], ScriptedTurn]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsSite]:
    port = free_port()
    with (
        tool_server_process(port),
        agents_site(
            tmp_path_factory.mktemp("tools"),
            tool_servers={
                "files": {"url": f"http://127.0.0.1:{port}/mcp"},
                "gone": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
            },
            spawn={"max_tasks": 4, "max_usd": 1},
            limits={"max_steps": 6, "timeout_s": 60},
        ) as made,
    ):
        ctx = made.world.installation.context
        for model in (BETTER, OTHER):
            targets.add_target(ctx, SYSTEM, Target("sim", model))
        yield made


@pytest.fixture
def site(shared: AgentsSite) -> AgentsSite:
    shared.upstream.asked.clear()
    return shared


def scripted(*turns: ScriptedTurn) -> Script:
    left = list(turns)
    return lambda _: left.pop(0)


def results(site: AgentsSite, session: str) -> list[str]:
    found = site.messages(session)
    return [message["content"] for message in found if message["role"] == "tool"]


def newest(request: ReceivedRequest) -> str:
    content = request.json["messages"][-1]["content"]
    return content if isinstance(content, str) else ""


def test_a_tool_of_a_server_runs_within_the_turn(site: AgentsSite) -> None:
    session = site.session(tools=["files.add", "gone"])
    site.upstream.turns[BASE] = scripted(
        calling(("c1", "files__add", '{"a": 2, "b": 3}')),
        completion("it is 5"),
    )
    answer = good(site.send(session, "2 + 3?"))

    assert answer["content"] == "it is 5"
    assert results(site, session) == ["5"]
    first = site.upstream.asked[0].json
    assert [tool["function"]["name"] for tool in first["tools"]] == ["files__add"]


def test_a_tool_that_fails_breaks_no_session(site: AgentsSite) -> None:
    session = site.session(tools=["files"])
    site.upstream.turns[BASE] = scripted(
        calling(("c1", "files__long", "{}")),
        calling(("c2", "files__add", '{"a": 2, "b": 3}')),
        completion("done"),
    )

    assert good(site.send(session, "go"))["content"] == "done"
    failed, added = results(site, session)
    assert failed.startswith("Error: ")
    assert "2097152" in failed
    assert added == "5"


def test_a_function_of_the_client_wins_over_a_servers_tool_of_its_name(
    site: AgentsSite,
) -> None:
    session = site.session(tools=["files", FUNCTION])
    site.upstream.turns[BASE] = scripted(calling(("c1", "files__add", "{}")))
    answer = good(site.send(session, "go"))

    assert [call["name"] for call in answer["toolCalls"]] == ["files__add"]
    names = [tool["function"]["name"] for tool in site.upstream.asked[0].json["tools"]]
    assert len(set(names)) == len(names)


def test_no_request_names_a_server_of_its_own(site: AgentsSite) -> None:
    for tool in ("bash", "files.", "/bin/sh", "http://example.com/mcp"):
        body = {
            "name": "a",
            "model": "chat",
            "tools": [tool],
        }
        failure = error_of(site.client.post("/agents", json=body), 400)
        assert failure["code"] == "unknown_tool"
    address = {
        "name": "a",
        "model": "chat",
        "tools": [{"url": "http://example.com/mcp"}],
    }
    error_of(site.client.post("/agents", json=address), 400)


def spawning(*tasks: dict[str, Any], then: Script | None = None) -> Script:
    """The parent spawns these tasks and then says what they answered, in capitals."""

    def reply(request: ReceivedRequest) -> ScriptedTurn:
        message = request.json["messages"][-1]
        if message["role"] == "tool":
            return completion(message["content"])
        text = newest(request)
        if text == "go":
            return calling(("c1", "spawn", json.dumps({"tasks": tasks})))
        return then(request) if then is not None else completion(text.upper())

    return reply


def spawned(site: AgentsSite, session: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(results(site, session)[0])["tasks"]
    return found


def test_sub_tasks_answer_in_order_and_count_against_the_parent(site: AgentsSite) -> None:
    session = site.session(tools=["spawn"])
    site.upstream.turns[BASE] = spawning(
        {"task": "one"}, {"task": "two", "model": "chat"}, {"task": "three"}
    )
    good(site.send(session, "go"))
    ended = spawned(site, session)

    assert [(task["status"], task["answer"]) for task in ended] == [
        ("done", "ONE"),
        ("done", "TWO"),
        ("done", "THREE"),
    ]
    children = [request for request in site.upstream.asked if newest(request) in ("one", "two")]
    # They see nothing of the conversation, and none waits for a client.
    assert all(len(request.json["messages"]) == 1 for request in children)
    assert [task["usage"]["input_tokens"] for task in ended] == [7, 7, 7]
    path = session.rpartition("/")[0]
    for task in ended:
        child = good(site.client.get(f"{path}/{task['session']}"))
        assert child["state"] == "closed"


def test_a_sub_task_that_fails_or_hangs_harms_nobody(site: AgentsSite) -> None:
    def then(request: ReceivedRequest) -> ScriptedTurn:
        if newest(request) == "fail":
            return error(400, "bad")
        return completion(newest(request).upper())

    session = site.session(tools=["spawn"])
    site.upstream.turns[BASE] = spawning(
        {"task": "one"}, {"task": "fail"}, {"task": "three"}, then=then
    )
    good(site.send(session, "go"))
    ended = spawned(site, session)

    assert [task["status"] for task in ended] == ["done", "failed", "done"]
    assert ended[1]["error"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"tasks": [{"task": "x"}] * 5}, "one call may have 4"),
        (
            {"tasks": [{"task": "x", "model": "nobody-serves-this"}]},
            "nobody-serves-this",
        ),
        (
            {"task": "x", "tasks": [{"task": "y"}]},
            "Error: give either `task`",
        ),
    ],
)
def test_what_cannot_be_spawned_is_said(
    site: AgentsSite,
    arguments: dict[str, Any],
    reason: str,
) -> None:
    session = site.session(tools=["spawn"])
    site.upstream.turns[BASE] = scripted(
        calling(("c1", "spawn", json.dumps(arguments))), completion("well")
    )
    good(site.send(session, "go"))

    assert results(site, session)[0].startswith("Error: ")
    assert reason in results(site, session)[0]
    assert len(site.upstream.asked) == 2


def test_a_model_that_spawns_without_end_is_stopped_by_its_steps(site: AgentsSite) -> None:
    """Sub-tasks have no tool to spawn with."""
    session = site.session(tools=["spawn"])
    endless = json.dumps({"tasks": [{"task": "more"}, {"task": "more"}]})
    site.upstream.turns[BASE] = lambda _: calling(("c1", "spawn", endless))
    site.send(session, "go")

    # 6 steps; each of the first 5 has 2 sub-tasks, which are told that the tool is not there.
    own = [request for request in site.upstream.asked if "tools" in request.json]
    assert len(own) == 6
    assert 10 <= len(site.upstream.asked) - len(own) <= 5 * 2 * 6


def spawning_each(*calls: dict[str, Any]) -> Script:
    """The parent calls the tool once for each of these arguments, in one answer."""

    def reply(request: ReceivedRequest) -> ScriptedTurn:
        text = newest(request)
        if text != "go":
            return completion("read" if "tools" in request.json else text.upper())
        named = enumerate(calls)
        return calling(*((f"c{at}", "spawn", json.dumps(one)) for at, one in named))

    return reply


def test_calls_of_one_answer_run_in_parallel_and_share_one_budget(site: AgentsSite) -> None:
    session = site.session(tools=["spawn"])
    site.upstream.turns[BASE] = spawning_each(
        {"task": "one", "model": "chat"},
        {"task": "two"},
        {"task": "x", "model": "unserved"},
    )
    good(site.send(session, "go"))
    one, two, wrong = results(site, session)

    assert [json.loads(text)["tasks"][0]["answer"] for text in (one, two)] == [
        "ONE",
        "TWO",
    ]
    assert wrong.startswith("Error: ")


def test_more_sub_tasks_than_a_session_may_have_at_once_are_refused(site: AgentsSite) -> None:
    session = site.session(tools=["spawn"])
    three = {
        "tasks": [
            {"task": "one"},
            {"task": "two"},
            {"task": "three"},
        ]
    }
    site.upstream.turns[BASE] = spawning_each(three, three)
    good(site.send(session, "go"))
    first, second = results(site, session)

    assert len(json.loads(first)["tasks"]) == 3
    assert second.startswith("Error: 3 sub-tasks of this conversation run")


def pending(site: AgentsSite, session: str) -> list[dict[str, Any]]:
    found = good(site.client.get(f"{session}/switch_requests"))["items"]
    return [request for request in found if request["status"] == "pending"]


@pytest.mark.req("C4")
def test_calls_of_one_answer_wait_for_one_approval_and_then_run(site: AgentsSite) -> None:
    session = site.session(tools=["spawn"])
    ctx = site.world.installation.context
    site.upstream.turns[BASE] = spawning_each(
        {"task": "one", "model": f"sim/{BETTER}"},
        {"task": "two", "model": f"sim/{OTHER}"},
    )
    for model in (BETTER, OTHER):
        site.upstream.turns[model] = lambda request: completion(newest(request).upper())
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(site.send, session, "go")
        eventually(lambda: pending(site, session))
        [request] = pending(site, session)
        assert request["model"] == f"sim/{BETTER}, sim/{OTHER}"
        assert not results(site, session)
        switches.approve_switch(ctx, SYSTEM, request["request"])
        good(answer.result())

    one, two = (json.loads(text)["tasks"][0] for text in results(site, session))
    assert (one["model"], one["answer"]) == (f"sim/{BETTER}", "ONE")
    assert (two["model"], two["answer"]) == (f"sim/{OTHER}", "TWO")


@pytest.mark.req("C4")
def test_a_rejection_ends_the_wait_and_the_agent_reads_it(site: AgentsSite) -> None:
    session = site.session(tools=["spawn"])
    ctx = site.world.installation.context
    site.upstream.turns[BASE] = spawning_each(
        {"task": "one", "model": f"sim/{BETTER}"}, {"task": "two"}
    )
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(site.send, session, "go")
        eventually(lambda: pending(site, session))
        [request] = pending(site, session)
        switches.reject_switch(ctx, SYSTEM, request["request"], "too dear")
        assert good(answer.result())["model"] == "chat"

    refused, two = (json.loads(text) for text in results(site, session))
    assert refused["status"] == "rejected"
    assert "too dear" in refused["message"]
    # A sub-task on a route needs no approval.
    assert two["tasks"][0]["answer"] == "TWO"


@pytest.mark.req("C4")
def test_without_a_decision_in_time_the_agent_may_call_again(site: AgentsSite) -> None:
    session = site.session(tools=["spawn"])
    ctx = site.world.installation.context
    task = {"task": "one", "model": f"sim/{BETTER}"}
    site.upstream.turns[BASE] = spawning_each({**task, "wait_s": 0})
    site.upstream.turns[BETTER] = lambda request: completion(newest(request).upper())
    good(site.send(session, "go"))
    [first] = (json.loads(text) for text in results(site, session))
    assert first["status"] == "waits_for_approval"
    [request] = pending(site, session)
    switches.approve_switch(ctx, SYSTEM, request["request"])

    good(site.send(session, "go"))
    assert json.loads(results(site, session)[1])["tasks"][0]["answer"] == "ONE"


def test_sub_tasks_end_with_the_session_that_waits_for_them(site: AgentsSite) -> None:
    session = site.session(tools=["spawn"])
    site.upstream.turns[BASE] = spawning(
        {"task": "one"},
        {"task": "hang"},
        then=lambda _: ScriptedTurn(hang=True),
    )
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(site.send, session, "go")
        eventually(lambda: len([a for a in site.upstream.asked if newest(a) == "hang"]) == 1)
        assert site.client.delete(session).status_code in (200, 204)
        assert answer.result().status_code >= 400
    children = [
        request for request in site.upstream.asked if newest(request) in ("one", "hang")
    ]
    eventually(lambda: all(request.left.is_set() for request in children))
