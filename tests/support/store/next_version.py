"""Makes a copy of Swapgate whose schema is one migration ahead, as the next version's would be:
its commands run as `python -m swapgate` in the copy's folder, beside this version's processes.
"""

import shutil
from pathlib import Path

from harness import package_data
from harness.store import schema_revisions

NEXT = "9001"

ADDITIVE = """
    op.add_column(
        "rollout", sa.Column("next_note", sa.Text(), nullable=False, server_default="")
    )
    op.create_table(
        "next_table",
        sa.Column("id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_next_table")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_rollout_next_note", "rollout", ["next_note", "id"])
"""
_DOWN = """
    op.drop_index("ix_rollout_next_note", "rollout")
    op.drop_table("next_table")
    op.drop_column("rollout", "next_note")
"""


def make_next_version(folder: Path, *, upgrade: str = ADDITIVE, oldest: str = "") -> Path:
    """Returns the folder of the next version's code.

    upgrade: the body of its migration. oldest: the revision whose code may go on beside it; by
    default this version's.
    """
    root, made = package_data.ROOT, folder / "next"
    made.mkdir()
    for name in ("harness", "migrations"):
        # With its bytecode, which fits files of the same time: compiling takes seconds.
        shutil.copytree(root / name, made / name)
    for name in ("router", "evals", "dashboard", "swapgate", "config", "datasets", "docs"):
        (made / name).symlink_to(root / name)
    head = schema_revisions.needed()
    (made / "migrations" / "versions" / f"{NEXT}_next.py").write_text(
        '"""What the next version adds."""\n\n'
        "import sqlalchemy as sa\nfrom alembic import op\n\n"
        f'revision = "{NEXT}"\ndown_revision = "{head}"\n'
        f'branch_labels = None\ndepends_on = None\ncompatible_from = "{oldest or head}"\n\n\n'
        f"def upgrade() -> None:{upgrade}\n\n"
        f"def downgrade() -> None:{_DOWN}",
        encoding="utf-8",
    )
    return made
