"""Agents over HTTP and MCP: the commands of the docs with their literal bodies, switches that a
person decides, sub-tasks, and a provider whose key is taken away.
"""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import httpx2
import psutil
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import (
    REQUEST_S,
    Document,
    Installation,
    Process,
    eventually,
)
from tests.acceptance.providers import Simulator
from tests.acceptance.webhook import SECRET, VARIABLE, Webhook, receiving
from tests.support.site.processes import free_port

KEYS: Final = {
    "openai": "sk-openai-0123456789abcdef",
    "anthropic": "sk-ant-0123456789abcdef",
}
NAMED: Final = r"number (?P<number>A-\d+)"
# It knows the number only if it was shown the message that had it.
REMEMBERS: Final = [
    {
        "newest": "(?i)which number",
        "earlier": NAMED,
        "text": "It was $number.",
    },
    {"newest": NAMED, "text": "Noted: $number."},
]
SUB_TASKS: Final = {
    "tasks": [
        {"task": "Say who you are", "model": "cheap"},
        {"task": "Say who you are", "model": "frontier"},
    ]
}
# Models that nobody consented to yet.
LITERAL_TASKS: Final = {
    "tasks": [
        {"task": "The number A-1", "model": "openai:gpt-4o-mini"},
        {"task": "The number A-2", "model": "anthropic:claude-sonnet-4-5"},
    ]
}
IMPATIENT: Final = {**LITERAL_TASKS, "wait_s": 0}
PROFILES: Final[Document] = {
    name: {"skill": 0.7, "script": REMEMBERS}
    for name in (
        "gpt-4o-mini",
        "gpt-4o",
        "claude-sonnet-4-5",
        "claude-opus-4-1",
        "claude-opus-4-7",
        "sim-base",
    )
} | {
    "parent": {
        "script": [
            {
                "newest": "Compare",
                "tool": "spawn",
                "arguments": SUB_TASKS,
            },
            {
                "newest": r"(?s)I am cheap.*I am frontier",
                "text": "Cheap and frontier answered.",
            },
        ]
    },
    "several": {
        "script": [
            {
                "newest": "Begin",
                "tool": "spawn",
                "arguments": IMPATIENT,
            },
            {
                "newest": "Wait",
                "tool": "spawn",
                "arguments": LITERAL_TASKS,
            },
            {"newest": "waits_for_approval", "text": "I wait for a person."},
            {
                "newest": r"(?s)Noted: A-1\..*Noted: A-2\.",
                "text": "Both have noted it.",
            },
        ]
    },
    "tiny": {"script": [{"newest": "who you are", "text": "I am cheap."}]},
    "dear": {"skill": 0.8},
    "good": {"skill": 0.8},
    "weak": {"skill": 0.1},
    "large": {"script": [{"newest": "who you are", "text": "I am frontier."}]},
}
PRICES: Final = {
    model: {
        "input_usd_per_mtok": dollars,
        "output_usd_per_mtok": 2 * dollars,
    }
    for model, dollars in {
        "dear": 10,
        "good": 1,
        "weak": 0.1,
    }.items()
}
# As product.md (E1, E2) has them; docs/reference/agents.md names another model.
AGENT: Final = """{
  "name": "support",
  "description": "Answers customers",
  "model": "openai:gpt-4o-mini",
  "tools": [{"type": "function", "function": {
    "name": "find_order",
    "description": "Finds an order by its number",
    "parameters": {"type": "object", "properties": {"number": {"type": "string"}}}}}],
  "config": {"fallbackModel": "chat-web"}
}"""
SESSION: Final = '{"userId": "user-42", "metadata": {"channel": "web"}}'
FIRST: Final = '{"role": "user", "content": "My order has the number A-1001."}'
STREAMED: Final = '{"role": "user", "content": "Which number was it?", "stream": true}'


