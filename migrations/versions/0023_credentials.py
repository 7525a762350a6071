"""Keys of providers, encrypted; a change of one reaches the routers."""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "credential",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("trim(name) <> ''", name=op.f("ck_credential_name_not_blank")),
        sa.ForeignKeyConstraint(
            ["provider"], ["provider.name"], name=op.f("fk_credential_provider")
        ),
        sa.PrimaryKeyConstraint("provider", "name", name=op.f("pk_credential")),
    )
    if op.get_bind().dialect.name == "sqlite":
        for event in ("INSERT", "UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER credential_changed_{event.lower()} AFTER {event} ON credential"
                " FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END"
            )
    else:
        op.execute(
            "CREATE TRIGGER credential_changed AFTER INSERT OR UPDATE OR DELETE ON credential"
            " FOR EACH STATEMENT EXECUTE FUNCTION serving_changed()"
        )


def downgrade() -> None:
    # With the table go its triggers.
    op.drop_table("credential")
