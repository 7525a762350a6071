import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa

from harness.agents import agents, turns
from harness.agents.agents import AgentsClient
from harness.agents.auto import AutoTargets
from harness.agents.built_in_tools import ServerTools
from harness.agents.conversation import PostedMessage, TurnOutcome, TurnRun
from harness.agents.message import (
    IdempotencyKey,
    IncomingMessage,
    MessageRole,
    MessageState,
    MessageToolCall,
    MessageUsage,
    ServedBy,
    SessionMessage,
)
from harness.agents.records import Agents, Sessions, SwitchRequests
from harness.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.agents.turn import (
    AnswerPiece,
    ModelCallAnswer,
    ModelCallRequest,
    OfferedTool,
    ToolCaller,
    ToolResult,
)
from harness.agents.turn_runner import TurnRunner
from harness.agents.turns import BegunTurn
from harness.app.store.store import Store
from harness.app.store.tables import metadata
from harness.frame.errors import (
    CallFailed,
    CallRefused,
    Conflict,
    InputError,
    NobodyAnswered,
    NotAllowed,
    NotFound,
    SessionBusy,
    StaleWrite,
    StoreUnavailable,
)
from harness.frame.pagination import PageRequest
from harness.frame.people.access import SYSTEM
from harness.operations import captures
from harness.operations.context import Context
from harness.operations.records import Captures
from harness.routing.agent import (
    Agent,
    AgentSession,
    AgentTool,
    GrantKind,
    ModelChoice,
    ModelKind,
    SessionState,
    literal_choice,
)
from harness.routing.control import routes
from harness.routing.reliability.failover import hash_user
from harness.routing.route_settings import RouteSettings
from harness.routing.settings import AgentSettings, TurnBounds
from tests.contract import test_store_observations as observations
from tests.support.control.bare_installation import BareInstallation
from tests.support.control.crashing_store import Crash, CrashingStore
from tests.support.control.known_secrets import SECRET
from tests.support.control.people import ANN, BEN

pytestmark = pytest.mark.req("E1", "E2")
CHAT = ModelChoice("chat", ModelKind.ROUTE, route="chat")
BETTER = literal_choice("sim:better", "sim/better")
KEY = AgentsClient(key="k_1")
PERSON = AgentsClient.of_person(BEN)
OWNER = "here:8085#1"
HELLO = IncomingMessage(MessageRole.USER, "hello")
CLOSE = AgentTool("close", {"type": "object"})


@pytest.fixture
def ctx(world: BareInstallation) -> Context:
    return replace(
        world.context(),
        data_classes={"internal": frozenset({"other"})},
        agents=AgentSettings(literal_days=1, max_literals=2),
    )


@pytest.fixture
def agent(ctx: Context) -> Agent:
    return agents.create_agent(ctx, KEY, "helper", CHAT, tools=(CLOSE,))


@pytest.fixture
def session(ctx: Context, agent: Agent) -> AgentSession:
    return agents.open_session(ctx, KEY, agent.id, "user-7", {"a": 1})


def begin(
    ctx: Context,
    session: str,
    text: str = "hello",
    **more: object,
) -> BegunTurn:
    incoming = IncomingMessage(MessageRole.USER, text)
    begun = turns.begin_turn(ctx, OWNER, session, incoming, **more)  # type: ignore[arg-type]
    assert isinstance(begun, BegunTurn)
    return begun


def answered(
    ctx: Context,
    begun: BegunTurn,
    text: str = "hi",
    kept: str = "",
) -> None:
    under_way = turns.begin_answer(ctx, begun.session, model="chat")
    turns.record_step(
        ctx,
        begun.session,
        answer=whole(under_way, text),
        kept=kept,
    )


def whole(
    under_way: SessionMessage,
    text: str,
    cost_usd: float = 0.5,
) -> SessionMessage:
    usage = MessageUsage(10, 2, cost_usd=cost_usd)
    return replace(
        under_way,
        content=text,
        state=MessageState.COMPLETE,
        usage=usage,
    )


def transcript(ctx: Context, session: str) -> list[tuple[str, object, str]]:
    found = ctx.store.lists.session_messages(session=session)
    return [(message.role.value, message.content, message.state.value) for message in found]