@dataclass
class Site:
    """An installation with router, control plane and agents."""

    place: Installation
    sim: Simulator
    slow: Simulator
    webhook: Webhook
    settings: Document

    def call(
        self,
        method: str,
        path: str,
        body: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """A request as curl sends it: the body as it stands."""
        return self.place.client.request(
            method,
            self.place.url("router") + path,
            content=body,
            headers={"content-type": "application/json", **headers},
        )

    def good(
        self,
        method: str,
        path: str,
        body: object = None,
        **headers: str,
    ) -> Any:
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        answer = self.call(method, path, text, **headers)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()

    def session(self, **fields: object) -> str:
        """The path of a session of a new agent."""
        body = {
            "name": "helper",
            "model": "chat-web",
            **fields,
        }
        agent = self.good("POST", "/agents", body)["id"]
        made = self.good("POST", f"/agents/{agent}/sessions", {"userId": "user-1"})["id"]
        return f"/agents/{agent}/sessions/{made}"

    def say(self, session: str, text: str) -> Any:
        body = {"role": "user", "content": text}
        return self.good("POST", f"{session}/messages", body)

    def switch(self, session: str, **body: object) -> Any:
        return self.good("POST", f"{session}/switch_model", body)

    def outcome(self, session: str, request: str) -> str:
        listed = self.good("GET", f"{session}/switch_requests")["items"]
        return next(str(one["status"]) for one in listed if one["request"] == request)


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def site(installing_once: Installing, webhook: Webhook) -> Site:
    sims: list[Simulator] = []

    def settings(made: Installation) -> Document:
        sims.append(Simulator(made, profiles=PROFILES))
        sims.append(Simulator(made, name="slow", profiles=PROFILES))
        sim, slow = sims
        return {
            "providers": {
                "openai": sim.settings("openai", api_key_env="OPENAI_API_KEY"),
                "anthropic": {
                    "kind": "anthropic",
                    "api_base": f"{sim.url}/v1",
                    "api_key_env": "ANTHROPIC_API_KEY",
                },
                "sim": sim.settings(prices=PRICES),
                "slow": slow.settings(),
            },
            "router": {
                "flush_interval_s": 0.2,
                "health_check_interval_s": 0,
            },
            "agents": {
                "open_on_loopback": True,
                "floors": {"thrifty": {"floor": 0.4, "suite": "tickets"}},
            },
            "alerts": webhook.settings(),
            "routes": {
                "chat-web": {"incumbent": "sim/sim-base"},
                "parent": {"incumbent": "sim/parent"},
                "several": {"incumbent": "sim/several"},
                "cheap": {
                    "incumbent": "slow/tiny",
                    "fallbacks": ["sim/tiny"],
                },
                "frontier": {"incumbent": "sim/large"},
                "thrifty": {
                    "incumbent": "sim/dear",
                    "fallbacks": ["sim/good", "sim/weak"],
                    "suites": ["tickets"],
                },
            },
        }

    place = installing_once(settings)
    place.environment |= {
        "OPENAI_API_KEY": KEYS["openai"],
        "ANTHROPIC_API_KEY": KEYS["anthropic"],
        VARIABLE: SECRET,
    }
    for part in ("router", "control", "agents"):
        place.serve(part)
    sim, slow = sims
    return Site(place, sim, slow, webhook, dict(place.settings))


@pytest.fixture(scope="module")
def mcp(site: Site) -> str:
    """The address of `swapproof mcp --http`."""
    port = free_port()
    process = site.place.start("mcp", "--http", "--port", str(port))

    def answers() -> bool:
        assert process.is_up(), process.log
        try:
            return site.place.client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    eventually(answers)
    return f"http://127.0.0.1:{port}/mcp"


def events(answer: httpx.Response) -> list[tuple[str, Any]]:
    """Name and data of each event of a stream."""
    found = []
    for block in answer.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


@pytest.mark.req("E1", "E2", "E3")
def test_the_documented_requests_work_with_their_literal_bodies(site: Site) -> None:
    made = site.call("POST", "/agents", AGENT)
    assert made.status_code == httpx.codes.CREATED, made.text
    path = f"/agents/{made.json()['id']}"
    assert (made.json()["name"], made.json()["model"]) == (
        "support",
        "openai:gpt-4o-mini",
    )
    shown = site.good("GET", path)
    assert shown["config"]["fallbackModel"] == "chat-web"
    assert shown["description"] == "Answers customers"
    changed = site.good("PATCH", path, '{"instructions": "Be brief."}')
    assert changed["instructions"] == "Be brief."

    opened = site.call("POST", f"{path}/sessions", SESSION)
    assert opened.status_code == httpx.codes.CREATED, opened.text
    assert opened.json()["userId"] == "user-42"
    assert opened.json()["metadata"] == {"channel": "web"}
    session = f"{path}/sessions/{opened.json()['id']}"
    first = site.call("POST", f"{session}/messages", FIRST, **{"idempotency-key": "first"})
    assert first.status_code in (200, 201), first.text
    assert first.json()["content"] == "Noted: A-1001."
    assert first.json()["target"] == "openai/gpt-4o-mini"
    again = site.call("POST", f"{session}/messages", FIRST, **{"idempotency-key": "first"})
    assert again.json() == first.json()

    streamed = site.call("POST", f"{session}/messages", STREAMED)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    told = events(streamed)
    assert told[0][0] == "message.started"
    deltas = [data["text"] for name, data in told if name == "message.delta"]
    assert "".join(deltas) == "It was A-1001."
    assert told[-1][0] == "turn.completed"
    assert told[-1][1]["content"] == "It was A-1001."

    listed = site.good("GET", f"{session}/messages?limit=2")
    assert len(listed["items"]) == 2
    assert listed["next"]
    mine = site.good("GET", f"{path}/sessions?userId=user-42")["items"]
    assert [one["id"] for one in mine] == [opened.json()["id"]]
    assert site.good("GET", f"{path}/sessions?userId=user-43")["items"] == []
    assert site.call("DELETE", session).status_code == httpx.codes.NO_CONTENT
    assert site.call("POST", f"{session}/messages", FIRST).status_code == httpx.codes.CONFLICT
    assert site.call("DELETE", path).status_code == httpx.codes.NO_CONTENT
    assert made.json()["id"] not in {one["id"] for one in site.good("GET", "/agents")["items"]}
    refused = site.call("POST", f"{path}/sessions", SESSION)
    assert refused.status_code == httpx.codes.NOT_FOUND
    assert refused.json()["error"]["code"] == "agent_not_found"


@pytest.mark.verify
@pytest.mark.req("E2", "C5")
def test_sessions_survive_a_kill_of_the_agents_process_and_of_the_router(site: Site) -> None:
    session = site.session()
    site.say(session, "My order has the number A-2002.")
    place = site.place
    for part in ("agents", "router"):
        process = running(place, f"serve-{part}")
        family = process.descendants()
        process.kill()
        for child in family:
            eventually(ended(child))
        place.serve(part)

    answer = site.say(session, "Which number was it?")
    assert answer["content"] == "It was A-2002."
    assert len(site.good("GET", f"{session}/messages")["items"]) == 4


def ended(child: psutil.Process) -> Callable[[], bool]:
    return lambda: not child.is_running()


def running(place: Installation, name: str) -> Process:
    return next(one for one in reversed(place.processes) if one.name == name and one.is_up())


@pytest.mark.req("C1", "C2", "C8")
def test_an_agent_lists_the_models_of_providers_with_a_key_and_never_a_key(site: Site) -> None:
    session = site.session()
    answer = site.call(
        "POST",
        f"{session}/switch_model",
        '{"action": "list", "model": "gpt"}',
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    models = [model["model"] for model in answer.json()["models"]]
    assert "openai/gpt-4o-mini" in models
    assert all("gpt" in model for model in models)
    every = site.call("POST", f"{session}/switch_model", '{"action": "list"}')
    assert any(model["model"].startswith("anthropic/") for model in every.json()["models"])
    assert not any(secret in answer.text + every.text for secret in KEYS.values())


@pytest.mark.req("C1", "C3", "C4", "C5")
def test_an_approved_switch_holds_for_all_later_messages_with_the_whole_context(
    site: Site,
) -> None:
    session = site.session()
    site.say(session, "My order has the number A-3003.")
    asked = site.call(
        "POST",
        f"{session}/switch_model",
        '{"action": "switch", "model": "gpt 4o mini", "reason": "long contracts"}',
    )
    assert asked.status_code == httpx.codes.ACCEPTED, asked.text
    request = asked.json()["request"]
    assert asked.json()["status"] == "pending"
    assert site.say(session, "Which number was it?")["target"] == "sim/sim-base"

    shown = site.place.cli("agent", "show", request).out
    assert "openai/gpt-4o-mini" in shown
    assert "long contracts" in shown
    assert request in site.place.cli("agent", "requests").out
    site.place.cli("agent", "approve", request, "--reason", "go on")

    eventually(lambda: site.outcome(session, request) == "approved")
    for _ in range(2):
        answer = site.say(session, "Which number was it?")
        assert (answer["content"], answer["target"]) == (
            "It was A-3003.",
            "openai/gpt-4o-mini",
        )


@pytest.mark.req("C4")
def test_a_rejected_switch_leaves_the_session_on_its_model_and_tells_the_agent_why(
    site: Site,
) -> None:
    session = site.session()
    site.say(session, "My order has the number A-4004.")
    request = site.switch(session, action="switch", model="openai/gpt-4o")["request"]
    pending = site.place.api("GET", f"/switch-requests?pending=true&session={session[-9:]}")
    assert pending.status_code == httpx.codes.OK
    body = {"reason": "too expensive for this"}
    answer = site.place.api("POST", f"/switch-requests/{request}/reject", body)
    assert answer.status_code == httpx.codes.OK, answer.text

    eventually(lambda: site.outcome(session, request) == "rejected")
    listed = site.good("GET", f"{session}/switch_requests")
    assert "too expensive for this" in json.dumps(listed)
    after = site.say(session, "Which number was it?")
    assert (after["content"], after["target"]) == (
        "It was A-4004.",
        "sim/sim-base",
    )


@pytest.mark.req("C4")
def test_nobody_but_a_person_with_the_role_decides_a_switch(site: Site) -> None:
    session = site.session()
    request = site.switch(session, action="switch", model="openai/gpt-4o")["request"]
    for token in (
        site.place.data_key,
        "sg-mgmt-wrong",
        site.place.management_key("looker", "viewer"),
    ):
        answer = site.place.api("POST", f"/switch-requests/{request}/approve", {}, token=token)
        assert answer.status_code in (401, 403), answer.text
    assert site.outcome(session, request) == "pending"


@pytest.mark.req("C4")
def test_the_link_in_the_webhook_shows_the_question_and_a_management_key_decides_once(
    site: Site,
) -> None:
    session = site.session()
    body = {
        "action": "switch",
        "model": "openai/gpt-4o",
        "reason": "ask-by-webhook",
    }
    request = site.switch(session, **body)["request"]
    (told, *_) = eventually(lambda: site.webhook.messages("model_switch", "ask-by-webhook"))
    (link, *_) = re.findall(r"http://\S+/agents/approvals/[\w.~%=-]+", json.dumps(told))

    http = site.place.client
    page = http.get(link)
    assert page.status_code == httpx.codes.OK
    assert "openai/gpt-4o" in page.text
    assert "ask-by-webhook" in page.text
    assert site.outcome(session, request) == "pending"  # looking decides nothing
    viewer = site.place.management_key("peeks", "viewer")
    for key in (site.place.data_key, viewer):
        refused = http.post(link, data={"key": key, "decision": "approve"})
        assert refused.status_code in (401, 403), refused.text
    approver = site.place.management_key("anna", "approver")
    done = http.post(link, data={"key": approver, "decision": "approve"})
    assert done.status_code == httpx.codes.OK, done.text
    assert site.outcome(session, request) == "approved"
    assert eventually(lambda: answer_of(site, session, "openai/gpt-4o"))
    again = http.post(link, data={"key": approver, "decision": "reject"})
    assert again.status_code >= httpx.codes.BAD_REQUEST
    assert site.outcome(session, request) == "approved"
    assert not any(secret in json.dumps(told) for secret in (*KEYS.values(), approver))


@pytest.mark.verify
@pytest.mark.req("C4")
def test_a_switch_that_nobody_decides_expires_and_the_session_stays(site: Site) -> None:
    session = site.session()
    with agents_with(site, switch_timeout_s=1):
        request = site.switch(session, action="switch", model="openai/gpt-4o")["request"]
        eventually(lambda: site.outcome(session, request) == "expired")
    answer = site.place.api("POST", f"/switch-requests/{request}/approve", {})
    assert answer.status_code == httpx.codes.CONFLICT, answer.text
    assert site.say(session, "Hello")["target"] == "sim/sim-base"


@contextmanager
def agents_with(site: Site, **settings: object) -> Iterator[None]:
    """The agents process with other settings, until the block ends."""
    for changes in (settings, {}):
        running(site.place, "serve-agents").stop()
        agents = {**site.settings["agents"], **changes}
        site.place.configure({**site.settings, "agents": agents})
        site.place.serve("agents")
        if changes:
            yield


@pytest.mark.verify
@pytest.mark.req("C3")
def test_a_loose_name_finds_the_newest_of_its_family_and_a_doubtful_one_is_asked_back(
    site: Site,
) -> None:
    def matched(name: str, code: int = 0) -> Any:
        return site.place.json("model", "match", name, code=code)

    assert "claude-sonnet" in json.dumps(matched("claude-sonnet"))
    assert matched("opus 4.7")["found"]["model"].startswith("claude-opus-4-7")
    assert "gpt-4o-mini" in json.dumps(matched("gpt 4o mini"))
    assert matched("claude", code=6)
    assert matched("nobody-has-this", code=1)

    session = site.session()
    asked = site.switch(session, action="switch", model="claude")
    assert asked["status"] == "question"
    assert len(asked["candidates"]) > 1
    assert site.good("GET", f"{session}/switch_requests")["items"] == []


@pytest.mark.req("C1", "C4", "C5", "C8")
def test_the_same_tools_are_served_over_mcp_and_none_of_them_approves(
    site: Site, mcp: str
) -> None:
    session = site.session()
    site.say(session, "My order has the number A-5005.")
    name = session.rpartition("/")[2]
    key = site.place.management_key("scout", "proposer")

    async def talk() -> tuple[set[str], Any, Any, Any]:
        headers = {"authorization": f"Bearer {key}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=REQUEST_S) as http,
            Client(streamable_http_client(mcp, http_client=http)) as client,
        ):
            tools = {tool.name for tool in (await client.list_tools()).tools}
            keys = await called(client, "manage_credentials", action="list")
            listed = await called(
                client,
                "switch_model",
                action="list",
                session=name,
            )
            asked = await called(
                client,
                "switch_model",
                action="switch",
                model="gpt-4o",
                session=name,
            )
            return tools, keys, listed, asked

    tools, keys, listed, asked = asyncio.run(talk())
    assert tools >= {"switch_model", "spawn", "manage_credentials"}
    assert not [tool for tool in tools if "approve" in tool or "promote" in tool]
    set_up = {one["name"]: one["hasValue"] for one in keys["items"]}
    assert (set_up["openai"], set_up["anthropic"]) == (True, True)
    assert "openai/gpt-4o" in [model["model"] for model in listed["models"]]
    assert not any(key in json.dumps([keys, listed, asked]) for key in KEYS.values())
    assert asked["status"] == "pending"
    site.place.cli("agent", "approve", asked["request"])
    answer = eventually(lambda: answer_of(site, session, "openai/gpt-4o"))
    assert answer["content"] == "It was A-5005."


async def called(
    client: Client,
    name: str,
    **arguments: object,
) -> Any:
    result = await client.call_tool(name, arguments)
    text = "".join(getattr(block, "text", "") for block in result.content)
    assert not result.is_error, text
    return json.loads(text)


@pytest.mark.req("C6", "B2")
def test_sub_tasks_run_at_the_same_time_each_on_its_own_model(site: Site) -> None:
    session = site.session(model="parent", tools=["spawn"])
    site.slow.fault("tiny", "hang")
    site.sim.reset_stats()
    answers: list[Any] = []
    turn = threading.Thread(target=lambda: answers.append(site.say(session, "Compare both")))
    turn.start()
    # The first hangs, and the second was asked meanwhile.
    eventually(lambda: "large" in answered(site.sim) and "tiny" in answered(site.slow))
    assert "tiny" not in answered(site.sim)
    # Its provider dies: the route's fallback answers.
    site.slow.kill()
    turn.join()

    assert answers[0]["content"] == "Cheap and frontier answered."
    site.slow.start()


@pytest.mark.req("C6", "C4")
def test_one_approval_covers_the_models_of_all_sub_tasks(site: Site) -> None:
    session = site.session(model="several", tools=["spawn"])
    assert site.say(session, "Begin")["content"] == "I wait for a person."
    listed = site.good("GET", f"{session}/switch_requests")["items"]
    (request,) = [one["request"] for one in listed if one["status"] == "pending"]
    shown = site.place.cli("agent", "show", request).out
    assert "openai/gpt-4o-mini" in shown
    assert "anthropic/claude-sonnet-4-5" in shown
    site.place.cli("agent", "approve", request)

    def both() -> bool:
        told = site.say(session, "Begin again")
        assert told["target"] == "sim/several"
        return bool(told["content"] == "Both have noted it.")

    eventually(both)


@pytest.mark.req("C6", "C4")
def test_an_agent_waits_for_the_approval_and_its_sub_tasks_answer_in_the_same_turn(
    site: Site,
) -> None:
    session = site.session(model="several", tools=["spawn"])
    answers: list[Any] = []
    turn = threading.Thread(target=lambda: answers.append(site.say(session, "Wait")))
    turn.start()

    def pending() -> list[str]:
        listed = site.good("GET", f"{session}/switch_requests")["items"]
        return [one["request"] for one in listed if one["status"] == "pending"]

    eventually(pending)
    (request,) = pending()
    site.place.cli("agent", "approve", request)
    turn.join()
    assert answers[0]["content"] == "Both have noted it."


def answered(sim: Simulator) -> set[str]:
    return {model for model, row in sim.stats()["models"].items() if row["requests"]}


@pytest.mark.verify
@pytest.mark.req("C7")
def test_auto_picks_the_cheapest_target_whose_scores_reach_the_floor(site: Site) -> None:
    session = site.session(model="auto:thrifty")
    assert site.say(session, "Hello")["target"] == "sim/dear"  # nothing is known yet

    for model in ("dear", "good", "weak"):
        site.place.cli("eval", "run", "tickets", f"sim/{model}", "--wait")
    chosen = eventually(lambda: answer_of(site, session, "sim/good"))
    assert "sim/good: the cheapest of 2" in chosen["auto"]
    assert chosen["model"] == "auto:thrifty"


def answer_of(
    site: Site,
    session: str,
    target: str,
) -> Any:
    """The answer to a message, if this target gave it."""
    answer = site.say(session, "Which number was it?")
    return answer if answer["target"] == target else None


@pytest.mark.req("E5", "C2")
@pytest.mark.verify
def test_when_a_providers_key_is_taken_away_the_agents_fallback_answers(site: Site) -> None:
    made = site.good("POST", "/agents", AGENT)
    session = f"/agents/{made['id']}/sessions"
    session = f"{session}/{site.good('POST', session, SESSION)['id']}"
    assert site.say(session, "The number A-6006")["target"] == "openai/gpt-4o-mini"

    place = site.place
    place.environment.pop("OPENAI_API_KEY")
    try:
        running(place, "serve-router").stop()
        place.serve("router")
        answer = site.say(session, "Which number was it?")
        assert (answer["content"], answer["target"]) == (
            "It was A-6006.",
            "sim/sim-base",
        )
        assert answer["fallback"]["from"]
    finally:
        place.environment["OPENAI_API_KEY"] = KEYS["openai"]
        running(place, "serve-router").stop()
        place.serve("router")
    assert site.say(session, "Which number was it?")["target"] == "openai/gpt-4o-mini"
