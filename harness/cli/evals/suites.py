"""`swapgate suite` lists the suites of the configuration, with the routes that use them, and
makes one of labelled captures (`import`, in `suite_import`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import click

from harness.cli.frame import output
from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.session import Session, pass_session
from harness.control.operations import queries
from harness.control.serialize import to_plain
from harness.domain.pagination import INVALID_ROWS_HINT

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
    routes = _load_routes(session)
    if session.json:
        output.document(
            [{**_plain(summary), "routes": routes.get(summary.name, [])} for summary in suites]
        )
        return
    output.table(
        ["SUITE", "ITEMS", "SCORER", "VERSION", "ROUTES", "FAULT"],
        [
            [
                summary.name,
                summary.items,
                (summary.scorer or "").partition("@")[0],
                summary.version,
                ", ".join(routes.get(summary.name, [])),
                summary.error,
            ]
            for summary in suites
        ],
        empty="no suite yet: name one under `suites` in swapgate.yaml, or make one of labelled "
        "captures with `swapgate suite import`",
    )


def _load_routes(session: Session) -> Mapping[str, Sequence[str]]:
    """Loads the names of the routes that use each suite."""
    page = queries.list_routes(session.context)
    for fault in page.invalid:
        output.note(f"{fault.name}: {INVALID_ROWS_HINT}")
    users: dict[str, list[str]] = defaultdict(list)
    for route in page:
        for used in route.settings.suites:
            users[used.suite].append(route.name)
    return users


def _plain(summary: queries.SuiteSummary) -> dict[str, object]:
    shown = to_plain(summary)
    return dict(shown) if isinstance(shown, dict) else {}
