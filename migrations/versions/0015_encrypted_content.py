"""Content may be encrypted where it stands: the triggers that come with this revision take a
token for the text of before.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

MARK: Final = "swapgate-encrypted:"
# What may hold tokens, which the version before would show as they are.
CONTENT: Final = {
    "agent": ("description", "instructions", "tools"),
    "agent_session": ("metadata",),
    "agent_switch": ("model_requested", "reason", "omissions", "figures"),
    "captured": ("content",),
    "drift_check": ("message",),
    "eval_run": ("message",),
    "sample": ("answer", "error_text", "prompt"),
}


def upgrade() -> None:
    """Nothing but the triggers changes; they are written down in `harness.store.guards`."""


def downgrade() -> None:
    db = op.get_bind()
    for table, columns in CONTENT.items():
        for column in columns:
            found = sa.text(
                f"SELECT 1 FROM {table} WHERE substr({column}, 1, {len(MARK)}) = :mark LIMIT 1"  # noqa: S608 - constants
            )
            if db.execute(found, {"mark": MARK}).first() is not None:
                raise RuntimeError(
                    f"{table}.{column} holds encrypted content, which the version before "
                    "cannot read: delete it first, or stay with this version"
                )
