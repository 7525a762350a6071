"""`SmallInstallation` is a control plane for tests: it adds eval workers with scripted models,
the turns of the control process, and traffic to a `BareInstallation`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from evals.suites.items import Item
from harness.app.eval_workers.worker import EvalWorker
from harness.app.store.store import Store
from harness.frame.people.access import Actor
from harness.gate.online.rollout import Rollout
from harness.gate.pins import ServedModel
from harness.gate.run import JudgeCalibration
from harness.operations import control_jobs
from harness.operations.context import Context
from harness.proposals import submission
from harness.proposals.submission import ProposalRequest
from harness.providers.target import Target
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from router.request.item_requests import choose_override
from tests.support.control.bare_installation import BareInstallation
from tests.support.control.colours_suite import answer
from tests.support.control.inline_workers import InlineWorkers
from tests.support.control.people import ANN
from tests.support.control.remembered_worlds import MEMORY
from tests.support.control.router_rows import block_of
from tests.support.evals.scripted_runner import ScriptedRunner


@dataclass
class SmallInstallation(BareInstallation):
    """boot: what a worker's process does before its work; it is told the run."""

    script: Callable[[Target, Item, int], str] = answer
    boot: Callable[[str], None] = lambda _run: None
    pace: Callable[[Target, Item], float] = lambda _target, _item: 0.0
    served: Callable[[Target, Item], ServedModel] = lambda target, _: ServedModel(target.model)
    calibration: JudgeCalibration | None = None  # what the runners say of a suite's judge

    def context(self, store: Store | None = None) -> Context:
        chosen = store or self.store
        return replace(
            super().context(chosen),
            choose_override=choose_override,
            workers=InlineWorkers(lambda run, owner: self._work(chosen, run, owner)),
        )

    def _work(
        self,
        store: Store,
        run: str,
        owner: str,
    ) -> None:
        self.boot(run)
        runner = ScriptedRunner(self.suites, self.script, self.pace, self.served)
        runner.calibration = self.calibration
        EvalWorker(
            store=store,
            clock=self.clock,
            runner=runner,
            owner=owner,
            parent=os.getppid(),
            secrets={},
        ).work(run)

    def propose(
        self,
        candidate: str = "sim/better",
        actor: Actor = ANN,
        route: str = "chat",
        reason: str = "a test",
        ctx: Context | None = None,
        **wish: Any,
    ) -> Proposal:
        request = ProposalRequest(route, candidate, reason, **wish)
        return submission.create_proposal(ctx or self.context(), actor, request)

    def decided(
        self,
        candidate: str = "sim/better",
        actor: Actor = ANN,
        **wish: Any,
    ) -> Proposal:
        def live() -> Proposal:
            proposal = self.propose(candidate, actor, **wish)
            return self.until_decided(proposal.id)

        step = f"decided {candidate} {actor}"
        # A wish may hold a context, whose parts no key names.
        return live() if wish else MEMORY.after(self, step, live)

    def preview(
        self,
        candidate: str = "sim/better",
        actor: Actor | None = None,
        route: str = "chat",
    ) -> submission.ProposalPreview:
        request = ProposalRequest(route, candidate, "a test")
        return submission.preview_proposal(self.context(), request, actor)

    def get(self, proposal: str) -> Proposal:
        return submission.get_proposal(self.context(), proposal)

    def rollout(self, route: str = "chat") -> Rollout:
        with self.store.read() as tx:
            return Rollouts(tx).list(route=route, limit=1)[0]

    def run_once(
        self, ctx: Context | None = None, *, turns: int = 1
    ) -> control_jobs.ReconcileResult:
        """Returns what the last turn did."""
        for _ in range(turns):
            done = control_jobs.reconcile(ctx or self.context())
            self.clock.advance(1)
        return done

    def until_decided(self, proposal: str, turns: int = 10) -> Proposal:
        """Turn until the evals have a verdict."""
        for _ in range(turns):
            self.run_once()
            if self.get(proposal).verdict:
                break
        return self.get(proposal)

    def in_canary(self, candidate: str = "sim/better", actor: Actor = ANN) -> Proposal:
        proposal = self.decided(candidate, actor)
        assert proposal.phase is ProposalPhase.CANARY, proposal.closed_because
        return proposal

    def promoted(self, candidate: str = "sim/better") -> Proposal:
        return MEMORY.after(self, f"promoted {candidate}", lambda: self._promoted(candidate))

    def _promoted(self, candidate: str) -> Proposal:
        proposal = self.in_canary(candidate)
        for _ in range(40):
            self.run_once()
            if not self.get(proposal.id).open:
                break
            self.feed(blocks=4)
        found = self.get(proposal.id)
        assert found.phase is ProposalPhase.PROMOTED, found.closed_because
        return found

    def feed(self, *, failing: bool = False, blocks: int = 1) -> None:
        """Traffic for the rollout, live or in its bake, as a router would record it."""
        with self.store.read() as tx:
            rollouts = [*Rollouts(tx).live(), *Rollouts(tx).baking()]
            counts = {r.id: len(Observations(tx).blocks(r.id)) for r in rollouts}
        new = [
            block_of(
                rollout,
                counts[rollout.id] + number,
                self.clock,
                failing=failing,
            )
            for rollout in rollouts
            for number in range(blocks)
        ]
        with self.store.write() as tx:
            Observations(tx).append(new, [])
