"""An installation with one comparison of many items, answered by a script, for measuring what
the Compare page takes to show it.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from evals.runner.questions import plan_questions
from evals.suites.suite import ConfiguredSuites
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control import reconciler
from harness.control.proposals import decisions, submission
from harness.control.routing import seed
from harness.domain.evals.run import EvalRun, RunState, Sample
from harness.domain.operations.access import SYSTEM
from tests.support.control.manual_clock import ManualClock

CONFIG = """
home: state
providers:
  sim:
    kind: sim
    api_base: http://127.0.0.1:9/v1
    prices:
      base: {input_usd_per_mtok: 2, output_usd_per_mtok: 8}
      better: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}
suites:
  mail: {path: mail.jsonl, title: Customer mail, scorer: exact}
policies:
  default: {gate: {claim: superior, n_max: ITEMS}}
routes:
  big: {incumbent: sim/base, suites: [{suite: mail}]}
"""
QUESTION = "A customer writes (mail {}): which team answers this? {}"
FILLER = "It is about an order that did not arrive in time. " * 4
# Twelfths of the items that a model answers rightly.
SKILL = {"base": 7, "better": 11}
# Which ones, where both shall be right as often, so that the gate decides on all items alone.
STEP = {"base": 5, "better": 7}
TURNS = 8
AT_ONCE = 5_000


def find(home: Path) -> str:
    """Finds the comparison that an earlier run has built there; empty without one."""
    file = home / "swapgate.yaml"
    if not file.exists():
        return ""
    with opened(file) as installation:
        upgrade_database(installation.settings)
        return submission.list_proposals(installation.context)[0].id


def build(home: Path, items: int, *, decided: bool = False) -> str:
    """Makes the installation in a folder; returns the id of its one proposal. decided: with a
    verdict on all items.
    """
    home.mkdir(parents=True, exist_ok=True)
    file = home / "swapgate.yaml"
    file.write_text(CONFIG.replace("ITEMS", str(items)), encoding="utf-8")
    with (home / "mail.jsonl").open("w", encoding="utf-8") as out:
        for number in range(items):
            question = QUESTION.format(number, FILLER)
            line = {"id": f"mail-{number}", "input": question, "target": f"team {number}"}
            out.write(json.dumps(line) + "\n")
    with opened(file) as installation:
        upgrade_database(installation.settings)
        ctx = installation.context
        seed.apply_seed(ctx, installation.settings)
        request = submission.ProposalRequest("big", "sim/better", "cheaper")
        made = submission.create_proposal(ctx, SYSTEM, request)
        for _ in range(4):
            reconciler.reconcile(ctx)
        _answer(installation, items, equal=decided)
        if decided:
            _decide(installation, made.id)
            return made.id
        # Ended without a verdict: the page shows the samples all the same.
        decisions.cancel_proposal(ctx, SYSTEM, made.id, "measured enough")
        return made.id


@contextmanager
def opened(file: Path) -> Iterator[Installation]:
    found = open_installation(file, create_secret=True)
    try:
        clock = ManualClock(found.clock.now() - timedelta(hours=1))
        yield replace(found, clock=clock)
    finally:
        found.close()


def _decide(installation: Installation, proposal: str) -> None:
    ctx = installation.context
    with ctx.store.write() as tx:
        for run in tx.runs.list():
            tx.runs.set_state(run.id, RunState.DONE)
    for _ in range(TURNS):
        reconciler.reconcile(ctx)
        if submission.get_proposal(ctx, proposal).verdict:
            return
    raise RuntimeError(f"the gate has not decided on {proposal}")


def _answer(installation: Installation, items: int, *, equal: bool) -> None:
    ctx = installation.context
    suite = ConfiguredSuites(installation.settings.suites).suite("mail")
    with ctx.store.read() as tx:
        targets = tx.routing.targets()
        runs = tx.runs.list(states=[RunState.QUEUED, RunState.RUNNING])
    for run in runs:
        plan = plan_questions(
            suite.groups, order_seed=run.order_seed, wanted=items, epochs=run.epochs
        )
        samples = list(_samples(run, targets[run.target].model, plan, equal=equal))
        for first in range(0, len(samples), AT_ONCE):
            with ctx.store.write() as tx:
                for sample in samples[first : first + AT_ONCE]:
                    tx.runs.store_sample(sample)


def _samples(
    run: EvalRun, model: str, plan: Sequence[tuple[int, str, int]], *, equal: bool
) -> Iterator[Sample]:
    for position, name, epoch in plan:
        number = int(name.rpartition("-")[2])
        right = number * 5 % 12 < SKILL[model]
        if equal:
            right = number * STEP[model] % 12 < SKILL["base"]
        yield Sample(
            run=run.id,
            item=name,
            epoch=epoch,
            position=position,
            answer=f"team {number}" if right else "I do not know.",
            strict=float(right),
            lenient=float(right),
            input_tokens=60,
            output_tokens=5,
            cost_usd=0.001,
            duration_s=1 + number % 10 / 10,
        )
