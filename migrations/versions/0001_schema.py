"""The schema of release 0.1.0: tables, triggers, views, and the rows that every installation
has.

Until release 0.1.0, this migration creates the tables of the present metadata. Afterwards it
never changes, and each change of a table needs its own migration.
"""

import secrets

import sqlalchemy as sa
from alembic import op

from harness.app.store import views
from harness.app.store.guards import triggers
from harness.app.store.schema_revisions import REVISION
from harness.app.store.tables import metadata
from harness.frame.people.access import LOCAL_PRINCIPAL
from harness.frame.people.records import PRINCIPAL, principal
from harness.routing.records.installation import meta

revision = REVISION
down_revision = None


def upgrade() -> None:
    db = op.get_bind()
    metadata.create_all(db)
    # These inserts come before the triggers, because triggers count each change.
    local = PRINCIPAL.write(LOCAL_PRINCIPAL)
    db.execute(sa.insert(principal).values(local))
    installation = secrets.token_hex(16)
    db.execute(sa.insert(meta).values(id=1, installation=installation, changes=0))
    triggers.install(db)
    views.install(db)
