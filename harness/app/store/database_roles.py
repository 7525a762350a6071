"""Grants a PostgreSQL role the runtime's rights. One role owns and migrates the tables, and
another role runs Swapproof. The runtime's role may neither run DDL nor UPDATE or DELETE in
append-only tables, so an attacker in a process cannot drop the triggers. SQLite has no roles.

The triggers (`guards`) refuse the changes that these rights cannot express.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from harness.app.store.guards import KEPT_UNTIL_END, NEVER_EMPTIED
from harness.app.store.tables import APPEND_ONLY, metadata
from harness.app.store.views import CANARY_EXPOSURES
from harness.frame.database import engine
from harness.frame.errors import InputError, NotFound
from harness.frame.records.transaction import translated

# The runtime may update only these columns, because retention blanks the texts of samples.
_BLANKED_COLUMNS: Final = {"sample": ("answer", "prompt", "error_text")}
_APPEND_ONLY_NAMES: Final = frozenset(table.name for table in APPEND_ONLY)
# Retention deletes rows of ended rollouts. Triggers refuse the other deletions.
_NEVER_UPDATED_NAMES: Final = frozenset({"exposure", "exposure_event"})
_NEVER_DELETED_NAMES: Final = (
    frozenset(NEVER_EMPTIED) - frozenset(KEPT_UNTIL_END) - _APPEND_ONLY_NAMES
) | {
    "api_key",
    "eval_run",
    "manifest",
    "meta",
    "provider",
}


# The runtime may change and delete jobs, because no decision uses them.
QUEUE_SCHEMA: Final = "swapproof_queue"
_HAS_QUEUE: Final = sa.text("SELECT to_regnamespace(:name) IS NOT NULL")
_QUEUE_RIGHTS: Final = (
    "GRANT USAGE ON SCHEMA {schema} TO {to}; "
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {to}; "
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {to}"
)


def build_statements(db: sa.Connection, role: str) -> Sequence[str]:
    """Builds SQL that gives `role` exactly the runtime's rights. It can run repeatedly."""
    quote = db.dialect.identifier_preparer.quote_identifier
    schema = str(db.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one())
    database = str(db.execute(sa.text("SELECT quote_ident(current_database())")).scalar_one())
    grantee = quote(role)
    queue = db.execute(_HAS_QUEUE, {"name": QUEUE_SCHEMA}).scalar_one()
    return [
        f"GRANT CONNECT ON DATABASE {database} TO {grantee}",
        f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {grantee}",
        f"GRANT USAGE ON SCHEMA {schema} TO {grantee}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {grantee}",
        f"GRANT SELECT ON {schema}.alembic_version TO {grantee}",
        *(
            f"GRANT {_choose_rights(table)} ON {schema}.{quote(table)} TO {grantee}"
            for table in sorted(metadata.tables)
        ),
        f"GRANT SELECT ON {schema}.{quote(CANARY_EXPOSURES)} TO {grantee}",
        *(_QUEUE_RIGHTS.format(schema=QUEUE_SCHEMA, to=grantee).split("; ") if queue else ()),
    ]


def _choose_rights(table: str) -> str:
    """Returns the runtime's rights on a table. They are narrower for tables with a history."""
    if table in _BLANKED_COLUMNS:
        return f"SELECT, INSERT, UPDATE ({', '.join(_BLANKED_COLUMNS[table])})"
    if table in _APPEND_ONLY_NAMES:
        return "SELECT, INSERT"
    if table in _NEVER_UPDATED_NAMES:
        return "SELECT, INSERT, DELETE"
    if table in _NEVER_DELETED_NAMES:
        return "SELECT, INSERT, UPDATE"
    return "SELECT, INSERT, UPDATE, DELETE"


def grant(
    url: str,
    role: str,
    *,
    only_show: bool = False,
) -> Sequence[str]:
    """Gives `role` the runtime's rights. Returns the statements. `migrate.upgrade` adds the
    rights on new tables.

    Raises InputError on SQLite or for the tables' owner, NotFound for an unknown role,
    DatabaseUnusable if the current role does not own the tables.
    """
    parsed = engine.parse(url)
    if parsed.get_backend_name() != "postgresql":
        raise InputError(
            "SQLite has no roles: the file's mode decides who may change it. With PostgreSQL, "
            "one role can own the tables and another one run Swapproof"
        )
    with (
        engine.temporary(parsed) as temporary_engine,
        translated(),
        temporary_engine.begin() as db,
    ):
        _check_role(db, role)
        statements = build_statements(db, role)
        if not only_show:
            _execute(db, statements)
        return statements


def grant_new_tables(db: sa.Connection) -> None:
    """Grants the runtime's rights on new tables to each role that has them on the old tables.
    Call it after a migration.
    """
    if db.dialect.name != "postgresql":
        return
    for (role,) in db.execute(_RUNTIME_ROLES).all():
        _execute(db, build_statements(db, role))


_RUNTIME_ROLES: Final = sa.text(
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
_OWNS_TABLES: Final = sa.text(
    "SELECT r.rolsuper OR pg_has_role(r.oid, c.relowner, 'MEMBER') AS owns"
    " FROM pg_roles r, pg_class c WHERE r.rolname = :role AND c.relname = 'route_version'"
    " AND c.relnamespace = quote_ident(current_schema())::regnamespace"
)


def _check_role(db: sa.Connection, role: str) -> None:
    """Raises NotFound for an unknown role, InputError for a role whose rights no grant can
    limit.
    """
    owns = db.execute(_OWNS_TABLES, {"role": role}).scalar()
    if owns is None:
        raise NotFound(
            f"there is no role {role!r}, or there are no tables: create the role with `CREATE "
            f'ROLE "{role}" LOGIN PASSWORD …`, and the tables with `swapproof db upgrade`'
        )
    if owns:
        raise InputError(
            f"the role {role!r} owns the tables or is a superuser, so no grant can limit it: "
            "grant the rights to another role"
        )


def _execute(db: sa.Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        db.exec_driver_sql(statement.replace("%", "%%"))


def describe_missing_right(url: str, action: str) -> str:
    """Describes that the URL's role lacks the right to an action, and names the tables' owner.

    Args:
        action: such as `upgrade the database`.
    """
    with (
        engine.temporary(url) as temporary_engine,
        translated(),
        temporary_engine.connect() as db,
    ):
        role, owner = db.execute(_OWNER).one()
    return (
        f"the role {role!r} may not {action}: it does not own the tables. Run `swapproof db "
        f"upgrade` once with their owner {owner!r} in `database_url`, where the signing key "
        f"is; other processes continue to use {role!r}"
    )


def find_owning_role(url: str) -> str | None:
    """Returns the runtime's role if it could also change the tables; None if it could not, and
    on SQLite. Raises StoreUnavailable.
    """
    parsed = engine.parse(url)
    if parsed.get_backend_name() != "postgresql":
        return None
    with (
        engine.temporary(parsed) as temporary_engine,
        translated(),
        temporary_engine.connect() as db,
    ):
        role = str(db.execute(sa.text("SELECT current_user")).scalar_one())
        return role if db.execute(_OWNS_TABLES, {"role": role}).scalar() else None
