"""`swapgate route failovers` lists which targets requests left and why, by route, user and
time.
"""

from datetime import timedelta

import click

from harness.cli.frame import output
from harness.cli.frame.duration import DurationType
from harness.cli.frame.output import page_options, timestamp
from harness.cli.frame.session import Session, pass_session
from harness.control.operations import queries
from harness.domain.pagination import PageRequest
from harness.domain.reliability.failover import Failover


@click.command("failovers")
@click.option("--route", "name", metavar="ROUTE", help="Only this route.")
@click.option("--user", metavar="ID", help="Only this user, by the name that the client sent.")
@click.option(
    "--since",
    type=DurationType(),
    default="1d",
    show_default=True,
    metavar="TIME",
    help="How far back: 90s, 30m, 2h, 1d.",
)
@page_options
@pass_session
def list_failovers(
    session: Session,
    *,
    name: str | None,
    user: str | None,
    since: timedelta,
    page_request: PageRequest,
) -> None:
    """List failovers: which target a request left, and why; the newest first.

    The log has sizes and kinds of the requests, never their content, and hashes of users. With
    `--json` it has the sentences of providers, redacted.
    """
    failovers = queries.list_failovers(
        session.context,
        page_request,
        secret=session.installation.secret,
        route=name,
        user=user,
        since=since,
    )
    output.listing(
        session,
        failovers,
        lambda failover: {
            "AT": timestamp(failover.at),
            "ROUTE": failover.route,
            "LEFT": failover.target,
            "BECAUSE": failover.failure,
            "STATUS": failover.status,
            "CODE": f"{failover.code} at {failover.place}" if failover.place else failover.code,
            "MS": round(failover.latency_ms),
            "ASKED NEXT": failover.next_target or "nobody",
            "SHAPE": _shape(failover),
            "REQUEST": failover.request,
        },
        empty="no request left a target in that time",
    )


def _shape(failover: Failover) -> str:
    stream = ", stream" if failover.stream else ""
    return f"{failover.endpoint}{stream}, {failover.body_bytes:,} bytes, {failover.tools} tools"
