import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from streamlit.testing.v1 import AppTest

from dashboard import current_user
from harness.agents import switches
from harness.agents.records import AgentGrants
from harness.app.installation import CONFIG_VARIABLE
from harness.evals.records import Drift
from harness.frame.alerts.records import Alerts, Deliveries
from harness.frame.people.access import OPERATOR, SYSTEM
from harness.frame.people.records import ApiKeys, DashboardSessions
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import AuditFilter
from harness.gate.run import RunState
from harness.interfaces.cli.program import program
from harness.operations import dashboard_sessions, keys
from harness.operations.listings import Listings
from harness.operations.records import Captures
from harness.routing.control import routes
from harness.routing.proposal import ProposalPhase
from harness.routing.records.interventions import Switches
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.contract.test_store_observations import ONE
from tests.integration.test_api_access import EMERGENCY, WRITES, reads
from tests.integration.test_cli_verbs import PROCESSES, leaves
from tests.support.browser.dashboard_data import ANA
from tests.support.control.known_secrets import SECRET
from tests.support.control.waiting_switch import waiting_switch
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.management_api import Door
from tests.support.store.query_plans import recorded, whole_scans
from tests.unit.test_dashboard_page_states import forget, pages

MAIN: Final = Path(current_user.__file__).with_name("main.py")
# Of the banner that stands where a part of a page cannot be drawn.
FAILURE: Final = 'class="sg sg-banner worse" role="alert"><p><b>✕'
# By command the words after it.
READING: Final = {
    **dict.fromkeys(
        (
            "agent grants",
            "agent requests",
            "alert list",
            "audit tail",
            "audit verify",
            "canary status",
            "capture list",
            "db check",
            "drift status",
            "eval list",
            "key list",
            "model list",
            "person list",
            "person sessions",
            "proposal list",
            "provider key list",
            "provider list",
            "provider matrix",
            "route break-glass list",
            "route failovers",
            "route list",
            "route measured",
            "route traffic",
            "spending",
            "status",
            "suite list",
            "switch list",
        ),
        "",
    ),
    "agent show": "{request}",
    "route candidates": "{route}",
    "audit export": "log.csv",
    "canary callers": "{route}",
    "canary explain": "{route}",
    "canary plan": "{route}",
    "canary who": "user-1",
    "capture export": "captured.jsonl",
    "capture show": "{capture}",
    "eval show": "{run}",
    "gate replay": "{proposal}",
    "model match": "base",
    "model resolve": "sim/base",
    "proposal report": "{proposal}",
    "proof export": "{proposal}",
    "proposal show": "{proposal}",
    "provider show": "sim",
    "route diff": "{route}",
    "route fallback list": "{route}",
    "route fallback spares": "{route}",
    "route history": "{route}",
    "route show": "{route}",
    "shadow status": "{route}",
}
# They change something, or read no database.
NOT_READING: Final = frozenset(
    {
        *(f"agent {verb}" for verb in ("approve", "reject", "revoke")),
        "alert test",
        "proposal confirm-same-model",
        "init",
        "doctor",
        "user delete",
        "capture purge",
        *(f"canary {verb}" for verb in ("abort", "advance", "decide", "finish")),
        *(f"canary {verb}" for verb in ("pause", "promote", "resume")),
        "config apply",
        "config schema",
        "config show",
        "docs list",
        "docs open",
        *(f"db {verb}" for verb in ("accept-restore", "grant", "retire-key")),
        "db rotate-key",
        "db remove-forged",
        "db upgrade",
        "drift accept",
        "drift run",
        "eval cancel",
        "eval run",
        "gate decide",
        "label",
        "try",
        *(
            f"key {verb}"
            for verb in (
                "create",
                "limits",
                "opt-outs",
                "revoke",
                "sign-in-link",
            )
        ),
        "model add",
        "model discover",
        "model price",
        "model probe",
        "model search",
        *(f"person {verb}" for verb in ("link", "separate", "sign-out")),
        *(
            f"proposal {verb}"
            for verb in (
                "accept-cost",
                "approve",
                "cancel",
                "create",
                "reject",
                "retry",
            )
        ),
        *(f"provider {verb}" for verb in ("add", "remove", "set")),
        *(f"provider key {verb}" for verb in ("import", "login", "logout", "remove")),
        "provider key rotate-encryption",
        "provider key set",
        *(f"route break-glass {verb}" for verb in ("confirm", "end", "propose")),
        *(f"route fallback {verb}" for verb in ("add", "mark", "order", "remove")),
        *(f"route {verb}" for verb in ("create", "rollback", "settings")),
        "shadow start",
        "shadow stop",
        "suite import",
        "switch lift",
        "switch throw",
    }
)
# By page the addresses that are asked beside the page's own.
ADDRESSES: Final[Mapping[str, tuple[dict[str, str], ...]]] = {
    "compare": ({"id": "{proposal}"},),
    "proposals": ({"route": "{route}"},),
    "canary": ({"route": "{route}"},),
    "routes": ({"route": "{route}"},),
    "traffic": ({"route": "{route}"},),
    "sessions": ({"session": "{agent_session}"},),
    "audit": ({"actor": "ann"},),
}


