"""Every read that people make: each GET of the management API, what each page of the dashboard
loads, and the command line's verbs that list or show something.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from typing import Any, Final
from uuid import uuid4

import click
import httpx
import sqlalchemy as sa
from click.testing import CliRunner

from benchmarks.scale.house import House
from dashboard.data import policies
from dashboard.data import queries as pages
from dashboard.data import sessions as session_pages
from dashboard.data import suites as suite_pages
from harness.api.app import PREFIX, build_app
from harness.app.installation import Installation
from harness.cli.program import program
from harness.control.canary import status
from harness.control.context import Context
from harness.control.operations import keys, queries, spending_report
from harness.control.providers import checks, matrix
from harness.control.routing import kill_switch, seed, traffic_report
from harness.control.routing.queries import load_overview, load_statuses
from harness.control.routing.route_status import RouteStatus
from harness.domain.operations.access import SYSTEM, Role
from harness.domain.operations.audit import AuditFilter
from harness.domain.pagination import MOST_LISTED, Page, PageRequest
from harness.store.schema import metadata

TABLES: Final = metadata.tables
# As many as the page Overview shows of many routes.
CARDS: Final = 12
LINES: Final = 50
# What reads all there is by its purpose, and does not claim to be quick.
WHOLE: Final = frozenset({"/audit/verify", "/check"})


@dataclass(frozen=True)
class Read:
    """A read, named as people know it."""

    door: str  # api, dashboard, cli
    name: str
    run: Callable[[], object]


@dataclass(frozen=True)
class Known:
    """Ids of the newest rows, which reads by name ask for."""

    route: str
    proposal: str
    rejected: str
    verdict: str
    run: str
    capture: str
    target: str

    def parameters(self) -> dict[str, str]:
        return {
            "route": self.route,
            "proposal": self.proposal,
            "verdict": self.verdict,
            "run": self.run,
            "capture": self.capture,
            "model": self.target,
            "provider": "sim",
        }


def find_known(house: House) -> Known:
    """Finds the newest proposal of a route with a live canary, and what belongs to it."""
    proposal, captured = TABLES["proposal"], TABLES["captured"]
    engine = sa.create_engine(house.url)
    with engine.connect() as db:
        of_route = sa.select(proposal).where(proposal.c.route == "route-0000")
        newest, before = db.execute(
            of_route.order_by(proposal.c.created_at.desc()).limit(2)
        ).all()
        capture = db.execute(sa.select(captured.c.id).limit(1)).scalar_one()
    engine.dispose()
    run = newest.runs["colours"]["candidate"]
    return Known(
        newest.route, newest.id, before.id, newest.verdict, run, capture, newest.candidate
    )


def list_reads(installation: Installation, house: House) -> Iterator[Read]:
    known = find_known(house)
    yield from _api(installation, known)
    yield from _dashboard(installation, known)
    yield from _cli(house, known)


def _api(installation: Installation, known: Known) -> Iterator[Read]:
    app = build_app(installation)
    text = keys.create_key(
        installation.context,
        SYSTEM,
        f"benchmark {uuid4()}",
        secret=installation.secret,
        role=Role.ADMIN,
    )[1]

    def get(path: str) -> Callable[[], object]:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
                return await http.get(
                    PREFIX + path, headers={"authorization": f"Bearer {text}"}, timeout=900
                )

        def run() -> None:
            answer = asyncio.run(call())
            # Without its parameters, a path of a search is refused.
            if answer.status_code not in (200, 404, 409, 422):
                raise RuntimeError(f"{path}: {answer.text}")

        return run

    for path, operations in app.openapi()["paths"].items():
        below = path.removeprefix(PREFIX)
        for name, value in known.parameters().items():
            below = below.replace(f"{{{name}}}", value)
        if "get" in operations and path.startswith(PREFIX) and "{" not in below:
            yield Read("api", path.removeprefix(PREFIX), get(below))
    for below in (
        f"/proposals?route={known.route}",
        "/proposals?open=true",
        "/proposals?offset=2000",
        "/evals?state=done",
        f"/failovers?route={known.route}",
        "/failovers?since_s=2592000",
        f"/captures?route={known.route}",
        "/alerts?open=true",
        "/audit?since=2026-11-01T00:00:00Z",
    ):
        yield Read("api", below, get(below))


def _dashboard(installation: Installation, known: Known) -> Iterator[Read]:
    ctx = installation.context
    of_page: dict[str, Callable[[Context], object]] = {
        "overview: routes": _overview,
        "overview: scorecards": lambda c: pages.measured_of(c, _overview(c)[:CARDS]),
        "overview: alerts": lambda c: queries.list_alerts(c, open_only=True),
        "proposals": pages.proposals,
        "proposals: canaries": status.list_canaries,
        "compare": lambda c: pages.comparison(c, known.proposal),
        "canary": lambda c: pages.canary(c, known.route),
        "canary: routes": pages.canary_routes,
        "routes": lambda c: pages.route(c, known.route),
        "routes: switches": kill_switch.list_live_switches,
        "routes: differences": lambda c: seed.list_seed_differences(c, installation.settings),
        "traffic: a day": lambda c: traffic_report.load_traffic_report(
            c, timedelta(days=1), None
        ),
        "traffic: a week": lambda c: traffic_report.load_traffic_report(
            c, timedelta(days=7), None
        ),
        "traffic: a route": lambda c: traffic_report.load_traffic_report(
            c, timedelta(days=7), known.route
        ),
        "traffic: failovers": lambda c: queries.list_failovers(c, secret=installation.secret),
        "spending": spending_report.load_report,
        "keys": lambda c: queries.list_keys(c, PageRequest(MOST_LISTED)),
        "alerts": lambda c: queries.list_alerts(c, PageRequest(100)),
        "audit": lambda c: queries.list_audit_events(c, PageRequest(100)),
        "audit: by actor": lambda c: queries.list_audit_events(
            c, PageRequest(100), AuditFilter(actor="person 7")
        ),
        "policies": policies.list_policy_uses,
        "providers: checks": checks.load_checks,
        "providers: use": matrix.load_minute_use,
        "suites": suite_pages.load_suites,
        "sessions": session_pages.list_sessions,
    }
    for name, run in of_page.items():
        yield Read("dashboard", name, lambda run=run: run(ctx))  # type: ignore[misc]


def _overview(ctx: Context) -> Page[RouteStatus]:
    """Loads what Overview does, and returns the routes that it shows."""
    overview = load_overview(ctx)
    routes = pages.load_shown_routes(ctx, overview, CARDS)
    if isinstance(routes, Page):
        return routes
    return load_statuses(ctx, overview, overview.names[: CARDS + LINES])


def _cli(house: House, known: Known) -> Iterator[Read]:
    named = [
        ("status",),
        ("spending",),
        ("proposal", "show", known.proposal),
        ("proposal", "show", known.rejected),
        ("route", "show", known.route),
        ("canary", "status", known.route),
        ("eval", "show", known.run),
        ("traffic",),
    ]
    context = click.Context(program)

    def exists(words: tuple[str, ...]) -> bool:
        command: Any = program
        for word in words:
            found = (
                command.get_command(context, word) if isinstance(command, click.Group) else None
            )
            if found is None:
                return (
                    isinstance(command, click.Command)
                    and command is not program
                    and not (isinstance(command, click.Group))
                )
            command = found
        return not isinstance(command, click.Group)

    def run(words: tuple[str, ...]) -> Callable[[], object]:
        def call() -> None:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                done = CliRunner().invoke(program, ["--config", str(house.config), *words])
            if done.exit_code not in (0, 1):
                raise RuntimeError(f"{words}: {done.output}")

        return call

    for words in (*_list_verbs(context), *filter(exists, named)):
        yield Read("cli", " ".join(words), run(words))


def _list_verbs(context: click.Context) -> Iterator[tuple[str, str]]:
    """The commands that list something, of those that need no argument."""
    for noun in program.list_commands(context):
        group = program.get_command(context, noun)
        verb = group.get_command(context, "list") if isinstance(group, click.Group) else None
        if verb is not None and not any(parameter.required for parameter in verb.params):
            yield noun, "list"
