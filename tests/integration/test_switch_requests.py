import asyncio
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.agents import agents, switches, turns
from harness.agents.agents import AgentsClient
from harness.agents.built_in_tools import (
    BuiltInTool,
    build_switch_tool,
    switch_model,
)
from harness.agents.caller import ApprovalLinks
from harness.agents.message import (
    IncomingMessage,
    MessageRole,
    MessageState,
    MessageUsage,
    ServedBy,
)
from harness.agents.models import (
    choose_model,
    list_available,
    read_model_choice,
)
from harness.agents.records import Sessions, SwitchRequests
from harness.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.agents.switches import list_notes
from harness.agents.turn import ToolCaller
from harness.agents.turns import BegunTurn
from harness.app.installation import open_installation
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import (
    Conflict,
    InputError,
    NotAllowed,
    NotFound,
    StaleWrite,
)
from harness.frame.people.access import SYSTEM
from harness.operations import alert_delivery, keys, queries
from harness.operations.context import Context
from harness.providers.models.capabilities import Capabilities
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import DiscoveredModels
from harness.providers.registry import targets
from harness.providers.target import Price, Provider
from harness.routing.agent import (
    Agent,
    AgentSession,
    AgentTool,
    ModelChoice,
    ModelKind,
    literal_choice,
)
from harness.routing.control import routes
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.settings import AgentSettings, AutoFloor
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.people import ANN, BEN

pytestmark = pytest.mark.req("C1", "C3", "C4", "C5", "C8")
CHAT = ModelChoice("chat", ModelKind.ROUTE, route="chat")
BETTER = literal_choice("sim/better", "sim/better")
PERSON = AgentsClient.of_person(BEN)
OWNER = "here:8085#1"
MARKUP = "<b>now</b> <!channel> [yes](http://e.example/)"
PICTURE = [
    {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
    }
]


@pytest.fixture
def ctx(world: SmallInstallation) -> Context:
    models = {
        "small": Capabilities(context_window=20),
        "blind": Capabilities(vision=False),
        "toolless": Capabilities(tools=False),
    }
    names = (
        "base",
        "better",
        *models,
        "claude-sonnet-4",
        "claude-sonnet-3",
        "claude-opus-4",
    )
    prices = {name: Price(1.0, 2.0) for name in names}
    plain = world.context()
    provider = Provider(
        "sim",
        "sim",
        "http://127.0.0.1:9/v1",
        prices=prices,
        models=models,
    )
    targets.put_provider(plain, SYSTEM, provider, "a test")
    keyless = Provider(
        "far",
        "openai",
        "http://127.0.0.1:9/v1",
        prices={"gpt-far": Price(1, 1)},
    )
    targets.put_provider(plain, SYSTEM, keyless)
    return replace(
        plain,
        data_classes={"internal": frozenset({"other"})},
        agents=AgentSettings(max_literals=3),
        approval_links=ApprovalLinks("http://swapproof.test", SECRET),
    )


@pytest.fixture
def agent(ctx: Context) -> Agent:
    return agents.create_agent(ctx, PERSON, "helper", CHAT)


@pytest.fixture
def session(ctx: Context, agent: Agent) -> AgentSession:
    return agents.open_session(ctx, PERSON, agent.id, "user-7")


def ask(
    ctx: Context,
    session: AgentSession,
    model: ModelChoice = BETTER,
    **more: Any,
) -> ModelSwitchRequest:
    return switches.request_switch(ctx, session.id, (model,), **more)


def left_out(request: ModelSwitchRequest) -> list[str]:
    return [fact["text"] for fact in request.facts if fact["name"] == "Left out"]


def now_on(ctx: Context, session: AgentSession) -> AgentSession:
    with ctx.store.read() as tx:
        return Sessions(tx).get(session.id)


def exchange(
    ctx: Context,
    session: AgentSession,
    content: Any,
    **answered: Any,
) -> None:
    incoming = IncomingMessage(MessageRole.USER, content)
    begun = turns.begin_turn(ctx, OWNER, session.id, incoming)
    assert isinstance(begun, BegunTurn)
    under_way = turns.begin_answer(ctx, begun.session, model="chat")
    whole = replace(
        under_way,
        content="yes",
        state=MessageState.COMPLETE,
        served=ServedBy("chat", "chat", "sim/base"),
        **answered,
    )
    turns.record_step(
        ctx,
        begun.session,
        answer=whole,
        kept="",
    )


