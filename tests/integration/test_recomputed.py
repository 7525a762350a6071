"""Evidence is recomputed where it decides, not believed (A2)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.app.store.store import Store
from harness.canary import operations
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import EvidenceMismatch, ProofRefused
from harness.frame.people.access import SYSTEM
from harness.frame.signing.keyring import KeyPurpose
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.operations import queries
from harness.proposals import decisions, fallback_chain
from harness.proposals.fallback_chain import FallbackRequest
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from tests.integration.conftest import prepared
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import BEN
from tests.support.control.short_policies import approved
from tests.support.store.tampering import owned, written

pytestmark = pytest.mark.req("F5", "F6")


class KeyHolder:
    """Signs anything and finds nothing wrong: as if the intruder held the signing key, too."""

    def sign(self, payload: bytes) -> str:  # noqa: ARG002 - the port's signature
        return "0123456789abcdef.anything"

    def check(
        self,
        payload: bytes,
        signature: str,
        purpose: KeyPurpose,
    ) -> None:
        """Nothing is found."""


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[SmallInstallation]:
    """Where signatures show nothing: the scores alone speak."""
    clock = ManualClock()
    store = Store(
        database_url,
        secret=SECRET,
        clock=clock,
        signatures=KeyHolder(),
    )
    yield from prepared(tmp_path, store, clock)


def tamper(
    world: SmallInstallation,
    statement: str,
    **values: object,
) -> None:
    with owned(world.store) as db:
        db.execute(sa.text(statement), values)


Change = Callable[[SmallInstallation, Proposal], None]


def better_score(world: SmallInstallation, proposal: Proposal) -> None:
    tamper(
        world,
        "UPDATE sample SET strict = 1.0 - strict WHERE run = :run AND position = 1",
        run=proposal.runs["colours"].candidate,
    )


def no_scores(world: SmallInstallation, proposal: Proposal) -> None:
    tamper(
        world,
        "DELETE FROM sample WHERE run = :run",
        run=proposal.runs["colours"].incumbent,
    )


def another_target(world: SmallInstallation, proposal: Proposal) -> None:
    tamper(
        world,
        "UPDATE eval_run SET target = :target WHERE id = :run",
        target=proposal.incumbent,
        run=proposal.runs["colours"].candidate,
    )


def rewrite(
    world: SmallInstallation,
    proposal: Proposal,
    column: str,
    before: str,
    after: str,
) -> None:
    """A text within its verdict."""
    tamper(
        world,
        f"UPDATE verdict SET {column} = replace({column}, :before, :after) WHERE id = :id",  # noqa: S608
        before=before,
        after=after,
        id=proposal.verdict,
    )


def other_terms(world: SmallInstallation, proposal: Proposal) -> None:
    margin = f'"margin":{proposal.plans[0].margin!r}'
    rewrite(world, proposal, "inputs", margin, '"margin":0.5')


def unreadable(world: SmallInstallation, proposal: Proposal) -> None:
    tamper(
        world,
        "UPDATE verdict SET inputs = '{}' WHERE id = :id",
        id=proposal.verdict,
    )


def a_longer_life(world: SmallInstallation, proposal: Proposal) -> None:
    tamper(
        world,
        "UPDATE verdict SET expires_at = expires_at + 86400000000 WHERE id = :id",
        id=proposal.verdict,
    )


def fewer_losses(world: SmallInstallation, proposal: Proposal) -> None:
    rewrite(world, proposal, "suites", '"losses":', '"losses":1')


CHANGES = (
    better_score,
    no_scores,
    another_target,
    other_terms,
    unreadable,
    a_longer_life,
    fewer_losses,
)


def rollout(world: SmallInstallation, proposal: Proposal) -> Rollout:
    with world.store.read() as tx:
        return Rollouts(tx).get(proposal.rollout or "")


def has_alert(world: SmallInstallation, kind: AlertKind = AlertKind.EVIDENCE_MISMATCH) -> bool:
    alerts = queries.list_alerts(world.context(), open_only=False)
    return any(alert.kind is kind for alert in alerts)


@pytest.mark.parametrize("change", CHANGES)
def test_a_canary_whose_evidence_changed_goes_back_before_its_next_step(
    world: SmallInstallation, change: Change
) -> None:
    proposal = world.in_canary()
    change(world, proposal)

    world.feed(blocks=20)
    world.run_once(turns=4)

    assert rollout(world, proposal).state is RolloutState.ROLLED_BACK
    assert world.get(proposal.id).phase is ProposalPhase.ROLLED_BACK
    assert has_alert(world) or change is unreadable
    with world.store.read() as tx:
        route = Routing(tx).route("chat")
    assert route is not None
    assert (route.incumbent, route.canary) == (proposal.incumbent, None)


def tampered_while_it_waited(world: SmallInstallation, change: Change) -> Proposal:
    """As it stands after control's next turn."""
    world.policy = approved()
    proposal = world.decided("sim/better")
    decisions.approve_proposal(world.context(), BEN, proposal.id)
    change(world, proposal)
    world.run_once()
    return world.get(proposal.id)


