"""Proof is not talked around: other roles, refused verdicts, rows written by somebody else."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from harness.control.canary import operations
from harness.control.operations import state_audit, tampering
from harness.control.proposals import alpha_spending, decisions
from harness.control.routing import fallback_chain
from harness.control.routing.fallback_chain import FallbackRequest
from harness.domain.canary.rollout import RolloutSignal
from harness.domain.errors import ProofRefused
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.alerts import Alert, AlertKind
from harness.domain.operations.state_audit import Disagreement, RowFinding
from harness.domain.proposals.proposal import ProposalPhase
from harness.domain.providers import model_names
from harness.domain.routing.target import Provider
from harness.store.sql import SqlStore
from tests.support.control.control_plane import BEN, CANARY, POLICY, SmallInstallation, approved
from tests.support.store.tampering import insert, owned, row, written

pytestmark = pytest.mark.req("A7", "F1", "F2")
EVE = Actor("eve", Role.ADMIN, "pr_eve")


def spare(world: SmallInstallation) -> None:
    fallback_chain.add_fallback(
        world.context(), EVE, "chat", FallbackRequest("sim/better"), reason="spare"
    )


@pytest.fixture
def asking(world: SmallInstallation) -> SmallInstallation:
    """Its policy asks a person before a canary."""
    world.policy = approved()
    return world


def test_a_verdict_that_waits_for_approval_is_no_proof_for_a_fallback(
    asking: SmallInstallation,
) -> None:
    made = asking.until_decided(asking.propose("sim/better").id)
    assert made.phase is ProposalPhase.AWAITING_APPROVAL

    with pytest.raises(ProofRefused, match="no evidence"):
        spare(asking)


def test_a_verdict_that_a_person_refused_is_no_proof_for_a_fallback(
    asking: SmallInstallation,
) -> None:
    made = asking.until_decided(asking.propose("sim/better").id)
    decisions.refuse_proposal(asking.context(), BEN, made.id, "unsafe")

    with pytest.raises(ProofRefused, match="no evidence"):
        spare(asking)


def test_what_its_rollout_took_from_the_route_comes_back_by_no_other_role(
    world: SmallInstallation,
) -> None:
    world.policy = replace(POLICY, canary=replace(CANARY, bake_s=10_000.0))
    made = world.until_decided(world.propose("sim/better").id)
    for _ in range(12):
        if world.get(made.id).phase is ProposalPhase.PROMOTED:
            break
        world.feed(blocks=4)
        world.clock.advance(60)
        world.run_once()
    assert world.get(made.id).phase is ProposalPhase.PROMOTED
    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "it does harm")
    assert world.get(made.id).phase is ProposalPhase.ROLLED_BACK

    with pytest.raises(ProofRefused, match="no evidence"):
        spare(world)


def test_a_proposal_whose_rows_were_written_around_swapgate_is_not_decided(
    asking: SmallInstallation,
) -> None:
    made = asking.until_decided(asking.propose("sim/better").id)
    kind, row = AlertKind.STATE_UNRECORDED, f"proposal:{made.id}"
    alert = Alert(kind, row, f"{kind.value}:{row}", "t", "x", asking.clock.now(), "control")
    with asking.store.write() as tx:
        tx.alerts.fold([alert])

    with pytest.raises(ProofRefused, match="written around Swapgate"):
        decisions.approve_proposal(asking.context(), BEN, made.id)
    with asking.store.read() as tx:
        with pytest.raises(ProofRefused):
            tampering.require_untampered(
                asking.context(), tx, replace(made, phase=ProposalPhase.EVALUATING)
            )
        # Which must be able to end.
        tampering.require_untampered(
            asking.context(), tx, replace(made, phase=ProposalPhase.CANARY)
        )


@pytest.mark.parametrize("table", ["rollout", "proposal"])
def test_a_canary_takes_no_step_on_rows_that_were_written_around_swapgate(
    world: SmallInstallation, table: str
) -> None:
    made = world.until_decided(world.propose("sim/better").id)
    key = made.rollout if table == "rollout" else made.id
    ctx, row = world.context(), f"{table}:{key}"
    world.run_once(ctx)
    ctx.audit_walk.log.rewritten[row] = RowFinding(row, Disagreement.CHANGED, 7)

    world.feed(blocks=20)
    for _ in range(3):
        world.run_once(ctx)

    with world.store.read() as tx:
        rollout = tx.rollouts.get(made.rollout or "")
    assert (rollout.step, rollout.live) == (0, True)
    with pytest.raises(ProofRefused, match="written around"):
        operations.operate(ctx, BEN, "chat", RolloutSignal.ADVANCE, "go on")
    operations.operate(ctx, BEN, "chat", RolloutSignal.ABORT, "it does harm")
    assert world.get(made.id).phase is ProposalPhase.ROLLED_BACK


def test_nothing_is_decided_before_the_log_was_read_to_its_end(
    asking: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = asking.until_decided(asking.propose("sim/better").id)
    decisions.approve_proposal(asking.context(), BEN, made.id)
    monkeypatch.setattr(state_audit, "EVENTS_PER_PAGE", 2)
    monkeypatch.setattr(state_audit, "PAGES_PER_TURN", 1)
    ctx, turns = asking.context(), 0
    while asking.get(made.id).phase is ProposalPhase.AWAITING_APPROVAL and turns < 100:
        asking.run_once(ctx)
        turns += 1
        assert bool(ctx.audit_walk.trouble) is (
            asking.get(made.id).phase is not ProposalPhase.CANARY
        )

    assert turns > 2
    assert asking.get(made.id).phase is ProposalPhase.CANARY


@pytest.mark.parametrize("hidden", ["drowned", "resolved"])
def test_the_hold_does_not_rest_on_alerts_that_anybody_can_write(
    world: SmallInstallation, hidden: str
) -> None:
    assert isinstance(world.store, SqlStore)
    ctx = world.context()
    made = world.propose("sim/better")
    world.run_once(ctx)
    with owned(world.store) as db:
        db.exec_driver_sql("UPDATE proposal SET reason = 'another'")
    state_audit.run_once(ctx)
    with written(world.store) as db:
        if hidden == "resolved":
            db.exec_driver_sql("UPDATE alert SET resolved_at = first_seen")
        else:
            db.exec_driver_sql("DELETE FROM alert")

    with world.store.read() as tx, pytest.raises(ProofRefused, match="written around"):
        tampering.require_untampered(ctx, tx, replace(made, phase=ProposalPhase.EVALUATING))
    state_audit.run_once(ctx)
    with world.store.read() as tx:
        assert tampering.alerted_rows(tx)


def test_nothing_is_decided_while_the_audit_log_is_broken(world: SmallInstallation) -> None:
    """One event past the log's secret, which the triggers take: nobody knows who wrote what."""
    assert isinstance(world.store, SqlStore)
    ctx = world.context()
    made = world.propose("sim/better")
    with world.store.read() as tx:
        last = tx.audit.tail(1)[0]
    with written(world.store) as db:
        event = row(db, "audit_event", number=last.number)
        insert(
            db,
            "audit_event",
            event | {"number": last.number + 1, "previous": last.mac, "mac": "f" * 64},
        )

    (said,) = world.run_once(ctx).failed

    assert f"does not fit its chain from event {last.number + 1}" in said
    assert world.get(made.id).phase is ProposalPhase.PROPOSED