def granted(ctx: Context, session: AgentSession) -> str:
    known = ctx.store.lists.agent_grants(agent=session.agent)
    (id_,) = (grant.id for grant in known if grant.revoked_at is None)
    return id_


def call(
    ctx: Context,
    session: AgentSession,
    action: str,
    model: str = "",
) -> dict[str, Any]:
    answer = asyncio.run(switch_model(ctx, session.id, action, model, "why not"))
    return answer.model_dump(mode="json", by_alias=True, exclude_unset=True)


@pytest.mark.parametrize("shown", [{"facts": ()}, {"reason": "another"}])
def test_a_request_that_shows_something_else_now_is_not_the_one_that_was_seen(
    ctx: Context,
    session: AgentSession,
    shown: dict[str, Any],
) -> None:
    request = ask(ctx, session, reason="it is cleverer")
    seen = replace(request, **shown)

    with pytest.raises(StaleWrite, match="has changed since you saw it"):
        switches.approve_switch(ctx, BEN, request.id, fingerprint=seen.hash)

    assert now_on(ctx, session).model == CHAT


@pytest.mark.spine
def test_a_rejected_switch_leaves_the_session_and_is_told(
    ctx: Context, session: AgentSession
) -> None:
    exchange(ctx, session, "hello")
    before = ctx.clock.now()
    request = ask(ctx, session)

    switches.reject_switch(ctx, BEN, request.id, "too dear")

    assert now_on(ctx, session).model == CHAT
    assert list(list_notes(ctx, session.id, before)) == [
        "ben rejected the switch to sim/better: too dear. The model stays."
    ]
    with pytest.raises(NotAllowed, match="ben rejected the switch") as refused:
        ask(ctx, session)
    assert refused.value.code == "switch_rejected"
    ctx.clock.advance(1)  # type: ignore[attr-defined]
    exchange(ctx, session, "Ask again, please.")
    assert ask(ctx, session).state is SwitchState.PENDING


@pytest.mark.spine
def test_what_nobody_decides_expires(ctx: Context, session: AgentSession) -> None:
    request = ask(ctx, session)
    ctx.clock.advance(3_600)  # type: ignore[attr-defined]

    for decide in (switches.approve_switch, switches.reject_switch):
        with pytest.raises(Conflict, match="expired already"):
            decide(ctx, BEN, request.id)

    assert not ctx.store.lists.switch_requests(pending_at=ctx.clock.now())
    assert now_on(ctx, session).model == CHAT
    (note,) = list_notes(
        ctx,
        session.id,
        request.asked_at,
    )
    assert note.startswith("No person decided about the switch to sim/better in time")
    ctx.clock.jump(-3_600)  # type: ignore[attr-defined]
    with pytest.raises(Conflict, match="expired already"):
        switches.approve_switch(ctx, BEN, request.id)
    assert switches.load_switch(ctx, request.id).state is SwitchState.EXPIRED
    again = ask(ctx, session)
    ctx.clock.advance(3_600)  # type: ignore[attr-defined]
    agents.close_session(ctx, PERSON, session.agent, session.id)
    assert switches.load_switch(ctx, again.id).state is SwitchState.EXPIRED
    assert not list(ctx.store.lists.agent_grants())


@pytest.mark.both_databases
@pytest.mark.spine
def test_the_same_request_waits_once_and_not_many_wait(
    ctx: Context, session: AgentSession
) -> None:
    first = ask(ctx, session)
    assert ask(ctx, session, reason="again").id == first.id
    for name in ("small", "blind", "toolless"):
        ask(ctx, session, literal_choice(name, f"sim/{name}"))

    with pytest.raises(Conflict, match="4 requests") as refused:
        ask(ctx, session, literal_choice("x", "sim/claude-opus-4"))
    assert refused.value.code == "too_many_requests"
    with pytest.raises(Conflict, match="on chat already"):
        ask(ctx, session, CHAT)


