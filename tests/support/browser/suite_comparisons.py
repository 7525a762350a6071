"""Builds an installation whose routes are compared on suites with slices and clusters, and by
several candidates at once, for the dashboard's tests. A script answers for the models; the
gate judges them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from evals.suites.items import Item
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control import reconciler
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import seed
from harness.domain.routing.target import Target
from harness.runtime.processes.eval_worker import EvalWorker
from tests.support.browser.dashboard_data import ANA, Lived, shared_copy
from tests.support.control.inline_workers import InlineWorkers
from tests.support.control.manual_clock import ManualClock
from tests.support.evals.scripted_runner import ScriptedRunner

ITEMS: Final = 360
LANGUAGES: Final = ("English", "English", "English", "German", "French", "Danish")
PRODUCTS: Final = ("billing", "billing", "shipping")
DOCUMENT_SIZE: Final = 3
TURNS: Final = 20

# Twelfths of the items that a model answers rightly, and the seconds that it takes.
SKILL: Final = {"base": 7, "better": 11, "good": 9, "equal": 7, "worse": 3, "no-danish": 12}
SECONDS: Final = {"base": 2.1, "better": 1.2, "good": 0.8, "equal": 2.0, "worse": 0.4}

CONFIG: Final = """
home: state
providers:
  sim:
    kind: sim
    api_base: http://127.0.0.1:9/v1
    prices:
      base: {input_usd_per_mtok: 2, output_usd_per_mtok: 8}
      better: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}
      good: {input_usd_per_mtok: 0.4, output_usd_per_mtok: 1.6}
      equal: {input_usd_per_mtok: 2, output_usd_per_mtok: 8}
      worse: {input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}
      no-danish: {input_usd_per_mtok: 0.4, output_usd_per_mtok: 1.6}
suites:
  customer-mail: &mail
    path: mail.jsonl
    title: Customer mail
    scorer: exact
    slices: [language, product]
  handbook: {path: mail.jsonl, title: Handbook questions, scorer: exact, cluster: document}
  triage: {path: mail.jsonl, title: Ticket triage, scorer: exact}
  replies: {path: mail.jsonl, title: Replies, scorer: exact}
policies:
  default: {gate: {claim: superior}}
  either: {gate: {claim: superior, primaries: any}}
routes:
  by-slice: &by_slice {incumbent: sim/base, suites: [{suite: customer-mail}]}
  in-danish: *by_slice
  by-document: {incumbent: sim/base, suites: [{suite: handbook}]}
  several: {incumbent: sim/base, suites: [{suite: handbook}]}
  weighted: {incumbent: sim/base, suites: [{suite: triage, weight: 2}, {suite: replies}]}
  either: {incumbent: sim/base, policy: either, suites: [{suite: triage}, {suite: replies}]}
"""


def answer(target: Target, item: Item, _epoch: int) -> str:
    """Right or wrong by the item's number; `no-danish` answers no Danish mail."""
    number = int(item.id.rpartition("-")[2])
    in_vain = target.model == "no-danish" and item.metadata.get("language") == "Danish"
    right = number * 5 % 12 < SKILL[target.model] and not in_vain
    return str(item.target) if right else "I do not know."


def compared(factory: pytest.TempPathFactory, now: datetime) -> Lived:
    """One route for each kind of comparison, decided an hour before `now`."""
    return shared_copy(factory, "compared", now, _decided)


def _decided(home: Path, now: datetime) -> Lived:
    home.mkdir(parents=True, exist_ok=True)
    file = home / "swapgate.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    (home / "mail.jsonl").write_text("\n".join(map(json.dumps, _mails())), encoding="utf-8")
    clock = ManualClock(now - timedelta(hours=1))
    opened = open_installation(file, create_secret=True)
    workers = InlineWorkers(lambda run, owner: _work(installation, run, owner))
    installation = replace(opened, clock=clock, workers=workers)
    try:
        upgrade_database(installation.settings)
        seed.apply_seed(installation.context, installation.settings)
        return Lived(file, _propose_all(installation, clock))
    finally:
        installation.close()
        opened.close()


def _mails() -> list[Mapping[str, object]]:
    return [
        {
            "id": f"mail-{n}",
            "input": f"A customer writes (mail {n}): which team answers this?",
            "target": f"team {n}",
            "metadata": {
                "language": LANGUAGES[n % len(LANGUAGES)],
                "product": PRODUCTS[n // len(LANGUAGES) % len(PRODUCTS)],
                "document": f"page {n // DOCUMENT_SIZE}",
            },
        }
        for n in range(ITEMS)
    ]


def _work(installation: Installation, run: str, owner: str) -> None:
    EvalWorker(
        store=installation.store,
        clock=installation.clock,
        runner=ScriptedRunner(
            installation.settings.suites, answer, lambda target, _: _seconds(target)
        ),
        owner=owner,
        parent=os.getppid(),
        secrets={},
    ).work(run)


def _seconds(target: Target) -> float:
    return SECONDS.get(target.model, 1.0)


def _propose_all(installation: Installation, clock: ManualClock) -> Mapping[str, str]:
    ctx = installation.context

    def propose(route: str, model: str, *rivals: str) -> list[str]:
        request = ProposalRequest(
            route, f"sim/{model}", "cheaper", rivals=tuple(f"sim/{rival}" for rival in rivals)
        )
        return [made.id for made in submission.create_selection(ctx, ANA, request)]

    made = {
        "slices": propose("by-slice", "better")[0],
        "failing-slice": propose("in-danish", "no-danish")[0],
        "clusters": propose("by-document", "better")[0],
        "weighted": propose("weighted", "better")[0],
        "either": propose("either", "better")[0],
    }
    worse, best, good = propose("several", "worse", "better", "good")
    for _ in range(TURNS):
        reconciler.reconcile(ctx)
        clock.advance(20)
    return made | {"several": best, "several-worse": worse, "several-good": good}
