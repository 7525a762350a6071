"""`swapproof shadow`."""

from datetime import timedelta
from pathlib import Path

from harness.canary import shadows
from harness.canary.shadow_operations import SHADOWS
from harness.canary.shadows import LEFT_OUT, NOT_STORED, ShadowStatus
from harness.frame.errors import InputError
from harness.frame.formatting import format_bps, format_percent, format_usd
from harness.frame.pagination import PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    FILE,
    PAGE,
    REASON,
    FiniteRange,
    WholeRange,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.operation_command import operation_group
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.operations import queries
from harness.routing.shadow import ShadowLimits

DEFAULT = ShadowLimits()


shadow = operation_group(SHADOWS)


@command(
    shadow,
    example='swapproof shadow start support openai/gpt-6-luna --share 5 --reason "a look"',
)
def start(
    session: Session,
    route: str = arg("ROUTE"),
    candidate: str = arg("TARGET"),
    *,
    share: float = opt(
        "Share of callers whose requests are mirrored; always the same callers.",
        type=FiniteRange(0.01, 100.0),
        metavar="PERCENT",
        default=DEFAULT.share_bps / 100,
    ),
    requests_per_day: int = opt(
        "Budget in requests per UTC day, across all routers.",
        type=WholeRange(min=1),
        default=DEFAULT.requests_per_day,
    ),
    usd_per_day: str = opt(
        "Budget in US dollars per UTC day, across all routers.",
        metavar="USD|none",
        default="1",
    ),
    at_once: int = opt(
        "Concurrent mirrored requests per worker.",
        type=WholeRange(min=1),
        default=DEFAULT.at_once,
    ),
    duration: timedelta = opt("Duration: 90m, 2h, 7d.", "--for", default="7d"),
    judge: str = opt(
        "Model that compares the answers, of another maker than both models. Without it, the "
        "shadow gives no verdict.",
        metavar="PROVIDER/MODEL",
        default="",
    ),
    rubric: Path | None = opt("File with the judge's rubric.", type=FILE),
    judge_anyway: str = opt(
        "Why the judge may be of a compared model's maker; the verdict shows it.",
        metavar="WHY",
        default="",
    ),
    reason: str = REASON,
) -> None:
    """Mirror a share of a route's requests to a target (by id or provider/model).

    Callers get the incumbent's answers. Needs an open proposal for the candidate, or an
    approver. On a route that keeps captures, each caller's first pair of answers is stored as
    captures are. With --judge, the judge's provider gets these pairs, and the shadow ends at
    its verdict.
    """
    from harness.app.shadow_judge import choose_judge  # noqa: PLC0415 - only this command needs it

    if not judge and (rubric or judge_anyway):
        raise InputError("--rubric and --judge-anyway belong to a --judge")
    criteria = None if rubric is None else rubric.read_text(encoding="utf-8")
    limits = ShadowLimits(round(share * 100), at_once, requests_per_day, _read_usd(usd_per_day))
    started_shadow = session.decide(
        shadows.start_shadow,
        route,
        candidate,
        limits,
        reason=reason,
        lasts=duration,
        judge=choose_judge(judge, criteria, judge_anyway) if judge else None,
    )
    terms = started_shadow.terms
    receiver = f"; {terms.judge} (judge) gets the stored pairs" if terms else ""
    output.answer(
        started_shadow,
        started_shadow.id,
        advice=f"requests of {format_bps(limits.share_bps)} of route {route}'s callers are "
        f"mirrored to {started_shadow.candidate.name} until "
        f"{timestamp(started_shadow.expires_at)} UTC{receiver}: "
        f"`swapproof shadow status {route}`",
    )


def _read_usd(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--usd-per-day must be a number or `none`, not {text!r}") from None


@command(shadow, example="swapproof shadow status support")
def status(
    session: Session,
    route: str | None,
    *,
    page_request: PageRequest = PAGE,
) -> None:
    """List the shadows, newest first; with ROUTE show the figures of its newest shadow."""
    if route is None:
        _list_shadows(session, page_request)
        return
    shadow_status = shadows.load_status(session.context, route)
    if not output.documented(shadow_status):
        _print_status(shadow_status)


def _print_status(shadow_status: ShadowStatus) -> None:
    started_shadow = shadow_status.shadow
    output.facts(
        [
            ("shadow", started_shadow.id),
            ("state", shadow_status.state),
            ("candidate", started_shadow.candidate.name),
            ("proposal", started_shadow.proposal or "none: an approver started it"),
            (
                "share",
                f"{format_bps(started_shadow.limits.share_bps)} of the callers",
            ),
            ("until", timestamp(started_shadow.expires_at)),
            *shadows.list_figures(shadow_status),
        ]
    )
    output.table_of(
        shadow_status.checks,
        lambda check: {
            "CHECK": check.check,
            "BOTH": check.both,
            "INCUMBENT ALONE": check.incumbent_only,
            "CANDIDATE ALONE": check.candidate_only,
            "NEITHER": check.neither,
            "COUNTED": f"{check.lost}:{check.won}",
            "OF THE LEVEL": format_percent(check.share_of_level, 0),
        },
        empty=shadow_status.hidden or "no pair yet",
    )
    for name, number in shadow_status.left_out.items():
        output.note(f"{number:,} not mirrored: {LEFT_OUT[name]}")
    for name, number in shadow_status.not_stored.items():
        output.note(f"{number:,} mirrored, but not stored for a verdict: {NOT_STORED[name]}")


def _list_shadows(session: Session, page_request: PageRequest) -> None:
    output.listing(
        queries.list_shadows(session.context, page_request),
        lambda row: {
            "ID": row.shadow.id,
            "ROUTE": row.shadow.route,
            "CANDIDATE": row.shadow.candidate.name,
            "STATE": row.state,
            "VERDICT": row.verdict.outcome if row.verdict else "no judge",
            "MIRRORED": row.mirrored,
            "PAIRS": row.pairs,
            "COST": format_usd(row.cost_usd),
            "BY": row.shadow.started_by,
            "REASON": row.shadow.reason,
        },
        empty="no shadow has been started yet",
    )
