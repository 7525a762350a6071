"""`swapgate route fallback`."""

from datetime import timedelta

import click

from harness.frame.errors import InputError
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import REASON, command, opt
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.proposals import fallback_chain
from harness.proposals.fallback_chain import (
    ChainEntry,
    FallbackRequest,
    WaiverRequest,
)
from harness.routing.evidence import EvidenceKind
from harness.routing.table import Route


@click.group()
def fallback() -> None:
    """A route's fallback chain: targets that answer, in order, if its model fails."""


@command(fallback, "list")
def list_fallbacks(session: Session, route: str) -> None:
    """List the chain, with the evidence of each fallback: baseline, verdict or waiver."""
    fallbacks = fallback_chain.list_fallbacks(session.context, route)
    output.listing(
        list(enumerate(fallbacks, 1)),
        lambda numbered: _cells(*numbered),
        empty=f"route {route} has no fallbacks",
        as_document=lambda _: fallbacks,
    )


def _cells(place: int, entry: ChainEntry) -> dict[str, object]:
    waiver = entry.waiver
    return {
        "PLACE": place,
        "TARGET": entry.target.name,
        "CAPABLE": "yes" if entry.capable else "no",
        "EVIDENCE": evidence_text(entry),
        "UNTIL": timestamp(waiver.expires_at) if waiver else None,
        "BY": waiver.author if waiver else None,
        "REASON": waiver.reason if waiver else None,
    }


def evidence_text(entry: ChainEntry) -> str:
    match entry.evidence:
        case EvidenceKind.VERDICT:
            return f"verdict {entry.verdict}"
        case EvidenceKind.WAIVER:
            return "waiver, EXPIRED" if entry.waiver_expired else "waiver"
        case EvidenceKind.BASELINE:
            return "baseline"


@command(fallback)
def add(
    session: Session,
    route: str,
    target: str,
    *,
    capable: bool = opt("Mark the target as capable: it may answer on a route of high stakes."),
    place: int | None = opt("Position in the chain, counted from 1. [default: the end]"),
    waive: str | None = opt(
        "Add the target without a verdict, for this reason; needs --for.",
        metavar="REASON",
    ),
    lasts: timedelta | None = opt("Duration of the waiver: 30d.", "--for"),
    reason: str = REASON,
) -> None:
    """Add a target to the chain, or renew a fallback's evidence.

    A target needs a passed verdict against the route's incumbent, or must have served this
    route. Otherwise it needs a waiver of up to 90 days.
    """
    if (waive is None) != (lasts is None):
        raise InputError("a waiver needs both --waive REASON and --for TIME")
    request = WaiverRequest(waive, lasts) if waive is not None and lasts is not None else None
    changed = fallback_chain.add_fallback(
        session.context_with_providers,
        session.deciding_actor,
        route,
        FallbackRequest(target, capable, request),
        place=place,
        reason=reason,
    )
    _print_chain(session, changed)


@command(fallback)
def remove(
    session: Session,
    route: str,
    target: str,
    *,
    reason: str = REASON,
) -> None:
    """Remove a target from the chain."""
    changed = session.decide(fallback_chain.remove_fallback, route, target, reason=reason)
    _print_chain(session, changed)


@command(fallback)
def mark(
    session: Session,
    route: str,
    target: str,
    *,
    capable: bool = opt(
        "Whether the fallback may answer on a route of high stakes.",
        "--capable/--not-capable",
        required=True,
    ),
    reason: str = REASON,
) -> None:
    """Set whether a fallback may answer on a route of high stakes."""
    changed = session.decide(
        fallback_chain.mark_capable,
        route,
        target,
        capable=capable,
        reason=reason,
    )
    _print_chain(session, changed)


@command(fallback)
def order(
    session: Session,
    route: str,
    targets: tuple[str, ...],
    *,
    reason: str = REASON,
) -> None:
    """Reorder the chain. Name each of its targets once."""
    changed = session.decide(fallback_chain.reorder_chain, route, targets, reason=reason)
    _print_chain(session, changed)


def _print_chain(session: Session, route: Route) -> None:
    chain = fallback_chain.list_fallbacks(session.context, route.name)
    names = ", ".join(entry.target.name for entry in chain)
    output.answer(
        route,
        f"route {route.name} falls back to {names or 'no other model'}",
    )
