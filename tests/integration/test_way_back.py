"""The way back of a promotion, asked of a real provider over HTTP."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from harness.app.proof import find_missing_way_back
from harness.canary import audit, operations, way_back
from harness.canary import status as canary_status
from harness.canary.way_back import WayBackWatch
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import Alerts
from harness.frame.errors import ProofRefused
from harness.frame.people.access import SYSTEM
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing.audit import AuditEvent
from harness.frame.signing.audit_log import AuditLog
from harness.gate.canary_sentences import CanaryStateKind
from harness.gate.online.rollout import RolloutSignal, RolloutState
from harness.operations import route_queries
from harness.operations.context import Context
from harness.operations.route_status import RouteState
from harness.proposals import break_glass
from harness.proposals.report.comparison import load_comparison
from harness.providers.calls.probe import HttpProviderProbe
from harness.providers.models.catalogue import CatalogueEntry
from harness.providers.records import Providers
from harness.providers.registry import targets
from harness.routing.control import deprecations
from router.protocols.provider_failures import classify_reply
from tests.support.control.bare_installation import read_history
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import CANARY, POLICY
from tests.support.providers.scripted_probe import FixedCatalogue
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    EVENTS,
    Upstream,
    running_upstream,
)
from tests.support.site.command_line import CommandLine
from tests.support.site.management_api import Door, error_of

pytestmark = pytest.mark.req("F4", "F11")

DAY = timedelta(days=1).total_seconds()


def said(status: int, **content: object) -> ScriptedTurn:
    return ScriptedTurn(status, steps=(json.dumps(content).encode(),))


def refused(status: int, code: str) -> ScriptedTurn:
    return said(
        status,
        error={
            "message": f"a text about {code}",
            "code": code,
            "type": code,
        },
    )


WORD = {"choices": [{"index": 0, "delta": {"content": "ready"}}]}
STREAM = ScriptedTurn(headers=EVENTS, steps=(b"data: " + json.dumps(WORD).encode() + b"\n\n",))
PLAIN = said(200, choices=[{"message": {"role": "assistant", "content": "ready"}}])
GONE = refused(404, "model_not_found")
FAILED = ScriptedTurn(
    headers=EVENTS,
    steps=(b'data: {"error": {"code": "model_not_found", "message": "no"}}\n\n',),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    """One address for all tests, so that their worlds have one beginning."""
    with running_upstream() as made:
        yield made


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.turns = dict.fromkeys(("base", "good", "better", "worse"), STREAM)
    server.asked.clear()
    return server


@pytest.fixture
def ctx(world: SmallInstallation, upstream: Upstream) -> Context:
    """A context that asks the provider, whose address is the upstream's."""
    moved(world, upstream)
    world.policy = replace(POLICY, canary=replace(CANARY, bake_s=0.0))
    return asking(world)


def moved(world: SmallInstallation, upstream: Upstream) -> None:
    with world.store.read() as tx:
        provider = Providers(tx).all()["sim"]
    changed = replace(provider, api_base=upstream.url)
    targets.put_provider(world.context(), SYSTEM, changed, "a test")
    world.clock.advance(1)  # measurements from before the move are stale


def asking(world: SmallInstallation) -> Context:
    probe = HttpProviderProbe(SystemClock(), classify=classify_reply)
    return replace(world.context(), probe=probe)


def promoted_twice(world: SmallInstallation) -> None:
    """Then `base` is version 1, and `better` serves."""
    world.promoted("sim/good")
    world.promoted("sim/better")


def event(world: SmallInstallation, action: str) -> AuditEvent:
    with world.store.read() as tx:
        return [found for found in AuditLog(tx).all() if found.action == action][-1]


def checked(world: SmallInstallation, action: str) -> object:
    """The state of the check in the newest event of an action."""
    details = event(world, action).details["way_back"]
    assert isinstance(details, dict)
    return details["state"]


def gone_alert(world: SmallInstallation) -> AlertRecord | None:
    with world.store.read() as tx:
        return Alerts(tx).newest(f"way_back_gone:{world.rollout().id}")


def is_gone(world: SmallInstallation) -> bool:
    found = gone_alert(world)
    return found is not None and found.open