def ids_of_sessions(ctx: Context, agent: Agent) -> list[str]:
    return [session.id for session in ctx.store.lists.sessions(agent=agent.id)]


@pytest.mark.both_databases
def test_a_turn_is_stored_step_by_step(ctx: Context, session: AgentSession) -> None:
    begun = begin(ctx, session.id)
    first = turns.begin_answer(ctx, begun.session, model="chat")
    assert transcript(ctx, session.id)[-1] == ("assistant", "", "streaming")
    calls = (
        MessageToolCall("c_1", "look", "{}"),
        MessageToolCall("c_2", "look", "{}"),
    )
    turns.record_step(
        ctx,
        begun.session,
        answer=replace(whole(first, ""), tool_calls=calls),
    )
    turns.record_step(ctx, begun.session, results=[("c_1", "one"), ("c_2", "two")])
    answered(ctx, begun, "done")

    assert transcript(ctx, session.id) == [
        ("user", "hello", "complete"),
        ("assistant", "", "complete"),
        ("tool", "one", "complete"),
        ("tool", "two", "complete"),
        ("assistant", "done", "complete"),
    ]
    assert agents.load_session(ctx, KEY, session.agent, session.id).cost_usd == 1.0
    page = ctx.store.lists.session_messages(PageRequest(limit=2), session=session.id)
    rest = ctx.store.lists.session_messages(PageRequest(after=page.next), session=session.id)
    assert [message.position for message in (*page, *rest)] == [1, 2, 3, 4, 5]
    again = begin(ctx, session.id, "more")
    assert [message.content for message in again.messages][-1] == "more"
    assert len(again.messages) == 6


@pytest.mark.both_databases
def test_a_turn_whose_lease_has_lapsed_is_interrupted_by_who_comes_next(
    ctx: Context,
    world: BareInstallation,
    session: AgentSession,
) -> None:
    dead = begin(ctx, session.id, "first")
    under_way = turns.begin_answer(ctx, dead.session, model="chat")
    world.clock.advance(19)
    assert turns.renew(ctx, OWNER, [dead.session.turn]) == ()
    assert turns.renew(ctx, "there:8085#1", [dead.session.turn]) == (dead.session.turn,)
    world.clock.advance(19)
    with pytest.raises(SessionBusy):
        begin(ctx, session.id)
    world.clock.advance(2)
    begin(ctx, session.id, "second")

    assert transcript(ctx, session.id)[1:] == [
        ("assistant", "", "interrupted"),
        ("user", "second", "complete"),
    ]
    # Who held it finds that out, whatever it does next.
    assert turns.renew(ctx, OWNER, [dead.session.turn]) == (dead.session.turn,)
    with pytest.raises(StaleWrite, match="interrupted"):
        turns.record_step(
            ctx,
            dead.session,
            answer=whole(under_way, "too late"),
            kept="",
        )
    with pytest.raises(StaleWrite):
        turns.begin_answer(ctx, dead.session, model="chat")
    assert not turns.interrupt(ctx, dead.session)


def test_a_lease_of_a_clock_that_was_set_back_holds_nobody_up(
    ctx: Context,
    world: BareInstallation,
    session: AgentSession,
) -> None:
    begin(ctx, session.id)
    world.clock.jump(-86_400)
    assert begin(ctx, session.id, "second").messages[-1].content == "second"


def test_a_process_that_starts_ends_the_turns_of_the_one_before_it(
    ctx: Context, session: AgentSession
) -> None:
    begin(ctx, session.id)
    assert turns.interrupt_lapsed(ctx, OWNER) == 0
    assert turns.interrupt_lapsed(ctx, "there:8085#2") == 0
    assert turns.interrupt_lapsed(ctx, "here:8085#2") == 1
    begin(ctx, session.id)


