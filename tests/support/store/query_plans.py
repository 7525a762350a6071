"""Records the statements that code sends, and reads the database's plans of them: which of
these read a table whole that grows with time.

PostgreSQL reads a small table whole whatever indexes it has. So it plans here without scans of
whole tables and without joins that sort both sides: what it then reads whole has no index.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, Final

import sqlalchemy as sa

from harness.app.store.tables import metadata

# Tables that do not grow: their rows are as many as people configure or decide by hand, one
# for each model, source or month, or they go away with what is under way (holds, canaries,
# workers' files); requests and evals leave none behind.
STEADY: Final = frozenset(
    {
        "account_load",
        "break_glass",
        "credential",
        "discovered_model",
        "exposure_arrival",
        "exposure_file",
        "end_statement",
        "manifest",
        "meta",
        "person_link",
        "principal",
        "provider",
        "provider_check",
        "route_fallback",
        "router_report",
        "served_model",
        "sign_in",
        "spending_cap",
        "spending_month",
        "suite",
        "switch",
        "target",
        "waiver",
    }
)
SCAN: Final = re.compile(
    r"^SCAN (?=\w+(?: USING (?:COVERING )?INDEX \w+)?$)"
    r"(\w+)(?: USING (?:(COVERING )?INDEX (\w+)|PRIMARY KEY))?"
)
SORTED: Final = "USE TEMP B-TREE FOR ORDER BY"
COUNTED: Final = "SELECT count(*)"
# Of PostgreSQL itself, also its catalogue's functions.
CATALOGUE: Final = "pg_"
PARAMETER: Final = re.compile(r"%\(\w+\)s(?:::\w+)?")
# A page of a whole list: no condition leaves a row out.
PAGE: Final = re.compile(r"FROM (\w+) ORDER BY [^()]* LIMIT \?")


def is_growing(table: str) -> bool:
    """Whether requests, evals, people and time add rows to the table: all do but STEADY."""
    return table in metadata.tables and table not in STEADY


@contextmanager
def recorded() -> Iterator[dict[str, Any]]:
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


def whole_scans(url: str, statements: Mapping[str, Any]) -> list[str]:
    """Returns the plan and statement of each that reads a growing table whole. Not among them:
    one page in an index's order, the total of a list counted in an index, and the few rows that
    are in an index of some rows.
    """
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    found = []
    with engine.connect() as db:
        plans = _Postgres(db) if db.dialect.name == "postgresql" else _Sqlite(db)
        for sent, parameters in statements.items():
            asked = sent.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH"))
            if asked and CATALOGUE not in sent:
                statement = PARAMETER.sub("?", " ".join(sent.split())).replace("%%", "%")
                plan = plans.reads_whole(sent, parameters, statement)
                if plan:
                    found.append(f"{plan}\n{statement}")
    engine.dispose()
    return found


class _Sqlite:
    def __init__(self, db: sa.Connection) -> None:
        self._db = db
        some_rows = "type = 'index' AND sql LIKE '% WHERE %'"
        query = f"SELECT name FROM sqlite_master WHERE {some_rows}"  # noqa: S608 - ours
        self._partial = set(db.exec_driver_sql(query).scalars())

    def reads_whole(
        self,
        sent: str,
        parameters: Any,
        statement: str,
    ) -> str:
        """Returns the plan if it reads a growing table whole, else nothing."""
        rows = self._db.exec_driver_sql(f"EXPLAIN QUERY PLAN {sent}", parameters)
        plan = [str(row[3]) for row in rows]
        whole = any(
            is_growing(scan[1])
            and scan[3] not in self._partial
            and not (scan[2] and statement.startswith(COUNTED))
            and not (SORTED not in plan and PAGE.search(statement))
            for step in plan
            if (scan := SCAN.match(step))
        )
        return "; ".join(plan) if whole else ""


class _Postgres:
    def __init__(self, db: sa.Connection) -> None:
        self._db = db
        for way in ("seqscan", "mergejoin", "hashjoin"):
            db.exec_driver_sql(f"SET enable_{way} = off")
        indexes = db.exec_driver_sql(
            "SELECT indexname, tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        ).all()
        self._table = {name: table for name, table, _ in indexes}
        self._partial = {name for name, _, made in indexes if " WHERE " in made}

    def reads_whole(
        self,
        sent: str,
        parameters: Any,
        statement: str,
    ) -> str:
        """Returns the plan if it reads a growing table whole, else nothing. In a nearly empty
        table one index is as good as another: that of the condition, whose rows are sorted, or
        that of the order. It is enough that either does.
        """
        plan = ""
        for sorting, bitmaps in product(("on", "off"), repeat=2):
            self._db.exec_driver_sql(f"SET enable_sort = {sorting}")
            self._db.exec_driver_sql(f"SET enable_bitmapscan = {bitmaps}")
            explained = self._db.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sent}", parameters)
            steps = list(_steps(explained.scalar_one()[0]["Plan"]))
            if not self._has_whole(steps, statement):
                return ""
            plan = plan or "; ".join(map(_describe, steps))
        return plan

    def _has_whole(self, steps: Sequence[Mapping[str, Any]], statement: str) -> bool:
        in_order = not any(step["Node Type"] == "Sort" for step in steps)
        page = in_order and PAGE.search(statement)
        counted = statement.startswith(COUNTED)
        return any(
            self._is_whole(step)
            and not (counted and step["Node Type"] == "Index Only Scan")
            and not (page and step["Node Type"].startswith("Index"))
            for step in steps
        )

    def _is_whole(self, step: Mapping[str, Any]) -> bool:
        index = step.get("Index Name")
        if index is None:
            return step["Node Type"] == "Seq Scan" and is_growing(step["Relation Name"])
        return (
            is_growing(self._table.get(index, ""))
            and index not in self._partial
            and not step.get("Index Cond", "")
        )


def _steps(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        if not _is_end(node, inner):
            yield from _steps(inner)


def _is_end(node: Mapping[str, Any], inner: Mapping[str, Any]) -> bool:
    """Whether PostgreSQL reads one end of an index, for a minimum or a maximum."""
    limit = node["Node Type"] == "Limit" and node.get("Parent Relationship") == "InitPlan"
    return limit and inner["Node Type"] == "Index Only Scan" and "Filter" not in inner


def _describe(step: Mapping[str, Any]) -> str:
    named = (
        "Node Type",
        "Relation Name",
        "Index Name",
        "Index Cond",
        "Filter",
    )
    return " ".join(str(step[name]) for name in named if name in step)
