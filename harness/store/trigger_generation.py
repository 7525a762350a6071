"""Says which generation of triggers a database has, so that a process of an older version which
starts at the same revision of the schema leaves a newer version's triggers in place (ADR 38).

The number stands beside the revision, in `alembic_version`, where only the tables' owner
writes.
"""

from typing import Final

import sqlalchemy as sa

# `triggers.digest()` of each generation, this version's last. Whoever changes a trigger, or a
# list of words that one holds, adds a line; the lines before stay.
DIGESTS: Final = (
    "283ba402e8656de2f1991d2cff45ba98381a7f4622af9b7a86fc4e0006c98c00",
)  # fmt: skip
GENERATION: Final = len(DIGESTS)

_TABLE: Final = "alembic_version"
_ADD: Final = sa.text(f"ALTER TABLE {_TABLE} ADD COLUMN triggers INTEGER")
_FOUND: Final = sa.text(f"SELECT triggers FROM {_TABLE}")  # noqa: S608 - a constant
_WRITE: Final = sa.text(f"UPDATE {_TABLE} SET triggers = :generation")  # noqa: S608 - as above


def has_newer(db: sa.Connection) -> bool:
    """Tells whether the database has triggers of a newer generation than this version's."""
    return recorded(db) > GENERATION


def record(db: sa.Connection) -> None:
    """Writes down that the database has this version's triggers."""
    if not _is_kept(db):
        db.execute(_ADD)
    if recorded(db) != GENERATION:
        db.execute(_WRITE, {"generation": GENERATION})


def forget(db: sa.Connection) -> None:
    """Lets any version install its triggers: an older schema has no newer ones."""
    if _is_kept(db):
        db.execute(_WRITE, {"generation": None})


def recorded(db: sa.Connection) -> int:
    """Returns the generation written down; 0 by versions that wrote none."""
    return (db.execute(_FOUND).scalar() or 0) if _is_kept(db) else 0


def _is_kept(db: sa.Connection) -> bool:
    inspector = sa.inspect(db)
    if not inspector.has_table(_TABLE):
        return False
    return "triggers" in {column["name"] for column in inspector.get_columns(_TABLE)}