def test_a_request_whose_turn_broke_off_is_taken_up_where_the_conversation_stands(
    ctx: Context,
    session: AgentSession,
    world: BareInstallation,
) -> None:
    key, later = (IdempotencyKey("k_1", name, "hash") for name in "ab")
    turns.begin_answer(ctx, begin(ctx, session.id, key=key).session, model="chat")
    for _ in range(3):
        with ctx.store.read() as tx:
            (running,) = Sessions(tx).running()
        assert turns.interrupt(ctx, running)
        world.clock.advance(1)
        again = begin(ctx, session.id, key=key)
    answered(ctx, again, kept="{}")
    assert [(role, state) for role, _, state in transcript(ctx, session.id)] == [
        ("user", "complete"),
        ("assistant", "interrupted"),
        ("assistant", "complete"),
    ]
    assert turns.begin_turn(ctx, OWNER, session.id, HELLO, key) == "{}"

    # Behind what was said since it is not taken up.
    turns.interrupt(ctx, begin(ctx, session.id, key=later).session)
    answered(ctx, begin(ctx, session.id, "another"))
    with pytest.raises(Conflict, match="has continued since"):
        begin(ctx, session.id, key=later)
    begin(ctx, session.id, "a third")


class Answering:
    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.may = asyncio.Event()

    async def ask(
        self,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,  # noqa: ARG002
    ) -> ModelCallAnswer:
        self.is_asked.set()
        await self.may.wait()
        text = str(request.messages[-1]["content"])
        return ModelCallAnswer(text, "stop", ServedBy("", "chat", "sim/base"))


async def start(
    runner: TurnRunner,
    session: AgentSession,
    keep: Callable[[TurnOutcome], str] = lambda _: "",
) -> TurnRun:
    posted = PostedMessage(KEY, session.agent, session.id, HELLO, keep=keep)
    run = await runner.start(posted)
    assert isinstance(run, TurnRun)
    return run


SERVER_TOOL = OfferedTool("search", "", {"type": "object"}, runs_at_client=False)
BUSY = NobodyAnswered("nobody answered", status=503, code="all_targets_failed")
REFUSED = CallRefused("wrong", status=400, code="invalid_request")
Said = tuple[str, ...] | CallFailed


class Scripted(Answering):
    """Answers with the calls of the script, one after the other, or fails; notes the models."""

    def __init__(self, *script: Said, piece: str = "") -> None:
        super().__init__()
        self.script = list(script)
        self.piece = piece
        self.asked: list[str] = []

    async def ask(
        self,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,
    ) -> ModelCallAnswer:
        self.asked.append(request.model)
        assert 0 < request.timeout_s <= 300
        if self.piece and on_piece is not None:
            on_piece(AnswerPiece(self.piece))
        said = self.script.pop(0)
        if isinstance(said, CallFailed):
            raise said
        calls = tuple(MessageToolCall(f"c{n}", name, "{}") for n, name in enumerate(said))
        usage = MessageUsage(10, 10)
        return ModelCallAnswer("", "stop", ServedBy(target="sim/base"), calls, usage)


class Searching(ServerTools):
    ran = 0

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:  # noqa: ARG002
        return [SERVER_TOOL]

    async def run(self, call: MessageToolCall, caller: ToolCaller) -> ToolResult:  # noqa: ARG002
        self.ran += 1
        return ToolResult(call.id, "found")


