"""Says which generation of triggers a database has, so that a process of an older version which
starts at the same revision of the schema leaves a newer version's triggers in place (ADR 38).

The number stands beside the revision, in `alembic_version`, and with it which triggers these
are, signed with control's key: a number that somebody made up excuses no trigger.
"""

import json
from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from harness.domain.errors import ConfigError, SignatureInvalid
from harness.domain.operations.row_signatures import KeyPurpose, row_payload
from harness.ports import Signatures

# `triggers.digest()` of each generation, this version's last. Whoever changes a trigger, or a
# list of words that one holds, adds a line, and lines to `known_triggers`; those before stay.
DIGESTS: Final = (
    "283ba402e8656de2f1991d2cff45ba98381a7f4622af9b7a86fc4e0006c98c00",
    "8c001069803b19f7816f79ba5d0eaf9c4a7455f25a001afca34ffbc65b18af5c",
    "3852b1c328e536a3d33f42624cac1bdc03d59453da82ad1847dc20022d6ff3d7",
)  # fmt: skip
GENERATION: Final = len(DIGESTS)

_TABLE: Final = "alembic_version"
_ADD: Final = sa.text(f"ALTER TABLE {_TABLE} ADD COLUMN triggers INTEGER")
_FOUND: Final = sa.text(f"SELECT triggers FROM {_TABLE}")  # noqa: S608 - a constant
_WRITE: Final = sa.text(f"UPDATE {_TABLE} SET triggers = :generation")  # noqa: S608 - as above
_ADD_SIGNED: Final = sa.text(f"ALTER TABLE {_TABLE} ADD COLUMN triggers_signed TEXT")
_FOUND_SIGNED: Final = sa.text(f"SELECT triggers_signed FROM {_TABLE}")  # noqa: S608 - as above
_SIGN: Final = sa.text(f"UPDATE {_TABLE} SET triggers_signed = :signed")  # noqa: S608 - as above


def has_newer(db: sa.Connection) -> bool:
    """Tells whether the database has triggers of a newer generation than this version's."""
    return recorded(db) > GENERATION


def record(db: sa.Connection) -> None:
    """Writes down that the database has this version's triggers."""
    if not _is_kept(db):
        db.execute(_ADD)
    if recorded(db) != GENERATION:
        _write(db, GENERATION)


def forget(db: sa.Connection) -> None:
    """Takes the generation away: at an older schema, or where the triggers are replaced."""
    if _is_kept(db):
        _write(db, None)


def recorded(db: sa.Connection) -> int:
    """Returns the generation written down; 0 by versions that wrote none."""
    return (db.execute(_FOUND).scalar() or 0) if _is_kept(db) else 0


def _write(db: sa.Connection, generation: int | None) -> None:
    """What was signed of another generation goes."""
    db.execute(_WRITE, {"generation": generation})
    if _is_kept(db, "triggers_signed"):
        db.execute(_SIGN, {"signed": None})


def sign(db: sa.Connection, digests: Mapping[str, str], signatures: Signatures) -> None:
    """Signs which triggers the generation that is written down has: a digest of each, by name.
    Raises ConfigError where this process has no private key.
    """
    signature = signatures.sign(_payload(recorded(db), digests))
    if not _is_kept(db, "triggers_signed"):
        db.execute(_ADD_SIGNED)
    signed = json.dumps({"triggers": dict(digests), "signature": signature})
    db.execute(_SIGN, {"signed": signed})


def signed_digests(db: sa.Connection, signatures: Signatures | None) -> Mapping[str, str]:
    """Returns what the version that installed the triggers signed of them. Raises
    SignatureInvalid where nothing holds of the generation that is written down.
    """
    if signatures is None:
        raise SignatureInvalid("there is no keyring to verify it with")
    found = db.execute(_FOUND_SIGNED).scalar() if _is_kept(db, "triggers_signed") else None
    if not found:
        raise SignatureInvalid("it has no signature")
    try:
        stored = json.loads(found)
        digests = {str(name): str(digest) for name, digest in stored["triggers"].items()}
        payload = _payload(recorded(db), digests)
        signatures.check(payload, str(stored["signature"]), KeyPurpose.CONTROL)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SignatureInvalid("its signature cannot be read") from None
    except ConfigError as error:
        raise SignatureInvalid(str(error)) from None
    return digests


def _payload(generation: int, digests: Mapping[str, str]) -> bytes:
    return row_payload(_TABLE, "", {"triggers": generation}, digests=dict(digests))


def _is_kept(db: sa.Connection, column: str = "triggers") -> bool:
    inspector = sa.inspect(db)
    if not inspector.has_table(_TABLE):
        return False
    return column in {kept["name"] for kept in inspector.get_columns(_TABLE)}