@pytest.mark.parametrize("change", CHANGES)
def test_no_canary_opens_on_evidence_that_changed_while_it_waited(
    world: SmallInstallation, change: Change
) -> None:
    after = tampered_while_it_waited(world, change)

    assert after.phase is ProposalPhase.REJECTED
    if change is unreadable:
        assert "cannot be read" in after.closed_because
    else:
        assert "no longer give it" in after.closed_because
        assert has_alert(world)


@pytest.mark.parametrize("signal", [RolloutSignal.PROMOTE, RolloutSignal.ADVANCE])
def test_a_person_cannot_go_on_with_evidence_that_changed(
    world: SmallInstallation, signal: RolloutSignal
) -> None:
    proposal = world.in_canary()
    better_score(world, proposal)

    with pytest.raises(EvidenceMismatch, match="no longer give it"):
        operations.operate(world.context(), BEN, "chat", signal, "a demo at noon")

    assert rollout(world, proposal).live
    assert has_alert(world)


def test_a_fallback_needs_evidence_that_still_gives_its_verdict(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    proposal = world.decided("sim/better")
    better_score(world, proposal)

    with pytest.raises(ProofRefused, match="has no evidence"):
        fallback_chain.add_fallback(
            world.context(),
            SYSTEM,
            "chat",
            FallbackRequest("sim/better"),
            reason="a second one",
        )


def in_canary_with_evidence_times(factor: float, world: SmallInstallation) -> Proposal:
    proposal = world.in_canary()
    with world.store.read() as tx:
        verdict = Verdicts(tx).get(proposal.verdict or "")
    log_e = verdict.suites[0].log_e_bad
    before, after = (f'"log_e_bad":{figure!r}' for figure in (log_e, log_e * factor))
    rewrite(world, proposal, "suites", before, after)
    world.feed(blocks=20)
    return proposal


def test_a_figure_of_another_last_digit_is_no_false_alarm(world: SmallInstallation) -> None:
    proposal = in_canary_with_evidence_times(1 + 1e-12, world)

    world.run_once(turns=2)

    assert rollout(world, proposal).step > 0
    assert not has_alert(world)


def test_a_canary_holds_for_a_person_where_only_a_figure_is_another(
    world: SmallInstallation,
) -> None:
    proposal = in_canary_with_evidence_times(1.001, world)

    world.run_once(turns=3)

    found = rollout(world, proposal)
    assert (found.state, found.step) == (RolloutState.PAUSED, 0)
    assert has_alert(world)


def test_scores_and_digests_outlive_the_texts_and_nothing_else_of_a_sample_can_be_changed(
    world: SmallInstallation,
) -> None:
    """With all triggers in force."""
    proposal = world.in_canary()
    digests = sa.text("SELECT count(*) FROM sample WHERE length(answer_sha256) = 64")
    with written(world.store) as db:
        before = db.execute(digests).scalar_one()
        db.execute(sa.text("UPDATE sample SET answer = '', prompt = '', error_text = ''"))
    for change in (
        "answer = 'another'",
        "rule = 'other'",
        "cost_usd = 0.0",
        "served_model = 'x'",
        "answer_sha256 = ''",
    ):
        with (
            pytest.raises(sa.exc.IntegrityError, match="append_only"),
            written(world.store) as db,
        ):
            db.execute(sa.text(f"UPDATE sample SET {change}"))  # noqa: S608

    world.feed(blocks=20)
    world.run_once(turns=2)
    assert rollout(world, proposal).step > 0
    with written(world.store) as db:
        assert db.execute(digests).scalar_one() == before > 0


def test_a_look_that_holds_loads_no_sample(world: SmallInstallation) -> None:
    proposal = world.in_canary()
    ctx = world.context()

    world.run_once(ctx)
    assert not ctx.recomputed

    world.feed(blocks=20)
    world.run_once(ctx)
    world.run_once(ctx)
    assert rollout(world, proposal).step > 0
    assert ctx.recomputed
