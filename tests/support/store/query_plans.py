"""Records the statements that code sends, and reads SQLite's plans of them: which of these read
a table whole that grows with time.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final

import sqlalchemy as sa

# What requests, evals, people and time add rows to.
GROWING: Final = frozenset(
    {
        "agent",
        "agent_grant",
        "agent_message",
        "agent_session",
        "agent_switch",
        "agent_turn",
        "alert",
        "api_key",
        "approval",
        "audit_event",
        "block",
        "captured",
        "dashboard_session",
        "delivery",
        "drift_check",
        "eval_run",
        "failover",
        "key_spend",
        "proposal",
        "rollout",
        "route_version",
        "sample",
        "seen_keys",
        "shadow",
        "shadow_tally",
        "switch",
        "traffic",
        "verdict",
    }
)
# A search by the project alone goes through all rows as well: there is one project.
SCAN: Final = re.compile(
    r"^(?:SCAN (?=\w+(?: USING (?:COVERING )?INDEX \w+)?$)|SEARCH (?=.* \(project=\?\)$))"
    r"(\w+)(?: USING (?:(COVERING )?INDEX (\w+)|PRIMARY KEY))?"
)
SORTED: Final = "USE TEMP B-TREE FOR ORDER BY"
COUNTED: Final = "SELECT count(*)"
# A page of a whole list: nothing but the project leaves a row out.
PAGE: Final = re.compile(r"FROM (\w+)(?: WHERE \1\.project = \?)? ORDER BY [^()]* LIMIT \?")


@contextmanager
def recorded() -> Iterator[dict[str, Any]]:
    """Yields the statements that this process sends meanwhile, with parameters of each."""
    found: dict[str, Any] = {}

    def note(
        connection: sa.Connection,  # noqa: ARG001 - the event's signature
        cursor: object,  # noqa: ARG001
        statement: str,
        parameters: Any,
        context: object,  # noqa: ARG001
        executemany: bool,  # noqa: FBT001
    ) -> None:
        found.setdefault(statement, parameters[0] if executemany else parameters)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def whole_scans(file: str, statements: Mapping[str, Any]) -> list[str]:
    """Returns the plan and statement of each that reads a growing table whole. Not among them:
    one page in an index's order, the total of a list counted in an index, and the few rows that
    are in an index of some rows.
    """
    with closing(sqlite3.connect(file)) as db:
        partial = {
            name
            for (name,) in db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'"
            )
        }
        found = []
        for statement, parameters in statements.items():
            if not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                continue
            rows = db.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plan = [str(row[3]) for row in rows]
            if _reads_whole(" ".join(statement.split()), plan, partial):
                found.append(f"{'; '.join(plan)}\n{statement}")
    return found


def _reads_whole(statement: str, plan: list[str], partial: set[str]) -> bool:
    return any(
        scan[1] in GROWING
        and scan[3] not in partial
        and not (scan[2] and statement.startswith(COUNTED))
        and not (SORTED not in plan and PAGE.search(statement))
        for step in plan
        if (scan := SCAN.match(step))
    )
