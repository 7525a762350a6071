import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from harness.agents import agents
from harness.agents.agents import AgentsClient
from harness.agents.auto import AutoTargets
from harness.agents.built_in_tools import ServerTools
from harness.agents.conversation import PostedMessage, TurnOutcome, TurnRun
from harness.agents.message import (
    IncomingMessage,
    MessageRole,
    MessageUsage,
    ServedBy,
    SessionMessage,
)
from harness.agents.turn import (
    AnswerPiece,
    ModelCallAnswer,
    ModelCallRequest,
)
from harness.agents.turn_runner import TurnRunner
from harness.evals.month_spending import (
    MonthSpending,
    SpendingPurpose,
    month_of,
)
from harness.evals.records import Spending
from harness.frame.errors import (
    CallFailed,
    NobodyAnswered,
    RouterUnreachable,
    StaleWrite,
    StreamBroken,
)
from harness.frame.people.access import SYSTEM
from harness.operations.context import Context
from harness.providers.registry import targets
from harness.providers.target import Price, Provider
from harness.routing.agent import Agent, ModelChoice, ModelKind
from tests.support.control.bare_installation import BareInstallation

pytestmark = pytest.mark.req("G5", "E2")
KEY = AgentsClient(key="k_1")
HELLO = IncomingMessage(MessageRole.USER, "hello")
PRICES = {"base": Price(1.0, 10.0), "better": Price(1.0, 100.0)}
USED = MessageUsage(1_000, 900)  # 1 cent of base
LONG = 0.327681  # "hello" and 32,768 tokens of base


class RefusedConnection(RouterUnreachable):
    __cause__ = ConnectionRefusedError(errno.ECONNREFUSED, "refused")


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


@pytest.fixture
def ctx(world: BareInstallation) -> Context:
    made = world.context()
    provider = Provider("sim", "sim", "http://127.0.0.1:9/v1", prices=PRICES)
    targets.put_provider(made, SYSTEM, provider)
    return made


@pytest.fixture
def agent(ctx: Context) -> Agent:
    choice = ModelChoice("chat", ModelKind.ROUTE, route="chat")
    return agents.create_agent(ctx, KEY, "helper", choice)


def set_cap(ctx: Context, usd: float | None) -> None:
    with ctx.store.write() as tx:
        Spending(tx).set_cap(usd, ctx.clock.now())


def this_month(ctx: Context) -> MonthSpending:
    with ctx.store.read() as tx:
        return Spending(tx).month(month_of(ctx.clock.now()))


def of_agents(ctx: Context) -> tuple[float, int]:
    rows = {row.purpose: row for row in this_month(ctx).purposes}
    return rows[SpendingPurpose.AGENTS].spent_usd, rows[SpendingPurpose.AGENTS].calls


def build_runner(
    ctx: Context,
    calls: Answering,
    name: str = "here:8085",
) -> TurnRunner:
    return TurnRunner(ctx, calls, ServerTools([]), f"{name}#1", AutoTargets({}))


async def start(
    ctx: Context,
    runner: TurnRunner,
    agent: Agent,
) -> TurnRun:
    session = agents.open_session(ctx, KEY, agent.id)
    run = await runner.start(PostedMessage(KEY, agent.id, session.id, HELLO, streams=True))
    assert isinstance(run, TurnRun)
    return run


async def take_turn(
    ctx: Context,
    runner: TurnRunner,
    agent: Agent,
) -> TurnOutcome:
    return await (await start(ctx, runner, agent)).outcome()


@pytest.mark.spine
async def test_a_turn_that_the_cap_refuses_asks_nobody_and_says_so(
    ctx: Context, agent: Agent
) -> None:
    set_cap(ctx, 0.009)
    calls = Answering()
    calls.may.set()
    runner = build_runner(ctx, calls)
    assert (await take_turn(ctx, runner, agent)).error is None
    refused = await take_turn(ctx, runner, agent)
    assert refused.error is not None
    assert refused.error.code == "monthly_cap_reached"
    assert "the monthly cap of $0.009 is reached: $0.01 spent" in refused.error.args[0]
    assert (calls.asked, of_agents(ctx)) == (1, (0.01, 1))

    set_cap(ctx, 1.0)
    assert (await take_turn(ctx, runner, agent)).error is None
    await runner.close(0.0)
    assert of_agents(ctx) == (0.02, 2)


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
    assert refused.error is not None
    assert "the price of sim/base is unknown" in refused.error.args[0]
    assert calls.asked == 0
    set_cap(ctx, None)
    assert (await take_turn(ctx, runner, agent)).error is None
    await runner.close(0.0)


@pytest.mark.both_databases
async def test_a_cap_that_was_set_a_moment_ago_counts_for_the_next_answer(
    ctx: Context, agent: Agent
) -> None:
    calls = Answering()
    calls.may.set()
    runner = build_runner(ctx, calls)
    assert (await take_turn(ctx, runner, agent)).error is None
    set_cap(ctx, 0.0)
    assert (await take_turn(ctx, runner, agent)).error is not None
    await runner.close(0.0)
    assert (calls.asked, of_agents(ctx)) == (1, (0.01, 1))


@pytest.mark.parametrize(
    ("error", "usage", "spent", "unpriced"),
    [
        (NobodyAnswered("all are down"), USED, (0.0, 0), 0),
        (RefusedConnection("nothing listens"), USED, (0.0, 0), 0),
        (StreamBroken("in the middle"), USED, (LONG, 1), 0),
        (RouterUnreachable("too late"), USED, (LONG, 1), 0),
        (None, MessageUsage(), (LONG, 1), 0),
    ],
)
async def test_an_answer_that_breaks_off_or_has_no_counts_costs_as_a_long_one(
    ctx: Context,
    agent: Agent,
    error: CallFailed | None,
    usage: MessageUsage,
    spent: tuple[float, int],
    unpriced: int,
) -> None:
    set_cap(ctx, 1.0)
    calls = Answering(error, usage)
    calls.may.set()
    runner = build_runner(ctx, calls)
    await take_turn(ctx, runner, agent)
    await runner.close(0.0)
    assert of_agents(ctx) == pytest.approx(spent)
    assert this_month(ctx).unpriced == unpriced


async def test_a_client_that_always_hangs_up_reaches_the_cap(
    ctx: Context, agent: Agent
) -> None:
    set_cap(ctx, 2.5 * LONG)
    calls = Answering()
    runner = build_runner(ctx, calls)
    for _ in range(3):
        calls.is_asked.clear()
        run = await start(ctx, runner, agent)
        await calls.is_asked.wait()
        begun = await anext(run.events())
        assert isinstance(begun, SessionMessage)
        agents.close_session(ctx, KEY, agent.id, begun.session)
        await runner.renew_leases()
        with pytest.raises(StaleWrite):
            await run.outcome()
    refused = await take_turn(ctx, runner, agent)
    await runner.close(0.0)
    assert refused.error is not None
    assert refused.error.code == "monthly_cap_reached"
    assert calls.asked == 3
    assert of_agents(ctx) == pytest.approx((3 * LONG, 3))