@pytest.mark.spine
@pytest.mark.req("H7")
@pytest.mark.parametrize(
    "turn",
    [
        GONE,
        refused(400, "model_not_found"),
        refused(401, "invalid_api_key"),
        refused(403, "permission_denied"),
        said(200, error={"code": "model_not_found", "message": "gone"}),
        FAILED,
        ScriptedTurn(404),
    ],
)
def test_a_rollback_to_a_model_that_is_gone_is_refused_and_the_next_living_one_is_named(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
    turn: ScriptedTurn,
) -> None:
    base = world.route().incumbent
    promoted_twice(world)
    upstream.turns["good"] = turn

    with pytest.raises(ProofRefused, match="sim/good cannot serve") as refusal:
        operations.roll_back(ctx, BEN, "chat", reason="an incident")
    assert "--force" in str(refusal.value)
    assert world.serving() == "better"
    named = re.search(
        r"The former incumbent sim/base answers: `swapproof route rollback chat "
        r"--to-version (\d+) --reason …`",
        str(refusal.value),
    )
    assert named is not None
    served = next(r for r in read_history(ctx, "chat") if r.route.version == int(named[1]))
    assert served.route.incumbent == base

    back = operations.roll_back(
        ctx,
        BEN,
        "chat",
        reason="it must be",
        force=True,
    )
    assert world.serving() == "good"
    assert back.warnings[0].startswith("sim/good cannot serve: ")
    assert event(world, "route.rollback").details["force"] is True
    assert checked(world, "route.rollback") == "gone"


def test_of_the_other_former_incumbents_only_one_that_answers_is_named(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
) -> None:
    promoted_twice(world)
    upstream.turns.update(good=GONE, base=refused(503, "overloaded"))
    with pytest.raises(ProofRefused, match=r"sim/base may answer \(503"):
        operations.roll_back(ctx, BEN, "chat", reason="an incident")

    upstream.turns["base"] = GONE
    with pytest.raises(
        ProofRefused,
        match="No other former incumbent of the route can serve",
    ):
        operations.roll_back(ctx, BEN, "chat", reason="an incident")

    # The newest former incumbent comes first.
    upstream.turns["good"] = STREAM
    with pytest.raises(ProofRefused, match="The former incumbent sim/good answers"):
        operations.roll_back(
            ctx,
            BEN,
            "chat",
            to_version=1,
            reason="an incident",
        )


@pytest.mark.parametrize("fact", ["key", "end"])
def test_known_facts_refuse_a_rollback_without_a_request(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
    fact: str,
) -> None:
    world.promoted("sim/better")
    if fact == "key":
        with world.store.read() as tx:
            provider = Providers(tx).all()["sim"]
        keyed = replace(provider, api_key_env="A_KEY_THAT_NOBODY_SET")
        targets.put_provider(world.context(), SYSTEM, keyed)
    else:
        ended = CatalogueEntry("sim", "base", end_date=world.clock.now().date())
        ctx = replace(ctx, models=FixedCatalogue(ended))

    with pytest.raises(ProofRefused, match="has no key" if fact == "key" else "it ended on"):
        operations.roll_back(ctx, BEN, "chat", reason="an incident")

    assert upstream.asked == []
    assert world.serving() == "better"


@pytest.mark.parametrize(
    "turn",
    [
        refused(429, "rate_limit_exceeded"),
        refused(500, "server_error"),
        ScriptedTurn(503),
        ScriptedTurn(hang=True),
        ScriptedTurn(headers=EVENTS, steps=(b"data: [DONE]\n\n",)),
    ],
)
def test_a_rollback_never_waits_for_a_check_without_a_clear_answer(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
    turn: ScriptedTurn,
) -> None:
    world.promoted("sim/better")
    upstream.turns["base"] = turn

    # The fixture would keep the world from copying a promotion that another test made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(way_back, "CHECK_S", 0.5)
        back = operations.roll_back(ctx, BEN, "chat", reason="an incident")

    assert world.serving() == "base"
    (warning,) = back.warnings
    assert warning.startswith("sim/base may not answer: ")
    assert checked(world, "route.rollback") == "unsure"


def test_an_open_circuit_is_a_warning_even_if_the_model_answers(
    world: SmallInstallation, ctx: Context
) -> None:
    base = world.route().incumbent
    world.promoted("sim/better")
    with world.store.write() as tx:
        kind = AlertKind.BREAKER_OPEN
        subject = "target sim/base"
        alerts.raise_alert(
            tx,
            kind,
            base,
            subject=subject,
            title="open",
            text="t",
        )

    back = operations.roll_back(ctx, BEN, "chat", reason="an incident")

    assert world.serving() == "base"
    assert "routers opened its circuit" in back.warnings[0]