def test_what_a_model_cannot_hold_is_refused_with_a_sentence(ctx: Context) -> None:
    spec: dict[str, Any] = {
        "name": "tools",
        "model": CHAT,
        "tools": (AgentTool("close", {"type": "object"}),),
    }
    with_tools = agents.create_agent(ctx, PERSON, **spec)
    session = agents.open_session(ctx, PERSON, with_tools.id)
    exchange(ctx, session, PICTURE, usage=MessageUsage(30, 10))

    def refusal(name: str) -> str:
        with pytest.raises(InputError) as refused:
            ask(ctx, session, literal_choice(name, f"sim/{name}"))
        assert refused.value.code == "model_unfit"
        return str(refused.value)

    assert "sim/small lacks a context window" in refusal("small")
    assert refusal("blind") == (
        "model: sim/blind accepts no images, and there are images in the messages 1"
    )
    assert "sim/toolless has no tools" in refusal("toolless")
    with ctx.store.read() as tx:
        assert not SwitchRequests(tx).of_session(session.id)


def test_what_a_model_cannot_hold_of_what_came_since_is_not_approved(
    ctx: Context, session: AgentSession
) -> None:
    request = ask(ctx, session, literal_choice("blind", "sim/blind"))
    exchange(ctx, session, PICTURE)

    with pytest.raises(InputError, match="accepts no images") as refused:
        switches.approve_switch(ctx, BEN, request.id)

    assert refused.value.code == "model_unfit"
    assert switches.load_switch(ctx, request.id).state is SwitchState.PENDING
    assert not ctx.store.lists.agent_grants(agent=session.agent).items
    assert now_on(ctx, session).model == CHAT
    switches.reject_switch(ctx, BEN, request.id)


def test_reasoning_that_is_left_out_is_shown_to_the_approver(
    ctx: Context, session: AgentSession
) -> None:
    other = Provider("second", "sim", "http://127.0.0.1:9/v1", prices={"m": Price(1, 1)})
    targets.put_provider(ctx, SYSTEM, other)
    exchange(ctx, session, "think", extra={"reasoning_content": "so"})

    assert left_out(ask(ctx, session)) == []
    (omission,) = left_out(ask(ctx, session, literal_choice("m", "second/m")))
    assert omission.startswith("the reasoning of sim in the messages 2 is left out")


@pytest.mark.req("E1")
def test_an_unknown_model_of_a_client_is_told_its_two_nearest_and_the_command(
    ctx: Context,
) -> None:
    with pytest.raises(NotFound) as unknown:
        read_model_choice(ctx, "house-model-9-of-nowhere")
    near, command = str(unknown.value).split("nearest: ")[1].split("; ")
    assert near.count(" and ") == 1
    assert command == "`swapproof model add PROVIDER/MODEL` adds a model"
    assert len(str(unknown.value)) <= 200


@pytest.mark.req("C3", "D2")
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("claude-haiku", "swapproof provider add anthropic"),
        ("groq/llama-3.1-8b", "swapproof provider add groq"),
        ("mistral:large", "swapproof provider add mistral"),
        ("google/gemini-2.5-flash", "swapproof provider add gemini"),
        ("vllm/llama", "swapproof provider add vllm --api-base URL"),
        ("openai_codex/gpt-5", "swapproof provider key login openai_codex"),
        (
            "azure/a-deployment-with-a-long-name",
            "provider add azure_openai --api-base URL",
        ),
    ],
)
def test_a_name_of_a_provider_that_is_not_set_up_is_told_how_to_add_it(
    ctx: Context,
    name: str,
    command: str,
) -> None:
    with pytest.raises(NotFound, match=command) as unknown:
        read_model_choice(ctx, name)
    assert "swapproof model add" not in str(unknown.value)
    assert len(str(unknown.value)) <= 200


def test_the_list_says_when_a_provider_listed_a_model_itself(
    ctx: Context, session: AgentSession
) -> None:
    now = ctx.clock.now()
    own = DiscoveredModel("sim", "llama-9", "http://127.0.0.1:9/v1", now, 8_192)
    with ctx.store.write() as tx:
        DiscoveredModels(tx).replace("sim", [own])

    (listed,) = call(ctx, session, "list", "llama")["models"]

    assert (listed["model"], listed["contextWindow"]) == (
        "sim/llama-9",
        8_192,
    )
    assert listed["listedOn"] == f"{now:%Y-%m-%d}"


