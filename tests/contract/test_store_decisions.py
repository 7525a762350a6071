from dataclasses import replace

import pytest

from harness.domain.canary.rollout import RolloutSignal
from harness.domain.canary.rollout import apply_signal as rolled
from harness.domain.errors import (
    Conflict,
    InputError,
    NotFound,
    ProofRefused,
    RouteBusy,
    StaleWrite,
)
from harness.domain.evals.verdict import Passed
from harness.domain.proposals.policy import Policy
from harness.domain.proposals.proposal import ProposalPhase
from harness.store.store import Store
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
            tx.routing.add_target(target)


def test_saving_an_old_state_of_a_proposal_is_refused(store: Store) -> None:
    with store.write() as tx:
        tx.proposals.add(proposal())
        tx.proposals.save(proposal())
        with pytest.raises(StaleWrite, match="version 2, not 1"):
            tx.proposals.save(proposal())
        with pytest.raises(NotFound):
            tx.proposals.save(proposal("p_unknown"))


def test_the_proposer_cannot_approve_unless_the_policy_says_so(store: Store) -> None:
    approved = proposal(approver="ada", approved_verdict="v_1")
    with store.write() as tx:
        tx.proposals.add(proposal())
        assert tx.proposals.save(replace(approved, approver="bob")).approver == "bob"
        alone = Policy(self_approval=True)
        tx.proposals.add(proposal("p_2", route="small", policy=alone, approver="ada"))
    with pytest.raises(InputError, match="four_eyes"), store.write() as tx:
        tx.proposals.add(replace(approved, id="p_3", route="other"))


def test_what_a_proposal_registered_never_changes(store: Store) -> None:
    changes = ({"candidate": SPARE.id}, {"policy": Policy()}, {"proposer": "eve"})
    with store.write() as tx:
        tx.proposals.add(proposal())
        for change in changes:
            with pytest.raises(InputError, match="registered"):
                tx.proposals.save(proposal(**change))


def test_plans_are_fixed_once_the_evaluation_has_begun(store: Store) -> None:
    with store.write() as tx:
        tx.proposals.add(proposal(plans=()))
        planned = tx.proposals.save(proposal())
        started = tx.proposals.save(replace(planned, phase=ProposalPhase.EVALUATING))
        with pytest.raises(InputError, match="registered"):
            tx.proposals.save(replace(started, plans=()))


def test_a_verdict_is_read_back_as_it_was_infinite_figures_and_all(store: Store) -> None:
    with store.write() as tx:
        tx.proposals.add(proposal())
        tx.verdicts.store(PASSED, "p_1")
        tx.verdicts.store(replace(FAILED, decided_at=LATER), "p_1")

    with store.read() as tx:
        assert tx.verdicts.get("v_1") == PASSED
        assert type(tx.verdicts.get("v_failed")) is type(FAILED)
        assert [approval.id for approval in tx.verdicts.for_proposal("p_1")] == [
            "v_failed",
            "v_1",
        ]
        assert [approval.id for approval in tx.verdicts.list()] == ["v_failed", "v_1"]
        assert (
            list(tx.verdicts.list(route="other")) == list(tx.verdicts.for_proposal("p_2")) == []
        )
        with pytest.raises(NotFound, match="v_unknown"):
            tx.verdicts.get("v_unknown")


def test_a_verdict_is_never_stored_twice(store: Store) -> None:
    seeded(store)
    with store.write() as tx, pytest.raises(Conflict, match="never change"):
        tx.verdicts.store(PASSED, "p_1")


def test_a_route_has_one_live_rollout(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        tx.rollouts.add(rollout())
        with pytest.raises(RouteBusy, match="ro_1"):
            tx.rollouts.add(rollout("ro_2"))
        ended = tx.rollouts.save(rolled(rollout(), RolloutSignal.HARM, LATER, "errors"))
        tx.verdicts.store(verdict(Passed, "v_2"), "p_1")
        tx.rollouts.add(rollout("ro_2", started_at=LATER, verdict="v_2"))

    assert ended.version == 2
    with store.read() as tx:
        assert [approval.id for approval in tx.rollouts.live()] == ["ro_2"]
        assert [approval.id for approval in tx.rollouts.list()] == ["ro_2", "ro_1"]
        assert tx.rollouts.get("ro_1").ended_because == "errors"


@pytest.mark.req("F1", "F3")
def test_a_verdict_is_the_proof_of_one_rollout(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        tx.rollouts.add(rollout())
        tx.rollouts.save(rolled(rollout(), RolloutSignal.HARM, LATER, "errors"))
    with pytest.raises(ProofRefused, match="needs a new verdict"), store.write() as tx:
        tx.rollouts.add(rollout("ro_2", started_at=LATER))


def test_saving_an_old_state_of_a_rollout_is_refused(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        tx.rollouts.add(rollout())
        tx.rollouts.save(rolled(rollout(), RolloutSignal.ENOUGH, LATER))
        with pytest.raises(StaleWrite, match="version 2, not 1"):
            tx.rollouts.save(rolled(rollout(), RolloutSignal.HARM, LATER))
        with pytest.raises(NotFound):
            tx.rollouts.save(rollout("ro_unknown"))


def test_a_rollout_without_its_proposal_and_verdict_is_refused(store: Store) -> None:
    with pytest.raises(InputError), store.write() as tx:
        tx.rollouts.add(rollout())

    with store.read() as tx:
        assert list(tx.rollouts.list()) == []
