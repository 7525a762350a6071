"""Whatever people do with proposals, selections, chains and suites, while providers fail, in
any order: the promise holds. Hypothesis draws the order. Traffic, hands on a canary, crashes
and clocks that are set are in test_rollouts.py.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evals.runner.provider_client import ProviderFailed
from evals.suites.items import Item
from harness.canary import manual_rollback
from harness.frame.errors import SwapgateError
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import RolloutState
from harness.gate.policy import Policy
from harness.proposals import decisions, fallback_chain, submission
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.proposals.submission import ProposalRequest
from harness.providers.target import Target
from harness.routes import routes
from harness.routing.proposal import PAST_GATE_PHASES, Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.rollouts import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.table import RouteSettings, RouteSuite
from harness.store.store import Store
from tests.support.control.control_plane import (
    ANN,
    BEN,
    POLICY,
    SECRET,
    SKILL,
    SmallInstallation,
    answer,
    approved,
)
from tests.support.control.manual_clock import ManualClock
from tests.support.control.routing_invariants import (
    check_canary,
    check_history,
    check_revisions,
    check_verdicts,
)
from tests.support.store.sqlite_store import open_sqlite

ROUTES = ("chat", "mail")
ADA = Actor("ada", Role.ADMIN, "pr_ada")

route_names = st.sampled_from(ROUTES)
models = st.sampled_from([*SKILL])
people = st.sampled_from([ANN, BEN, replace(BEN, name=ANN.name)])


def now_in(*phases: ProposalPhase) -> Callable[["ControlPlane"], bool]:
    """Whether a proposal is in one of these phases: a step that cannot do anything is lost."""

    def has_phase(plane: "ControlPlane") -> bool:
        with plane.store.read() as tx:
            return any(proposal.phase in phases for proposal in Proposals(tx).open())

    return has_phase


UNDECIDED = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
UNDER_WAY = (*UNDECIDED, ProposalPhase.AWAITING_APPROVAL, ProposalPhase.CANARY)


def check_selections(proposals: Sequence[Proposal]) -> None:
    """One of a selection goes on, and one proposal alone is past the gate on a route."""
    past = [proposal.route for proposal in proposals if proposal.phase in PAST_GATE_PHASES]
    assert len(past) == len(set(past))
    gone_on = [p.selection for p in proposals if p.selection and (p.rollout or p.approver)]
    assert len(gone_on) == len(set(gone_on))


class ControlPlane(RuleBasedStateMachine):
    @initialize()
    def install(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        clock = ManualClock()
        self.store = self.open_store(clock)
        self.world = SmallInstallation(
            Path(self.folder.name), self.store, clock=clock, script=self.say
        )
        self.world.set_up()
        self.down = self.flaky = False
        self.closed: dict[str, Proposal] = {}
        self.ctx = self.world.context()
        suite = RouteSettings(suites=(RouteSuite("colours"),))
        routes.create_route(self.ctx, SYSTEM, "mail", "sim/equal", settings=suite)

    def open_store(self, clock: ManualClock) -> Store:
        return open_sqlite(Path(self.folder.name) / "plane.db", clock, secret=SECRET)

    def say(self, target: Target, item: Item, epoch: int) -> str:
        if self.down or (self.flaky and item.id.endswith("7")):
            raise ProviderFailed("overloaded")
        return answer(target, item, epoch)

    def attempt(self, act: Callable[[], object]) -> None:
        """People may be refused; nothing else may come of it."""
        with suppress(SwapgateError):
            act()

    @rule(route=route_names, model=models, asks=st.booleans())
    def propose(self, route: str, model: str, asks: bool) -> None:  # noqa: FBT001 - drawn
        policy: Policy = approved() if asks else POLICY
        ctx = replace(self.ctx, policies={"default": policy})
        self.attempt(
            lambda: submission.create_proposal(ctx, ANN, ProposalRequest(route, f"sim/{model}"))
        )

    @rule(
        route=route_names,
        several=st.lists(models, min_size=2, max_size=3, unique=True),
        asks=st.booleans(),
        turns=st.sampled_from([0, 1, 2, 4]),
    )
    def propose_several(
        self,
        route: str,
        several: list[str],
        asks: bool,  # noqa: FBT001 - drawn
        turns: int,
    ) -> None:
        ctx = replace(self.ctx, policies={"default": approved() if asks else POLICY})
        first, *rivals = (f"sim/{model}" for model in several)
        request = ProposalRequest(route, first, rivals=tuple(rivals))
        self.attempt(lambda: submission.create_selection(ctx, ANN, request))
        self.run_turns(turns)

    @rule(
        route=route_names,
        asks=st.booleans(),
        turns=st.sampled_from([0, 1, 2, 4]),
        hours=st.sampled_from([0, 0, 2, 12]),
    )
    def propose_a_better_one(
        self,
        route: str,
        asks: bool,  # noqa: FBT001 - drawn
        turns: int,
        hours: int,
    ) -> None:
        table = routes.load_table(self.ctx)
        skill = SKILL[table.targets[table.routes[route].incumbent].model]
        better = min((s, model) for model, s in SKILL.items() if s > skill or s == 12)[1]
        self.propose(route, better, asks)
        self.run_turns(turns)
        if asks:
            self.approve(BEN)
        self.healthy_hours(hours)

    @precondition(now_in(*UNDER_WAY))
    @rule(turns=st.integers(1, 4))
    def run_turns(self, turns: int) -> None:
        for _ in range(turns):
            self.one_turn()

    def one_turn(self) -> None:
        assert not self.world.run_once(self.ctx).failed

    @precondition(now_in(ProposalPhase.CANARY))
    @rule(turns=st.integers(1, 12))
    def healthy_hours(self, turns: int) -> None:
        for _ in range(turns):
            self.world.feed()
            self.one_turn()

    @precondition(now_in(ProposalPhase.AWAITING_APPROVAL))
    @rule(who=people)
    def approve(self, who: Actor) -> None:
        for proposal in submission.list_proposals(self.ctx, open_only=True):
            self.attempt(partial(decisions.approve_proposal, self.ctx, who, proposal.id))

    @precondition(now_in(*UNDECIDED, ProposalPhase.AWAITING_APPROVAL))
    @rule(route=route_names, who=people, refuses=st.booleans())
    def end(self, route: str, who: Actor, refuses: bool) -> None:  # noqa: FBT001 - drawn
        for proposal in submission.list_proposals(self.ctx, route=route, open_only=True):
            if refuses:
                self.attempt(
                    partial(decisions.refuse_proposal, self.ctx, who, proposal.id, "no")
                )
            else:
                self.attempt(partial(decisions.cancel_proposal, self.ctx, ANN, proposal.id))

    @rule(route=route_names)
    def roll_back(self, route: str) -> None:
        self.attempt(
            lambda: manual_rollback.roll_back(self.ctx, BEN, route, reason="an incident")
        )

    @rule(
        route=route_names,
        model=models,
        removes=st.booleans(),
        days=st.sampled_from([None, 1, 30]),
    )
    def change_the_chain(
        self,
        route: str,
        model: str,
        removes: bool,  # noqa: FBT001 - drawn
        days: int | None,
    ) -> None:
        name, why = f"sim/{model}", "an outage"
        waive = WaiverRequest("a drill", timedelta(days=days)) if days else None
        if removes:
            self.attempt(
                lambda: fallback_chain.remove_fallback(self.ctx, ADA, route, name, reason=why)
            )
        else:
            wanted = FallbackRequest(name, waive=waive)
            self.attempt(
                lambda: fallback_chain.add_fallback(self.ctx, ADA, route, wanted, reason=why)
            )

    @precondition(now_in(*UNDECIDED))
    @rule(down=st.booleans(), flaky=st.booleans())
    def the_provider_fails_or_recovers(self, down: bool, flaky: bool) -> None:  # noqa: FBT001
        self.down, self.flaky = down, flaky

    @precondition(now_in(*UNDECIDED, ProposalPhase.AWAITING_APPROVAL))
    @rule(really=st.sampled_from([False, False, False, True]))
    def the_suite_changes(self, really: bool) -> None:  # noqa: FBT001 - drawn
        if not really:
            return
        old = self.world.suites["colours"]
        self.world.suites["colours"] = replace(old, version=f"{old.version}1")
        self.ctx = self.world.context()

    @invariant()
    def the_promise_holds(self) -> None:
        with self.store.read() as tx:
            proposals = Proposals(tx).list()
            for name in ROUTES:
                route = Routing(tx).route(name)
                assert route is not None
                check_history(tx, name)
                check_canary(tx, route, [p for p in proposals if p.route == name])
            check_revisions(tx, ROUTES)
            check_selections(proposals)
            for proposal in proposals:
                check_verdicts(tx, proposal)
                self.check_closed(proposal)
            assert AuditLog(tx).first_break() is None

    def check_closed(self, proposal: Proposal) -> None:
        if not proposal.open:
            assert self.closed.setdefault(proposal.id, proposal) == proposal

    def teardown(self) -> None:
        if not hasattr(self, "ctx"):
            return
        self.down = self.flaky = False
        self.ctx = self.world.context()
        for _ in range(60):
            self.world.feed()
            self.one_turn()
            self.world.clock.advance(10)
        self.the_promise_holds()
        with self.store.read() as tx:
            for proposal in Proposals(tx).open():
                assert proposal.phase in (
                    ProposalPhase.AWAITING_APPROVAL,
                    ProposalPhase.CANARY,
                ), proposal
                if proposal.phase is ProposalPhase.CANARY:
                    assert Rollouts(tx).get(proposal.rollout or "").state is RolloutState.PAUSED
        self.store.close()
        self.folder.cleanup()


def sized(examples: int) -> settings:
    return settings(settings.get_profile("dev"), max_examples=examples, stateful_step_count=50)


in_verify = os.environ.get("SWAPGATE_HYPOTHESIS") == "verify"


@pytest.mark.req("A7", "F1", "F5")
@pytest.mark.timeout(1200)  # for a machine that does ten other things
class TestTheControlPlane(ControlPlane.TestCase):  # type: ignore[misc,valid-type]  # hypothesis
    settings = sized(100 if in_verify else 4)
