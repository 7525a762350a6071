"""Where an installation only observes, it measures, and sends no user to a candidate."""

from pathlib import Path

import pytest

from harness.app.installation import load_settings
from harness.control.canary import operations
from harness.control.proposals import decisions
from harness.control.routing import routes
from harness.control.routing.freezes import OBSERVE_ONLY
from harness.domain.canary.rollout import RolloutSignal
from harness.domain.errors import NotAllowed
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import ProposalPhase
from tests.support.control.control_plane import BEN, SmallInstallation
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("G1")


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    made = SmallInstallation(tmp_path, clock=ManualClock())
    made.set_up()
    return made


def open_alerts(world: SmallInstallation, kind: AlertKind) -> list[str]:
    with world.store.read() as tx:
        return [a.text for a in tx.alerts.list() if a.kind is kind and a.open]


def test_a_proposal_is_measured_and_then_waits_until_swaps_are_possible(
    world: SmallInstallation,
) -> None:
    world.observe_only = True
    proposal = world.until_decided(world.propose("sim/good").id)

    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL
    (told,) = open_alerts(world, AlertKind.AWAITING_APPROVAL)
    assert f"Nobody can approve it yet: {OBSERVE_ONLY}." in told
    with pytest.raises(NotAllowed) as refusal:
        decisions.approve_proposal(world.context(), BEN, proposal.id, "it passed")
    assert str(refusal.value).startswith(f"{OBSERVE_ONLY}: {proposal.id} cannot be approved")
    assert routes.load_table(world.context()).routes["chat"].canary is None

    world.observe_only = False
    decisions.approve_proposal(world.context(), BEN, proposal.id, "it passed")
    world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.CANARY


def test_a_live_canary_is_held_goes_no_step_on_and_can_still_go_back(
    world: SmallInstallation,
) -> None:
    proposal = world.until_decided(world.propose("sim/good").id)
    assert proposal.phase is ProposalPhase.CANARY
    world.observe_only = True
    for _ in range(4):
        world.feed(blocks=5)
        world.run_once()

    with world.store.read() as tx:
        rollout = tx.rollouts.get(world.get(proposal.id).rollout or "")
    assert (rollout.step, rollout.live) == (0, True)
    assert open_alerts(world, AlertKind.CANARY_HELD) == [
        f"{OBSERVE_ONLY[0].upper()}{OBSERVE_ONLY[1:]}."
    ]
    for signal in (RolloutSignal.ADVANCE, RolloutSignal.PROMOTE):
        with pytest.raises(NotAllowed, match="a canary does not go on"):
            operations.operate(world.context(), BEN, "chat", signal, "now")

    back = operations.operate(
        world.context(), BEN, "chat", RolloutSignal.ABORT, "no more"
    ).rollout
    assert not back.live
    assert routes.load_table(world.context()).routes["chat"].canary is None


def test_the_configuration_turns_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "swapgate.yaml"
    file.write_text("control: {observe_only: true}\n")

    assert load_settings(file).control.observe_only