@pytest.mark.parametrize("turn", [STREAM, PLAIN])
def test_a_rollback_to_a_model_that_answers_has_no_warning(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
    turn: ScriptedTurn,
) -> None:
    world.promoted("sim/better")
    upstream.turns["base"] = turn

    assert operations.roll_back(ctx, BEN, "chat", reason="an incident").warnings == ()
    assert len(upstream.asked_for("base")) == 1


@pytest.mark.parametrize("by", ["the evidence", "a person"])
def test_a_promotion_without_a_way_back_is_made_and_recorded(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
    by: str,
) -> None:
    upstream.turns["base"] = GONE
    proposal = world.in_canary("sim/better")
    if by == "a person":
        done = operations.operate(ctx, BEN, "chat", RolloutSignal.PROMOTE, "the old one ends")
        assert done.warnings[-1].startswith("sim/base cannot serve: ")
    for _ in range(40):
        world.feed(blocks=4)
        world.run_once(ctx)

    assert world.serving() == "better"
    assert len(upstream.asked_for("base")) == 1
    promotion = event(world, "canary.promote")
    assert checked(world, "canary.promote") == "gone"
    assert audit.replay_action(ctx, promotion.number).agrees
    assert is_gone(world)
    with world.store.read() as tx:
        told = Alerts(tx).newest(f"promoted:{world.rollout().id}")
    assert told is not None
    assert "Swapproof found no way back: sim/base cannot serve" in told.text
    step = load_comparison(ctx, proposal.id).next_step
    assert "At the promotion there was no way back: sim/base cannot serve" in step
    exported = find_missing_way_back(ctx, proposal.id)
    assert exported.startswith("no way back: sim/base cannot serve"), (
        "the proof's export says it"
    )


def test_the_bake_says_that_nothing_is_compared_until_its_control_answers_again(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
) -> None:
    world.policy = replace(POLICY, canary=replace(CANARY, bake_s=DAY))
    ctx = asking(world)
    world.promoted("sim/better")
    watch = WayBackWatch()
    watch(ctx)
    assert not is_gone(world)

    upstream.turns["base"] = GONE
    world.clock.advance(way_back.CHECK_PAUSE_S - 1)
    watch(ctx)
    assert not is_gone(world)
    world.clock.advance(1)
    watch(ctx)
    assert is_gone(world)
    (shown,) = canary_status.list_canaries(ctx, route="chat")
    assert shown.state.kind is CanaryStateKind.UNCOMPARED
    assert shown.state.words == "promoted and baking, control gone: nothing is compared"
    assert "sim/base, which cannot serve: the provider does not know" in shown.state.reason
    assert "If harm is shown, it is rolled back" not in shown.state.next_step
    assert shown.objections(RolloutSignal.ABORT) == (shown.no_way_back,)
    route = route_queries.load_status(ctx, "chat")
    assert (route.state, route.needs_decision) == (
        RouteState.UNCOMPARED,
        True,
    )

    # A failure that may pass is no news.
    upstream.turns["base"] = refused(503, "overloaded")
    world.clock.advance(way_back.CHECK_PAUSE_S)
    watch(ctx)
    assert is_gone(world)
    upstream.turns["base"] = STREAM
    world.clock.advance(way_back.CHECK_PAUSE_S)
    watch(ctx)
    assert not is_gone(world)


def test_a_report_of_the_routers_is_checked_at_once(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
) -> None:
    world.policy = replace(POLICY, canary=replace(CANARY, bake_s=DAY))
    ctx = asking(world)
    base = world.route().incumbent
    world.promoted("sim/better")
    watch = WayBackWatch()
    watch(ctx)
    upstream.turns["base"] = GONE
    with world.store.write() as tx:
        kind = AlertKind.MODEL_UNKNOWN
        subject = "target sim/base"
        alerts.raise_alert(
            tx,
            kind,
            base,
            subject=subject,
            title="unknown",
            text="t",
        )
    world.clock.advance(way_back.RECHECK_PAUSE_S)
    watch(ctx)

    assert is_gone(world)
    assert len(upstream.asked_for("base")) == 2


