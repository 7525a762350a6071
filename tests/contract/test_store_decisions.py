from dataclasses import replace

import pytest

from harness.app.store.store import Store
from harness.frame.errors import (
    Conflict,
    InputError,
    NotFound,
    ProofRefused,
    RouteBusy,
    StaleWrite,
)
from harness.gate.online.rollout import RolloutSignal
from harness.gate.online.rollout import apply_signal as rolled
from harness.gate.policy import Policy
from harness.gate.verdict import Passed
from harness.providers.records import Targets
from harness.routing.proposal import ProposalPhase
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.verdicts import Verdicts
from tests.support.store.records import (
    FAILED,
    LATER,
    NEW,
    OLD,
    PASSED,
    SPARE,
    proposal,
    rollout,
    seeded,
    verdict,
)

pytestmark = pytest.mark.both_databases


@pytest.fixture(autouse=True)
def targets(store: Store) -> None:
    with store.write() as tx:
        for target in (OLD, NEW, SPARE):
            Targets(tx).add(target)


def test_a_route_has_one_open_proposal_and_the_refusal_names_it(store: Store) -> None:
    with store.write() as tx:
        Proposals(tx).add(proposal())
        with pytest.raises(RouteBusy, match="p_1"):
            Proposals(tx).add(proposal("p_2"))
        # Another route is free, and so is a closed proposal on a busy one.
        Proposals(tx).add(proposal("p_3", route="other"))
        Proposals(tx).add(proposal("p_4", phase=ProposalPhase.REJECTED))

    with store.read() as tx:
        assert [approval.id for approval in Proposals(tx).open()] == [
            "p_1",
            "p_3",
        ]


def test_saving_an_old_state_of_a_proposal_is_refused(store: Store) -> None:
    with store.write() as tx:
        Proposals(tx).add(proposal())
        Proposals(tx).save(proposal())
        with pytest.raises(StaleWrite, match="version 2, not 1"):
            Proposals(tx).save(proposal())
        with pytest.raises(NotFound):
            Proposals(tx).save(proposal("p_unknown"))


def test_the_proposer_cannot_approve_unless_the_policy_says_so(store: Store) -> None:
    approved = proposal(approver="ada", approved_verdict="v_1")
    with store.write() as tx:
        Proposals(tx).add(proposal())
        assert Proposals(tx).save(replace(approved, approver="bob")).approver == "bob"
        alone = Policy(self_approval=True)
        Proposals(tx).add(
            proposal(
                "p_2",
                route="small",
                policy=alone,
                approver="ada",
            )
        )
    with pytest.raises(InputError, match="four_eyes"), store.write() as tx:
        Proposals(tx).add(replace(approved, id="p_3", route="other"))


def test_what_a_proposal_registered_never_changes(store: Store) -> None:
    changes = (
        {"candidate": SPARE.id},
        {"policy": Policy()},
        {"proposer": "eve"},
    )
    with store.write() as tx:
        Proposals(tx).add(proposal())
        for change in changes:
            with pytest.raises(InputError, match="registered"):
                Proposals(tx).save(proposal(**change))


def test_plans_are_fixed_once_the_evaluation_has_begun(store: Store) -> None:
    with store.write() as tx:
        Proposals(tx).add(proposal(plans=()))
        planned = Proposals(tx).save(proposal())
        started = Proposals(tx).save(replace(planned, phase=ProposalPhase.EVALUATING))
        with pytest.raises(InputError, match="registered"):
            Proposals(tx).save(replace(started, plans=()))


def test_a_verdict_is_read_back_as_it_was_infinite_figures_and_all(store: Store) -> None:
    with store.write() as tx:
        Proposals(tx).add(proposal())
        Verdicts(tx).store(PASSED, "p_1")
        Verdicts(tx).store(replace(FAILED, decided_at=LATER), "p_1")

    with store.read() as tx:
        assert Verdicts(tx).get("v_1") == PASSED
        assert type(Verdicts(tx).get("v_failed")) is type(FAILED)
        assert [approval.id for approval in Verdicts(tx).for_proposal("p_1")] == [
            "v_failed",
            "v_1",
        ]
        assert [approval.id for approval in Verdicts(tx).list()] == [
            "v_failed",
            "v_1",
        ]
        assert (
            list(Verdicts(tx).list(route="other"))
            == list(Verdicts(tx).for_proposal("p_2"))
            == []
        )
        with pytest.raises(NotFound, match="v_unknown"):
            Verdicts(tx).get("v_unknown")


def test_a_verdict_is_never_stored_twice(store: Store) -> None:
    seeded(store)
    with store.write() as tx, pytest.raises(Conflict, match="never change"):
        Verdicts(tx).store(PASSED, "p_1")


def test_a_route_has_one_live_rollout(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        Rollouts(tx).add(rollout())
        with pytest.raises(RouteBusy, match="ro_1"):
            Rollouts(tx).add(rollout("ro_2"))
        ended = Rollouts(tx).save(rolled(rollout(), RolloutSignal.HARM, LATER, "errors"))
        Verdicts(tx).store(verdict(Passed, "v_2"), "p_1")
        Rollouts(tx).add(rollout("ro_2", started_at=LATER, verdict="v_2"))

    assert ended.version == 2
    with store.read() as tx:
        assert [approval.id for approval in Rollouts(tx).live()] == ["ro_2"]
        assert [approval.id for approval in Rollouts(tx).list()] == [
            "ro_2",
            "ro_1",
        ]
        assert Rollouts(tx).get("ro_1").ended_because == "errors"


@pytest.mark.req("F1", "F3")
def test_a_verdict_is_the_proof_of_one_rollout(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        Rollouts(tx).add(rollout())
        Rollouts(tx).save(rolled(rollout(), RolloutSignal.HARM, LATER, "errors"))
    with (
        pytest.raises(ProofRefused, match="needs a new verdict"),
        store.write() as tx,
    ):
        Rollouts(tx).add(rollout("ro_2", started_at=LATER))


def test_saving_an_old_state_of_a_rollout_is_refused(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        Rollouts(tx).add(rollout())
        Rollouts(tx).save(rolled(rollout(), RolloutSignal.ENOUGH, LATER))
        with pytest.raises(StaleWrite, match="version 2, not 1"):
            Rollouts(tx).save(rolled(rollout(), RolloutSignal.HARM, LATER))
        with pytest.raises(NotFound):
            Rollouts(tx).save(rollout("ro_unknown"))


def test_a_rollout_without_its_proposal_and_verdict_is_refused(store: Store) -> None:
    with pytest.raises(InputError), store.write() as tx:
        Rollouts(tx).add(rollout())

    with store.read() as tx:
        assert list(Rollouts(tx).list()) == []
