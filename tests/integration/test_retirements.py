"""A model that ends is replaced by a proven spare, by the rules of any swap."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from harness.frame.alerts.records import Alerts
from harness.frame.people.access import SYSTEM
from harness.gate.policy import ChangeReferenceRule, Retirement
from harness.operations.context import Context
from harness.proposals import decisions, submission
from harness.proposals.candidates import retirements
from harness.proposals.candidates.retirements import KIND
from harness.proposals.submission import ProposalRequest
from harness.providers.force import Force, ForceKind, SwitchSource
from harness.providers.models.catalogue import CatalogueEntry
from harness.routing.control import freezes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.proposal import ProposalPhase
from harness.routing.records.proposals import Proposals
from tests.integration.test_candidates import MONDAY, schedule, wait_until
from tests.integration.test_spares import SPARES, add_fallbacks, measure, newest, skilled
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import POLICY, approved
from tests.support.providers.scripted_probe import FixedCatalogue

pytestmark = pytest.mark.req("F12")
END = date(2026, 2, 9)  # 35 days after the round that proves the spares
AUTO = replace(POLICY, gate=replace(POLICY.gate, margin=0.3), retire=Retirement.AUTO)


@pytest.fixture
def world(world: SmallInstallation) -> SmallInstallation:
    """Its route has a fallback that a round proved, and its incumbent ends on END."""
    world.script = skilled
    world.policy = AUTO
    add_fallbacks(world, "sim/worse", "sim/equal")
    schedule(world, replace(SPARES, models=("sim/equal", "sim/worse")))
    measure(world)
    return world


def ending(world: SmallInstallation, *models: str) -> Context:
    entries = [CatalogueEntry("sim", name, end_date=END) for name in ("base", *models)]
    return replace(world.context(), models=FixedCatalogue(*entries))


def days_before(world: SmallInstallation, days: int, *models: str) -> list[str]:
    """Runs the job so many days before the end. Returns its log lines."""
    at = MONDAY + timedelta(days=35 - days, hours=1)
    wait_until(world, at)
    return retirements.run_once(ending(world, *models))


def turn(world: SmallInstallation) -> None:
    """Runs the control process until nothing waits for an eval."""
    for _ in range(6):
        world.run_once()
    retirements.run_once(ending(world))


def alert(world: SmallInstallation) -> tuple[str, str] | None:
    with world.store.read() as tx:
        record = Alerts(tx).newest(f"{KIND.value}:chat")
    return (record.title, record.text) if record is not None and record.open else None


@pytest.mark.spine
@pytest.mark.both_databases
def test_a_proven_spare_is_in_its_canary_14_days_before_the_end(
    world: SmallInstallation,
) -> None:
    assert not days_before(world, 22)
    assert alert(world) is None

    [line] = days_before(world, 21)
    assert line.endswith("proposed sim/equal, because sim/base ends on 2026-02-09")
    turn(world)

    proposal = newest(world, "equal")
    assert proposal.phase is ProposalPhase.CANARY
    assert (proposal.proposer, proposal.reason) == (SYSTEM.name, "sim/base ends on 2026-02-09")
    assert world.serving() == "base"  # the control of the canary
    assert alert(world) is None
    assert not days_before(world, 20)


def test_under_a_policy_with_approvals_a_person_still_approves(
    world: SmallInstallation,
) -> None:
    world.policy = approved(AUTO)
    days_before(world, 21)
    turn(world)
    proposal = newest(world, "equal")
    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL
    title, text = alert(world) or ("", "")
    assert title.endswith("which ends on 2026-02-09, waits for a person")
    assert f"swapproof proposal approve {proposal.id}" in text

    decisions.approve_proposal(world.context(), BEN, proposal.id)
    turn(world)
    assert newest(world, "equal").phase is ProposalPhase.CANARY
    assert alert(world) is None


def test_a_freeze_delays_the_canary_and_the_alert_says_so(world: SmallInstallation) -> None:
    freeze = SwitchRequest(Force(ForceKind.FREEZE, ""), "a fair", lasts=timedelta(days=18))
    freezes.set_switch(world.context(), BEN, freeze, source=SwitchSource.CLI)
    days_before(world, 21)
    turn(world)

    assert newest(world, "equal").phase is ProposalPhase.AWAITING_APPROVAL
    assert "waits for the end of a freeze" in (alert(world) or ("", ""))[0]

    world.clock.advance(timedelta(days=4).total_seconds())
    turn(world)
    assert newest(world, "equal").phase is ProposalPhase.CANARY


def test_by_default_a_person_proposes_and_is_reminded_from_day_30_on(
    world: SmallInstallation,
) -> None:
    world.policy = replace(AUTO, retire=Retirement.MANUAL)
    days_before(world, 31)
    assert alert(world) is None
    assert not days_before(world, 30)

    title, text = alert(world) or ("", "")
    assert title == (
        "route chat: a person must replace sim/base, which ends on 2026-02-09, by a proven "
        "spare"
    )
    assert (
        "`swapproof proposal create chat sim/equal --claim non_inferior --reason "
        "'sim/base ends on 2026-02-09'`"
    ) in text
    assert not days_before(world, 14)


def test_a_missing_proof_is_an_alert_and_never_a_swap(world: SmallInstallation) -> None:
    world.script = lambda target, item, _: (
        "wrong" if target.model == "equal" else str(item.target)
    )
    world.decided("sim/equal")

    assert not days_before(world, 20)
    title, text = alert(world) or ("", "")
    assert title.startswith("route chat: no proven spare can replace sim/base")
    assert "sim/worse: not proven" in text
    assert "sim/equal: not proven: its newest verdict" in text
    assert not days_before(world, 0)
    assert world.serving() == "base"


def test_a_spare_is_proposed_once_and_not_if_it_ends_as_well(world: SmallInstallation) -> None:
    assert not days_before(world, 21, "equal")
    assert "no proven spare" in (alert(world) or ("", ""))[0]
    assert days_before(world, 20)
    cancelled = newest(world, "equal")
    decisions.cancel_proposal(world.context(), SYSTEM, cancelled.id)

    assert not days_before(world, 19)

    title, text = alert(world) or ("", "")
    assert title.startswith("route chat: no proven spare")
    assert f"sim/equal: proposal {cancelled.id}: " in text


def test_a_cancelled_proposal_of_a_person_with_the_same_reason_stops_nothing(
    world: SmallInstallation,
) -> None:
    days_before(world, 25)
    request = ProposalRequest("chat", "sim/equal", "sim/base ends on 2026-02-09")
    made = submission.create_proposal(world.context(), ANN, request)
    decisions.cancel_proposal(world.context(), ANN, made.id)

    [line] = days_before(world, 21)

    assert "proposed sim/equal" in line


def test_a_proposal_that_the_rules_refuse_is_an_alert_with_the_reason(
    world: SmallInstallation,
) -> None:
    world.policy = replace(AUTO, change_reference=ChangeReferenceRule.REQUIRED)
    assert not days_before(world, 21)

    title, text = alert(world) or ("", "")
    assert title.startswith("route chat: no proposal replaces sim/base")
    assert "requires a change request" in text
    with world.store.read() as tx:
        assert not Proposals(tx).open()


def test_nothing_is_proposed_once_the_model_has_ended(world: SmallInstallation) -> None:
    measure(world, weeks=4)
    assert not days_before(world, 0)

    assert newest(world, "equal").reason != "sim/base ends on 2026-02-09"
    assert "Swapproof proposes nothing after the end." in (alert(world) or ("", ""))[1]
