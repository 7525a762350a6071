"""What a project's people are told of money is their own, whatever their role."""

from dataclasses import replace
from typing import Any

import pytest

from harness.control.operations.spending_report import load_report
from tests.integration.test_api_access import ROLES
from tests.support.site.two_projects import CLIENTS_USD, OURS, THEIRS, Site, two_projects

pytestmark = pytest.mark.req("G3")

CAP_USD = 987.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = two_projects(tmp_path_factory.mktemp("world"))
    ctx = made.door.app.state.installation.context
    made.door.post(f"/routes/{OURS}::chat/drift/run", {})
    for _ in range(3):
        made.door.world.run_once()
    with ctx.store.write() as tx:
        tx.spending.set_cap(CAP_USD, ctx.clock.now())
    return made


def spending(site: Site, role: str) -> dict[str, Any]:
    answer = site.door.send("GET", "/spending", role=role)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def by_purpose(report: dict[str, Any]) -> dict[str, float]:
    return {row["purpose"]: row["spent_usd"] for row in report["purposes"]}


def cost_of_runs(site: Site, project: str) -> tuple[float, float]:
    """What the samples of the runs of the project's suites say that they cost: of evals, and of
    drift checks.
    """
    ctx = site.door.app.state.installation.context
    with ctx.store.listings(project) as stored:
        ids = {run.id for run in stored.runs()}
        checks = {check.run for _, check in stored.drift_checks()}

    def cost(runs: set[str]) -> float:
        with ctx.store.read() as tx:
            return sum(s.cost_usd or 0.0 for id_ in runs for s in tx.runs.samples(id_))

    return cost(ids - checks), cost(ids & checks)


@pytest.mark.parametrize("role", ROLES)
def test_a_project_is_told_what_its_own_things_cost_and_nothing_of_others(
    role: str, site: Site
) -> None:
    report, usd = spending(site, f"{OURS}/{role}"), CLIENTS_USD[OURS]

    assert report["project"] == OURS
    evals, drift = cost_of_runs(site, OURS)
    assert by_purpose(report) == {
        "evals": pytest.approx(evals),
        "judges": 0.0,
        "shadow": usd,
        "drift": pytest.approx(drift),
    }
    assert min(evals, drift) > 0
    assert report["clients"] == {"usd": usd, "unpriced": 0, "budget_usd": None}
    (canary,) = report["canaries"]
    assert (canary["route"], canary["usd"]) == (f"{OURS}::chat", pytest.approx(usd / 2))
    assert (report["cap_usd"], report["held_usd"], report["waiting"]) == (None, 0.0, [])
    assert THEIRS not in str(report)
    assert str(int(CAP_USD)) not in str(report)


def test_two_projects_are_told_two_sums(site: Site) -> None:
    ours, theirs = (by_purpose(spending(site, f"{name}/viewer")) for name in (OURS, THEIRS))
    assert theirs["shadow"] == CLIENTS_USD[THEIRS] != ours["shadow"]
    whole = spending(site, "viewer")
    assert (whole["project"], whole["clients"]) == ("default", None)
    assert whole["cap_usd"] == CAP_USD
    assert {row["route"] for row in whole["canaries"]} == {f"{OURS}::chat", f"{THEIRS}::chat"}


def test_the_words_are_of_the_project_alone(site: Site) -> None:
    ctx = replace(site.door.app.state.installation.context, project_budgets={OURS: 500.0})
    whole, ours = load_report(ctx), load_report(replace(ctx, project=OURS))

    assert whole.headline.endswith(f" of ${CAP_USD:.2f}")
    assert ours.headline.startswith(f"project {OURS}: ${ours.spent_usd:.2f} spent since")
    assert "cap" not in ours.headline
    facts = dict(ours.facts)
    assert "$1.25 of $500.00" in facts.values()
    assert "held by calls under way" not in facts
    assert THEIRS in str(whole.facts)
    assert THEIRS not in str(ours.facts)
