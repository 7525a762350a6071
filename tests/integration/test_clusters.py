import json
from dataclasses import replace

import pytest

from dashboard import plots
from evals.suites.items import Item
from harness.gate.suite_plan import Claim, ClaimPopulation
from harness.gate.verdict import Failed, Passed
from harness.proposals.candidates import estimate
from harness.proposals.recomputation import recompute_stored, replay_verdict
from harness.proposals.report.content import slice_rows
from harness.proposals.submission import ProposalRequest
from harness.providers.target import Target
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from tests.support.control.colours_suite import ITEMS, answer
from tests.support.control.control_plane import SmallInstallation

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
    assert (plan.cluster, plan.n_max, plan.planned_items) == (
        "document",
        ITEMS // SIZE,
        ITEMS,
    )
    with world.store.read() as tx:
        verdict = Verdicts(tx).get(decided.verdict or "")
        run = EvalRuns(tx).get(decided.runs["colours"].candidate)
    assert isinstance(verdict, Passed)
    assert run.wanted == ITEMS
    report = verdict.suites[0]
    assert report.n_used <= report.n_max == ITEMS // SIZE
    assert report.figures.items == SIZE * report.n_used
    assert "clusters" in report.used_text
    replayed = replay_verdict(world.context(), verdict.id)
    assert (replayed.agrees, replayed.items) == (
        True,
        {"colours": SIZE * report.n_used},
    )


def test_the_estimate_of_such_a_suite_counts_clusters_and_prices_items(
    world: SmallInstallation,
) -> None:
    group_items(world)
    world.decided("sim/better")

    (found,) = estimate.estimate_proposal(world.context(), ProposalRequest("chat", "sim/good"))

    assert found.plan.n_max == ITEMS // SIZE
    assert (
        f"With {ITEMS // SIZE} clusters the gate can only show differences of" in found.warning
    )
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


def ask_about_these(world: SmallInstallation, n_max: int | None = None) -> None:
    gate = replace(
        world.policy.gate,
        population=ClaimPopulation.THESE,
        epochs=2,
        n_max=n_max,
    )
    world.policy = replace(world.policy, gate=gate)


def test_the_claim_is_registered_decides_and_is_replayed(world: SmallInstallation) -> None:
    ask_about_these(world)

    decided = world.decided("sim/better")

    (plan,) = decided.plans
    assert (plan.population, plan.suite_items) == (
        ClaimPopulation.THESE,
        ITEMS,
    )
    with world.store.read() as tx:
        verdict = Verdicts(tx).get(decided.verdict or "")
    assert isinstance(verdict, Passed)
    assert replay_verdict(world.context(), verdict.id).agrees
    with world.store.read() as tx:
        assert recompute_stored(world.context(), tx, verdict, decided).agrees


def test_a_run_budget_that_is_too_small_is_said_beforehand(world: SmallInstallation) -> None:
    ask_about_these(world, n_max=50)
    world.decided("sim/equal")
    request = ProposalRequest("chat", "sim/good")
    (free,) = estimate.estimate_proposal(world.context(), request)
    assert free.incumbent is not None
    assert free.incumbent.cost_usd is not None

    gate = replace(world.policy.gate, max_cost_usd=60 * free.incumbent.cost_usd)
    world.policy = replace(world.policy, gate=gate)
    (capped,) = estimate.estimate_proposal(world.context(), request)

    assert "max_cost_usd" not in free.warning
    assert "The incumbent's run of 100 answers costs about" in capped.warning
    tokens = replace(world.policy.gate, max_cost_usd=None, max_tokens=100)
    world.policy = replace(world.policy, gate=tokens)
    (few,) = estimate.estimate_proposal(world.context(), request)
    assert "`max_tokens` ends it at 100" in few.warning


ASKED = 240


def name_languages(world: SmallInstallation) -> None:
    """Every fourth of 240 items is Danish."""
    settings = world.suites["colours"]
    assert settings.path is not None
    lines = [
        {
            "id": f"colour-{n}",
            "input": f"Colour number {n}?",
            "target": f"c{n}",
            "metadata": {"language": "en" if n % 4 else "da"},
        }
        for n in range(ASKED)
    ]
    settings.path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    world.suites["colours"] = replace(settings, slices=("language",))


def no_danish(
    target: Target,
    item: Item,
    epoch: int,
) -> str:
    if target.model == "better" and item.metadata["language"] == "da":
        return "wrong"
    return answer(target, item, epoch)


def test_a_better_candidate_that_speaks_no_danish_fails(world: SmallInstallation) -> None:
    name_languages(world)
    world.script = no_danish

    decided = world.decided("sim/better")

    with world.store.read() as tx:
        verdict = Verdicts(tx).get(decided.verdict or "")
    assert isinstance(verdict, Failed)
    assert "worse in a slice, at any mean: language = da" in verdict.reason
    (report,) = verdict.suites
    assert report.delta > 0
    assert replay_verdict(world.context(), verdict.id).agrees
    charts = plots.slice_frames(report)
    assert list(charts) == ["language"]
    assert set(charts["language"]["outcome"]) == {"worse", "kept"}
    shown = {row[1]: row[2] for row in slice_rows(verdict)}
    assert shown == {
        "language = da": "worse",
        "language = en": "not shown worse",
    }


def test_the_estimate_says_which_loss_of_a_slice_is_seen(world: SmallInstallation) -> None:
    name_languages(world)

    (found,) = estimate.estimate_proposal(
        world.context(), ProposalRequest("chat", "sim/better")
    )

    assert {guarded.name: guarded.units for guarded in found.slices} == {
        "language = en": 180,
        "language = da": 60,
    }
    assert found.promotion_from > 200
    texts = " ".join(found.texts)
    assert "slice language = da: the gate detects a loss of" in texts
    assert f"no promotion before item {found.promotion_from}, due to the slices" in texts

    gate = replace(world.policy.gate, claim=Claim.NON_INFERIOR, margin=0.07)
    world.policy = replace(world.policy, gate=gate)
    (allowing,) = estimate.estimate_proposal(
        world.context(), ProposalRequest("chat", "sim/better")
    )
    pairs = zip(allowing.slices, found.slices, strict=True)
    assert [more.sees - fewer.sees for more, fewer in pairs] == pytest.approx(
        [0.07, 0.07], abs=0.005
    )
