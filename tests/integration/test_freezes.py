import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from harness.app import seed
from harness.app.database import upgrade_database
from harness.app.installation import load_settings, open_installation
from harness.canary import machine, operations
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    ConfigError,
    Conflict,
    InputError,
    NotAllowed,
)
from harness.frame.people.access import Actor, Role
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import RolloutSignal
from harness.gate.verdict import Passed
from harness.interfaces.cli.program import program
from harness.operations import control_jobs, route_queries
from harness.operations.route_status import RouteState
from harness.proposals import decisions
from harness.proposals.report import comparison
from harness.providers.force import (
    Force,
    ForceKind,
    KillSwitch,
    SwitchSource,
)
from harness.routing.control import freezes, routes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.proposal import ProposalEvent, ProposalPhase
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import RaiseWeight
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import CANARY, POLICY, approved
from tests.support.site.command_line import CommandLine

pytestmark = pytest.mark.req("G1", "G2")
HOUR = timedelta(hours=1)
FREEZE = Force(ForceKind.FREEZE, "")
WEEK = SwitchRequest(FREEZE, "the release week.", lasts=HOUR)
ANN_WHO_APPROVES = Actor(ANN.name, Role.APPROVER, ANN.principal)


@pytest.fixture
def world(plain_world: SmallInstallation) -> SmallInstallation:
    return plain_world


def freeze(world: SmallInstallation, actor: Actor = BEN) -> KillSwitch:
    wanted = SwitchRequest(FREEZE, "the release week", "chat", HOUR)
    return freezes.set_switch(world.context(), actor, wanted, source=SwitchSource.CLI)


def test_a_proposal_on_a_frozen_route_names_the_freeze_and_the_next_step(
    cli: CommandLine,
) -> None:
    thrown = ("switch", "throw", "freeze", "--route", "chat", "--for", "2h")
    cli.run(*thrown, "--reason", "a drill")
    said = cli.run("proposal", "create", "chat", "sim/better", "--dry-run").stderr
    assert "the evals run, but route chat is frozen" in said
    assert "`swapproof switch list` lists the freezes" in said


@pytest.mark.spine
def test_a_proposal_is_measured_in_a_freeze_and_its_canary_opens_by_itself_after_it(
    world: SmallInstallation,
) -> None:
    freeze(world)
    proposal = world.propose("sim/good")
    assert not any(world.run_once().failed for _ in range(10))
    waits = world.get(proposal.id)
    assert (waits.phase, waits.rollout) == (
        ProposalPhase.AWAITING_APPROVAL,
        None,
    )
    assert routes.load_table(world.context()).routes["chat"].canary is None
    with world.store.read() as tx:
        log = AuditLog(tx).for_subject(
            f"proposal {proposal.id}", since=proposal.created_at, limit=50
        )
        details = {event.action: event.details for event in log}
        proof = Verdicts(tx).get(waits.verdict or "")
    assert "the release week" in str(details["proposal.frozen"]["reason"])
    assert details["verdict"]["verdict"] == waits.verdict
    assert isinstance(proof, Passed)
    # A process that looked before the freeze began.
    with (
        pytest.raises(Conflict, match="no canary opens"),
        world.store.write() as tx,
    ):
        machine.open_canary(world.context(), tx, waits, proof, ProposalEvent.APPROVED)

    next_step = comparison.load_comparison(world.context(), proposal.id).next_step
    assert next_step.startswith("the policy approved it; it waits: route chat is frozen")
    status = route_queries.load_status(world.context(), "chat")
    assert (status.state, status.needs_decision) == (
        RouteState.APPROVED,
        False,
    )
    assert re.fullmatch(
        r"Route chat is frozen until .* \(the release week; by ben, sw_\w+\)\. The canary "
        r"opens when the freeze ends\. An approver other than \w+ can end it earlier: "
        r"`swapproof switch lift sw_\w+ --reason WHY`\.",
        status.reason,
    )
    (notice,) = freezes.list_freeze_notices(world.context(), "chat")
    assert notice.heading.startswith("Route chat is frozen until ")
    assert (notice.reason, notice.source) == ("the release week", "ben")
    assert freezes.list_freeze_notices(world.context(), "other") == []

    world.clock.advance(3600)
    world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.CANARY
    assert freezes.list_freeze_notices(world.context()) == []


