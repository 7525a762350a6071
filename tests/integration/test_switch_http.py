import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from harness.agents import switches
from harness.agents.caller import ApprovalLinks
from harness.agents.switch_request import ModelSwitchRequest
from harness.frame.people.access import SYSTEM, Role
from harness.operations import keys
from harness.providers.registry import targets
from harness.providers.target import Target
from tests.support.providers.scripted_upstream import (
    ReceivedRequest,
    completion,
)
from tests.support.site.agents_site import (
    AgentsSite,
    agents_site,
    calling,
    good,
)
from tests.wire import anthropic as claude
from tests.wire import gemini
from tests.wire import openai as plain
from tests.wire.server import KEY, Reading, Reply, Strict, serving

pytestmark = [
    pytest.mark.req("C1", "C4", "C5", "C8"),
    pytest.mark.timeout(900),
]
BASE = "sim-base"
BETTER = "sim-better"
PRICE = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentsSite]:
    folder = tmp_path_factory.mktemp("switches")
    with ExitStack() as stack:
        database: str | None = None
        if request.param == "postgresql":
            postgres = request.getfixturevalue("postgres")
            database = stack.enter_context(postgres.migrated_database())
        made = stack.enter_context(
            agents_site(folder, with_control=True, database_url=database)
        )
        # What nobody uses and no file names is offered by nobody.
        targets.add_target(made.world.installation.context, SYSTEM, Target("sim", BETTER))
        yield made


@pytest.fixture
def site(shared: AgentsSite) -> AgentsSite:
    shared.upstream.turns = {
        BASE: completion("base"),
        BETTER: completion("better"),
    }
    shared.upstream.asked.clear()
    return shared


def switch(
    site: AgentsSite,
    session: str,
    model: str,
    **fields: object,
) -> Any:
    body = {
        "action": "switch",
        "model": model,
        **fields,
    }
    return site.client.post(f"{session}/switch_model", json=body)


def pending(site: AgentsSite, answer: Any) -> ModelSwitchRequest:
    assert answer.status_code == 202, answer.text
    return switches.load_switch(site.world.installation.context, answer.json()["request"])


def key_of(site: AgentsSite, role: Role | None) -> str:
    installation = site.world.installation
    ctx = installation.context
    secret = installation.secret
    name = ctx.chance.token("key-")
    return keys.create_key(
        ctx,
        SYSTEM,
        name,
        secret=secret,
        role=role,
    )[1]


def link_of(site: AgentsSite, request: ModelSwitchRequest) -> str:
    links = site.world.installation.context.approval_links
    assert links is not None
    return links.link(request)


def decide(
    link: str,
    key: str,
    decision: str = "approve",
    **more: str,
) -> httpx.Response:
    return httpx.post(
        link,
        data={
            "key": key,
            "decision": decision,
            **more,
        },
    )


@pytest.mark.spine
def test_a_model_asks_in_its_turn_and_answers_as_another_from_the_next_message_on(
    site: AgentsSite,
) -> None:
    wish = {
        "action": "switch",
        "model": "sim better",
        "reason": "a long contract",
    }

    def base(request: ReceivedRequest) -> Any:
        is_told = request.json["messages"][-1]["role"] == "tool"
        return (
            completion("I have asked.")
            if is_told
            else calling(("c1", "switch_model", json.dumps(wish)))
        )

    site.upstream.turns[BASE] = base
    session = site.session(tools=["switch_model"], instructions="Be brief.")

    assert good(site.send(session, "My number is 7."))["content"] == "I have asked."

    (row,) = good(site.client.get(f"{session}/switch_requests"))["items"]
    assert (row["status"], row["model"]) == ("pending", "sim/sim-better")
    result = json.loads(site.messages(session)[2]["content"])
    assert (result["status"], result["request"]) == (
        "pending",
        row["request"],
    )
    ctx = site.world.installation.context
    request = switches.load_switch(ctx, row["request"])
    assert request.reason == "a long contract"
    answer = decide(link_of(site, request), key_of(site, Role.APPROVER), reason="fine")
    assert answer.status_code == 200, answer.text
    second = good(site.send(session, "What is my number?"))

    assert (second["content"], second["target"]) == (
        "better",
        "sim/sim-better",
    )
    (sent,) = site.upstream.asked_for(BETTER)
    texts = [str(message["content"]) for message in sent.json["messages"]]
    assert texts[0].startswith("Be brief.")
    assert "approved the switch to sim/sim-better: fine" in texts[0]
    assert texts[1] == "My number is 7."
    assert texts[-1] == "What is my number?"
    assert good(site.client.get(session))["model"] == "sim/sim-better"


def test_a_link_is_for_its_own_request_alone(site: AgentsSite) -> None:
    session = site.session()
    request = pending(site, switch(site, session, "sim/sim-base"))
    link = link_of(site, request)
    key = key_of(site, Role.APPROVER)
    base, _, token = link.rpartition("/")
    _, mac = token.split(".")
    secret = site.world.installation.secret
    other = pending(site, switch(site, site.session(), "sim/sim-base"))
    of_other = ApprovalLinks(site.world.url, secret).link(other)
    mixed = of_other.replace(other.id, request.id)
    foreign = ApprovalLinks(site.world.url, b"another secret").link(request)
    for forged in (
        mixed,
        foreign,
        f"{base}/{request.id}.{mac[:-1]}x",
        f"{base}/x",
    ):
        assert httpx.get(forged).status_code == 404
        assert decide(forged, key).status_code == 404
    assert switches.load_switch(site.world.installation.context, request.id) == request


