"""The manifest is the control plane's signed statement of a snapshot's rows.

A row's signature proves that the control plane wrote the row once. It proves neither that the
row is current nor that no row was deleted. The manifest proves both: it has a digest of the
signatures of all current rows, the revision, and the number of changes. Each change checks the
stored manifest and signs a new one in the same transaction. So a new manifest never includes a
row that someone inserted, deleted or restored without Swapgate.

`signed_snapshot` checks the manifest at the routers, `row_faults` for `swapgate doctor`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC
from functools import lru_cache
from typing import Any, Final, cast

import sqlalchemy as sa

from harness.app.store.tables import SIGNED
from harness.frame.database.change_listener import visible_state
from harness.frame.errors import SignatureInvalid
from harness.frame.people.records import api_key
from harness.frame.plain_data import hash_content
from harness.frame.records.columns import SIGNATURE, Row
from harness.frame.records.record import record_of
from harness.frame.records.signed_tables import REMEDY, SignedTable
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import audit_event
from harness.routing.records.installation import manifest, meta
from harness.routing.records.versions import NEWEST_SIGNATURES, route_version

# The database joins values by this, because fetching ten thousand rows would take most of a
# call's time.
_SEPARATOR: Final = "\n"
# Key of a connection's `info`: the database state at the last successful check.
_FITS: Final = "swapgate_fits"


def _joined(column: sa.ColumnElement[Any]) -> tuple[sa.ColumnElement[Any], ...]:
    """Selects the number of rows, and a column's values as one text."""
    values = sa.func.aggregate_strings(sa.func.coalesce(column, ""), _SEPARATOR)
    return sa.func.count().label("rows"), values.label("joined")


def _live_signatures(name: str, table: SignedTable) -> sa.Select[Any]:
    if table.table is route_version:
        column = NEWEST_SIGNATURES.subquery("newest").c.signature
        return sa.select(sa.literal(name).label("table"), *_joined(column))
    joined = _joined(table.table.c.signature)
    return sa.select(sa.literal(name).label("table"), *joined).where(
        cast("sa.ColumnElement[bool]", table.live)
    )


LIVE_SIGNATURES: Final = sa.union_all(
    *(_live_signatures(name, table) for name, table in SIGNED.items() if table.live is not None)
)
STORED: Final = sa.select(manifest).where(manifest.c.id == 1)
COUNTERS: Final = sa.select(
    meta.c.epoch,
    meta.c.changes,
    sa.select(sa.func.coalesce(sa.func.max(route_version.c.revision), 0))
    .scalar_subquery()
    .label("revision"),
)
_IS_REVOKED: Final = sa.and_(api_key.c.role.is_(None), api_key.c.revoked_at.is_not(None))
REVOKED: Final = sa.select(api_key.c.id).where(_IS_REVOKED)
REVOKED_IDS: Final = sa.select(*_joined(api_key.c.id)).where(_IS_REVOKED)
LOG_END: Final = (
    sa.select(audit_event.c.number, audit_event.c.mac)
    .order_by(audit_event.c.number.desc())
    .limit(1)
)

REVOKED_OTHERWISE: Final = (
    "the manifest does not fit: someone other than Swapgate added or removed a revoked key; "
    f"{REMEDY}"
)
MISSING: Final = f"the manifest of the signed rows is missing; {REMEDY}"


@dataclass(frozen=True, slots=True)
class Content:
    """What the manifest states about the rows. Two databases with equal content have equal
    snapshots.

    epoch: rises if a person accepts a restored database. changes: number of changes to rows
    without a revision.
    """

    epoch: int
    revision: int
    changes: int
    digest: str  # SHA-256 over the sorted signatures of a snapshot's rows
    revoked: str  # SHA-256 over the sorted ids of the revoked data keys


@dataclass(frozen=True, slots=True)
class Manifest(Content):
    """The stored statement. signed_at: ISO 8601 in UTC."""

    signed_at: str
    log_end: str  # as in `Lineage`


def digest_of(signatures: Sequence[str]) -> str:
    """Returns a SHA-256 that does not depend on the order."""
    return hash_content("\n".join(sorted(signatures)))


EMPTY: Final = digest_of([])


