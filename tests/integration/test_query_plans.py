"""No list, page, verb or control turn reads a growing table whole: the database says by its
plans.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click
import pytest

from dashboard.data import queries
from dashboard.data import sessions as session_pages
from harness.api.app import PREFIX
from harness.cli.program import program
from harness.control.operations.queries import list_route_status
from harness.control.operations.spending_report import load_report
from harness.control.privacy.archive import list_archived_files
from harness.control.routing.traffic_report import load_traffic_report
from harness.domain.evals.run import RunState
from harness.domain.operations.archive import ARCHIVED
from harness.domain.operations.audit import AuditFilter
from harness.ports import Listings, Transaction
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.management_api import Door
from tests.support.store.query_plans import recorded, whole_scans

# Pattern of a statement → why it may read all rows.
EXCEPTIONS: Final = {
    r"LIKE '%'": "a search for part of a word, which somebody typed",
    r"AS \"table\", route_version\.signature": "the manifest signs all rows that are served",
    r"role IS NULL AND api_key\.revoked_at IS NOT NULL$": "and all keys that were revoked",
    r"route_version\.version = \(SELECT max": "the newest version of every route",
    r"GROUP BY proposal\.phase$": "how many there are of each, counted in an index",
    r"FROM api_key$": "the audit of what is served compares every key",
    r"FROM switch$": "the audit of what is served compares every switch",
    # It ends at the page's last row: hardly any kind is unknown here.
    r"alert\.kind IN \([?, ]+\) ORDER BY alert\.last_seen DESC, alert\.id\s+LIMIT": "a page of "
    "alerts in their index's order, without those of a newer version",
}


@pytest.fixture
def cli(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        yield made


def live_through(world: SmallInstallation) -> str:
    """A proposal, its evals, canary and promotion, with the control loop's turns."""
    made = world.until_decided(world.propose("sim/better").id)
    for _ in range(12):
        world.feed()
        world.run_once()
    return made.id


def list_verbs() -> list[tuple[str, ...]]:
    """The commands that list something, of those that need no argument."""
    ctx = click.Context(program)
    groups = {noun: program.get_command(ctx, noun) for noun in program.list_commands(ctx)}
    return [
        (noun, "list")
        for noun, group in groups.items()
        if isinstance(group, click.Group)
        and (verb := group.get_command(ctx, "list")) is not None
        and not any(parameter.required for parameter in verb.params)
    ]


def ask_api(door: Door, known: dict[str, str]) -> list[str]:
    """Asks every GET of the API whose parameters are known; returns their paths."""
    asked = []
    for path, operations in door.document["paths"].items():
        below = path.removeprefix(PREFIX)
        for name, value in known.items():
            below = below.replace(f"{{{name}}}", value)
        if "get" in operations and path.startswith(PREFIX) and "{" not in below:
            assert door.send("GET", below).status_code < 500, below
            asked.append(below)
    return asked


def ask_lists(stored: Listings, since: Any) -> None:
    """Every list with each of its filters."""
    stored.proposals(route="chat")
    stored.proposals(open_only=True)
    stored.proposals(decided_only=True)
    stored.runs(states=[RunState.DONE])
    stored.shadows(route="chat")
    stored.freezes(route="chat")
    stored.drift_checks(target="t", suites=["colours"])
    stored.alerts(open_only=True)
    stored.alerts(search="chat")
    stored.failovers(since=since, route="chat", user_hashes=["h"])
    stored.failover_counts(since=since, route="chat")
    stored.captures(route="chat")
    stored.events(selection=AuditFilter(since=since, until=since))
    stored.agents(owner_key="k")
    stored.agents(owner_key="")
    stored.sessions()
    stored.sessions(agent="a")
    stored.sessions(user_id="u")
    stored.sessions(parent="s")
    stored.sessions(parent="")
    stored.session_messages(session="s")
    stored.model_usage(sessions=["s"])
    stored.switch_requests(pending_only=True)
    stored.switch_requests(session="s")
    stored.agent_grants(agent="a")


def ask_store(tx: Transaction, since: Any) -> None:
    """What decisions, metrics and routers ask."""
    tx.proposals.phases()
    tx.proposals.list(open_only=True, project="payments")
    tx.drift.open_watches(project="payments")
    tx.drift.is_checking("r")
    tx.proposals.of_pair("chat", "a", "b")
    tx.proposals.of_candidates(["a"])
    tx.proposals.let_in("chat")
    tx.verdicts.list()
    tx.rollouts.list()
    tx.rollouts.list(route="chat")
    tx.rollouts.baking()
    tx.rollouts.live()
    tx.verdicts.list(route="chat")
    tx.rollouts.list(candidate="a")
    tx.alerts.unsettled()
    tx.deliveries.due(since)
    tx.observations.totals(since=since)
    tx.observations.traffic(since=since)
    tx.observations.traffic_points(since=since)
    tx.observations.traffic_points(since=since, project="payments")
    tx.observations.spends(since=since.date())
    tx.runs.of_targets(["a"])
    tx.keys.of_principal("p")
    tx.switches.not_lifted()
    tx.dashboard_sessions.open_at(since)
    tx.dashboard_sessions.forget(since - timedelta(days=9999))
    tx.alerts.forget(since - timedelta(days=9999))
    tx.routing.last_swap("chat")
    for table in ARCHIVED:
        tx.archive.delete(table, tx.archive.oldest(table, since, limit=1))


@pytest.mark.req("F5")
def test_no_list_page_verb_or_control_turn_reads_a_growing_table_whole(
    cli: CommandLine,
) -> None:
    world = cli.world
    now = world.clock.now()
    with recorded() as statements:
        proposal = live_through(world)
        asked = ask_api(Door(world), {"proposal": proposal, "route": "chat"})
        verbs = [*list_verbs(), ("status",)]
        for words in verbs:
            cli.run(*words)
        ctx = world.context()
        queries.proposals(ctx)
        queries.comparison(ctx, proposal)
        queries.route(ctx, "chat")
        queries.canary_routes(ctx)
        queries.canary(ctx, "chat")
        queries.measured_of(ctx, list_route_status(ctx))
        load_traffic_report(ctx, timedelta(days=7))
        load_report(ctx)
        list_archived_files(ctx)
        session_pages.list_sessions(ctx)
        with world.store.listings() as stored:
            ask_lists(stored, now)
        with world.store.write() as tx:
            ask_store(tx, now)

    assert len(asked) > 25
    assert len(verbs) > 8
    assert len(statements) > 150
    scans = whole_scans(str(cli.folder / ".swapgate/swapgate.db"), statements)
    left = [scan for scan in scans if not any(re.search(part, scan) for part in EXCEPTIONS)]
    assert not left, "\n\n".join(left)
    unused = [p for p in EXCEPTIONS if not any(re.search(p, scan) for scan in scans)]
    assert not unused, unused
