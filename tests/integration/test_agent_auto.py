"""`auto` over real evidence and scores (C7): who answers, and what a dishonest proposer and raw
SQL try.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa

from evals.suites.items import Item
from harness.agents import agents
from harness.agents.agents import AgentsClient
from harness.agents.auto import AutoTargets
from harness.agents.message import IncomingMessage, MessageRole
from harness.agents.models import ModelsInForce, find_models
from harness.agents.records import AgentGrants
from harness.app.store.store import Store
from harness.frame.errors import NotAllowed
from harness.frame.people.access import SYSTEM
from harness.gate.pins import ServedModel, Sighting
from harness.operations.context import Context
from harness.proposals import eval_queue, fallback_chain
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.providers.force import Force, ForceKind, SwitchSource
from harness.providers.models.capabilities import Capabilities
from harness.providers.records import Providers, Sightings
from harness.providers.registry import targets
from harness.providers.target import Price, Target
from harness.routing.agent import (
    Agent,
    AgentSession,
    AgentTool,
    ModelChoice,
    ModelKind,
)
from harness.routing.control import freezes, routes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.records.runs import EvalRuns, eval_run, sample
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.settings import AutoFloor
from tests.support.control.colours_suite import ITEMS, SKILL
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("C7", "F1")

ROUTE = "support"
AUTO = ModelChoice(f"auto:{ROUTE}", ModelKind.AUTO, route=ROUTE)
PERSON = AgentsClient.of_person(BEN)
HELLO = IncomingMessage(MessageRole.USER, "Colour number 3?")
PICTURE = IncomingMessage(
    MessageRole.USER,
    (
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
        },
    ),
)
# Of 60 items: good answers 50 rightly, better all, worse 10.
FLOORS = {ROUTE: AutoFloor(0.6, "colours")}
PRICES = {
    "better": Price(10, 20),
    "good": Price(1, 2),
    "worse": Price(0.1, 0.2),
}
REASON = "a test"


@pytest.fixture
def ctx(world: SmallInstallation) -> Context:
    """A dear incumbent; a good and a bad fallback, which are cheaper. Nothing is measured."""
    ctx = replace(world.context(), data_classes={"internal": frozenset({"sim"})})
    change_provider(ctx, prices=PRICES)
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create_route(
        ctx,
        SYSTEM,
        ROUTE,
        "sim/better",
        fallbacks=["sim/good", "sim/worse"],
        settings=settings,
    )
    return ctx


@pytest.fixture
def agent(ctx: Context) -> Agent:
    return agents.create_agent(ctx, PERSON, "helper", AUTO)


@pytest.fixture
def session(ctx: Context, agent: Agent) -> AgentSession:
    return agents.open_session(ctx, PERSON, agent.id, "user-7")


@pytest.fixture
def measured(world: SmallInstallation, ctx: Context) -> None:
    for model in ("better", "good", "worse"):
        measure(world, ctx, model)


def change_provider(ctx: Context, **changes: object) -> None:
    with ctx.store.read() as tx:
        known = Providers(tx).all()["sim"]
    targets.put_provider(ctx, SYSTEM, replace(known, **changes), REASON)  # type: ignore[arg-type]


def measure(
    world: SmallInstallation,
    ctx: Context,
    model: str,
    items: int = ITEMS,
) -> str:
    run = eval_queue.start_run(ctx, ANN, "colours", f"sim/{model}", items=items)
    world.run_once()
    with ctx.store.read() as tx:
        assert EvalRuns(tx).get(run.id).state.value == "done"
    return run.id


def models_for(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
    *,
    auto: AutoTargets | None = None,
    incoming: IncomingMessage = HELLO,
) -> ModelsInForce:
    return find_models(ctx, agent, session, incoming, auto or AutoTargets(FLOORS))


def asked_first(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
    **how: Any,
) -> str:
    """The name of the target that is asked before the route's own; empty for none."""
    primary = models_for(ctx, agent, session, **how).primary
    assert (primary.route, primary.grant) == (session.model.route, "")
    assert primary.reason.startswith("sim/")
    names = {target_id(model): f"sim/{model}" for model in SKILL}
    return names[primary.target] if primary.target else ""


def target_id(model: str) -> str:
    return Target("sim", model).id


