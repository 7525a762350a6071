"""`swapproof route`."""

from collections.abc import Mapping

import click

from harness.app import seed
from harness.canary import operations
from harness.canary.canary_state import describe_change
from harness.frame.formatting import (
    DASH,
    format_bps,
    format_latency,
    format_points,
    format_points_interval,
    format_score,
    format_usd,
)
from harness.frame.pagination import PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    PAGE,
    REASON,
    ROUTE,
    arg,
    command,
    opt,
    page_of,
    taken_from,
)
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.routing.fallback_chain import fallback
from harness.interfaces.cli.routing.holds import break_glass
from harness.interfaces.cli.routing.route_options import (
    NewRouteSuites,
    SettingsOptions,
    settings,
)
from harness.interfaces.cli.routing.traffic import (
    list_failovers,
    route_measured,
    route_traffic,
)
from harness.operations import queries, route_queries
from harness.operations.route_status import RouteStatus
from harness.proposals.candidates import candidate_rounds, spares
from harness.proposals.candidates.leaderboard import (
    Leaderboard,
    LeaderboardRow,
    load_leaderboard,
)
from harness.routing.control import routes
from harness.routing.reports import scorecard
from harness.routing.route_settings import RouteSettings
from harness.routing.table import Route


@click.group()
def route() -> None:
    """Routes: the names that clients use as `model`."""


for _command in (
    fallback,
    break_glass,
    route_traffic,
    settings,
    list_failovers,
    route_measured,
):
    route.add_command(_command)


@command(route, "list", example="swapproof route list")
def list_routes(session: Session, *, page_request: PageRequest = page_of(50)) -> None:
    """List the routes; routes that wait for a person come first."""
    statuses = route_queries.load_page(session.context, page_request)
    output.listing(
        statuses,
        lambda status: {
            "ROUTE": status.route.name,
            "STATE": status.state_text,
            "INCUMBENT": status.incumbent.name,
            "CANARY": _describe_canary(status),
            "OPEN PROPOSAL": _describe_proposal(status),
            "LAST VERDICT": status.last_verdict.words if status.last_verdict else None,
        },
        empty="no routes yet: `swapproof route create` creates one",
        as_document=lambda rows: [as_json(status) for status in rows],
    )
    for status in () if session.json else statuses:
        if (status.needs_decision or status.may_harm) and status.reason:
            output.note(f"{status.route.name}: {status.reason}")


def _describe_canary(status: RouteStatus) -> str | None:
    canary = status.route.canary
    if canary is None or status.candidate is None:
        return None
    return f"{status.candidate.name} {format_bps(canary.weight_bps)}"


def _describe_proposal(status: RouteStatus) -> str | None:
    proposal = status.open_proposal
    return f"{proposal.id} {proposal.phase_text}" if proposal else None


def as_json(status: RouteStatus) -> dict[str, object]:
    return {
        **output.pick(status, "route", "incumbent", "candidate"),
        "open_proposal": status.open_proposal.id if status.open_proposal else None,
        "last_verdict": status.last_verdict.outcome if status.last_verdict else None,
        "state": status.state.value,
        **output.pick(status, "state_text", "reason", "needs_decision"),
        "requests_last_hour": sum(minute.requests for minute in status.traffic),
    }


@command(
    route, example="swapproof route create support --incumbent openai/gpt-6-sol --suite tickets"
)
def create(
    session: Session,
    name: str,
    *,
    incumbent: str = opt("Id or PROVIDER/MODEL.", metavar="TARGET"),
    fallbacks: tuple[str, ...] = opt(
        "Fallback if the incumbent fails; may be repeated, in order.",
        "--fallback",
        metavar="TARGET",
    ),
    capable: tuple[str, ...] = opt(
        "Fallback that may answer on a route of high stakes.",
        metavar="TARGET",
    ),
    suites: NewRouteSuites = taken_from(NewRouteSuites),
    options: SettingsOptions = taken_from(SettingsOptions),
) -> None:
    """Create a route. Its first targets are its baseline; later targets need proof."""
    new_route = routes.create_route(
        session.context_with_providers,
        session.deciding_actor,
        name,
        incumbent,
        fallbacks=fallbacks,
        capable=capable,
        settings=options.apply_to(RouteSettings(), suites.apply_to()),
    )
    route_with_faults = candidate_rounds.add_schedule_faults(
        session.context_with_providers, new_route
    )
    text = f"route {new_route.name} is served by {_name_incumbent(session, new_route)}"
    output.answer(route_with_faults, text, advice="\n".join(route_with_faults.faults))