@pytest.mark.req("C2")
@pytest.mark.spine
def test_the_list_shows_models_of_every_provider_with_a_key_and_counts_the_rest(
    ctx: Context, session: AgentSession
) -> None:
    now = ctx.clock.now()
    targets.put_provider(ctx, SYSTEM, Provider("big", "vllm", "http://127.0.0.1:9/v1"))
    targets.put_provider(ctx, SYSTEM, Provider("unasked", "vllm", "http://127.0.0.1:8/v1"))
    many = [
        DiscoveredModel("big", f"m-{n:03}", "http://127.0.0.1:9/v1", now) for n in range(300)
    ]
    with ctx.store.write() as tx:
        DiscoveredModels(tx).replace("big", many)

    told = call(ctx, session, "list")

    rows = {row["provider"]: row for row in told["providers"]}
    assert set(rows) == {"big", "sim", "unasked"}
    few = rows["sim"]["models"]
    big = rows["big"]
    assert (
        rows["sim"]["shown"],
        big["models"],
        big["shown"],
    ) == (
        few,
        300,
        100 - few,
    )
    sources = {name: row["source"] for name, row in rows.items()}
    assert sources == {
        "big": "listed",
        "sim": "catalogue",
        "unasked": "catalogue",
    }
    assert "swapproof model discover unasked" in rows["unasked"]["note"]
    assert f"{200 + few} more" in told["message"]
    assert len(told["models"]) == 100


@pytest.mark.spine
def test_a_plain_auto_is_the_one_route_with_a_floor_for_whoever_approves_it(
    ctx: Context, session: AgentSession
) -> None:
    with pytest.raises(InputError, match="auto needs a route"):
        choose_model(ctx, "auto")
    floors = {"chat": AutoFloor(0.8, "colours")}
    asking = replace(ctx, agents=AgentSettings(floors=floors))

    told = call(asking, session, "switch", "auto")
    assert (told["status"], told["model"]) == ("pending", "auto:chat")
    # The process of the approver has no such floor in its file.
    switches.approve_switch(ctx, BEN, told["request"])

    model = now_on(ctx, session).model
    assert (model.kind, model.route, model.text) == (
        ModelKind.AUTO,
        "chat",
        "auto:chat",
    )