def test_a_freeze_that_starts_later_holds_nothing_yet_and_says_when_it_begins(
    cli: CommandLine, world: SmallInstallation
) -> None:
    thrown = (
        "switch",
        "throw",
        "freeze",
        "--from",
        "2999-12-31T23:00-01:00",
        "--for",
        "2h",
    )
    assert "within one year" in cli.run(*thrown, "--reason", "x", exits=2).stderr
    never = replace(WEEK, starts_at=datetime.max.replace(tzinfo=UTC))
    with pytest.raises(InputError, match="within one year"):
        freezes.set_switch(world.context(), BEN, never, source=SwitchSource.REST)

    begins = SystemClock().now() + 48 * HOUR
    soon = (
        "switch",
        "throw",
        "freeze",
        "--from",
        begins.isoformat(),
        "--for",
        "2h",
    )
    said = cli.run(*soon, "--reason", "x").stderr
    assert f"for all routes from {begins:%Y-%m-%d %H:%M:%S} UTC until " in said
    in_an_hour = replace(WEEK, starts_at=world.clock.now() + HOUR)
    freezes.set_switch(world.context(), BEN, in_an_hour, source=SwitchSource.CLI)
    assert freezes.list_freeze_notices(world.context()) == []
    world.clock.advance(3600)
    (notice,) = freezes.list_freeze_notices(world.context())
    assert f"(the release week; by ben, {notice.switch})" in notice.describe("chat")


def test_a_running_canary_waits_out_a_freeze_longer_than_its_deadline_and_is_promoted_after(
    tmp_path: Path,
) -> None:
    quick = tuple(replace(step, deadline_s=600.0) for step in CANARY.steps)
    policy = replace(POLICY, canary=replace(CANARY, steps=quick))
    world = SmallInstallation(tmp_path, clock=ManualClock(), policy=policy)
    world.set_up()
    proposal = world.decided("sim/good")
    freeze(world)
    for _ in range(6):  # 30 minutes, three times the step's deadline
        world.clock.advance(300)
        world.feed()
        world.run_once()
    held = world.rollout()
    assert (held.step, held.live) == (0, True)
    (held_by,) = open_alerts(world, AlertKind.CANARY_HELD)
    assert "Route chat is frozen until" in held_by
    for signal in (RolloutSignal.ADVANCE, RolloutSignal.PROMOTE):
        with pytest.raises(
            Conflict,
            match=r"is frozen until .* its canary does not continue",
        ):
            operations.operate(world.context(), BEN, "chat", signal, "now")
    assert world.rollout().step == 0

    world.clock.advance(1800)
    for _ in range(40):
        world.feed(blocks=3)
        world.run_once()
        if world.get(proposal.id).phase is ProposalPhase.PROMOTED:
            break
    assert world.get(proposal.id).phase is ProposalPhase.PROMOTED


def open_alerts(world: SmallInstallation, kind: AlertKind) -> list[str]:
    with world.store.read() as tx:
        return [a.text for a in Alerts(tx).list() if a.kind is kind and a.open]


def test_an_installation_that_observes_measures_and_waits_until_swaps_are_possible(
    world: SmallInstallation,
) -> None:
    world.observe_only = True
    world.policy = approved()
    proposal = world.decided("sim/good")
    decisions.approve_proposal(world.context(), BEN, proposal.id, "it passed")
    world.run_once()
    waits = world.get(proposal.id)
    assert (waits.phase, waits.rollout) == (
        ProposalPhase.AWAITING_APPROVAL,
        None,
    )
    assert world.route().canary is None
    status = route_queries.load_status(world.context(), "chat")
    assert status.reason == (
        "Route chat is frozen (this installation only observes; control.observe_only). The "
        "canary opens when the freeze ends."
    )

    world.observe_only = False
    world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.CANARY


def test_the_list_of_freezes_names_the_setting_that_freezes_all_routes(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "observe_only" not in cli.run("switch", "list").stderr
    monkeypatch.setenv("SWAPPROOF__CONTROL__OBSERVE_ONLY", "true")
    said = cli.run("switch", "list").stderr
    assert "control.observe_only: freeze for all routes (this installation only" in said


def test_where_it_observes_a_live_canary_is_held_goes_no_step_on_and_can_still_go_back(
    world: SmallInstallation,
) -> None:
    world.decided("sim/good")
    world.observe_only = True
    for _ in range(4):
        world.feed(blocks=5)
        world.run_once()

    assert (world.rollout().step, world.rollout().live) == (0, True)
    (held_by,) = open_alerts(world, AlertKind.CANARY_HELD)
    assert "this installation only observes" in held_by
    for signal in (RolloutSignal.ADVANCE, RolloutSignal.PROMOTE):
        with pytest.raises(Conflict, match="its canary does not continue"):
            operations.operate(world.context(), BEN, "chat", signal, "now")

    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "no more")
    assert not world.rollout().live
    assert world.route().canary is None


