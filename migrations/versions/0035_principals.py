"""Principals: who acts, with an id that stays. Four eyes are two of them.

Each management key from before gets a principal of its name; keys whose names are one but for
spelling get one together. Proposals from before were made by a key of their proposer's name, or
where there is none by the local operator.
"""

import sys
import unicodedata
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0031"
branch_labels = None
depends_on = None

LOCAL, SYSTEM = "local", "swapgate"
UNSEEN = frozenset("\u115f\u1160\u3164\uffa0\u17b4\u17b5\u034f\u2800")
GUARDS = {
    "principal": ("principal_guard", "principal_no_rewrite", "principal_no_delete"),
    "api_key": ("api_key_guard", "api_key_no_rewrite"),
    "proposal": ("proposal_proposer_fixed",),
    "approval": ("approval_principals",),
}


def upgrade() -> None:
    op.create_table(
        "principal",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("folded", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('local', 'person', 'service')", name=op.f("ck_principal_kind_known")
        ),
        sa.CheckConstraint("trim(id) <> ''", name=op.f("ck_principal_id_not_blank")),
        sa.CheckConstraint("trim(name) <> ''", name=op.f("ck_principal_name_not_blank")),
        sa.CheckConstraint("trim(folded) <> ''", name=op.f("ck_principal_folded_not_blank")),
        sa.CheckConstraint(
            "(issuer IS NULL) = (subject IS NULL)", name=op.f("ck_principal_signed_in_whole")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principal")),
        sa.UniqueConstraint("folded", name=op.f("uq_principal_folded")),
        sa.UniqueConstraint("issuer", "subject", name="uq_principal_signed_in"),
    )
    op.execute(
        "ALTER TABLE api_key ADD COLUMN principal TEXT"
        " CONSTRAINT fk_api_key_principal REFERENCES principal (id)"
    )
    op.add_column("api_key", sa.Column("created_by", sa.Text(), nullable=True))
    op.add_column("api_key", sa.Column("created_with", sa.Text(), nullable=True))
    op.add_column("audit_event", sa.Column("principal", sa.Text(), nullable=True))
    op.add_column("audit_event", sa.Column("key", sa.Text(), nullable=True))
    op.add_column(
        "proposal",
        sa.Column("proposer_principal", sa.Text(), nullable=False, server_default=""),
    )
    op.add_column("proposal", sa.Column("proposer_key", sa.Text(), nullable=True))
    fill(op.get_bind())


def fill(db: sa.Connection) -> None:
    add = sa.text(
        "INSERT INTO principal (id, kind, name, folded, created_at)"
        " VALUES (:id, :kind, :name, :folded, :at)"
    )
    db.execute(add, {"id": LOCAL, "kind": "local", "name": LOCAL, "folded": LOCAL, "at": 0})
    by_name = {SYSTEM: SYSTEM}
    keys = "SELECT id, name, created_at FROM api_key WHERE role IS NOT NULL"
    for key in db.execute(sa.text(f"{keys} ORDER BY created_at, id")).all():
        shown = visible(key.name) or key.id
        if folded(shown) in (LOCAL, SYSTEM):
            shown = f"{shown} (key)"
        name = folded(shown)
        if name in by_name:
            print(  # noqa: T201 - said by `swapgate db upgrade`
                f"the management key {key.id} ({key.name!r}) has the same name as one before: "
                "both belong to one principal from now on",
                file=sys.stderr,
            )
        else:
            by_name[name] = f"pr_{sha256(name.encode()).hexdigest()[:16]}"
            who = {"id": by_name[name], "kind": "person", "name": shown, "folded": name}
            db.execute(add, {**who, "at": key.created_at})
        db.execute(
            sa.text("UPDATE api_key SET principal = :principal WHERE id = :id"),
            {"principal": by_name[name], "id": key.id},
        )
    # A stored proposal's version rises by one with every change.
    proposed = sa.text(
        "UPDATE proposal SET proposer_principal = :principal, version = version + 1"
        " WHERE proposer = :name"
    )
    for name in db.execute(sa.text("SELECT DISTINCT proposer FROM proposal")).scalars().all():
        db.execute(proposed, {"principal": by_name.get(folded(name), LOCAL), "name": name})


def visible(text: str) -> str:
    seen = (
        " " if unicodedata.category(c)[0] == "Z" else c
        for c in text
        if unicodedata.category(c)[0] != "C" and c not in UNSEEN
    )
    return " ".join("".join(seen).split())


def folded(text: str) -> str:
    text = unicodedata.normalize("NFKC", visible(text)).casefold()
    return " ".join(unicodedata.normalize("NFKC", text).split())


def downgrade() -> None:
    # They name what goes. The newest revision installs them all again (harness/store/guards).
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table, names in GUARDS.items():
        for name in names:
            of_table = "" if on_sqlite else f" ON {table}"
            op.execute(f"DROP TRIGGER IF EXISTS {name}{of_table}")
            if not on_sqlite:
                op.execute(f"DROP FUNCTION IF EXISTS {name}()")
    for table, columns in {
        "proposal": ("proposer_key", "proposer_principal"),
        "audit_event": ("key", "principal"),
        "api_key": ("created_with", "created_by", "principal"),
    }.items():
        for column in columns:
            op.drop_column(table, column)
    op.drop_table("principal")