UNREADABLE = [{"kind": "nonsense"}, {"last_seen": 9 * 10**18}, {"sources": "no json"}]


@pytest.mark.parametrize("change", UNREADABLE, ids=str)
def test_an_alert_that_cannot_be_read_is_refused_and_stops_no_canary(
    world: SmallInstallation, change: dict[str, object]
) -> None:
    assert isinstance(world.store, SqlStore)
    ctx = world.context()
    made = world.until_decided(world.propose("sim/better").id)
    world.run_once(ctx)
    assert world.get(made.id).phase is ProposalPhase.CANARY
    with world.store.write() as tx:
        tx.alerts.fold(
            [Alert(AlertKind.STATE_UNRECORDED, "s", "k", "t", "x", ctx.clock.now(), "one")]
        )
    (name, value), *_ = change.items()
    statement = sa.text(f"UPDATE alert SET {name} = :value")  # noqa: S608 - of this file
    with pytest.raises(sa.exc.DBAPIError), written(world.store) as db:
        db.execute(statement, {"value": value})
    # As the owner, who takes the rule away.
    with owned(world.store) as db:
        db.execute(statement, {"value": value})

    world.feed(failing=True, blocks=4)
    world.clock.advance(60)
    world.run_once(ctx)

    assert world.get(made.id).phase is ProposalPhase.ROLLED_BACK


def test_a_verdict_is_a_look_also_where_its_samples_are_gone(world: SmallInstallation) -> None:
    made = world.until_decided(world.propose("sim/worse").id)

    with world.store.read() as tx:
        assert alpha_spending.has_looked(tx, replace(made, runs={}))


@pytest.mark.parametrize(
    "base",
    [
        *("http://localhost:9/v1", "http://127.1:9/v1", "http://2130706433:9/v1"),
        *("http://[::ffff:127.0.0.1]:9/v1", "http://[::1]:9/v1", "http://0x7f000001:9/v1"),
    ],
)
def test_another_spelling_of_an_address_is_the_same_host(base: str) -> None:
    one, other = (
        Provider("a", "custom", base_url, None) for base_url in ("http://127.0.0.1:9/v1", base)
    )

    assert model_names.provider_host(one) == model_names.provider_host(other)
    assert (
        model_names.provider_host(replace(one, api_base="http://api.example/v1"))
        == "api.example"
    )
