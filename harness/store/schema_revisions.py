"""Says which revisions of the schema this version knows and which it needs, and whether it may
use a database at another one (ADR 38). It reads the migrations' text: importing alembic would
take long.

A migration from 0017 on says with `compatible_from` the oldest revision whose code may go on
while the database is at its own: processes of before the upgrade then read, write and start
anew. `swapgate db upgrade` writes that into the database, where older code finds it.
"""

import re
from functools import cache
from typing import Final

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness import package_data
from harness.domain.errors import DatabaseUnusable, StoreUnavailable

_REVISION: Final = re.compile(r'^revision = "(\w+)"$', re.MULTILINE)
_BEFORE: Final = re.compile(r'^down_revision = "(\w+)"$', re.MULTILINE)
_DECLARED: Final = re.compile(r'^compatible_from = "(\w+)"$', re.MULTILINE)
# The migrations after the first of these, up to the last, only add to it.
_UNDECLARED: Final = ("0002", "0016")

_FOUND: Final = sa.text("SELECT version_num FROM alembic_version")
# Only the tables' owner may write there.
_COMPATIBLE: Final = sa.text("SELECT compatible_from FROM alembic_version")


@cache
def known() -> frozenset[str]:
    """Lists all revisions that this version has a migration for."""
    return frozenset(_texts())


@cache
def needed() -> str:
    """Returns the newest revision of the schema, which this version needs."""
    before = {revision for text in _texts().values() for revision in _BEFORE.findall(text)}
    (newest,) = known() - before
    return newest


def compatible_from(revision: str) -> str:
    """Returns the oldest revision whose code may use a database at `revision`, one that this
    version knows.
    """
    if revision <= _UNDECLARED[1]:
        return min(revision, _UNDECLARED[0])
    (oldest,) = _DECLARED.findall(_texts()[revision])
    return str(oldest)


def is_served(db: sa.Connection, found: str) -> bool:
    """Tells whether the version that made a newer database lets this version's code go on."""
    return found not in known() and str(db.execute(_COMPATIBLE).scalar()) <= needed()


def is_current(url: str) -> bool:
    """Tells whether an upgrade would find nothing to do: this version's revision, and its
    triggers. False too where nobody can say.
    """
    from harness.store import engine  # noqa: PLC0415 - only who would upgrade asks
    from harness.store.guards import triggers  # noqa: PLC0415 - only who would upgrade asks

    made = engine.make(engine.parse(url), poolclass=NullPool)
    _, options = engine.OPTIONS[made.dialect.name]
    try:
        with made.execution_options(**options).begin() as db:
            is_newest = db.execute(_FOUND).scalar() == needed()
            return (
                is_newest
                and db.execute(_COMPATIBLE).scalar() == compatible_from(needed())
                and triggers.are_installed(db)
            )
    except sa.exc.SQLAlchemyError:
        return False
    finally:
        made.dispose()


def require_usable(db: sa.Connection) -> None:
    """Checks that this version may read and write the database.

    Raises StoreUnavailable for an older one, which `db upgrade` mends, and DatabaseUnusable for
    a newer one that is not made for this version, too.
    """
    found = db.execute(_FOUND).scalar()
    if found is None or found == needed():
        return
    if found in known():
        raise StoreUnavailable(
            f"the database is at revision {found} and this version needs {needed()}: run "
            "`swapgate db upgrade`, once there is a backup"
        )
    if not is_served(db, found):
        raise DatabaseUnusable(_newer(found))


def require_known(found: str | None) -> None:
    """Checks that this version knows the database's revision; else raises DatabaseUnusable."""
    if found is not None and found not in known():
        raise DatabaseUnusable(_newer(found))


def _newer(found: str) -> str:
    return (
        f"the database is at revision {found}, which a newer version of Swapgate made, and "
        f"this one needs {needed()}: run that version, or bring back a backup from before it"
    )


@cache
def _texts() -> dict[str, str]:
    """The migrations' text by revision."""
    files = package_data.path("migrations").glob("versions/*.py")
    texts = [file.read_text("utf-8") for file in files]
    return {revision: text for text in texts for revision in _REVISION.findall(text)}