def from_row(row: Row) -> Manifest:
    return record_of(Manifest, row, manifest, signed_at=row.signed_at.isoformat())


def read_content(read: Callable[[sa.Executable], sa.CursorResult[Any]]) -> Content:
    """Computes the manifest's content from the database. Raises SignatureInvalid for a row
    without a signature.
    """
    live = tuple((row.table, row.rows, row.joined or "") for row in read(LIVE_SIGNATURES))
    revoked = read(REVOKED_IDS).one()
    counters = read(COUNTERS).one()
    return Content(
        counters.epoch,
        counters.revision,
        counters.changes,
        _live_digest(live),
        _revoked_digest(revoked.rows, revoked.joined or ""),
    )


def _values(rows: int, joined: str) -> list[str] | None:
    """Splits values that the database joined; None if their number is wrong."""
    values = joined.split(_SEPARATOR) if rows else []
    return values if all(values) and len(values) == rows else None


# Cached, because the signatures seldom change between calls.
@lru_cache(maxsize=1)
def _live_digest(tables: tuple[tuple[str, int, str], ...]) -> str:
    by_table = {name: _values(rows, joined) for name, rows, joined in tables}
    unsigned = sorted(name for name, signatures in by_table.items() if signatures is None)
    if unsigned:
        raise SignatureInvalid(f"rows of {', '.join(unsigned)} have no signature; {REMEDY}")
    return digest_of([value for values in by_table.values() for value in values or ()])


@lru_cache(maxsize=1)
def _revoked_digest(rows: int, joined: str) -> str:
    ids = _values(rows, joined)
    if ids is None:
        raise SignatureInvalid(REVOKED_OTHERWISE)
    return digest_of(ids)


class Manifests:
    """Checks and signs the manifest in transactions."""

    def check(self, tx: Transaction) -> Manifest | None:
        """Reads and checks the stored manifest; None without one. Raises SignatureInvalid.

        If the database has not changed since the last successful check, the method does not
        read the rows again. Otherwise each API call could read ten thousand keys.
        """
        # A writing transaction always reads the rows: its state does not show its own writes.
        state = None if tx.writable else visible_state(tx.db)
        fits = state is not None and tx.db.info.get(_FITS) == state
        content = None if fits else read_content(tx.read)
        row = tx.read(STORED).first()
        if row is None:
            if content is not None and content.digest != EMPTY:
                raise SignatureInvalid(MISSING)
            return None
        stored = from_row(row)
        tx.signatures.check_manifest(asdict(stored), row.signature)
        if content is not None:
            check_content(stored, content)
            tx.db.info[_FITS] = state
        return stored

    def write(self, tx: Transaction) -> None:
        """Signs the current content and replaces the stored manifest. Raises SignatureInvalid
        for a row without a signature.
        """
        now = tx.now().astimezone(UTC)
        end = tx.read(LOG_END).first()
        content = asdict(read_content(tx.read)) | {
            "signed_at": now.isoformat(),
            "log_end": f"{end.number}:{end.mac}" if end is not None else "",
        }
        signature = tx.signatures.sign_document(manifest.name, content)
        values = content | {
            "id": 1,
            "signed_at": now,
            SIGNATURE: signature,
        }
        if not tx.write(sa.update(manifest).values(values)):
            tx.write(sa.insert(manifest).values(values))


def check_content(stored: Manifest, now: Content) -> None:
    """Raises SignatureInvalid if the database's current rows differ from the manifest."""
    expected = (stored.epoch, stored.revision, stored.changes)
    found = (now.epoch, now.revision, now.changes)
    if now.digest != stored.digest:
        raise SignatureInvalid(
            "the manifest does not fit: someone other than Swapgate added, deleted or restored "
            "a row of the routing table, a provider, a key, a person, a switch, a shadow, a "
            f"stored credential or an agent's grant; {REMEDY}"
        )
    if now.revoked != stored.revoked:
        raise SignatureInvalid(REVOKED_OTHERWISE)
    if expected != found:
        raise SignatureInvalid(
            "the manifest does not fit: its epoch, revision and changes are "
            f"{expected}, and those of the database {found}; {REMEDY}"
        )
