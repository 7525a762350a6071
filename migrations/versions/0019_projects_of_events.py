"""Whose people may read an alert or an audit event."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
# What a version of before writes is the installation's to read.
compatible_from = "0016"

TABLES = ("alert", "audit_event")
INDEXES = {
    "ix_alert_project": ("alert", "last_seen"),
    "ix_audit_event_project": ("audit_event", "number"),
    "ix_audit_event_project_at": ("audit_event", "at", "number"),
}
OF_A_PROJECT = sa.text("project <> 'default'")
MARK = "::"
NAMED = "%::%"
BEFORE_NAMES = ("route ", "routes ", "suite ", "captures of ")
# By what stands before an id in a subject: table, and the column with the route or suite.
OWNERS = {
    "proposal": ("proposal", "route"),
    "run": ("eval_run", "suite"),
    "shadow": ("shadow", "route"),
    "switch": ("switch", "route"),
    "waiver": ("waiver", "route"),
    "drift watch": ("drift_watch", "suite"),
    # Of events for rows that no other event names.
    "eval_run": ("eval_run", "suite"),
    **{
        table: (table, "route")
        for table in ("verdict", "rollout", "route_freeze", "break_glass")
    },
}


def upgrade() -> None:
    for table in TABLES:
        added = sa.Column("project", sa.Text(), server_default="default", nullable=False)
        op.add_column(table, added)
    if any(_projects()):
        _label_known()
    for name, (table, *columns) in INDEXES.items():
        op.create_index(
            name,
            table,
            ["project", *columns],
            sqlite_where=OF_A_PROJECT,
            postgresql_where=OF_A_PROJECT,
        )


def downgrade() -> None:
    for name, (table, *_) in INDEXES.items():
        op.drop_index(name, table)
    for table in TABLES:
        op.drop_column(table, "project")


def _label_known() -> None:
    """Labels what is there of projects. The log's guard comes back at the upgrade's end."""
    db = op.get_bind()
    sqlite = db.dialect.name == "sqlite"
    guard = "audit_event_no_update"
    db.exec_driver_sql(
        f"DROP TRIGGER IF EXISTS {guard}"
        if sqlite
        else f"DROP FUNCTION IF EXISTS {guard}() CASCADE"
    )
    for subject, project in _projects():
        for table in TABLES:
            db.execute(
                sa.text(f"UPDATE {table} SET project = :project WHERE subject = :subject"),  # noqa: S608
                {"project": project, "subject": subject},
            )
    db.execute(
        sa.text(
            "UPDATE audit_event SET project = (SELECT k.project FROM api_key k"
            " WHERE k.id = audit_event.key) WHERE key IN (SELECT id FROM api_key"
            " WHERE project <> 'default' AND role IS NOT NULL)"
        )
    )


def _projects() -> Iterator[tuple[str, str]]:
    """Yields the subjects that are a project's, each with the project."""
    db = op.get_bind()
    for table in TABLES:
        named = sa.text(f"SELECT DISTINCT subject FROM {table} WHERE subject LIKE :named")  # noqa: S608
        for (subject,) in db.execute(named, {"named": NAMED}).all():
            if owner := _named_project(subject):
                yield subject, owner
    for kind, (table, column) in OWNERS.items():
        owned = sa.text(f"SELECT id, {column} FROM {table} WHERE {column} LIKE :named")  # noqa: S608
        for id_, name in db.execute(owned, {"named": NAMED}).all():
            yield f"{kind} {id_}", name.partition(MARK)[0]
    keys = sa.text("SELECT id, project FROM api_key WHERE project <> 'default'")
    for id_, project in db.execute(keys).all():
        yield f"key {id_}", project
    sessions = sa.text(
        "SELECT s.id, k.project FROM dashboard_session s JOIN api_key k ON k.id = s.key"
        " WHERE k.project <> 'default'"
    )
    for id_, project in db.execute(sessions).all():
        yield f"session {id_}", project


def _named_project(subject: str) -> str:
    """The project of the routes or suites that a subject names; empty for none, or several."""
    before = next((words for words in BEFORE_NAMES if subject.startswith(words)), "")
    if not before and " " in subject:
        return ""
    names = subject.removeprefix(before).split(", ")
    owners = {
        name.partition(MARK)[0] if MARK in name else ""
        for name in names
        if not name.startswith("suite ")
    }
    return owners.pop() if len(owners) == 1 else ""
