"""`swapgate route failovers` lists which targets requests left and why, by route, user and
time.
"""

from datetime import timedelta

import click

from harness.cli.frame import output
from harness.cli.frame.duration import DurationType
from harness.cli.frame.output import note_page, page_options, timestamp
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
    note_page(failovers)
    if session.json:
        output.document(failovers.items)
        return
    output.table(
        [
            "AT",
            "ROUTE",
            "LEFT",
            "BECAUSE",
            "STATUS",
            "CODE",
            "MS",
            "ASKED NEXT",
            "SHAPE",
            "REQUEST",
        ],
        [
            [
                timestamp(failover.at),
                failover.route,
                failover.target,
                failover.failure,
                failover.status,
                f"{failover.code} at {failover.place}" if failover.place else failover.code,
                round(failover.latency_ms),
                failover.next_target or "nobody",
                _shape(failover),
                failover.request,
            ]
            for failover in failovers
        ],
        empty="no request left a target in that time",
    )


def _shape(failover: Failover) -> str:
    stream = ", stream" if failover.stream else ""
    return f"{failover.endpoint}{stream}, {failover.body_bytes:,} bytes, {failover.tools} tools"
