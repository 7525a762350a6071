"""`auto` over real evidence, scores and grants (C7): who answers, by which grant, and what a
dishonest proposer and raw SQL try.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from evals.suites.items import Item
from harness.control.agents import agents, sessions
from harness.control.agents.agents import AgentSpec
from harness.control.agents.auto import AutoTargets
from harness.control.agents.client import AgentsClient
from harness.control.agents.models_in_force import ModelsInForce, find_models
from harness.control.context import Context
from harness.control.evals import worker_supervision
from harness.control.operations import alerts, integrity
from harness.control.routing import fallback_chain, kill_switch, routes, targets
from harness.control.routing.chain_evidence import WaiverRequest
from harness.control.routing.fallback_chain import FallbackRequest
from harness.control.routing.kill_switch import SwitchRequest
from harness.domain.agents.agent import (
    Agent,
    AgentGrant,
    AgentSession,
    AgentTool,
    GrantKind,
    ModelChoice,
    ModelKind,
    literal_choice,
)
from harness.domain.agents.message import IncomingMessage, MessageRole
from harness.domain.errors import Conflict, NotAllowed, SnapshotInvalid
from harness.domain.evals.pins import ServedModel, Sighting
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.routing.capabilities import Capabilities
from harness.domain.routing.kill_switch import Force, ForceKind, SwitchSource
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.domain.routing.target import Price, Target
from harness.domain.settings import AgentSettings, AutoFloor
from harness.store.schema.agents import agent_grant
from harness.store.schema.evals import eval_run, sample
from tests.support.control.control_plane import ANN, BEN, ITEMS, SKILL, SmallInstallation
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("C7", "F1")

ROUTE = "support"
AUTO = ModelChoice(f"auto:{ROUTE}", ModelKind.AUTO, route=ROUTE)
PERSON = AgentsClient.of_person(BEN)
HELLO = IncomingMessage(MessageRole.USER, "Colour number 3?")
PICTURE = IncomingMessage(
    MessageRole.USER,
    ({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},),
)
# Of 60 items: good answers 50 rightly, better all, worse 10.
FLOORS = {ROUTE: AutoFloor(0.6, "colours")}
PRICES = {"better": Price(10, 20), "good": Price(1, 2), "worse": Price(0.1, 0.2)}
REASON = "a test"


@pytest.fixture
def ctx(world: SmallInstallation) -> Context:
    """A dear incumbent; a good and a bad fallback, which are cheaper. Nothing is measured."""
    ctx = replace(
        world.context(),
        data_classes={"internal": frozenset({"sim"})},
        agents=AgentSettings(max_literals=2),
    )
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
    return agents.create_agent(ctx, PERSON, AgentSpec("helper", AUTO))


@pytest.fixture
def session(ctx: Context, agent: Agent) -> AgentSession:
    return sessions.open_session(ctx, PERSON, agent.id, "user-7")


@pytest.fixture
def measured(world: SmallInstallation, ctx: Context) -> None:
    for model in ("better", "good", "worse"):
        measure(world, ctx, model)


def change_provider(ctx: Context, **changes: object) -> None:
    with ctx.store.read() as tx:
        known = tx.providers.all()["sim"]
    targets.put_provider(ctx, SYSTEM, replace(known, **changes), REASON)  # type: ignore[arg-type]


def measure(world: SmallInstallation, ctx: Context, model: str, items: int = ITEMS) -> str:
    """The id of a run of the suite on the model."""
    run = worker_supervision.start_run(ctx, ANN, "colours", f"sim/{model}", items=items)
    world.run_once()
    with ctx.store.read() as tx:
        assert tx.runs.get(run.id).state.value == "done"
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


def grants(ctx: Context) -> list[AgentGrant]:
    with ctx.store.read() as tx:
        return [g for g in tx.agent_grants.not_revoked() if g.kind is GrantKind.AUTO]


def target_id(model: str) -> str:
    return Target("sim", model).id


@pytest.mark.both_databases
@pytest.mark.usefixtures("measured")
def test_the_cheapest_target_that_reaches_the_floor_answers_by_a_signed_grant(
    world: SmallInstallation, ctx: Context, agent: Agent, session: AgentSession
) -> None:
    models = models_for(ctx, agent, session)

    (grant,) = grants(ctx)
    assert (models.primary.route, models.primary.grant) == ("@sim/good", grant.id)
    assert models.primary.reason.startswith(
        "sim/good: the cheapest of 2 known to reach 0.6 on colours: 0.644"
    )
    assert (grant.agent, grant.session, grant.granted_by) == (agent.id, "", SYSTEM.name)
    assert grant.expires_at == world.clock.now() + timedelta(days=1)
    # Alone, it has no chain: where it fails, the route answers.
    assert models.fallback is not None
    assert (models.fallback.route, models.fallback.grant) == (ROUTE, "")

    # The router has it: signed, and live.
    assert grant in ctx.store.snapshot().agent_grants
    # The same grant serves until it is about to end.
    world.clock.advance(3600)
    assert models_for(ctx, agent, session).primary.grant == grant.id
    assert grants(ctx) == [grant]


def test_where_nothing_is_measured_or_configured_the_route_answers(
    world: SmallInstallation, ctx: Context, agent: Agent, session: AgentSession
) -> None:
    nothing = models_for(ctx, agent, session)
    assert (nothing.primary.route, nothing.primary.grant) == (ROUTE, "")
    assert "nothing is known to reach 0.6" in nothing.primary.reason
    assert nothing.fallback is None

    measure(world, ctx, "good")
    no_floor = models_for(ctx, agent, session, auto=AutoTargets({}))
    assert (no_floor.primary.route, grants(ctx)) == (ROUTE, [])
    assert "has no floor" in no_floor.primary.reason
    no_suite = AutoTargets({ROUTE: AutoFloor(0.1, "gone")})
    assert models_for(ctx, agent, session, auto=no_suite).primary.route == ROUTE


@pytest.mark.usefixtures("measured")
def test_a_higher_floor_leaves_the_incumbent_and_a_lower_one_takes_the_cheapest(
    ctx: Context, agent: Agent, session: AgentSession
) -> None:
    def who(floor: float) -> str:
        auto = AutoTargets({ROUTE: AutoFloor(floor, "colours")})
        return models_for(ctx, agent, session, auto=auto).primary.route

    assert [who(floor) for floor in (0.04, 0.6, 0.8, 1.0)] == [
        "@sim/worse",
        "@sim/good",
        ROUTE,
        ROUTE,
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
        target_id("good"), ServedModel("good-2"), world.clock.now(), world.clock.now()
    )
    world.clock.advance(1)
    with ctx.store.write() as tx:
        tx.sightings.note([replace(seen, last_at=world.clock.now())])


def move_provider(_world: SmallInstallation, ctx: Context) -> None:
    change_provider(ctx, api_base="http://127.0.0.1:7/v1")


def take_key_away(_world: SmallInstallation, ctx: Context) -> None:
    change_provider(ctx, prices={**PRICES, "good": Price(10**6, 10**6)})


def forget_price(_world: SmallInstallation, ctx: Context) -> None:
    change_provider(ctx, prices={"better": PRICES["better"]})


def throw_switch(_world: SmallInstallation, ctx: Context) -> None:
    force = Force(ForceKind.TARGET, "sim/better")
    kill_switch.throw_switch(
        ctx, BEN, SwitchRequest(force, REASON, ROUTE), source=SwitchSource.CLI
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
    assert models_for(ctx, agent, session).primary.route == "@sim/good"

    change(world, ctx)

    primary = models_for(ctx, agent, session).primary
    assert (primary.route, primary.grant) == (ROUTE, "")
    assert primary.reason.startswith("sim/better: ")
    if change is leave_the_chain:
        # The grant goes with the evidence that it was given by.
        assert grants(ctx) == []


@pytest.mark.usefixtures("measured")
def test_a_waiver_counts_until_it_expires_and_its_grant_with_it(
    world: SmallInstallation, ctx: Context, agent: Agent, session: AgentSession
) -> None:
    leave_the_chain(world, ctx)
    waive = WaiverRequest("we know it", timedelta(hours=2))
    fallback_chain.add_fallback(
        ctx, SYSTEM, ROUTE, FallbackRequest("sim/equal", waive=waive), reason=REASON
    )
    world.script = lambda _target, item, _epoch: str(item.target)
    change_provider(ctx, prices={**PRICES, "equal": Price(1, 1)})
    measure(world, ctx, "equal")

    primary = models_for(ctx, agent, session).primary
    (grant,) = grants(ctx)
    with ctx.store.read() as tx:
        (waiver,) = tx.waivers.list(route=ROUTE)
    assert primary.route == "@sim/equal"
    assert grant.expires_at == waiver.expires_at

    world.clock.advance(2 * 3600)
    assert models_for(ctx, agent, session).primary.route == ROUTE
    assert grants(ctx) == []


@pytest.mark.usefixtures("measured")
def test_what_a_target_cannot_do_is_not_asked_of_it(
    ctx: Context, agent: Agent, session: AgentSession
) -> None:
    blind = {"good": Capabilities(vision=False)}
    change_provider(ctx, models=blind)
    assert models_for(ctx, agent, session).primary.route == "@sim/good"
    assert models_for(ctx, agent, session, incoming=PICTURE).primary.route == ROUTE

    change_provider(ctx, models={"good": Capabilities(tools=False)})
    spec = AgentSpec("handy", AUTO, tools=(AgentTool("f", {}),))
    handy = agents.create_agent(ctx, PERSON, spec)
    held = sessions.open_session(ctx, PERSON, handy.id)
    assert models_for(ctx, handy, held).primary.route == ROUTE

    change_provider(ctx, models={"good": Capabilities(context_window=3)})
    long = IncomingMessage(MessageRole.USER, "word " * 100)
    assert models_for(ctx, agent, session, incoming=long).primary.route == ROUTE


@pytest.mark.usefixtures("measured")
def test_a_target_that_may_not_see_the_data_is_not_chosen_and_an_agent_keeps_its_class(
    ctx: Context,
) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),), data_class="internal")
    routes.create_route(
        ctx, SYSTEM, "secret", "sim/better", fallbacks=["sim/good"], settings=settings
    )
    model = ModelChoice("auto:secret", ModelKind.AUTO, route="secret")
    spec = AgentSpec("careful", model, data_class="internal")
    careful = agents.create_agent(ctx, PERSON, spec)
    held = sessions.open_session(ctx, PERSON, careful.id)
    auto = AutoTargets({"secret": FLOORS[ROUTE]})
    assert models_for(ctx, careful, held, auto=auto).primary.route == "@sim/good"
    (grant,) = grants(ctx)
    assert grant.data_class == "internal"

    # The file names other providers now: nothing of the agent's goes to any of these.
    moved = replace(ctx, data_classes={"internal": frozenset({"other"})})
    assert models_for(moved, careful, held, auto=auto).primary.route == "secret"
    # And the route carries no class any more.
    routes.change_settings(ctx, SYSTEM, "secret", lambda now: replace(now, data_class=""))
    with pytest.raises(NotAllowed, match="as strict"):
        models_for(ctx, careful, held, auto=auto)


def test_a_proposer_brings_nothing_into_traffic_by_asking_for_auto(
    world: SmallInstallation, ctx: Context
) -> None:
    """Its candidate has passed and is cheap, and nobody let it in: a verdict alone opens
    nothing, on this route or another.
    """
    passed = world.until_decided(world.propose("sim/better").id)
    assert passed.verdict
    change_provider(ctx, prices={**PRICES, "better": Price(0, 0)})
    own = ModelChoice("auto:chat", ModelKind.AUTO, route="chat")
    helper = agents.create_agent(ctx, PERSON, AgentSpec("eve's", own))
    held = sessions.open_session(ctx, PERSON, helper.id)

    auto = AutoTargets({"chat": AutoFloor(0.0, "colours")})
    primary = models_for(ctx, helper, held, auto=auto).primary

    assert (primary.route, primary.grant) == ("chat", "")
    assert grants(ctx) == []


def test_evidence_of_another_route_counts_nothing(
    world: SmallInstallation, ctx: Context, agent: Agent, session: AgentSession
) -> None:
    """`equal` is free, perfect and a fallback of another route."""
    world.script = lambda _target, item, _epoch: str(item.target)
    change_provider(ctx, prices={**PRICES, "equal": Price(0, 0)})
    routes.create_route(ctx, SYSTEM, "other", "sim/equal", settings=RouteSettings())
    measure(world, ctx, "equal")
    measure(world, ctx, "good")

    assert models_for(ctx, agent, session).primary.route == "@sim/good"


def test_measuring_again_and_again_until_it_looks_good_does_not_help(
    world: SmallInstallation, ctx: Context, agent: Agent, session: AgentSession
) -> None:
    """All runs count together: a lucky one beside bad ones, or a lucky beginning."""
    lucky = {"is": False}

    def script(target: Target, item: Item, epoch: int) -> str:
        number = int(item.id.rpartition("-")[2])
        right = lucky["is"] or number * 5 % 12 < SKILL[target.model]
        return str(item.target) if right or epoch < 0 else "wrong"

    world.script = script
    measure(world, ctx, "better")
    measure(world, ctx, "worse")
    lucky["is"] = True
    measure(world, ctx, "worse", items=5)
    measure(world, ctx, "worse", items=20)

    assert models_for(ctx, agent, session).primary.route == ROUTE


@pytest.mark.usefixtures("measured")
def test_a_grant_of_auto_opens_nothing_to_a_literal_choice(
    ctx: Context, agent: Agent, session: AgentSession
) -> None:
    assert models_for(ctx, agent, session).primary.route == "@sim/good"
    assert grants(ctx)
    literal = literal_choice("sim:good", "sim/good")

    with pytest.raises(NotAllowed, match="not approved"):
        models_for(ctx, agent, replace(session, model=literal))


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
        (run,) = tx.runs.of_targets({target_id("worse")})
    with owned(ctx.store) as db:
        forge(db, run.id)

    assert models_for(ctx, agent, session).primary.route in ("@sim/good", ROUTE)


@pytest.mark.both_databases
@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    "change",
    [
        {"target": target_id("worse"), "target_name": "sim/worse"},
        {"kind": GrantKind.BASELINE.value},
        {"granted_by": "eve"},
        {"expires_at": datetime(2100, 1, 1, tzinfo=UTC)},
        {"data_class": "internal"},
    ],
)
def test_a_grant_of_auto_that_somebody_changed_opens_nothing(
    ctx: Context, agent: Agent, session: AgentSession, change: dict[str, object]
) -> None:
    models_for(ctx, agent, session)
    with owned(ctx.store) as db:
        db.execute(sa.update(agent_grant).values(**change))

    # No router takes such a revision over, and no message is answered by it: the route goes on.
    with pytest.raises(SnapshotInvalid, match="not what was signed"):
        ctx.store.snapshot()
    primary = models_for(ctx, agent, session).primary
    assert (primary.route, primary.grant) == (ROUTE, "")
    assert "the incumbent: no grant for another target" in primary.reason
    # A person is told, once.
    for _ in range(2):
        integrity.check_snapshot(ctx)
    assert alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "snapshot")
    with ctx.store.read() as tx:
        record = tx.alerts.newest(f"{AlertKind.AUDIT_BROKEN.value}:snapshot")
    assert record is not None
    assert record.count == 1


def test_literal_models_are_capped_and_those_of_auto_are_none(
    world: SmallInstallation, ctx: Context, agent: Agent, session: AgentSession
) -> None:
    measure(world, ctx, "good")
    assert models_for(ctx, agent, session).primary.route == "@sim/good"
    literals = [literal_choice(f"sim:{model}", f"sim/{model}") for model in SKILL]

    for literal in literals[:2]:
        agents.create_agent(ctx, PERSON, AgentSpec("literal", literal))
    with pytest.raises(Conflict, match="2 literal models are granted"):
        agents.create_agent(ctx, PERSON, AgentSpec("literal", literals[2]))

    with ctx.store.read() as tx:
        kinds = [grant.kind for grant in tx.agent_grants.not_revoked()]
    assert sorted(kinds) == [GrantKind.AUTO, GrantKind.BASELINE, GrantKind.BASELINE]
