"""`swapproof route fallback`."""

from datetime import timedelta

from harness.frame.errors import InputError
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import REASON, command, opt
from harness.interfaces.cli.frame.operation_command import operation_group
from harness.interfaces.cli.frame.session import Session
from harness.proposals import fallback_chain
from harness.proposals.fallback_chain import (
    FallbackRequest,
    WaiverRequest,
)
from harness.proposals.operations import FALLBACKS, describe_chain

fallback = operation_group(FALLBACKS)


@command(
    fallback,
    example="swapproof route fallback add support openai/gpt-6-luna "
    "--waive untested --for 1d --reason outage",
)
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
    duration: timedelta | None = opt("Duration of the waiver: 30d.", "--for"),
    reason: str = REASON,
) -> None:
    """Add a target to the chain, or renew a fallback's evidence.

    A target needs a passed verdict against the route's incumbent, or must have served this
    route. Otherwise it needs a waiver of up to 90 days.
    """
    if (waive is None) != (duration is None):
        raise InputError("a waiver needs both --waive REASON and --for TIME")
    waiver_request = (
        WaiverRequest(waive, duration) if waive is not None and duration is not None else None
    )
    changed_route = fallback_chain.add_fallback(
        session.context_with_providers,
        session.deciding_actor,
        route,
        FallbackRequest(target, capable, waiver_request),
        position_from_1=place,
        reason=reason,
    )
    output.answer(changed_route, describe_chain(session.context, changed_route))
