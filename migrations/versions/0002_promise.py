"""The promise: the rows that its triggers count on; on the way back, no trigger is left.

What the triggers say is written down in one place, `harness/store/guards`. Every upgrade to the
newest revision installs them from there (`harness.store.migrate`), in the same transaction.
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

META = sa.table("meta", sa.column("id"), sa.column("installation"), sa.column("changes"))
# Who acts where nobody signed in: on the machine itself.
LOCAL = "local"
PRINCIPAL = sa.table(
    "principal",
    sa.column("id"),
    sa.column("kind"),
    sa.column("name"),
    sa.column("folded"),
    sa.column("created_at"),
)


def upgrade() -> None:
    op.execute(sa.insert(META).values(id=1, installation=secrets.token_hex(16), changes=0))
    op.execute(
        sa.insert(PRINCIPAL).values(
            id=LOCAL, kind=LOCAL, name=LOCAL, folded=LOCAL, created_at=0
        )
    )


def downgrade() -> None:
    drop_triggers(op.get_bind())
    op.execute(sa.delete(PRINCIPAL).where(PRINCIPAL.c.id == LOCAL))
    op.execute(sa.delete(META))


def drop_triggers(db: sa.Connection) -> None:
    if db.dialect.name == "sqlite":
        names = sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for name in db.execute(names).scalars().all():
            db.exec_driver_sql(f'DROP TRIGGER "{name}"')
        return
    found = sa.text(
        "SELECT DISTINCT p.oid::regprocedure FROM pg_trigger t"
        " JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid"
        " WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace"
    )
    for function in db.execute(found).scalars().all():
        db.exec_driver_sql(f"DROP FUNCTION {function} CASCADE")