def ask_api(door: Door, names: Mapping[str, str]) -> list[str]:
    """Asks each endpoint; returns the failed answers."""
    bad = []
    for verb in (*(f"GET {path}" for path in reads(door, names)), *WRITES):
        method, path = verb.split()
        body, _ = WRITES.get(verb, (None, ""))
        answer = door.send(method, path.format(**names), json=body)
        good = (200,) if method == "GET" else (200, 201, 204, 403, 404, 409, 422, 502)
        if answer.status_code not in good:
            bad.append(f"{verb}: {answer.text}")
    return bad


def ask_pages(names: Mapping[str, str]) -> list[str]:
    app = AppTest.from_file(str(MAIN), default_timeout=300)
    bad = []
    for view in pages():
        for address in ({}, *ADDRESSES.get(view, ())):
            app.query_params.clear()
            for key, value in address.items():
                app.query_params[key] = value.format(**names)
            app.switch_page(f"views/{view}.py").run()
            if view in ("canary", "routes") and address:
                # AppTest does not bind a widget to the address.
                app.selectbox(key="route").select(names["route"]).run()
            shown = " ".join(str(element.proto.body) for element in app.get("html"))
            if app.exception or FAILURE in shown:
                bad.append(f"{view} {address}: {app.exception or shown}")
    return bad


def ask_cli(names: Mapping[str, str]) -> list[str]:
    """Runs each command that reads the installation; returns those that fail."""
    assert leaves(program) - PROCESSES == READING.keys() | NOT_READING
    bad = []
    for verb, words in READING.items():
        given = [*verb.split(), *words.format(**names).split()]
        done = CliRunner().invoke(program, given, prog_name="swapproof")
        if done.exit_code:
            bad.append(f"{verb}: {done.output}")
    return bad


# Pattern of a statement → on which databases, and why it may read all rows.
BOTH: Final = ("sqlite", "postgresql")
EXCEPTIONS: Final = {
    r"LIKE '%'": (
        ("sqlite",),
        "a search for part of a word, which somebody typed",
    ),
    r"SELECT DISTINCT (captured|failover|kept_piece)\.user_hash": (
        BOTH,
        "the deletion of a user finds marks of several names in their index alone",
    ),
    r"AS \"table\", count\(\*\) AS rows, \w+\(coalesce\(newest\.signature": (
        BOTH,
        "the manifest signs all rows that are served",
    ),
    r"role IS NULL AND api_key\.revoked_at IS NOT NULL$": (
        BOTH,
        "and all keys that were revoked",
    ),
    r"WITH RECURSIVE route_name": (
        ("sqlite",),
        "from each route's name to the next, by the index: an entry of each route",
    ),
    r"GROUP BY proposal\.phase$": (
        BOTH,
        "how many there are of each, counted in an index",
    ),
    r"captured\.shadow IS NULL ORDER BY captured\.at DESC, captured\.id$": (
        BOTH,
        "an export writes all sampled requests",
    ),
    r"DELETE FROM captured RETURNING": (
        BOTH,
        "all captured requests are deleted",
    ),
    r"SELECT api_key\.id, api_key\.name FROM api_key": (
        BOTH,
        "a new key's name is compared with all in force as folded names, which no index has",
    ),
    r"alert\.title ILIKE": (
        ("postgresql",),
        "a person searches the texts of alerts",
    ),
}


