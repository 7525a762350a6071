"""Turns of agents under the one monthly cap: the dearest target of the route is reserved before
each answer, what it did cost is paid, and several turns at once do not pass it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from harness.app.agents.turn_service import ServerTools
from harness.control.agents import agents, sessions
from harness.control.agents.agents import AgentSpec
from harness.control.agents.client import AgentsClient
from harness.control.agents.conversation import TurnOutcome
from harness.control.agents.sessions import SessionSpec
from harness.control.agents.turn_runner import PostedMessage, TurnRun, TurnRunner
from harness.control.context import Context
from harness.control.routing import targets
from harness.domain.agents.agent import Agent, ModelChoice, ModelKind
from harness.domain.agents.incoming_message import IncomingMessage
from harness.domain.agents.message import MessageRole, MessageUsage, ServedBy
from harness.domain.agents.model_call import AnswerPiece, ModelCallAnswer, ModelCallRequest
from harness.domain.agents.turn_lease import TurnOwner
from harness.domain.errors import CallFailed, NobodyAnswered, StreamBroken
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.spending import MonthSpending, SpendingPurpose, month_of
from harness.domain.routing.target import Price, Provider
from harness.store.store import Store
from tests.support.control.control_plane import SECRET, SmallInstallation
from tests.support.site.signing_keys import CONTROL

pytestmark = [pytest.mark.req("G5", "E2"), pytest.mark.both_databases]
KEY = AgentsClient(key="k_1")
HELLO = IncomingMessage(MessageRole.USER, "hello")
# A call may answer 8,192 tokens: of `better` for 82 cents, of `base` for 8.
PRICES = {"base": Price(1.0, 10.0), "better": Price(1.0, 100.0)}
BASE_USD, BETTER_USD = 0.08192, 0.8192
USED = MessageUsage(1_000, 900)  # 1 cent of base


@dataclass
class Answering:
    """Answers once it may. error: what it raises instead."""

    error: CallFailed | None = None
    usage: MessageUsage = USED
    asked: int = 0
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(
        self,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,
    ) -> ModelCallAnswer:
        del request, on_piece
        self.asked += 1
        self.is_asked.set()
        await self.may.wait()
        if self.error is not None:
            raise self.error
        served = ServedBy("", "chat", "sim/base")
        return ModelCallAnswer("hi", "stop", served, usage=self.usage)

    async def aclose(self) -> None: ...


@pytest.fixture
def ctx(world: SmallInstallation) -> Context:
    made = world.context()
    provider = Provider("sim", "sim", "http://127.0.0.1:9/v1", prices=PRICES)
    targets.put_provider(made, SYSTEM, provider)
    return made


@pytest.fixture
def agent(ctx: Context) -> Agent:
    choice = ModelChoice("chat", ModelKind.ROUTE, route="chat")
    return agents.create_agent(ctx, KEY, AgentSpec("helper", choice))


def set_cap(ctx: Context, usd: float | None) -> None:
    with ctx.store.write() as tx:
        tx.spending.set_cap(usd, ctx.clock.now())


def this_month(ctx: Context) -> MonthSpending:
    with ctx.store.read() as tx:
        return tx.spending.month(month_of(ctx.clock.now()))


def of_agents(ctx: Context) -> tuple[float, int]:
    rows = {row.purpose: row for row in this_month(ctx).purposes}
    return rows[SpendingPurpose.AGENTS].spent_usd, rows[SpendingPurpose.AGENTS].calls


def build_runner(ctx: Context, calls: Answering, name: str = "here:8085") -> TurnRunner:
    return TurnRunner(ctx, calls, ServerTools([]), TurnOwner(name, "1"))


async def start(ctx: Context, runner: TurnRunner, agent: Agent) -> TurnRun:
    session = sessions.open_session(ctx, KEY, agent.id, SessionSpec())
    run = await runner.start(PostedMessage(KEY, agent.id, session.id, HELLO), lambda _: None)
    assert isinstance(run, TurnRun)
    return run


async def take_turn(ctx: Context, runner: TurnRunner, agent: Agent) -> TurnOutcome:
    return await (await start(ctx, runner, agent)).outcome()


async def test_the_dearest_target_is_reserved_and_what_answered_is_paid(
    ctx: Context, world: SmallInstallation, agent: Agent
) -> None:
    set_cap(ctx, 100.0)
    calls = Answering()
    runner = build_runner(ctx, calls)
    alone = await start(ctx, runner, agent)
    await calls.is_asked.wait()
    with_incumbent = this_month(ctx).held_usd
    calls.may.set()
    assert (await alone.outcome()).failure is None
    await runner.close(0.0)
    assert of_agents(ctx) == (0.01, 1)

    proposal = world.propose("sim/better")
    world.until_decided(proposal.id)
    world.run_once()
    with ctx.store.read() as tx:
        assert tx.routing.table().routes["chat"].canary is not None
    set_cap(ctx, 100.0)  # the loop has set the file's, which is none
    before = this_month(ctx).spent_usd
    calls = Answering()
    runner = build_runner(ctx, calls)
    beside = await start(ctx, runner, agent)
    await calls.is_asked.wait()
    with_candidate = this_month(ctx).held_usd
    calls.may.set()
    await beside.outcome()
    await runner.close(0.0)

    # Four calls' worth is held at a time.
    assert BASE_USD < with_incumbent / 4 < BASE_USD * 1.01
    assert BETTER_USD < with_candidate / 4 < BETTER_USD * 1.01
    month = this_month(ctx)
    assert month.held_usd == 0.0
    assert month.spent_usd - before == pytest.approx(0.01)


async def test_a_turn_that_the_cap_refuses_asks_nobody_and_says_so(
    ctx: Context, agent: Agent
) -> None:
    set_cap(ctx, BASE_USD / 2)
    calls = Answering()
    calls.may.set()
    runner = build_runner(ctx, calls)
    refused = await take_turn(ctx, runner, agent)
    assert refused.failure is not None
    assert refused.failure.code == "monthly_cap_reached"
    assert "the monthly cap of $0.041 leaves too little" in refused.failure.reason
    assert (calls.asked, this_month(ctx).waiting) == (0, (SpendingPurpose.AGENTS,))

    set_cap(ctx, 1.0)
    assert (await take_turn(ctx, runner, agent)).failure is None
    await runner.close(0.0)
    assert (this_month(ctx).waiting, of_agents(ctx)[1]) == ((), 1)


async def test_a_target_without_a_price_is_not_asked_below_a_cap(
    ctx: Context, agent: Agent
) -> None:
    set_cap(ctx, 1.0)
    provider = Provider("sim", "sim", "http://127.0.0.1:9/v1")
    targets.put_provider(ctx, SYSTEM, provider)
    calls = Answering()
    calls.may.set()
    runner = build_runner(ctx, calls)
    refused = await take_turn(ctx, runner, agent)
    assert refused.failure is not None
    assert "the price of sim/base is not known" in refused.failure.reason
    assert calls.asked == 0
    set_cap(ctx, None)
    assert (await take_turn(ctx, runner, agent)).failure is None
    await runner.close(0.0)


async def test_a_cap_that_was_set_a_moment_ago_counts_for_the_next_answer(
    ctx: Context, agent: Agent
) -> None:
    calls = Answering()
    calls.may.set()
    runner = build_runner(ctx, calls)
    assert (await take_turn(ctx, runner, agent)).failure is None
    set_cap(ctx, 0.0)
    assert (await take_turn(ctx, runner, agent)).failure is not None
    await runner.close(0.0)
    assert (calls.asked, of_agents(ctx)) == (1, (0.01, 1))


@pytest.mark.parametrize(
    ("error", "usage", "paid"),
    [
        (NobodyAnswered("all are down"), USED, 0.0),
        (StreamBroken("in the middle"), USED, BASE_USD),
        (None, MessageUsage(), BASE_USD),
    ],
)
async def test_what_nobody_counted_is_paid_in_full_unless_nobody_answered(
    ctx: Context,
    agent: Agent,
    error: CallFailed | None,
    usage: MessageUsage,
    paid: float,
) -> None:
    set_cap(ctx, 1.0)
    calls = Answering(error, usage)
    calls.may.set()
    runner = build_runner(ctx, calls)
    await take_turn(ctx, runner, agent)
    await runner.close(0.0)
    assert of_agents(ctx)[0] == pytest.approx(paid, rel=0.05)
    assert this_month(ctx).held_usd == 0.0


async def test_a_turn_that_is_interrupted_is_paid_in_full(ctx: Context, agent: Agent) -> None:
    set_cap(ctx, 1.0)
    calls = Answering()
    runner = build_runner(ctx, calls)
    run = await start(ctx, runner, agent)
    await calls.is_asked.wait()
    await runner.close(0.0)
    assert (await run.outcome()).failure is not None
    assert of_agents(ctx)[0] == pytest.approx(BASE_USD, rel=0.01)


async def test_turns_of_two_processes_at_once_do_not_pass_the_cap(
    ctx: Context, world: SmallInstallation, agent: Agent, database_url: str
) -> None:
    """Each answer costs all that may be reserved; six turns want it, and five fit."""
    most = MessageUsage(0, 8_192)
    cap = 5 * BASE_USD * 1.01
    set_cap(ctx, cap)
    calls = [Answering(usage=most), Answering(usage=most)]
    other = Store(database_url, secret=SECRET, clock=world.clock, signatures=CONTROL)
    runners = [
        build_runner(ctx, calls[0]),
        build_runner(replace(ctx, store=other), calls[1], "there:8085"),
    ]
    runs = [await start(ctx, runners[n % 2], agent) for n in range(6)]
    for call in calls:
        call.may.set()
    outcomes = await asyncio.gather(*(run.outcome() for run in runs))
    for runner in runners:
        await runner.close(0.0)
    other.close()
    answered = sum(outcome.failure is None for outcome in outcomes)
    month = this_month(ctx)
    assert answered == sum(call.asked for call in calls)
    assert 1 <= answered <= 5
    assert month.spent_usd == pytest.approx(answered * BASE_USD, rel=0.01)
    assert month.spent_usd + month.held_usd <= cap