def test_harm_and_an_abort_end_a_canary_of_a_frozen_route(world: SmallInstallation) -> None:
    proposal = world.decided("sim/good")
    made = freeze(world)
    for _ in range(4):
        world.feed(failing=True, blocks=5)
        world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.ROLLED_BACK

    freezes.lift_switch(world.context(), BEN, made.id, reason="another go")
    again = world.decided("sim/better")
    assert again.phase is ProposalPhase.CANARY
    freeze(world)
    back = operations.operate(
        world.context(), BEN, "chat", RolloutSignal.ABORT, "no more"
    ).rollout
    assert not back.live


def test_neither_the_proposer_nor_raw_sql_nor_a_process_that_does_not_look_ends_a_freeze(
    world: SmallInstallation,
) -> None:
    world.decided("sim/good")
    made = freeze(world)
    with pytest.raises(NotAllowed, match="ann proposed"):
        freezes.lift_switch(world.context(), ANN_WHO_APPROVES, made.id, reason="I want it")
    with pytest.raises(NotAllowed):
        freeze(world, ANN)
    endless = SwitchRequest(FREEZE, "for good")
    with pytest.raises(InputError, match="needs an end"):
        freezes.set_switch(world.context(), BEN, endless, source=SwitchSource.CLI)

    engine = sa.create_engine(f"sqlite:///{world.folder / 'world.db'}")
    for statement in (
        "UPDATE switch SET route = 'another'",
        "INSERT OR REPLACE INTO switch SELECT * FROM switch",
    ):
        with pytest.raises(sa.exc.DBAPIError), engine.begin() as db:
            db.exec_driver_sql(statement)

    # One that asks no freeze is refused by the database.
    rollout = world.rollout()
    weight = rollout.policy.steps[1].weight_bps
    version = routes.load_table(world.context()).routes["chat"].version
    with pytest.raises(Exception, match="frozen"), world.store.write() as tx:
        Routing(tx).commit(
            RaiseWeight("chat", rollout.id, weight),
            expected_version=version,
            actor="eve",
            reason="past the freeze",
            now=world.clock.now(),
        )

    # The triggers let a freeze be lifted, but nobody else signs: the route counts as frozen.
    with engine.begin() as db:
        db.exec_driver_sql("UPDATE switch SET lifted_at = created_at, lifted_by = 'eve'")
    engine.dispose()
    world.feed(blocks=8)
    world.run_once(turns=3)
    assert world.rollout().step == 0
    with pytest.raises(Conflict, match="the stored freezes cannot be trusted"):
        operations.operate(world.context(), BEN, "chat", RolloutSignal.ADVANCE, "now")
    assert not operations.operate(
        world.context(), BEN, "chat", RolloutSignal.ABORT, "no more"
    ).rollout.live


def test_a_freeze_that_another_process_lifted_holds_nothing(world: SmallInstallation) -> None:
    world.decided("sim/good")
    ctx = world.context()
    made = freeze(world)
    control_jobs.run_once(ctx)
    freezes.lift_switch(world.context(), BEN, made.id, reason="done")
    after = operations.operate(ctx, BEN, "chat", RolloutSignal.ADVANCE, "now").rollout
    assert after.step == world.rollout().step == 1


def test_the_configuration_freezes_routes_every_week_and_observes(tmp_path: Path) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text("control: {observe_only: true}\n")
    assert load_settings(file).control.observe_only
    entry = (
        "freezes:\n"
        "  - {from: 'Fri 16:00', until: 'Mon 08:00', time_zone: Europe/Berlin,"
        " reason: weekend, routes: [chat]}\n"
    )
    file.write_text(entry)
    (window,) = load_settings(file).freezes
    assert str(window) == "Fri 16:00 to Mon 08:00, Europe/Berlin"
    assert window.routes == {"chat"}
    provider = "providers: {sim: {api_base: 'http://127.0.0.1:9/v1'}}"
    file.write_text(
        f"home: state\n{provider}\nroutes: {{chats: {{incumbent: sim/a}}}}\n{entry}"
    )
    with closing(open_installation(file, create_secret=True)) as installation:
        upgrade_database(installation.settings)
        seed.apply_seed(installation.context, installation.settings)
    done = CliRunner().invoke(program, ["--config", str(file), "doctor"])
    said = " ".join(done.output.split())
    assert "there is no route 'chat', which the freeze Fri 16:00 to Mon 08:00" in said
    assert "did you mean 'chats'?" in said
    file.write_text(entry.replace("Fri 16:00", "someday"))
    with pytest.raises(ConfigError, match=r"freezes\.0.*'someday' is not a time of the week"):
        load_settings(file)
