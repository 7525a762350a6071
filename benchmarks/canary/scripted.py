"""Canaries for the stops: their evals are scripted, all that is decided from them is real.

Two dozen pairs of real evals would take longer than all else together.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from benchmarks.canary.place import INCUMBENT, PERSON
from benchmarks.canary.wall_time import TooLate
from evals.suites.items import Item
from harness.app.installation import Installation
from harness.control import reconciler
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.domain.proposals.proposal import ProposalPhase
from harness.domain.routing.target import Target
from harness.runtime.processes.eval_worker import EvalWorker
from tests.support.control.inline_workers import InlineWorkers
from tests.support.evals.scripted_runner import ScriptedRunner

TURNS: Final = 30


def opened(installation: Installation, routes: Mapping[str, str]) -> Mapping[str, str]:
    """Rollouts by route. routes: the candidates. No control process may run meanwhile."""
    store = installation.context.store

    def work(run: str, owner: str) -> None:
        EvalWorker(
            store=store,
            clock=installation.context.clock,
            runner=ScriptedRunner(installation.settings.suites, _answer),
            owner=owner,
            parent=os.getppid(),
            secrets={},
        ).work(run)

    ctx = replace(installation.context, workers=InlineWorkers(work))
    made = {
        route: submission.create_proposal(
            ctx, PERSON, ProposalRequest(route, f"sim/{model}", "bench")
        )
        for route, model in routes.items()
    }
    for _ in range(TURNS * len(made)):
        reconciler.reconcile(ctx)
        found = {
            route: submission.get_proposal(ctx, proposal.id) for route, proposal in made.items()
        }
        if all(proposal.phase is ProposalPhase.CANARY for proposal in found.values()):
            return {route: str(proposal.rollout) for route, proposal in found.items()}
    raise TooLate(f"no canary: {', '.join(proposal.phase for proposal in found.values())}")


def _answer(target: Target, item: Item, _epoch: int) -> str:
    number = int(item.id.rpartition("-")[2])
    right = target.model != INCUMBENT or number % 2 == 0
    return str(item.target) if right else str(item.metadata["distractors"][0])