@command(route, example="swapproof route show support")
def show(session: Session, name: str = ROUTE) -> None:
    """Show a route: targets, settings, spares, open proposal and measured figures."""
    status = route_queries.load_status(session.context, name)
    figures = scorecard.build_scorecard(session.context, name)
    route_spares = spares.list_spares(session.context, name)
    if output.documented({**as_json(status), "spares": route_spares, "measured": figures}):
        return
    names = queries.load_target_names(session.context, status.route.targets)
    shown_route = status.route
    fields = routes.describe_fields(shown_route).items()
    output.facts(
        [
            ("route", shown_route.name),
            ("version", shown_route.version),
            ("state", status.line),
            *((field, _name_targets(text, names) or None) for field, text in fields),
            *(("spare", spare.text) for spare in route_spares),
            ("open proposal", _describe_proposal(status) or "none"),
            (
                "last verdict",
                status.last_verdict.words if status.last_verdict else "none",
            ),
            (
                "requests, last hour",
                f"{sum(m.requests for m in status.traffic):,}",
            ),
            *scorecard.list_facts(figures, timestamp),
        ]
    )


@command(route, example="swapproof route history support")
def history(
    session: Session,
    name: str = ROUTE,
    *,
    page_request: PageRequest = PAGE,
) -> None:
    """Show the route's versions, newest first."""
    records = queries.list_route_versions(session.context, name, page_request)
    names = queries.load_target_names(
        session.context, {record.route.incumbent for record in records}
    )
    output.listing(
        records,
        lambda record: {
            "VERSION": record.route.version,
            "REVISION": record.revision,
            "CHANGE": describe_change(record),
            "AT (UTC)": timestamp(record.at),
            "BY": record.actor,
            "INCUMBENT": names.get(record.route.incumbent, record.route.incumbent),
            "CANARY": format_bps(record.route.canary.weight_bps)
            if record.route.canary
            else None,
            "WHY": record.reason,
        },
        empty="no versions",
    )


@command(route, example="swapproof route diff support 1 2")
def diff(
    session: Session,
    name: str = ROUTE,
    older: int | None = arg("[V1]"),
    newer: int | None = arg("[V2]"),
) -> None:
    """Show changes from V1 to V2, and differences from `swapproof.yaml`.

    By default, V2 is the newest version, and V1 the version before V2.
    """
    context = session.context
    newer_record = queries.load_route_version(context, name, newer)
    version = older if older is not None else max(1, newer_record.route.version - 1)
    older_record = queries.load_route_version(context, name, version)
    differences = routes.describe_difference(older_record.route, newer_record.route)
    file_differences = [
        str(difference)
        for difference in seed.list_seed_differences(session.context, session.settings)
        if difference.subject == f"route {name}"
    ]
    if session.json:
        fields = {
            field: {"before": before, "after": after}
            for field, (before, after) in differences.items()
        }
        output.document(
            {
                "from": older_record.route.version,
                "to": newer_record.route.version,
                "changed": fields,
                "file": file_differences,
            }
        )
        return
    ids = {id_ for pair in differences.values() for text in pair for id_ in text.split(", ")}
    names = queries.load_target_names(context, ids)
    output.table(
        [
            "FIELD",
            f"VERSION {older_record.route.version}",
            f"VERSION {newer_record.route.version}",
        ],
        [
            [field, _name_targets(before, names), _name_targets(after, names)]
            for field, (before, after) in differences.items()
        ],
        empty=f"versions {older_record.route.version} and {newer_record.route.version} "
        "are the same",
    )
    for difference in file_differences:
        output.note(difference)


