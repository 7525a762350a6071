"""Evidence is recomputed where it decides, not believed (A2)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.control.canary import operations
from harness.control.operations import queries
from harness.control.proposals import decisions
from harness.control.routing import fallback_chain
from harness.control.routing.fallback_chain import FallbackRequest
from harness.domain.canary.rollout import Rollout, RolloutSignal, RolloutState
from harness.domain.errors import EvidenceMismatch, ProofRefused
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.row_signatures import KeyPurpose
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.store.store import Store
from tests.integration.conftest import prepared
from tests.support.control.control_plane import BEN, SECRET, SmallInstallation, approved
from tests.support.control.manual_clock import ManualClock
from tests.support.store.raw_rows import Database

pytestmark = pytest.mark.req("F5", "F6")


class KeyHolder:
    """Signs anything and finds nothing wrong: as if the intruder held the signing key, too."""

    def sign(self, payload: bytes) -> str:  # noqa: ARG002 - the port's signature
        return "0123456789abcdef.anything"

    def check(self, payload: bytes, signature: str, purpose: KeyPurpose) -> None:
        """Nothing is found."""


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[SmallInstallation]:
    """Where signatures show nothing: the scores alone speak."""
    clock = ManualClock()
    store = Store(database_url, secret=SECRET, clock=clock, signatures=KeyHolder())
    yield from prepared(tmp_path, store, clock)


class Intruder:
    """Somebody who owns the database: no trigger is in force for them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._without_triggers()

    def _without_triggers(self) -> None:
        if self._database.dialect == "postgresql":
            for table in ("sample", "verdict", "eval_run"):
                self._database.run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            return
        with self._database.engine.begin() as db:
            found = db.execute(
                sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            ).scalars()
            for name in found.all():
                db.execute(sa.text(f"DROP TRIGGER {name}"))

    def run(self, statement: str, **values: object) -> None:
        self._database.run(statement, values)


@pytest.fixture
def database(world: SmallInstallation, database_url: str) -> Iterator[Database]:  # noqa: ARG001 - its database
    found = Database(database_url)
    yield found
    found.engine.dispose()


@pytest.fixture
def intruder(database: Database) -> Intruder:
    return Intruder(database)


Change = Callable[[Intruder, Proposal], None]


def better_score(intruder: Intruder, proposal: Proposal) -> None:
    intruder.run(
        "UPDATE sample SET strict = 1.0 - strict WHERE run = :run AND position = 1",
        run=proposal.runs["colours"].candidate,
    )


def no_scores(intruder: Intruder, proposal: Proposal) -> None:
    intruder.run("DELETE FROM sample WHERE run = :run", run=proposal.runs["colours"].incumbent)


def another_target(intruder: Intruder, proposal: Proposal) -> None:
    intruder.run(
        "UPDATE eval_run SET target = :target WHERE id = :run",
        target=proposal.incumbent,
        run=proposal.runs["colours"].candidate,
    )


def rewrite(
    intruder: Intruder, proposal: Proposal, column: str, before: str, after: str
) -> None:
    """A text within its verdict."""
    intruder.run(
        f"UPDATE verdict SET {column} = replace({column}, :before, :after) WHERE id = :id",  # noqa: S608
        before=before,
        after=after,
        id=proposal.verdict,
    )


def other_terms(intruder: Intruder, proposal: Proposal) -> None:
    margin = f'"margin":{proposal.plans[0].margin!r}'
    rewrite(intruder, proposal, "inputs", margin, '"margin":0.5')


def unreadable(intruder: Intruder, proposal: Proposal) -> None:
    intruder.run("UPDATE verdict SET inputs = '{}' WHERE id = :id", id=proposal.verdict)


def a_longer_life(intruder: Intruder, proposal: Proposal) -> None:
    intruder.run(
        "UPDATE verdict SET expires_at = expires_at + 86400000000 WHERE id = :id",
        id=proposal.verdict,
    )


def fewer_losses(intruder: Intruder, proposal: Proposal) -> None:
    rewrite(intruder, proposal, "suites", '"losses":', '"losses":1')


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
        return tx.rollouts.get(proposal.rollout or "")


def has_alert(world: SmallInstallation, kind: AlertKind = AlertKind.EVIDENCE_MISMATCH) -> bool:
    alerts = queries.list_alerts(world.context(), open_only=False)
    return any(alert.kind is kind for alert in alerts)


@pytest.mark.parametrize("change", CHANGES)
def test_a_canary_whose_evidence_changed_goes_back_before_its_next_step(
    world: SmallInstallation, intruder: Intruder, change: Change
) -> None:
    proposal = world.in_canary()
    change(intruder, proposal)

    world.feed(blocks=20)
    for _ in range(4):
        world.run_once()

    assert rollout(world, proposal).state is RolloutState.ROLLED_BACK
    assert world.get(proposal.id).phase is ProposalPhase.ROLLED_BACK
    assert has_alert(world) or change is unreadable
    with world.store.read() as tx:
        route = tx.routing.route("chat")
    assert route is not None
    assert (route.incumbent, route.canary) == (proposal.incumbent, None)