@pytest.mark.both_databases
@pytest.mark.usefixtures("measured")
@pytest.mark.spine
def test_the_cheapest_target_that_reaches_the_floor_is_asked_before_its_route(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    models = models_for(ctx, agent, session)

    assert (models.primary.route, models.primary.target) == (
        ROUTE,
        target_id("good"),
    )
    assert models.primary.reason.startswith(
        "sim/good: the cheapest of 2 known to reach 0.6 on colours: 0.644"
    )
    assert models.fallback is None
    with ctx.store.read() as tx:
        assert not AgentGrants(tx).not_revoked()


def test_where_nothing_is_measured_or_configured_the_route_answers(
    world: SmallInstallation,
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    nothing = models_for(ctx, agent, session)
    assert asked_first(ctx, agent, session) == ""
    assert "no target is known to reach 0.6" in nothing.primary.reason

    measure(world, ctx, "good")
    no_floor = AutoTargets({})
    assert asked_first(ctx, agent, session, auto=no_floor) == ""
    assert "has no floor" in models_for(ctx, agent, session, auto=no_floor).primary.reason
    no_suite = AutoTargets({ROUTE: AutoFloor(0.1, "gone")})
    assert asked_first(ctx, agent, session, auto=no_suite) == ""


@pytest.mark.usefixtures("measured")
@pytest.mark.spine
def test_a_higher_floor_leaves_the_incumbent_and_a_lower_one_takes_the_cheapest(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    def who(floor: float) -> str:
        auto = AutoTargets({ROUTE: AutoFloor(floor, "colours")})
        return asked_first(ctx, agent, session, auto=auto)

    assert [who(floor) for floor in (0.04, 0.6, 0.8, 1.0)] == [
        "sim/worse",
        "sim/good",
        "",
        "",
    ]


def expire_scores(world: SmallInstallation, _ctx: Context) -> None:
    """Older than the route's policy counts verdicts for."""
    world.clock.advance(14 * 86_400 + 1)


def change_suite(world: SmallInstallation, _ctx: Context) -> None:
    file = world.suites["colours"].path
    assert file is not None
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")


def serve_another_model(world: SmallInstallation, ctx: Context) -> None:
    seen = Sighting(
        target_id("good"),
        ServedModel("good-2"),
        world.clock.now(),
        world.clock.now(),
    )
    world.clock.advance(1)
    with ctx.store.write() as tx:
        Sightings(tx).note([replace(seen, last_at=world.clock.now())])


def move_provider(_world: SmallInstallation, ctx: Context) -> None:
    change_provider(ctx, api_base="http://127.0.0.1:7/v1")


def take_key_away(_world: SmallInstallation, ctx: Context) -> None:
    change_provider(ctx, prices={**PRICES, "good": Price(10**6, 10**6)})


def forget_price(_world: SmallInstallation, ctx: Context) -> None:
    change_provider(ctx, prices={"better": PRICES["better"]})


def throw_switch(_world: SmallInstallation, ctx: Context) -> None:
    force = Force(ForceKind.TARGET, "sim/better")
    freezes.set_switch(
        ctx,
        BEN,
        SwitchRequest(force, REASON, ROUTE),
        source=SwitchSource.CLI,
    )


def leave_the_chain(_world: SmallInstallation, ctx: Context) -> None:
    fallback_chain.replace_chain(
        ctx, SYSTEM, ROUTE, [FallbackRequest("sim/worse")], reason=REASON
    )


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    "change",
    [
        expire_scores,
        change_suite,
        serve_another_model,
        move_provider,
        take_key_away,
        forget_price,
        throw_switch,
        leave_the_chain,
    ],
)
def test_what_ends_the_evidence_the_score_or_the_price_brings_the_incumbent_back(
    world: SmallInstallation,
    ctx: Context,
    agent: Agent,
    session: AgentSession,
    change: Callable[[SmallInstallation, Context], None],
) -> None:
    assert asked_first(ctx, agent, session) == "sim/good"

    change(world, ctx)

    assert asked_first(ctx, agent, session) == ""
    assert models_for(ctx, agent, session).primary.reason.startswith("sim/better: ")


@pytest.mark.usefixtures("measured")
def test_a_waiver_counts_until_it_expires(
    world: SmallInstallation,
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    leave_the_chain(world, ctx)
    waive = WaiverRequest("we know it", timedelta(hours=2))
    fallback_chain.add_fallback(
        ctx,
        SYSTEM,
        ROUTE,
        FallbackRequest("sim/equal", waive=waive),
        reason=REASON,
    )
    world.script = lambda _target, item, _epoch: str(item.target)
    change_provider(ctx, prices={**PRICES, "equal": Price(1, 1)})
    measure(world, ctx, "equal")

    assert asked_first(ctx, agent, session) == "sim/equal"
    world.clock.advance(2 * 3600)
    assert asked_first(ctx, agent, session) == ""


@pytest.mark.usefixtures("measured")
def test_what_a_target_cannot_do_is_not_asked_of_it(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    blind = {"good": Capabilities(vision=False)}
    change_provider(ctx, models=blind)
    assert asked_first(ctx, agent, session) == "sim/good"
    assert asked_first(ctx, agent, session, incoming=PICTURE) == ""

    change_provider(ctx, models={"good": Capabilities(tools=False)})
    spec: dict[str, Any] = {
        "name": "handy",
        "model": AUTO,
        "tools": (AgentTool("f", {}),),
    }
    handy = agents.create_agent(ctx, PERSON, **spec)
    held = agents.open_session(ctx, PERSON, handy.id)
    assert asked_first(ctx, handy, held) == ""

    change_provider(ctx, models={"good": Capabilities(context_window=3)})
    long = IncomingMessage(MessageRole.USER, "word " * 100)
    assert asked_first(ctx, agent, session, incoming=long) == ""


@pytest.mark.usefixtures("measured")
def test_a_target_that_may_not_see_the_data_is_not_chosen_and_an_agent_keeps_its_class(
    ctx: Context,
) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),), data_class="internal")
    routes.create_route(
        ctx,
        SYSTEM,
        "secret",
        "sim/better",
        fallbacks=["sim/good"],
        settings=settings,
    )
    model = ModelChoice("auto:secret", ModelKind.AUTO, route="secret")
    spec: dict[str, Any] = {
        "name": "careful",
        "model": model,
        "data_class": "internal",
    }
    careful = agents.create_agent(ctx, PERSON, **spec)
    held = agents.open_session(ctx, PERSON, careful.id)
    auto = AutoTargets({"secret": FLOORS[ROUTE]})
    assert asked_first(ctx, careful, held, auto=auto) == "sim/good"

    # The file names other providers now: nothing of the agent's goes to any of these.
    moved = replace(ctx, data_classes={"internal": frozenset({"other"})})
    assert asked_first(moved, careful, held, auto=auto) == ""
    # And the route carries no class any more.
    routes.change_settings(ctx, SYSTEM, "secret", lambda now: replace(now, data_class=""))
    with pytest.raises(NotAllowed, match="as strict"):
        models_for(ctx, careful, held, auto=auto)


def test_a_proposer_brings_nothing_into_traffic_by_asking_for_auto(
    world: SmallInstallation, ctx: Context
) -> None:
    """Its candidate has passed and is cheap, and waits for an approval."""
    passed = world.decided("sim/better")
    assert passed.verdict
    change_provider(ctx, prices={**PRICES, "better": Price(0, 0)})
    own = ModelChoice("auto:chat", ModelKind.AUTO, route="chat")
    helper = agents.create_agent(ctx, PERSON, "eve's", own)
    held = agents.open_session(ctx, PERSON, helper.id)

    auto = AutoTargets({"chat": AutoFloor(0.0, "colours")})
    assert asked_first(ctx, helper, held, auto=auto) == ""


def test_evidence_of_another_route_counts_nothing(
    world: SmallInstallation,
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    """`equal` is free, perfect and a fallback of another route."""
    world.script = lambda _target, item, _epoch: str(item.target)
    change_provider(ctx, prices={**PRICES, "equal": Price(0, 0)})
    routes.create_route(ctx, SYSTEM, "other", "sim/equal", settings=RouteSettings())
    measure(world, ctx, "equal")
    measure(world, ctx, "good")

    assert asked_first(ctx, agent, session) == "sim/good"


def test_measuring_again_and_again_until_it_looks_good_does_not_help(
    world: SmallInstallation,
    ctx: Context,
    agent: Agent,
    session: AgentSession,
) -> None:
    """All runs count together: a lucky one beside bad ones, or a lucky beginning."""
    lucky = {"is": False}

    def script(
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        number = int(item.id.rpartition("-")[2])
        right = lucky["is"] or number * 5 % 12 < SKILL[target.model]
        return str(item.target) if right or epoch < 0 else "wrong"

    world.script = script
    measure(world, ctx, "better")
    measure(world, ctx, "worse")
    lucky["is"] = True
    measure(world, ctx, "worse", items=5)
    measure(world, ctx, "worse", items=20)

    assert asked_first(ctx, agent, session) == ""


def forge_scores(db: sa.Connection, run: str) -> None:
    db.execute(sa.update(sample).where(sample.c.run == run).values(strict=1.0, lenient=1.0))


def delete_wrong_answers(db: sa.Connection, run: str) -> None:
    db.execute(sa.delete(sample).where(sample.c.run == run, sample.c.strict == 0.0))


def give_the_run_of_another(db: sa.Connection, run: str) -> None:
    db.execute(
        sa.update(eval_run).where(eval_run.c.id == run).values(target=target_id("better"))
    )


@pytest.mark.both_databases
@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("forge", [forge_scores, delete_wrong_answers, give_the_run_of_another])
def test_a_database_owner_makes_no_bad_model_good(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
    forge: Callable[[sa.Connection, str], None],
) -> None:
    """With the triggers away. `worse` is the cheapest of all."""
    with ctx.store.read() as tx:
        (run,) = EvalRuns(tx).of_targets({target_id("worse")})
    with owned(cast("Store", ctx.store)) as db:
        forge(db, run.id)

    assert asked_first(ctx, agent, session) in ("sim/good", "")