def test_the_alert_of_a_promotion_without_a_bake_ends_after_a_day(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
) -> None:
    upstream.turns["base"] = GONE
    world.in_canary("sim/better")
    operations.operate(ctx, BEN, "chat", RolloutSignal.PROMOTE, "the old one ends")
    watch = WayBackWatch()
    watch(ctx)
    assert is_gone(world)

    world.clock.advance(way_back.ALERT_KEPT.total_seconds())
    watch(ctx)
    assert not is_gone(world)


def test_a_rollback_for_harm_and_an_abort_ask_no_provider(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
) -> None:
    upstream.turns["base"] = GONE
    world.in_canary("sim/better")
    for _ in range(5):
        world.feed(failing=True, blocks=4)
        world.run_once(ctx)
    assert world.rollout().state is RolloutState.ROLLED_BACK

    world.in_canary("sim/good")
    operations.operate(ctx, BEN, "chat", RolloutSignal.ABORT, "no more")
    assert upstream.asked == []


def test_a_break_glass_stays_while_the_former_model_is_gone(
    world: SmallInstallation,
    upstream: Upstream,
    ctx: Context,
) -> None:
    made = break_glass.propose_break_glass(
        ctx,
        world.person("Ada"),
        "chat",
        "sim/worse",
        reason="the model is down",
        lasts=timedelta(hours=1),
    )
    break_glass.confirm_break_glass(ctx, world.person("Bo"), made.id)
    upstream.turns["base"] = GONE
    with pytest.raises(ProofRefused, match="sim/base cannot serve") as refusal:
        break_glass.end_break_glass(ctx, BEN, made.id, reason="it is over")
    assert "swapproof route rollback chat --to-version N" in str(refusal.value)
    world.clock.advance(3601)
    for _ in range(3):
        break_glass.run_once(ctx)

    assert world.serving() == "worse"
    assert len(upstream.asked_for("base")) == 2
    with world.store.read() as tx:
        told = Alerts(tx).newest(f"break_glass:{made.id}")
    assert told is not None
    assert "its former model cannot serve" in told.title

    upstream.turns["base"] = STREAM
    world.clock.advance(break_glass.RECHECK_EVERY.total_seconds())
    break_glass.run_once(ctx)
    assert world.serving() == "base"


def test_a_model_that_only_a_rollback_would_restore_counts_as_in_use(
    world: SmallInstallation, ctx: Context
) -> None:
    world.promoted("sim/better")
    ended = CatalogueEntry("sim", "base", end_date=world.clock.now().date())
    (ending,) = deprecations.list_deprecations(replace(ctx, models=FixedCatalogue(ended)))

    assert (ending.name, ending.uses) == ("sim/base", ("way back of chat",))


@pytest.mark.usefixtures("ctx")
def test_the_api_refuses_and_takes_force(world: SmallInstallation, upstream: Upstream) -> None:
    world.promoted("sim/better")
    upstream.turns["base"] = GONE
    door = Door(
        world,
        probe=HttpProviderProbe(SystemClock(), classify=classify_reply),
    )
    body = {"reason": "an incident"}
    answer = door.send(
        "POST",
        "/routes/chat/rollback",
        json=body,
        role="approver",
    )
    assert "sim/base cannot serve" in str(error_of(answer, 409))
    body_with_force = {**body, "force": True}
    back = door.post("/routes/chat/rollback", body_with_force, role="approver")
    assert back["warnings"][0].startswith("sim/base cannot serve")
    assert world.serving() == "base"


def test_the_command_refuses_names_the_way_and_takes_force(
    cli: CommandLine, upstream: Upstream
) -> None:
    moved(cli.world, upstream)
    cli.world.policy = replace(POLICY, canary=replace(CANARY, bake_s=0.0))
    promoted_twice(cli.world)
    upstream.turns["good"] = GONE
    words = ("route", "rollback", "chat", "--reason", "bad tone")

    refusal = cli.error(*words, exits=7)
    assert "sim/good cannot serve: the provider does not know the model" in refusal
    assert cli.world.serving() == "better"
    command = re.search(r"`swapproof (route rollback chat --to-version \d+)", refusal)
    assert command is not None
    cli.run(*command[1].split(), "--reason", "bad tone")
    assert cli.world.serving() == "base"

    forced = cli.run(*words[:3], "--to-version", "5", *words[3:], "--force")
    assert "route chat is served by sim/good again" in forced.stdout
    assert "warning: sim/good cannot serve" in forced.stderr