@pytest.mark.req("E1", "E5")
@pytest.mark.parametrize(
    ("script", "bounds", "asked", "ran", "open_calls", "fails"),
    [
        (
            [()],
            {},
            ["chat"],
            0,
            [],
            "",
        ),
        # Functions of the client come back after the server has run its own tools.
        (
            [("close", "search")],
            {},
            ["chat"],
            1,
            ["close"],
            "",
        ),
        (
            [("search",), ("close",)],
            {},
            ["chat"] * 2,
            1,
            ["close"],
            "",
        ),
        # No tool runs whose result no model would read; a whole answer is taken all the same.
        (
            [("search",)],
            {"max_steps": 1},
            ["chat"],
            0,
            [],
            "1 steps",
        ),
        (
            [("search",)],
            {"max_tokens": 20},
            ["chat"],
            0,
            [],
            "20 tokens",
        ),
        (
            [()],
            {"max_steps": 1, "max_tokens": 1},
            ["chat"],
            0,
            [],
            "",
        ),
        (
            [("search",)] * 9,
            {"max_steps": 3},
            ["chat"] * 3,
            2,
            [],
            "3 steps",
        ),
        # The fallback is asked once for a retryable failure, and stays for the turn.
        (
            [BUSY, ()],
            {},
            ["chat", "spare"],
            0,
            [],
            "",
        ),
        (
            [BUSY, ("search",), ()],
            {},
            ["chat", "spare", "spare"],
            1,
            [],
            "",
        ),
        (
            [BUSY, BUSY],
            {},
            ["chat", "spare"],
            0,
            [],
            "nobody answered",
        ),
        (
            [BUSY, ("search",)],
            {"max_steps": 1},
            ["chat", "spare"],
            0,
            [],
            "1 steps",
        ),
        (
            [REFUSED],
            {},
            ["chat"],
            0,
            [],
            "wrong",
        ),
    ],
)
async def test_a_turn_asks_runs_tools_and_ends_within_its_bounds(
    ctx: Context,
    script: list[Said],
    bounds: dict[str, int],
    asked: list[str],
    ran: int,
    open_calls: list[str],
    fails: str,
) -> None:
    routes.create_route(ctx, SYSTEM, "spare", "sim/better", settings=RouteSettings())
    spare = ModelChoice("spare", ModelKind.ROUTE, route="spare")
    spec: dict[str, Any] = {
        "name": "helper",
        "model": CHAT,
        "tools": (CLOSE,),
        "fallback_model": spare,
    }
    agent = agents.create_agent(ctx, KEY, **spec)
    session = agents.open_session(ctx, KEY, agent.id)
    calls = Scripted(*script)
    tools = Searching([])
    runner = TurnRunner(ctx, calls, tools, OWNER, AutoTargets({}))
    limits = replace(TurnBounds(), **bounds)
    run = await runner.start(PostedMessage(KEY, agent.id, session.id, HELLO, bounds=limits))
    assert isinstance(run, TurnRun)
    outcome = await run.outcome()

    assert (calls.asked, tools.ran) == (asked, ran)
    assert [call.name for call in outcome.open_calls] == open_calls
    reason = str(outcome.error) if outcome.error else ""
    assert (bool(reason), fails in reason) == (bool(fails), True)
    assert transcript(ctx, session.id)[-1][2] == ("failed" if fails else "complete")


async def test_the_fallback_does_not_go_on_with_an_answer_that_the_client_has_seen(
    ctx: Context,
) -> None:
    routes.create_route(ctx, SYSTEM, "spare", "sim/better", settings=RouteSettings())
    spare = ModelChoice("spare", ModelKind.ROUTE, route="spare")
    agent = agents.create_agent(ctx, KEY, "helper", CHAT, fallback_model=spare)
    session = agents.open_session(ctx, KEY, agent.id)
    calls = Scripted(BUSY, piece="half")
    runner = TurnRunner(ctx, calls, ServerTools([]), OWNER, AutoTargets({}))
    posted = PostedMessage(KEY, agent.id, session.id, HELLO, streams=True)
    run = await runner.start(posted)
    assert isinstance(run, TurnRun)

    outcome = await run.outcome()

    assert calls.asked == ["chat"]
    assert outcome.error is BUSY


async def test_a_turn_that_is_stored_as_whole_is_not_called_interrupted(
    ctx: Context, session: AgentSession
) -> None:
    calls = Answering()
    loop = asyncio.get_running_loop()
    calls.may.set()
    runner = TurnRunner(ctx, calls, ServerTools([]), OWNER, AutoTargets({}))

    def cancel_within_the_last_unit(_: TurnOutcome) -> str:
        asyncio.run_coroutine_threadsafe(_cancel(run), loop).result(60)
        return ""

    run = await start(runner, session, cancel_within_the_last_unit)
    outcome = await run.outcome()
    assert (outcome.error, outcome.message.content) == (None, "hello")
    assert transcript(ctx, session.id)[-1] == (
        "assistant",
        "hello",
        "complete",
    )


async def _cancel(run: TurnRun) -> None:
    run.cancel()
    await asyncio.sleep(0)


async def test_a_turn_whose_session_was_closed_does_not_blame_the_process(
    ctx: Context, session: AgentSession
) -> None:
    runner = TurnRunner(ctx, Answering(), ServerTools([]), OWNER, AutoTargets({}))
    run = await start(runner, session)
    agents.close_session(ctx, KEY, session.agent, session.id)
    await runner.renew_leases()

    with pytest.raises(StaleWrite, match="was interrupted"):
        await run.outcome()