def test_wrong_keys_are_limited_behind_a_link_too_and_a_right_one_is_not(
    site: AgentsSite,
) -> None:
    request = pending(site, switch(site, site.session(), "sim/sim-base"))
    link = link_of(site, request)
    key = key_of(site, Role.APPROVER)
    # Nobody else asks from there.
    transport = httpx.HTTPTransport(local_address="127.0.0.77")
    with httpx.Client(transport=transport, timeout=120) as guesser:

        def guess(text: str) -> httpx.Response:
            return guesser.post(link, data={"key": text, "decision": "approve"})

        # At once, however slow this machine is: one more comes back a second.
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(guess, ["sg-mgmt-wrong"] * 120))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {401, 429}
        assert statuses.count(401) >= 10
        limited = next(answer for answer in answers if answer.status_code == 429)
        assert int(limited.headers["retry-after"]) >= 1
        assert guess(key).status_code == 200


@pytest.mark.spine
def test_the_built_in_tools_are_offered_only_where_the_agent_has_them(site: AgentsSite) -> None:
    site.upstream.turns[BASE] = lambda request: (
        completion("done")
        if request.json["messages"][-1]["role"] == "tool"
        else calling(("c1", "manage_credentials", '{"action": "list"}'))
    )
    session = site.session(tools=["manage_credentials"])

    good(site.send(session, "Which providers?"))

    offered = site.upstream.asked[0].json["tools"]
    assert [tool["function"]["name"] for tool in offered] == ["manage_credentials"]
    told = json.loads(site.messages(session)[2]["content"])
    assert told["providers"][0]["provider"] == "sim"
    session = site.session()
    good(site.send(session, "Hi"))
    assert "there is no tool 'manage_credentials'" in site.messages(session)[2]["content"]


WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
        },
    },
}
CITIES: Final = ("Oslo", "Rome")
PICTURE: Final = [
    {"type": "text", "text": "My number is 7. What is the weather?"},
    {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
    },
]


def weather(read: Reading) -> Reply:
    newest = read.turns[-1]
    if newest.results:
        return Reply(" and ".join(newest.results))
    if "weather" in newest.text:
        calls = tuple(("weather", {"city": city}) for city in CITIES)
        return Reply(
            "Let me look.",
            "I think",
            calls=calls,
            stop="tools",
        )
    return Reply("It is 7.")


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentsSite, Any]]:
    """Strict providers that speak OpenAI's, Anthropic's and Gemini's protocols."""
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("WIRE_KEY", KEY)
        servers: dict[str, Strict] = {}
        providers: dict[str, Any] = {}
        for kind, wire in (
            ("openai", plain),
            ("anthropic", claude),
            ("gemini", gemini),
        ):
            server = servers[kind] = wire.strict()
            server.answers = weather
            stack.enter_context(serving(server))
            providers[f"my-{kind}"] = {
                "kind": kind,
                "api_base": server.api_base,
                "api_key_env": "WIRE_KEY",
                "prices": {wire.MODEL: PRICE},
            }
        models = {
            "chat": "my-openai",
            "claude": "my-anthropic",
            "gem": "my-gemini",
        }
        wire_of = {
            "my-openai": plain,
            "my-anthropic": claude,
            "my-gemini": gemini,
        }
        # Routes of all three: the router has loaded its translations when it is ready.
        routes = {
            route: {
                "incumbent": f"{name}/{wire_of[name].MODEL}",
                "suites": ["colours"],
            }
            for route, name in models.items()
        }
        sections = {"providers": providers, "routes": routes}
        folder: Path = tmp_path_factory.mktemp("wires")
        yield (
            stack.enter_context(agents_site(folder, with_control=True, sections=sections)),
            servers,
        )


def finish_tools(
    site: AgentsSite,
    session: str,
    content: object,
) -> Any:
    asked = good(site.send(session, content))
    assert len(asked["openCalls"]) == 2
    for call in asked["openCalls"]:
        city = json.loads(call["arguments"])["city"]
        last = good(
            site.send(
                session,
                f"{city} is fine",
                role="tool",
                toolCallId=call["id"],
            )
        )
    return last


def test_the_whole_context_goes_from_protocol_to_protocol(
    wires: tuple[AgentsSite, dict[str, Strict]],
) -> None:
    site, servers = wires
    session = site.session(tools=[WEATHER])
    said = "Oslo is fine and Rome is fine"
    assert finish_tools(site, session, PICTURE)["content"] == said
    order = (
        ("anthropic", claude.MODEL),
        ("gemini", gemini.MODEL),
        ("openai", plain.MODEL),
    )
    for count, (kind, model) in enumerate(order, 1):
        name = f"my-{kind}/{model}"
        request = pending(site, switch(site, session, name, reason="try it"))
        approved = decide(link_of(site, request), key_of(site, Role.APPROVER))
        assert approved.status_code == 200, approved.text

        answer = good(site.send(session, "What is my number?"))
        assert (answer["content"], answer["target"]) == ("It is 7.", name)
        turns = servers[kind].readings[-1].turns
        assert turns[0].images == 1
        assert "My number is 7." in turns[0].text
        called = [turn.calls for turn in turns if turn.calls]
        assert called == [tuple(("weather", {"city": city}) for city in CITIES)] * count
        results = [text for turn in turns for text in turn.results]
        assert results == [f"{city} is fine" for city in CITIES] * count
        assert finish_tools(site, session, "And the weather now?")["content"] == said
    assert not [server.refused for server in servers.values() if server.refused]