def test_an_mcp_client_may_wait_for_the_decision_and_a_turn_does_not(
    ctx: Context,
    session: AgentSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wish: dict[str, object] = {
        "action": "switch",
        "model": "sim/better",
        "wait_s": 60,
    }
    caller = ToolCaller(session.id)
    tool = build_switch_tool(ctx, waits=True)
    in_a_turn = build_switch_tool(ctx)
    assert "wait_s" in str(tool.offered.parameters)
    assert "wait_s" not in str(in_a_turn.offered.parameters)
    load = switches.load_switch

    def approved_meanwhile(ctx: Context, id_: str) -> ModelSwitchRequest:
        request = load(ctx, id_)
        if request.state is SwitchState.PENDING:
            switches.approve_switch(ctx, BEN, id_)
        return request

    monkeypatch.setattr(switches, "load_switch", approved_meanwhile)
    first = answer_of(in_a_turn, wish, caller)
    last = answer_of(tool, wish, caller)

    assert (first["status"], last["status"]) == ("pending", "approved")
    assert last["request"] == first["request"]
    for wrong in (-1, "60", True, math.nan):
        with pytest.raises(InputError, match="wait_s"):
            answer_of(tool, {**wish, "wait_s": wrong}, caller)


def answer_of(
    tool: BuiltInTool,
    arguments: dict[str, object],
    caller: ToolCaller,
) -> Any:
    async def answer() -> object:
        return (await tool.answer(arguments, caller)).content

    return asyncio.run(answer())


@pytest.mark.spine
def test_the_last_verdict_and_scores_are_shown(
    world: SmallInstallation,
    ctx: Context,
    session: AgentSession,
) -> None:
    world.decided("sim/better")

    (better,) = list_available(ctx, frozenset(), "sim/better").models
    assert str(better.last_verdict).startswith("PASSED on chat")
    facts = {fact["name"]: fact["text"] for fact in ask(ctx, session).facts}
    assert facts["Model now"] == "chat (sim/base)"
    assert "PASSED on chat" in facts["Quality"]
    assert all("colours" in facts[side] for side in ("Quality", "Quality now"))


def test_a_route_needs_no_grant_and_the_keys_routes_hold(ctx: Context) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create_route(ctx, SYSTEM, "other", "sim/better", settings=settings)
    key, _ = keys.create_key(
        ctx,
        SYSTEM,
        "client",
        secret=SECRET,
        routes=("chat",),
    )
    own = AgentsClient.of_data_key(key)
    made = agents.create_agent(ctx, own, "mine", CHAT)
    session = agents.open_session(ctx, own, made.id)
    other = ModelChoice("other", ModelKind.ROUTE, route="other")
    with pytest.raises(NotAllowed, match="does not open the route 'other'"):
        ask(ctx, session, other)
    assert call(ctx, session, "list")["routes"] == ["chat"]

    free = agents.create_agent(ctx, PERSON, "free", CHAT)
    session = agents.open_session(ctx, PERSON, free.id)
    assert call(ctx, session, "list")["routes"] == ["chat", "other"]
    switches.approve_switch(ctx, BEN, ask(ctx, session, other).id)

    assert now_on(ctx, session).model == other
    assert not list(ctx.store.lists.agent_grants())


def test_a_data_class_holds_before_anybody_is_asked(ctx: Context) -> None:
    provider = Provider("other", "sim", "http://127.0.0.1:9/v1", prices={"m": Price(1, 1)})
    targets.put_provider(ctx, SYSTEM, provider)
    private = agents.create_agent(
        ctx,
        PERSON,
        "private",
        literal_choice("other/m", "other/m"),
        data_class="internal",
    )
    session = agents.open_session(ctx, PERSON, private.id)

    with pytest.raises(NotAllowed, match="may not see it"):
        ask(ctx, session)


@pytest.mark.both_databases
def test_a_grant_is_revoked_once_by_an_approver_and_its_session_goes_on_with_another(
    ctx: Context, session: AgentSession
) -> None:
    switches.approve_switch(ctx, BEN, ask(ctx, session).id)
    grant = granted(ctx, session)

    with pytest.raises(NotAllowed):
        agents.revoke_grant(ctx, ANN, grant)
    assert agents.revoke_grant(ctx, BEN, grant, "enough").revoked_at == ctx.clock.now()
    with pytest.raises(Conflict, match="revoked already"):
        agents.revoke_grant(ctx, BEN, grant)
    with ctx.store.read() as tx:
        found = agents.find_grant(ctx, tx, session.agent, session.id, "sim/better")
    assert found is None
    switches.approve_switch(ctx, BEN, ask(ctx, session, CHAT).id)
    assert now_on(ctx, session).model.means(CHAT)
    switches.approve_switch(ctx, BEN, ask(ctx, session).id)
    agents.revoke_grant(ctx, BEN, granted(ctx, session))
    closed = agents.close_session(ctx, PERSON, session.agent, session.id)
    assert closed.state.value == "closed"


def test_an_alert_carries_the_question_and_a_link_but_stores_no_word_of_the_agent(
    world: SmallInstallation,
    ctx: Context,
    session: AgentSession,
) -> None:
    request = ask(ctx, session, reason=MARKUP)
    alert_delivery.run_once(ctx)

    (message,) = world.sinks.kept["chat"]
    assert message.kind is AlertKind.MODEL_SWITCH
    link = ctx.approval_links and ctx.approval_links.link(request)
    assert message.title == "helper wants to switch to sim/better. Approve?"
    assert f"Decide: {link}" in message.text
    assert "·b·now·/b· ·!channel· ·yes·(http //e. example/)" in message.text
    (stored,) = queries.list_alerts(ctx, open_only=True)
    assert "now" not in stored.text
    switches.reject_switch(ctx, BEN, request.id)
    alert_delivery.run_once(ctx)
    assert not list(queries.list_alerts(ctx, open_only=True))


def test_without_a_signing_key_no_alert_has_a_link(
    world: SmallInstallation,
    ctx: Context,
    session: AgentSession,
) -> None:
    ask(ctx, session)
    alert_delivery.run_once(replace(ctx, approval_links=None))

    (message,) = world.sinks.kept["chat"]
    assert "Decide:" not in message.text


def test_an_installation_makes_links_only_where_it_could_sign_an_approval(
    tmp_path: Path,
) -> None:
    config = tmp_path / "swapproof.yaml"
    home = tmp_path / "home"

    def makes_links(agents: str = "") -> bool:
        config.write_text(f"home: {home}\n{agents}", encoding="utf-8")
        with closing(open_installation(config, create_secret=True)) as installation:
            return installation.context.approval_links is not None

    assert makes_links()
    assert not makes_links("agents: {url: ''}\n")
    (home / "signing.key").unlink()
    assert not makes_links()