class Unreadable(ServerTools):
    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:  # noqa: ARG002
        raise LookupError("there is no list of tools")


async def test_a_turn_that_failed_says_so_also_when_it_is_cancelled_at_its_end(
    ctx: Context,
    session: AgentSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    interrupt = turns.interrupt

    def cancel_within(context: Context, held: AgentSession) -> bool:
        asyncio.run_coroutine_threadsafe(_cancel(run), loop).result(60)
        return interrupt(context, held)

    monkeypatch.setattr(turns, "interrupt", cancel_within)
    runner = TurnRunner(ctx, Answering(), Unreadable([]), OWNER, AutoTargets({}))
    run = await start(runner, session)
    with pytest.raises(LookupError, match="no list of tools"):
        await run.outcome()


async def test_an_answer_is_given_again_though_the_consent_to_its_model_is_over(
    ctx: Context,
) -> None:
    calls = Answering()
    calls.may.set()
    runner = TurnRunner(ctx, calls, ServerTools([]), OWNER, AutoTargets({}))
    agent = agents.create_agent(ctx, PERSON, "helper", BETTER)
    session = agents.open_session(ctx, PERSON, agent.id)
    key = IdempotencyKey("k_1", "a", "hash")
    posted = PostedMessage(PERSON, agent.id, session.id, HELLO, key, keep=lambda _: "{}")
    run = await runner.start(posted)
    assert isinstance(run, TurnRun)
    await run.outcome()
    agents.revoke_grant(ctx, BEN, ctx.store.snapshot().agent_grants[0].id)

    again = await runner.start(posted)
    assert again == "{}"
    with pytest.raises(NotAllowed, match="approval of"):
        await runner.start(replace(posted, key=None))


async def test_a_process_that_ends_interrupts_its_turns_and_begins_none(
    ctx: Context, session: AgentSession
) -> None:
    runner = TurnRunner(ctx, Answering(), ServerTools([]), OWNER, AutoTargets({}))
    run = await start(runner, session)
    await runner.close(0.0)

    assert (await run.outcome()).error is not None
    with pytest.raises(StoreUnavailable, match="is ending"):
        await start(runner, session)
    assert [state for _, _, state in transcript(ctx, session.id)] == ["complete"]


def test_what_is_refused_leaves_nothing_behind(ctx: Context, session: AgentSession) -> None:
    with pytest.raises(InputError):
        turns.begin_turn(
            ctx,
            OWNER,
            session.id,
            IncomingMessage(MessageRole.TOOL, "ok", "c_9"),
        )
    assert transcript(ctx, session.id) == []
    with pytest.raises(NotFound, match="se_9"):
        begin(ctx, "se_9")
    begin(ctx, session.id)


def test_a_literal_model_comes_with_an_approver_s_grant(ctx: Context) -> None:
    spec: dict[str, Any] = {
        "name": "helper",
        "model": BETTER,
        "fallback_model": literal_choice("sim:good", "sim/good"),
    }
    with pytest.raises(NotAllowed, match="person consents"):
        agents.create_agent(ctx, KEY, **spec)
    with pytest.raises(NotAllowed, match="approver"):
        agents.create_agent(ctx, AgentsClient.of_person(ANN), **spec)
    agent = agents.create_agent(ctx, PERSON, **spec)

    grants = ctx.store.snapshot().agent_grants
    assert {(grant.kind, grant.target_name) for grant in grants} == {
        (GrantKind.BASELINE, "sim/better"),
        (GrantKind.FALLBACK, "sim/good"),
    }
    assert {grant.granted_by for grant in grants} == {BEN.name}
    session = agents.open_session(ctx, PERSON, agent.id)
    assert session.model == BETTER
    with pytest.raises(Conflict, match="max_literals"):
        agents.create_agent(ctx, PERSON, **spec)


def test_a_session_of_a_literal_model_needs_a_grant_that_is_in_force(
    ctx: Context, world: BareInstallation
) -> None:
    agent = agents.create_agent(ctx, PERSON, "helper", BETTER)
    world.clock.advance(86_400)
    with pytest.raises(NotAllowed, match="is over"):
        agents.open_session(ctx, PERSON, agent.id)
    assert captures.revoke_stale_grants(ctx) == 1
    assert captures.revoke_stale_grants(ctx) == 0
    assert ctx.store.snapshot().agent_grants == ()


@pytest.mark.req("D8")
def test_an_agent_s_data_class_keeps_it_from_others(ctx: Context) -> None:
    spec: dict[str, Any] = {
        "name": "helper",
        "model": CHAT,
        "data_class": "internal",
    }
    with pytest.raises(NotAllowed, match="as strict"):
        agents.create_agent(ctx, PERSON, **spec)
    with pytest.raises(NotAllowed, match="may not see"):
        agents.create_agent(ctx, PERSON, **spec | {"model": BETTER})
    with pytest.raises(NotFound, match="intern"):
        agents.create_agent(ctx, PERSON, **spec | {"data_class": "intern"})
    assert ctx.store.snapshot().agent_grants == ()


def test_a_change_keeps_the_agents_id_and_owner(ctx: Context, agent: Agent) -> None:
    changed = agents.change_agent(
        ctx,
        PERSON,
        agent.id,
        name="renamed",
        model=BETTER,
    )
    expected = replace(
        agent,
        name="renamed",
        model=BETTER,
        updated_at=changed.updated_at,
    )
    assert changed == expected
    assert [grant.kind for grant in ctx.store.snapshot().agent_grants] == [GrantKind.CHANGE]


def test_a_consent_that_is_over_is_renewed_by_naming_the_model_again(
    ctx: Context, world: BareInstallation
) -> None:
    spec: dict[str, Any] = {
        "name": "helper",
        "model": BETTER,
        "fallback_model": replace(BETTER),
    }
    agent = agents.create_agent(ctx, PERSON, **spec)
    session = agents.open_session(ctx, PERSON, agent.id)

    named_again: dict[str, Any] = {
        "model": replace(BETTER),
        "fallback_model": replace(BETTER),
    }
    proposer = AgentsClient.of_person(ANN)
    agents.change_agent(ctx, proposer, agent.id, **named_again)
    assert len(ctx.store.snapshot().agent_grants) == 2
    world.clock.advance(86_400)
    captures.revoke_stale_grants(ctx)
    agents.change_agent(ctx, proposer, agent.id, name="renamed")
    with pytest.raises(NotAllowed, match="approver"):
        agents.change_agent(ctx, proposer, agent.id, **named_again)
    agents.change_agent(ctx, PERSON, agent.id, **named_again)
    assert [grant.kind for grant in ctx.store.snapshot().agent_grants] == [GrantKind.CHANGE]
    assert agents.open_session(ctx, PERSON, agent.id).model == session.model


def waiting(ctx: Context, session: AgentSession) -> ModelSwitchRequest:
    now = ctx.clock.now()
    request = ModelSwitchRequest(
        "sw_1",
        session.agent,
        session.id,
        "better",
        ("sim/better",),
        "user-7 has a long ticket",
        now,
        now + timedelta(hours=1),
    )
    with ctx.store.write() as tx:
        SwitchRequests(tx).add(request)
    return request


def test_a_deleted_agent_closes_its_sessions_and_what_waits_in_them(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    begun = begin(ctx, session.id)
    turns.begin_answer(ctx, begun.session, model="chat")
    request = waiting(ctx, session)
    agents.delete_agent(ctx, KEY, agent.id)

    assert transcript(ctx, session.id)[-1] == (
        "assistant",
        "",
        "interrupted",
    )
    with ctx.store.read() as tx:
        assert Sessions(tx).get(session.id).state is SessionState.CLOSED
        assert SwitchRequests(tx).get(request.id).state is SwitchState.CANCELLED
    with pytest.raises(StaleWrite):
        turns.record_step(ctx, begun.session, kept="")
    with pytest.raises(Conflict, match="closed"):
        begin(ctx, session.id)
    with pytest.raises(NotFound, match="deleted"):
        agents.load_agent(ctx, KEY, agent.id)


def test_closing_a_session_closes_its_children(ctx: Context, session: AgentSession) -> None:
    with ctx.store.write() as tx:
        child = agents.open_child(ctx, tx, session, CHAT)
    answered(ctx, begin(ctx, child.id))
    loaded = agents.load_session(ctx, KEY, session.agent, session.id)
    assert loaded.cost_usd == 0.5
    agents.close_session(ctx, KEY, session.agent, session.id)

    found = ctx.store.lists.sessions(agent=session.agent)
    assert {session.state for session in found} == {SessionState.CLOSED}
    with pytest.raises(Conflict, match="closed"):
        begin(ctx, child.id)
    again = agents.close_session(ctx, KEY, session.agent, session.id)
    assert again.state is SessionState.CLOSED


@pytest.mark.req("C6")
@pytest.mark.parametrize("who_comes", ["a later process", "the next message", "its own end"])
def test_sub_tasks_are_closed_with_the_turn_that_spawned_them(
    ctx: Context,
    world: BareInstallation,
    session: AgentSession,
    who_comes: str,
) -> None:
    """Nobody else would: the process that spawned them was killed."""
    begun = begin(ctx, session.id)
    with ctx.store.write() as tx:
        child = agents.open_child(ctx, tx, session, CHAT)
    turns.begin_answer(ctx, begin(ctx, child.id).session, model="chat")
    request = waiting(ctx, child)

    if who_comes == "a later process":
        turns.interrupt_lapsed(ctx, "here:8085#2")
    elif who_comes == "the next message":
        world.clock.advance(21)
        begin(ctx, session.id)
    else:
        assert turns.interrupt(ctx, begun.session)

    with ctx.store.read() as tx:
        states = [Sessions(tx).get(one.id).state.value for one in (session, child)]
        assert SwitchRequests(tx).get(request.id).state is SwitchState.CANCELLED
    assert states == ["open", "closed"]
    assert transcript(ctx, child.id)[-1] == ("assistant", "", "interrupted")
    if who_comes != "the next message":
        begin(ctx, session.id)


@pytest.mark.req("C6")
def test_a_sub_task_that_broke_off_is_closed(ctx: Context, session: AgentSession) -> None:
    """It takes one turn; a process of its own may have spawned it, outside any turn."""
    with ctx.store.write() as tx:
        child = agents.open_child(ctx, tx, session, CHAT)
    turns.interrupt(ctx, begin(ctx, child.id).session)
    with ctx.store.read() as tx:
        assert Sessions(tx).get(child.id).state is SessionState.CLOSED
        assert Sessions(tx).get(session.id).state is SessionState.OPEN


def describe(ctx: Context, agent: str) -> object:
    return agents.change_agent(ctx, KEY, agent, description="new")


def delete(ctx: Context, agent: str) -> None:
    agents.delete_agent(ctx, KEY, agent)


@pytest.mark.parametrize("other", [describe, delete])
@pytest.mark.both_databases
def test_of_two_changes_of_an_agent_at_once_none_is_lost(
    ctx: Context,
    agent: Agent,
    other: Callable[[Context, str], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second comes while the first has read the agent and not stored it yet."""
    with ThreadPoolExecutor(1) as pool:
        others: list[Future[object]] = []

        def change_slowly(known: Agent, **changes: Any) -> Agent:
            monkeypatch.undo()
            others.append(pool.submit(other, ctx, agent.id))
            wait(others, timeout=1)
            return replace(known, **changes)

        monkeypatch.setattr(agents, "replace", change_slowly)
        agents.change_agent(ctx, KEY, agent.id, name="other")
        others[0].result(60)

    with ctx.store.read() as tx:
        changed = Agents(tx).get(agent.id)
    assert changed.name == "other"
    assert changed.deleted_at if other is delete else changed.description == "new"


@pytest.mark.req("D8")
@pytest.mark.both_databases
def test_a_user_s_transcripts_are_deleted_with_all_that_quotes_them(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    key = IdempotencyKey("k_1", "a", "hash")
    answered(
        ctx,
        begin(ctx, session.id, "user-7 said so", key=key),
        "user-7?",
        kept="user-7!",
    )
    with ctx.store.write() as tx:
        agents.open_child(ctx, tx, session, CHAT)
    other = agents.open_session(ctx, KEY, agent.id, "user-8")
    waiting(ctx, session)
    assert tables_with(ctx, "user-7") >= {"agent_session", "agent_message"}
    with pytest.raises(NotAllowed):
        captures.delete_user(ctx, BEN, "user-7", "asked", secret=SECRET)
    with pytest.raises(InputError):
        captures.delete_user(ctx, SYSTEM, "", "asked", secret=SECRET)
    done = captures.delete_user(ctx, SYSTEM, "user-7", "asked", secret=SECRET)

    assert done.sessions == 2
    assert tables_with(ctx, "user-7") == set()
    with ctx.store.read() as tx:
        assert SwitchRequests(tx).get("sw_1").state is SwitchState.CANCELLED
    assert ids_of_sessions(ctx, agent) == [other.id]


def tables_with(ctx: Context, text: str) -> set[str]:
    with ctx.store.read() as tx:
        rows = {table.name: tx.read(sa.select(table)).all() for table in metadata.sorted_tables}
    return {table for table, stored in rows.items() if text in str(stored)}


@pytest.mark.req("D8", "G4")
def test_what_was_captured_of_a_users_sessions_is_deleted_with_them(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    """An agent asks in its session's name, so that a captured request names no user."""
    with ctx.store.write() as tx:
        child = agents.open_child(ctx, tx, session, CHAT)
    other = agents.open_session(ctx, KEY, agent.id, "user-8")
    with ctx.store.write() as tx:
        for number, of in enumerate((session, child, other)):
            user_hash = hash_user(f"header:{of.id}", SECRET)
            captured = replace(observations.ONE, id=f"cap_{number}", user_hash=user_hash)
            captured = replace(captured, content={"messages": [f"of {of.id}"]})
            Captures(tx).store(captured, most_per_day=9)

    assert captures.delete_user(ctx, SYSTEM, "user-7", "asked", secret=SECRET).captures == 2

    with ctx.store.read() as tx:
        assert [left.id for left in Captures(tx).list()] == ["cap_2"]


# Of a turn, one after the other.
UNITS = ("begin", "answer", "step", "results", "second answer", "end")
SENT_AGAIN = IdempotencyKey("k_1", "a", "hash")


def say_and_look(ctx: Context, session: str) -> None:
    """A whole turn: a tool is called, and its result answered."""
    begun = begin(ctx, session, key=SENT_AGAIN)
    first = turns.begin_answer(ctx, begun.session, model="chat")
    calls = (MessageToolCall("c_1", "look", "{}"),)
    turns.record_step(
        ctx,
        begun.session,
        answer=replace(whole(first, ""), tool_calls=calls),
    )
    turns.record_step(ctx, begun.session, results=[("c_1", "42")])
    answered(ctx, begun, "It is 42.", kept="It is 42.")


@pytest.mark.parametrize("after_commit", [False, True])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.spine
def test_a_killed_process_leaves_a_whole_conversation_that_goes_on(
    ctx: Context,
    session: AgentSession,
    unit: str,
    *,
    after_commit: bool,
) -> None:
    """The client sends the same message again, until it is answered, and once more."""
    stored = UNITS.index(unit) + after_commit
    dying = CrashingStore(
        cast("Store", ctx.store), at=UNITS.index(unit) + 1, after_commit=after_commit
    )
    with pytest.raises(Crash):
        say_and_look(replace(ctx, store=cast("Store", dying)), session.id)
    successor = "here:8085#2"
    turns.interrupt_lapsed(ctx, successor)

    begun = turns.begin_turn(ctx, successor, session.id, HELLO, SENT_AGAIN)
    if isinstance(begun, BegunTurn):
        shown = [message.role.value for message in begun.messages if message.is_whole]
        answered(ctx, begun, "It is 42.", kept="It is 42.")
        begun = turns.begin_turn(ctx, successor, session.id, HELLO, SENT_AGAIN)
        assert shown == ["user", "assistant", "tool"][: max(1, stored - 1)]
    else:
        assert stored == len(UNITS)
    assert begun == "It is 42."

    found = list(ctx.store.lists.session_messages(session=session.id))
    assert [message.position for message in found] == list(range(1, len(found) + 1))
    users = [message for message in found if message.role is MessageRole.USER]
    assert [message.content for message in users] == ["hello"]
    assert MessageState.STREAMING not in {message.state for message in found}
    whole_ones = [message for message in found if message.is_whole]
    assert whole_ones[-1].content == "It is 42."
    assert not [message for message in found if not message.is_whole and message.content]
