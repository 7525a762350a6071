"""`swapgate route candidates`."""

from harness.cli.frame import output
from harness.cli.frame.command import command
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.control.proposals.leaderboard import Leaderboard, LeaderboardRow, load_leaderboard
from harness.domain.formatting import (
    DASH,
    format_latency,
    format_points,
    format_points_interval,
    format_score,
    format_usd,
)


@command(name="candidates")
def list_candidates(session: Session, name: str) -> None:
    """Show every model that the route's suites measured, best first, and the next round."""
    board = load_leaderboard(session.context, name)
    if output.documented(board):
        return
    output.table_of(
        board.rows,
        _cells,
        empty="no candidate was measured on the suites of this route, as they are, yet",
    )
    if any(row.is_cheapest_so_good for row in board.rows):
        output.note("* no other model is both better and cheaper")
    for row in board.rows:
        if row.ending and row.name != board.incumbent:
            output.note(row.ending)
    if board.ending:
        output.paragraph(board.ending)
    _print_next(board)


def _cells(row: LeaderboardRow) -> dict[str, object]:
    mark = "*" if row.is_cheapest_so_good else " "
    return {
        "MODEL": f"{mark} {row.name}",
        "STANDING": row.standing.value,
        "SCORE": DASH if row.score is None else format_score(row.score),
        "DIFFERENCE": _difference(row),
        "ITEMS": f"{row.items:,}",
        "1,000 ANSWERS": format_usd(row.usd_per_1000),
        "MEDIAN": format_latency(row.p50_s, DASH),
        "LOOK": row.look,
        "MEASURED": row.measured_at.date().isoformat() if row.measured_at else None,
    }


def _difference(row: LeaderboardRow) -> str | None:
    if row.delta is None:
        return None
    interval = format_points_interval(row.delta_low, row.delta_high)
    return f"{format_points(row.delta)} ({interval})" if interval else format_points(row.delta)


def _print_next(board: Leaderboard) -> None:
    if not board.schedule:
        output.note(
            f"no candidates on a schedule: `swapgate route settings {board.route} --candidates "
            "'PROVIDER/*' --every '0 3 * * 1' --round-budget 5` sets one"
        )
        return
    at = timestamp(board.next_round_at) if board.next_round_at else "never"
    if board.obstacle:
        at = f"once it is free ({board.obstacle})"
    plan = board.next_round
    output.paragraph(f"schedule: {board.schedule}")
    measured = ", ".join(f"{one.name} ({one.cost_text})" for one in plan.measured)
    output.paragraph(
        f"next round, {at}: {measured}; {plan.cost_text} in all"
        if measured
        else f"next round, {at}: nothing new"
    )
    for one in plan.waiting:
        output.paragraph(f"waits: {one.name}: {one.remark}")
    for warning in plan.warnings:
        output.paragraph(warning)
