"""What a project's people are told of money, alerts and the audit log is their own, in each
role.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness.control.operations import alerts, dashboard_sessions
from harness.control.operations.spending_report import load_report
from harness.domain.operations.alerts import AlertKind
from tests.integration.test_api_access import ROLES
from tests.support.control.control_plane import SECRET
from tests.support.site.management_api import error_of
from tests.support.site.two_projects import CLIENTS_USD, OURS, THEIRS, Site, two_projects

pytestmark = pytest.mark.req("G3")

CAP_USD = 987.0
OF_NONE = "provider sim"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = two_projects(tmp_path_factory.mktemp("world"))
    ctx = made.door.app.state.installation.context
    made.door.post(f"/routes/{OURS}::chat/drift/run", {})
    for _ in range(3):
        made.door.world.run_once()
    with ctx.store.write() as tx:
        tx.spending.set_cap(CAP_USD, ctx.clock.now())
        kind, words = AlertKind.QUOTA, "no money"
        alerts.raise_alert(ctx, tx, kind, OF_NONE, subject=OF_NONE, title=words, text=words)
    for project in (OURS, THEIRS):
        key = made.door.keys[f"{project}/viewer"]
        dashboard_sessions.open_with_key(ctx, key, secret=SECRET, lasts=timedelta(hours=1))
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


def pages(site: Site, role: str, path: str, limit: int) -> Iterator[list[dict[str, Any]]]:
    after: dict[str, Any] = {}
    while True:
        params = {"limit": limit, **after}
        answer = site.door.send("GET", path, role=role, params=params)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        yield found["items"]
        if found["next"] is None:
            return
        after = {"after": found["next"]}


def rows(site: Site, role: str, path: str, limit: int = 4) -> list[dict[str, Any]]:
    """All rows of a list, read page by page: each page but the last is full."""
    *full, last = pages(site, role, path, limit)
    assert all(len(page) == limit for page in full)
    assert 0 < len(last) <= limit
    return [row for page in [*full, last] for row in page]


@pytest.mark.parametrize("role", ROLES)
def test_alerts_are_about_the_projects_own_things(role: str, site: Site) -> None:
    ours = rows(site, f"{OURS}/{role}", "/alerts", limit=2)
    whole = rows(site, role, "/alerts", limit=2)

    route, key = f"{OURS}::chat", site.names[OURS]["key"]
    assert {row["subject"] for row in ours} == {
        f"route {route}",
        f"route {route}, suite colours",
        f"key {key}",
    }
    assert ours == [row for row in whole if OURS in row["title"]]
    assert OF_NONE in {row["subject"] for row in whole}
    found = site.door.send("GET", "/alerts?search=search&open=true", role=f"{OURS}/{role}")
    assert found.json()["total"] == 0


@pytest.mark.parametrize("role", ROLES)
def test_the_audit_log_has_what_was_done_to_the_projects_things_and_by_its_people(
    role: str, site: Site
) -> None:
    ours = rows(site, f"{OURS}/{role}", "/audit")
    whole = rows(site, "admin", "/audit", limit=200)

    numbers = [event["number"] for event in ours]
    assert numbers == sorted(set(numbers), reverse=True)
    for name in (OURS, THEIRS):
        named = {event["number"] for event in whole if is_about(site.names[name], event)}
        assert len(named) > 10
        assert named <= set(numbers) if name == OURS else not named & set(numbers)
    kinds = {event["subject"].rpartition(" ")[0] for event in ours}
    assert kinds >= {"route", "proposal", "key", "switch", "shadow", "session", "drift watch"}
    assert THEIRS not in str(ours)
    # Of no project: models, providers, the cap, and who runs the installation.
    others = {event["subject"].partition(" ")[0] for event in whole} - {"route"}
    assert {"target", "provider"} <= others
    assert not {e["subject"].partition(" ")[0] for e in ours} & {"target", "provider"}


def is_about(names: dict[str, str], event: dict[str, Any]) -> bool:
    """Whether the event names one of the project's things."""
    said = str([event["subject"], event["details"]])
    made_up = ("session", "request", "grant")
    return any(id_ in said for name, id_ in names.items() if name not in made_up)


def test_a_filter_finds_among_ones_own_events_alone(site: Site) -> None:
    for text in (f"{THEIRS}::chat", site.names[THEIRS]["proposal"], "provider"):
        params = {"subject": text}
        answer = site.door.send("GET", "/audit", role=f"{OURS}/admin", params=params)
        assert answer.json()["total"] == 0, text
    mine = site.door.send("GET", f"/audit?subject={OURS}::chat", role=f"{OURS}/admin").json()
    assert {event["subject"] for event in mine["items"]} == {f"route {OURS}::chat"}


def test_the_chain_is_checked_by_who_runs_the_installation(site: Site) -> None:
    error_of(site.door.send("GET", "/audit/verify", role=f"{OURS}/admin"), 403)
    error_of(site.door.send("POST", "/alerts/test", role=f"{OURS}/admin"), 403)
    assert site.door.send("GET", "/audit/verify", role="viewer").json()["whole"]
