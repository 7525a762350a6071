from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from evals.suites.items import Item
from harness.canary.operations import ProposalCanaries
from harness.evals.account_meter import AccountMeter, StoredLoads
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import IllegalTransition, ProviderAway
from harness.frame.failures import (
    DEFAULT_PATIENCE_S,
    LONGEST_PAUSE_S,
    RETRY_PAUSES_S,
)
from harness.gate.run import EvalRun, RunState
from harness.operations import alert_delivery, queries
from harness.proposals import decisions, driver, eval_queue, proposal_waits
from harness.providers.target import Target
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from tests.support.control.colours_suite import answer
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN
from tests.support.control.short_policies import POLICY

pytestmark = pytest.mark.req("F2")
PATIENCE_S = 3_600.0


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    gate = replace(POLICY.gate, infra_patience_s=PATIENCE_S)
    made = SmallInstallation(tmp_path, policy=replace(POLICY, gate=gate))
    made.set_up()
    return made


def away_after(
    world: SmallInstallation,
    answers: int,
    away_s: float,
    models: Sequence[str] = ("better",),
    during: Callable[[], None] = lambda: None,
) -> list[str]:
    """Lets the provider go away after so many answers; returns the items it is asked for.

    Args:
        during: is called while it is asked.
    """
    asked: list[str] = []
    gone: list[float] = []

    def script(
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        if target.model in models:
            asked.append(item.id)
            if len(asked) > answers:
                now = world.clock.now().timestamp()
                gone.append(now)
                if now - gone[0] < away_s:
                    asked.pop()
                    during()
                    raise ProviderAway("sim", "connection refused", 20.0)
        return answer(target, item, epoch)

    world.script = script
    return asked


def waiting(world: SmallInstallation) -> Proposal:
    world.propose()
    world.run_once(turns=4)
    (found,) = queries.list_proposals(world.context(), open_only=True)
    assert "waits for sim since " in found.waits
    assert ": connection refused; next try " in found.waits
    return found


def test_page_and_alert_say_a_wait_once_also_while_the_provider_is_asked(
    world: SmallInstallation,
) -> None:
    tried: list[str] = []

    def during() -> None:
        with world.store.read() as tx:
            (proposal,) = Proposals(tx).open()
            tried.append(proposal_waits.describe_proposal_waits(tx, proposal))
        if len(tried) > 2:
            decisions.retry_proposal(world.context(), ANN, proposal.id)

    begun = world.clock.now()
    away_after(
        world,
        0,
        3_000,
        models=["base", "better"],
        during=during,
    )
    proposal = waiting(world)
    paused = queries.find_proposal(world.context(), proposal.id).waits
    since = paused.partition("; next try ")[0]
    # Both models are its provider's.
    assert paused.count("sim") == 1
    assert f"since {begun - timedelta(seconds=20):%Y-%m-%d %H:%M} UTC" in since
    for _ in range(2):
        world.clock.advance(LONGEST_PAUSE_S)
        world.run_once()
    assert tried[0] == ""
    assert tried[-1] == f"{since}; trying again now"
    world.run_once()
    with world.store.read() as tx:
        record = Alerts(tx).newest(f"{AlertKind.EVAL_WAITS.value}:{proposal.id}")
    now = queries.find_proposal(world.context(), proposal.id).waits
    assert record is not None
    assert record.title == f"the comparison {proposal.id} {now}"


def has_open_alert(world: SmallInstallation, proposal: str) -> bool:
    alert_delivery.run_once(world.context())
    with world.store.read() as tx:
        record = Alerts(tx).newest(f"{AlertKind.EVAL_WAITS.value}:{proposal}")
    return record is not None and record.open


def test_a_comparison_goes_on_at_its_item_when_its_provider_is_back(
    world: SmallInstallation,
) -> None:
    asked = away_after(world, 5, 1_200)
    proposal = waiting(world)
    assert has_open_alert(world, proposal.id)
    for _ in range(12):
        world.clock.advance(LONGEST_PAUSE_S / 4)
        world.run_once()
    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.CANARY, after.closed_because
    assert after.runs == proposal.runs
    assert len(asked) == len(set(asked))
    assert after.infra_errors == 0
    assert not has_open_alert(world, proposal.id)


def test_a_provider_that_stays_away_ends_the_comparison_after_the_patience(
    world: SmallInstallation,
) -> None:
    away_after(world, 5, 10 * PATIENCE_S)
    proposal = waiting(world)
    world.clock.advance(PATIENCE_S - 60)
    world.run_once()
    assert world.get(proposal.id).open
    world.clock.advance(60)
    world.run_once(turns=2)
    because = world.get(proposal.id).closed_because
    assert because.startswith("not measured after 1 h: ")
    assert "connection refused" in because


def continued(world: SmallInstallation, proposal: str) -> None:
    decisions.retry_proposal(world.context(), ANN, proposal)
    world.run_once(turns=2)


def given_up(world: SmallInstallation, proposal: str) -> None:
    decisions.cancel_proposal(world.context(), ANN, proposal)


@pytest.mark.parametrize(
    ("act", "phase"),
    [(continued, ProposalPhase.CANARY), (given_up, ProposalPhase.CANCELLED)],
)
def test_a_person_continues_or_gives_up_a_comparison_that_waits(
    world: SmallInstallation,
    act: Callable[[SmallInstallation, str], None],
    phase: ProposalPhase,
) -> None:
    away_after(world, 5, 1)
    proposal = waiting(world)
    act(world, proposal.id)
    after = world.get(proposal.id)
    assert after.phase is phase, after.closed_because
    with pytest.raises(IllegalTransition, match="nothing to retry"):
        decisions.retry_proposal(world.context(), ANN, proposal.id)


def test_a_run_of_no_proposal_waits_for_a_day(world: SmallInstallation) -> None:
    away_after(world, 5, 10 * DEFAULT_PATIENCE_S, models=["base"])
    run = eval_queue.queue_run(world.context(), ANN, "colours", "sim/base")
    assert run is not None

    def turned_run() -> EvalRun:
        world.run_once()
        with world.store.read() as tx:
            return EvalRuns(tx).get(run.id)

    assert turned_run().state is RunState.QUEUED
    world.clock.advance(DEFAULT_PATIENCE_S)
    assert turned_run().state is RunState.FAILED
    assert turned_run().message == "gave up after 1 d: sim is away: connection refused"


def test_the_pauses_before_further_tries_end_with_the_owners_patience() -> None:
    first_s, second_s, _ = RETRY_PAUSES_S
    gate = replace(POLICY.gate, infra_patience_s=first_s + second_s + 10.0)
    assert [gate.infra_pause_s(n) for n in range(1, 5)] == [
        first_s,
        second_s,
        10.0,
        0.0,
    ]


def report_users(world: SmallInstallation) -> None:
    """A router reports users who need the rest of the limit of provider sim."""
    router = AccountMeter(world.clock, "router")
    router.note_users("account", "sim", 30.0, 0.0)
    headers = {"x-ratelimit-remaining-requests": "30"}
    router.note_answer("account", "sim", "base", headers)
    router.refresh(StoredLoads(world.store))


def test_page_and_alert_name_the_users_that_a_comparison_gives_way_to(
    world: SmallInstallation,
) -> None:
    seen: list[tuple[str, bool, str]] = []

    def script(target: Target, item: Item, epoch: int) -> str:
        if not seen:
            report_users(world)
            with world.store.read() as tx:
                (proposal,) = Proposals(tx).open()
                waits = proposal_waits.describe_proposal_waits(tx, proposal)
            driver.drive_proposal(world.context(), ProposalCanaries(), proposal)
            is_open = has_open_alert(world, proposal.id)
            with world.store.read() as tx:
                record = Alerts(tx).newest(f"{AlertKind.EVAL_WAITS.value}:{proposal.id}")
            seen.append((waits, is_open, record.title if record else ""))
        return answer(target, item, epoch)

    world.script = script
    proposal = world.propose().id
    world.until_decided(proposal)

    ((waits, is_open, title),) = seen
    assert waits.startswith("gives way to callers of sim: 30 requests were left")
    assert is_open
    assert title == f"the comparison {proposal} gives way to callers of sim"
    assert not has_open_alert(world, proposal)
