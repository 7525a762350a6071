"""`swapgate route fallback`."""

from datetime import timedelta

import click

from harness.frame.errors import InputError
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import REASON, command, opt
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.proposals import fallback_chain
from harness.proposals.fallback_chain import ChainEntry, FallbackRequest, WaiverRequest
from harness.routing.evidence import EvidenceKind
from harness.routing.table import Route


@click.group()
def fallback() -> None:
    """A route's fallback chain: asked in order when its model fails."""


@command(fallback, "list")
def list_fallbacks(session: Session, route: str) -> None:
    """List the chain with the evidence of each: baseline, verdict or waiver."""
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
    capable: bool = opt("Mark it as capable: it may answer when the stakes are high."),
    place: int | None = opt("Position in the chain, counted from 1. [default: the end]"),
    waive: str | None = opt(
        "Add it without a verdict, for this reason; requires --for.", metavar="REASON"
    ),
    lasts: timedelta | None = opt("How long the waiver lasts: 30d.", "--for"),
    reason: str = REASON,
) -> None:
    """Add a target to the chain, or renew the evidence of one that is in it.

    Without a passed verdict against the route's incumbent, and if it never served this route,
    it needs a waiver for up to 90 days.
    """
    if (waive is None) != (lasts is None):
        raise InputError("a waiver takes both --waive REASON and --for TIME")
    request = WaiverRequest(waive, lasts) if waive is not None and lasts is not None else None
    wanted = FallbackRequest(target, capable, request)
    made = fallback_chain.add_fallback(
        session.context_with_providers,
        session.deciding_actor,
        route,
        wanted,
        place=place,
        reason=reason,
    )
    _print_chain(session, made)


@command(fallback)
def remove(session: Session, route: str, target: str, *, reason: str = REASON) -> None:
    """Take a target out of the chain."""
    made = session.decide(fallback_chain.remove_fallback, route, target, reason=reason)
    _print_chain(session, made)


@command(fallback)
def mark(
    session: Session,
    route: str,
    target: str,
    *,
    capable: bool = opt(
        "Whether it may answer when the stakes are high.",
        "--capable/--not-capable",
        required=True,
    ),
    reason: str = REASON,
) -> None:
    """Say whether a fallback may answer when the stakes are high."""
    made = session.decide(
        fallback_chain.mark_capable, route, target, capable=capable, reason=reason
    )
    _print_chain(session, made)


@command(fallback)
def order(
    session: Session, route: str, targets: tuple[str, ...], *, reason: str = REASON
) -> None:
    """Put the chain into this order; each of its targets is named once."""
    made = session.decide(fallback_chain.reorder_chain, route, targets, reason=reason)
    _print_chain(session, made)


def _print_chain(session: Session, route: Route) -> None:
    chain = fallback_chain.list_fallbacks(session.context, route.name)
    names = ", ".join(entry.target.name for entry in chain)
    output.answer(route, f"route {route.name} falls back to {names or 'no other model'}")