@pytest.fixture
def cli(
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    with installed(tmp_path, database_url, monkeypatch) as made:
        monkeypatch.setenv(CONFIG_VARIABLE, str(made.folder / "swapproof.yaml"))
        monkeypatch.setattr(current_user, "signed_in", lambda: ANA)
        monkeypatch.setattr(current_user, "may_read_content", lambda: True)
        forget()
        yield made
        forget()


def live_through(cli: CommandLine, door: Door) -> dict[str, str]:
    """One route with a promotion, one with a live canary; returns their names."""
    world = cli.world
    ctx = world.context()
    made = world.decided("sim/better")
    for _ in range(40):
        world.feed()
        world.run_once()
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create_route(ctx, SYSTEM, "mail", "sim/base", settings=settings)
    opened = world.decided(route="mail")
    assert opened.phase is ProposalPhase.CANARY
    shadow = {
        "candidate": "sim/worse",
        "reason": "a look",
        "usd_per_day": None,
    }
    for route in ("chat", "mail"):
        door.post(f"/shadows/{route}/start", shadow)
    switch = door.post("/switches", {"force": "provider:sim", "reason": "a drill"})
    glass = door.post("/break-glass", EMERGENCY, role="approver")
    now = world.clock.now()
    door.post(
        "/switches",
        {
            "force": "freeze",
            "reason": "a launch",
            "for_s": 3600,
        },
    )
    captured = replace(ONE, at=now, expires_at=now + timedelta(days=1))
    with world.store.write() as tx:
        Captures(tx).store(captured, most_per_day=5)
    asked = waiting_switch(ctx)
    waiting = waiting_switch(ctx)
    approved = switches.approve_switch(ctx, SYSTEM, asked.id)
    with ctx.store.read() as tx:
        (grant,) = AgentGrants(tx).not_revoked(agent=approved.agent)
    link = dashboard_sessions.create_link(ctx, OPERATOR, secret=SECRET)[1]
    lasts = timedelta(hours=1)
    session = dashboard_sessions.open_link(
        ctx,
        link,
        secret=SECRET,
        lasts=lasts,
    )[0].session
    labelling = door.post(f"/proposals/{made.id}/labellings", {"people": ["ann", "ada"]})
    door.post(f"/labellings/{labelling['id']}/next", {}, role="proposer")
    return {
        "labelling": labelling["id"],
        "route": "mail",
        "proposal": made.id,
        "verdict": str(made.verdict),
        "run": made.runs["colours"].candidate,
        "key": keys.create_key(ctx, SYSTEM, "old", secret=SECRET)[0].id,
        "switch": switch["id"],
        "glass": glass["id"],
        "capture": captured.id,
        "request": waiting.id,
        "agent_session": waiting.session,
        "grant": grant.id,
        "session": session.id,
    }


def ask_lists(stored: Listings, since: Any) -> None:
    stored.proposals(route="chat")
    stored.proposals(open_only=True)
    stored.proposals(decided_only=True)
    stored.runs(states=[RunState.DONE])
    stored.shadows(route="chat")
    stored.switches(route="chat")
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
    stored.switch_requests(pending_at=since)
    stored.switch_requests(session="s")
    stored.agent_grants(agent="a")


def ask_store(tx: Transaction, since: Any) -> None:
    Proposals(tx).phases()
    Proposals(tx).list(open_only=True)
    Drift(tx).open_watches()
    Drift(tx).is_checking("r")
    Proposals(tx).of_pair("chat", "a", "b")
    Proposals(tx).of_candidates(["a"])
    Proposals(tx).approved_or_started("chat")
    Verdicts(tx).list()
    Rollouts(tx).list()
    Rollouts(tx).list(route="chat")
    Rollouts(tx).baking()
    Rollouts(tx).live()
    Verdicts(tx).list(route="chat")
    Rollouts(tx).list(candidate="a")
    Alerts(tx).unsettled()
    Deliveries(tx).due(since)
    Observations(tx).totals(since=since)
    Observations(tx).totals(since=since, route="chat")
    Observations(tx).traffic(since=since)
    Observations(tx).last_traffic("chat")
    Observations(tx).traffic_points(since=since)
    day = since.replace(hour=0, minute=0, second=0)
    Observations(tx).traffic_points(since=day, step=timedelta(hours=2))
    Observations(tx).traffic_points(since=day, step=timedelta(days=1))
    Observations(tx).latencies(since=since)
    Observations(tx).forget_traffic(since - timedelta(days=9999))
    Observations(tx).spends(since=since.date())
    EvalRuns(tx).of_targets(["a"])
    EvalRuns(tx).newest_of_targets(["a", "b"], [*RunState])
    for run in EvalRuns(tx).list()[:1]:
        list(EvalRuns(tx).of_suite(run.target, run.suite, run.suite_digest))
    EvalRuns(tx).unfinished("f")
    ApiKeys(tx).of_principal("p")
    Switches(tx).not_lifted()
    DashboardSessions(tx).open_at(since)
    DashboardSessions(tx).forget(since - timedelta(days=9999))
    Alerts(tx).forget(since - timedelta(days=9999))
    Routing(tx).names()


@pytest.mark.req("F5")
@pytest.mark.both_databases
def test_no_endpoint_page_command_or_control_turn_reads_a_growing_table_whole(
    cli: CommandLine, database_url: str
) -> None:
    world = cli.world
    with recorded() as statements:
        door = Door(world)
        names = live_through(cli, door)
        refused = [
            *ask_pages(names),
            *ask_cli(names),
            *ask_api(door, names),
        ]
        now = world.clock.now()
        with world.store.listings() as stored:
            ask_lists(stored, now)
        with world.store.write() as tx:
            ask_store(tx, now)

    assert len(statements) > 300
    kind = database_url.partition(":")[0]
    if kind == "sqlite":
        database_url = f"sqlite:///{cli.folder / '.swapproof/swapproof.db'}"
    scans = whole_scans(database_url, statements)
    allowed = [pattern for pattern, (on, _) in EXCEPTIONS.items() if kind.startswith(on)]
    left = [scan for scan in scans if not any(re.search(part, scan) for part in allowed)]
    assert not refused, "\n\n".join(refused)
    assert not left, "\n\n".join(left)
    unused = [part for part in allowed if not any(re.search(part, scan) for scan in scans)]
    assert not unused, unused
