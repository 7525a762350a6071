"""Grants a PostgreSQL role the runtime's rights. One role owns and migrates the tables, and
another role runs Swapgate. The runtime's role may neither run DDL nor UPDATE or DELETE in
append-only tables, so an attacker in a process cannot drop the triggers. SQLite has no roles.

The triggers (`guards`) refuse what these rights cannot express.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from harness.app.store.guards import NEVER_EMPTIED
from harness.app.store.tables import APPEND_ONLY, metadata
from harness.frame.database import engine
from harness.frame.errors import InputError, NotFound
from harness.frame.records.transaction import translated

# The runtime may update only these columns, because retention blanks the texts of samples.
_BLANKED: Final = {"sample": ("answer", "prompt", "error_text")}
_GROWING: Final = frozenset(table.name for table in APPEND_ONLY)
_KEPT: Final = frozenset(NEVER_EMPTIED) - _GROWING | {
    "api_key",
    "eval_run",
    "manifest",
    "meta",
    "provider",
}


# The runtime may change and delete jobs, because no decision uses them.
QUEUE_SCHEMA: Final = "swapgate_queue"
_HAS_QUEUE: Final = sa.text("SELECT to_regnamespace(:name) IS NOT NULL")
_QUEUE_RIGHTS: Final = (
    "GRANT USAGE ON SCHEMA {schema} TO {to}; "
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {to}; "
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {to}"
)


def statements(db: sa.Connection, role: str) -> Sequence[str]:
    """Returns SQL that gives `role` exactly the runtime's rights; you can run it repeatedly."""
    quote = db.dialect.identifier_preparer.quote_identifier
    schema = str(db.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one())
    database = str(db.execute(sa.text("SELECT quote_ident(current_database())")).scalar_one())
    to = quote(role)
    queue = db.execute(_HAS_QUEUE, {"name": QUEUE_SCHEMA}).scalar_one()
    return [
        f"GRANT CONNECT ON DATABASE {database} TO {to}",
        f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {to}",
        f"GRANT USAGE ON SCHEMA {schema} TO {to}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {to}",
        f"GRANT SELECT ON {schema}.alembic_version TO {to}",
        *(
            f"GRANT {_rights(table)} ON {schema}.{quote(table)} TO {to}"
            for table in sorted(metadata.tables)
        ),
        *(_QUEUE_RIGHTS.format(schema=QUEUE_SCHEMA, to=to).split("; ") if queue else ()),
    ]


def _rights(table: str) -> str:
    """Returns the rights on a table: less on append-only tables than on tables without
    history.
    """
    if table in _BLANKED:
        return f"SELECT, INSERT, UPDATE ({', '.join(_BLANKED[table])})"
    if table in _GROWING:
        return "SELECT, INSERT"
    if table in _KEPT:
        return "SELECT, INSERT, UPDATE"
    return "SELECT, INSERT, UPDATE, DELETE"


def grant(
    url: str,
    role: str,
    *,
    only_show: bool = False,
) -> Sequence[str]:
    """Gives `role` the runtime's rights. Returns the statements. `upgrade` adds the rights on
    new tables.

    Raises InputError on SQLite or for the tables' owner, NotFound for an unknown role,
    DatabaseUnusable if the current role does not own the tables.
    """
    parsed = engine.parse(url)
    if parsed.get_backend_name() != "postgresql":
        raise InputError(
            "SQLite has no roles: the file's mode decides who may change it. With PostgreSQL, "
            "one role can own the tables and another one run Swapgate"
        )
    with engine.temporary(parsed) as made, translated(), made.begin() as db:
        _check_role(db, role)
        found = statements(db, role)
        if not only_show:
            _execute(db, found)
        return found


def renew(db: sa.Connection) -> None:
    """Grants the runtime's rights on new tables to each role that has them on the old tables.
    Call it after a migration.
    """
    if db.dialect.name != "postgresql":
        return
    for (role,) in db.execute(_GRANTED).all():
        _execute(db, statements(db, role))


_GRANTED: Final = sa.text(
    "SELECT DISTINCT r.rolname FROM pg_class c, aclexplode(c.relacl) a"
    " JOIN pg_roles r ON r.oid = a.grantee WHERE c.relname = 'route_version'"
    " AND c.relnamespace = quote_ident(current_schema())::regnamespace"
    " AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner"
)
_OWNER: Final = sa.text(
    "SELECT current_user, pg_get_userbyid(c.relowner) FROM pg_class c"
    " WHERE c.relname = 'alembic_version'"
    " AND c.relnamespace = quote_ident(current_schema())::regnamespace"
)
_POWERS: Final = sa.text(
    "SELECT r.rolsuper OR pg_has_role(r.oid, c.relowner, 'MEMBER') AS owns"
    " FROM pg_roles r, pg_class c WHERE r.rolname = :role AND c.relname = 'route_version'"
    " AND c.relnamespace = quote_ident(current_schema())::regnamespace"
)


def _check_role(db: sa.Connection, role: str) -> None:
    """Raises NotFound for an unknown role, InputError for a role that grants cannot limit."""
    owns = db.execute(_POWERS, {"role": role}).scalar()
    if owns is None:
        raise NotFound(
            f"there is no role {role!r}, or there are no tables: create the role with `CREATE "
            f'ROLE "{role}" LOGIN PASSWORD …`, and the tables with `swapgate db upgrade`'
        )
    if owns:
        raise InputError(
            f"the role {role!r} owns the tables or is a superuser, so no grant can limit it: "
            "grant the rights to another role"
        )


def _execute(db: sa.Connection, found: Sequence[str]) -> None:
    for row in found:
        db.exec_driver_sql(row.replace("%", "%%"))


def owner_needed(url: str, what: str) -> str:
    """Returns the message that the URL's role may not do `what`. Names the tables' owner."""
    with engine.temporary(url) as made, translated(), made.connect() as db:
        role, owner = db.execute(_OWNER).one()
    return (
        f"the role {role!r} may not {what}: it does not own the tables. Run `swapgate db "
        f"upgrade` once with their owner {owner!r} in `database_url`, where the signing key "
        f"is; other processes continue to use {role!r}"
    )


def does_both(url: str) -> str | None:
    """Returns the runtime's role if it could also change the tables; else None. None on SQLite.
    Raises StoreUnavailable.
    """
    parsed = engine.parse(url)
    if parsed.get_backend_name() != "postgresql":
        return None
    with (
        engine.temporary(parsed) as made,
        translated(),
        made.connect() as db,
    ):
        role = str(db.execute(sa.text("SELECT current_user")).scalar_one())
        return role if db.execute(_POWERS, {"role": role}).scalar() else None