def tampered_while_it_waited(
    world: SmallInstallation, intruder: Intruder, change: Change
) -> Proposal:
    """As it stands after control's next turn."""
    world.policy = approved()
    proposal = world.until_decided(world.propose("sim/better").id)
    decisions.approve_proposal(world.context(), BEN, proposal.id)
    change(intruder, proposal)
    world.run_once()
    return world.get(proposal.id)


@pytest.mark.parametrize("change", CHANGES)
def test_no_canary_opens_on_evidence_that_changed_while_it_waited(
    world: SmallInstallation,
    intruder: Intruder,
    change: Change,
) -> None:
    after = tampered_while_it_waited(world, intruder, change)

    assert after.phase is ProposalPhase.REJECTED
    if change is unreadable:
        assert "cannot be read" in after.closed_because
    else:
        assert "do not give it any more" in after.closed_because
        assert has_alert(world)


@pytest.mark.parametrize("signal", [RolloutSignal.PROMOTE, RolloutSignal.ADVANCE])
def test_a_person_cannot_go_on_with_evidence_that_changed(
    world: SmallInstallation, intruder: Intruder, signal: RolloutSignal
) -> None:
    proposal = world.in_canary()
    better_score(intruder, proposal)

    with pytest.raises(EvidenceMismatch, match="do not give it any more"):
        operations.operate(world.context(), BEN, "chat", signal, "a demo at noon")

    assert rollout(world, proposal).live
    assert has_alert(world)


def test_a_fallback_needs_evidence_that_still_gives_its_verdict(
    world: SmallInstallation, intruder: Intruder
) -> None:
    world.policy = approved()
    proposal = world.until_decided(world.propose("sim/better").id)
    better_score(intruder, proposal)

    with pytest.raises(ProofRefused, match="has no evidence"):
        fallback_chain.add_fallback(
            world.context(),
            SYSTEM,
            "chat",
            FallbackRequest("sim/better"),
            reason="a second one",
        )


def in_canary_with_evidence_times(
    factor: float, world: SmallInstallation, intruder: Intruder
) -> Proposal:
    """A canary with its traffic, whose verdict has another figure by now."""
    proposal = world.in_canary()
    with world.store.read() as tx:
        verdict = tx.verdicts.get(proposal.verdict or "")
    log_e = verdict.suites[0].log_e_bad
    before, after = (f'"log_e_bad":{figure!r}' for figure in (log_e, log_e * factor))
    rewrite(intruder, proposal, "suites", before, after)
    world.feed(blocks=20)
    return proposal


def test_a_figure_of_another_last_digit_is_no_false_alarm(
    world: SmallInstallation, intruder: Intruder
) -> None:
    proposal = in_canary_with_evidence_times(1 + 1e-12, world, intruder)

    world.run_once()
    world.run_once()

    assert rollout(world, proposal).step > 0
    assert not has_alert(world)


def test_a_canary_holds_for_a_person_where_only_a_figure_is_another(
    world: SmallInstallation, intruder: Intruder
) -> None:
    proposal = in_canary_with_evidence_times(1.001, world, intruder)

    for _ in range(3):
        world.run_once()

    found = rollout(world, proposal)
    assert (found.state, found.step) == (RolloutState.PAUSED, 0)
    assert has_alert(world)


def test_scores_and_digests_outlive_the_texts(
    world: SmallInstallation, database: Database
) -> None:
    proposal = world.in_canary()
    digests = "SELECT count(*) FROM sample WHERE length(answer_sha256) = 64"
    with database.engine.connect() as db:
        before = db.execute(sa.text(digests)).scalar_one()

    # With all triggers in force: texts may be blanked, and nothing else of a sample.
    database.run("UPDATE sample SET answer = '', prompt = '', error_text = ''")

    world.feed(blocks=20)
    world.run_once()
    world.run_once()
    assert rollout(world, proposal).step > 0
    with database.engine.connect() as db:
        assert db.execute(sa.text(digests)).scalar_one() == before > 0


@pytest.mark.parametrize(
    "change",
    [
        "answer = 'another'",
        "rule = 'other'",
        "cost_usd = 0.0",
        "served_model = 'x'",
        "answer_sha256 = ''",
    ],
)
def test_nothing_else_of_a_sample_can_be_changed(
    world: SmallInstallation, database: Database, change: str
) -> None:
    world.in_canary()

    with pytest.raises(sa.exc.IntegrityError, match="append_only"):
        database.run(f"UPDATE sample SET {change}")  # noqa: S608


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
