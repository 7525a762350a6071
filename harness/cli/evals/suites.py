"""`swapgate suite` lists the suites of the configuration, with the routes that use them, and
makes one of labelled captures (`import`, in `suite_import`).
"""

from typing import Final

import click

from harness.cli.frame import output
from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.session import Session, pass_session
from harness.control.operations import queries
from harness.control.serialize import to_plain
from harness.domain.pagination import INVALID_ROWS_HINT

# Routes of a suite in the table; the document has all.
MOST_NAMED: Final = 20
IMPORT = LazyCommand(
    "harness.cli.evals.suite_import:import_suite", "Make a suite of labelled captures."
)


@click.command(cls=LazyCommandGroup, lazy={"import": IMPORT})
def suite() -> None:
    """Suites: items with their scorer, by which models are measured."""


@suite.command("list")
@pass_session
def list_suites(session: Session) -> None:
    """List the suites of the configuration, and the routes that use each."""
    suites = queries.list_suites(session.context, pinned=session.json)
    most = None if session.json else MOST_NAMED
    users, invalid = queries.list_suite_users(session.context, most)
    for fault in invalid:
        output.note(f"{fault.name}: {INVALID_ROWS_HINT}")
    if session.json:
        output.document(
            [
                {
                    **_plain(summary),
                    "routes": users.get(summary.name, queries.NO_USERS).routes,
                }
                for summary in suites
            ]
        )
        return
    output.table(
        ["SUITE", "ITEMS", "SCORER", "VERSION", "ROUTES", "FAULT"],
        [
            [
                summary.name,
                summary.items,
                summary.scorer,
                summary.version,
                str(users.get(summary.name, queries.NO_USERS)),
                summary.error,
            ]
            for summary in suites
        ],
        empty="no suite yet: name one under `suites` in swapgate.yaml, or make one of labelled "
        "captures with `swapgate suite import`",
    )


def _plain(summary: queries.SuiteSummary) -> dict[str, object]:
    shown = to_plain(summary)
    return dict(shown) if isinstance(shown, dict) else {}