def _name_targets(text: str, names: Mapping[str, str]) -> str:
    return ", ".join(names.get(part, part) for part in text.split(", "))


@command(route, example='swapproof route rollback support --reason "complaints about tone"')
def rollback(
    session: Session,
    name: str = ROUTE,
    *,
    to_version: int | None = opt(
        "Version whose incumbent to restore. [default: the previous incumbent]",
        metavar="N",
    ),
    force: bool = opt("Restore a model that cannot serve.", "--force"),
    reason: str = REASON,
) -> None:
    """Restore a previous incumbent. Needs no proof, and ends a live canary.

    First asks the model's provider, in at most 5 seconds. If the model is gone or its key is
    refused, the command names the next former incumbent that answers.
    """
    restored_route = session.decide(
        operations.roll_back,
        name,
        to_version=to_version,
        reason=reason,
        force=force,
    )
    for warning in restored_route.warnings:
        output.note(f"warning: {warning}")
    output.answer(
        restored_route,
        f"route {name} is served by {_name_incumbent(session, restored_route)} again",
    )


def _name_incumbent(session: Session, route: Route) -> str:
    names = queries.load_target_names(session.context, {route.incumbent})
    return names.get(route.incumbent, route.incumbent)


@command(route, "candidates", example="swapproof route candidates support")
def list_candidates(session: Session, name: str = ROUTE) -> None:
    """Show the models that the suites measured, best first, and when the next round begins."""
    board = load_leaderboard(session.context, name)
    if output.documented(board):
        return
    output.table_of(
        board.rows,
        _build_candidate_cells,
        empty="no candidate has been measured on this route's present suites yet",
    )
    if any(row.is_cheapest_so_good for row in board.rows):
        output.note("* no other model is both better and cheaper")
    for row in board.rows:
        if row.ending and row.name != board.incumbent:
            output.note(row.ending)
    if board.ending:
        output.paragraph(board.ending)
    _print_next_round(board)


def _build_candidate_cells(row: LeaderboardRow) -> dict[str, object]:
    mark = "*" if row.is_cheapest_so_good else " "
    return {
        "MODEL": f"{mark} {row.name}",
        "STANDING": row.standing.value,
        "SCORE": DASH if row.score is None else format_score(row.score),
        "DIFFERENCE": _format_difference(row),
        "ITEMS": f"{row.items:,}",
        "1,000 ANSWERS": format_usd(row.usd_per_1000),
        "MEDIAN": format_latency(row.p50_s, DASH),
        "LOOK": row.look,
        "MEASURED": row.measured_at.date().isoformat() if row.measured_at else None,
    }


def _format_difference(row: LeaderboardRow) -> str | None:
    if row.delta is None:
        return None
    interval = format_points_interval(row.delta_low, row.delta_high)
    return f"{format_points(row.delta)} ({interval})" if interval else format_points(row.delta)


def _print_next_round(board: Leaderboard) -> None:
    if not board.schedule:
        output.note(
            f"no candidates on a schedule: `swapproof route settings {board.route} "
            "--candidates 'PROVIDER/*' --every '0 3 * * 1' --round-budget 5` sets one"
        )
        return
    begins = timestamp(board.next_round_at) if board.next_round_at else "never"
    if board.obstacle:
        begins = f"once unblocked ({board.obstacle})"
    plan = board.next_round
    output.paragraph(f"schedule: {board.schedule}")
    measured = ", ".join(
        f"{candidate.name} ({format_usd(candidate.cost_usd)})" for candidate in plan.measured
    )
    output.paragraph(
        f"next round, {begins}: {measured}; about {format_usd(plan.cost_usd)} in all"
        if measured
        else f"next round, {begins}: no new candidate"
    )
    for candidate in plan.waiting:
        output.paragraph(f"waits: {candidate.name}: {candidate.remark}")
    for candidate in (*plan.measured, *plan.waiting):
        if candidate.setbacks:
            output.paragraph(f"setback: {candidate.setbacks}")
    for warning in plan.warnings:
        output.paragraph(warning)
