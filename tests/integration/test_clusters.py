import json
from dataclasses import replace

import pytest

from harness.control.evals.recomputation import replay_verdict
from harness.control.proposals import estimate
from harness.control.proposals.submission import ProposalRequest
from harness.domain.evals.verdict import Passed
from tests.support.control.control_plane import ITEMS, SmallInstallation

pytestmark = pytest.mark.req("F2", "A7", "F5")
SIZE = 2


def group_items(world: SmallInstallation) -> None:
    """Two questions on each document."""
    settings = world.suites["colours"]
    assert settings.path is not None
    lines = [json.loads(line) for line in settings.path.read_text().splitlines()]
    grouped = [
        {**line, "metadata": {"document": f"d{n // SIZE}"}} for n, line in enumerate(lines)
    ]
    settings.path.write_text("\n".join(map(json.dumps, grouped)), encoding="utf-8")
    world.suites["colours"] = replace(settings, cluster="document")


def test_a_suite_of_documents_is_planned_run_and_judged_by_document(
    world: SmallInstallation,
) -> None:
    group_items(world)

    decided = world.decided("sim/better")

    (plan,) = decided.plans
    assert (plan.cluster, plan.n_max, plan.planned_items) == ("document", ITEMS // SIZE, ITEMS)
    with world.store.read() as tx:
        verdict = tx.verdicts.get(decided.verdict or "")
        run = tx.runs.get(decided.runs["colours"].candidate)
    assert isinstance(verdict, Passed)
    assert run.wanted == ITEMS
    report = verdict.suites[0]
    assert report.n_used <= report.n_max == ITEMS // SIZE
    assert report.figures.items == SIZE * report.n_used
    assert "clusters" in report.used_text
    replayed = replay_verdict(world.context(), verdict.id)
    assert (replayed.agrees, replayed.items) == (True, {"colours": SIZE * report.n_used})


def test_the_estimate_of_such_a_suite_counts_clusters_and_prices_items(
    world: SmallInstallation,
) -> None:
    group_items(world)
    world.decided("sim/better")

    (found,) = estimate.estimate_proposal(world.context(), ProposalRequest("chat", "sim/good"))

    assert found.plan.n_max == ITEMS // SIZE
    assert f"With {ITEMS // SIZE} clusters you can only see differences of" in found.warning
    assert found.incumbent is not None
    assert found.cost_usd == pytest.approx(2 * ITEMS * (found.incumbent.cost_usd or 0.0))


def test_another_cluster_field_is_another_suite(world: SmallInstallation) -> None:
    first = world.decided("sim/equal")
    group_items(world)

    second = world.decided("sim/equal")

    assert first.plans[0].suite_digest != second.plans[0].suite_digest
    assert first.runs["colours"].incumbent != second.runs["colours"].incumbent
    # The same items under another pin are another look at them.
    assert (first.plans[0].look, second.plans[0].look) == (1, 2)
