"""The manifest is the control plane's signed statement of a snapshot's rows.

A row's signature proves that the control plane wrote the row once. It proves neither that the
row is current nor that no row was deleted. The manifest proves both: it has a digest of the
signatures of all current rows, the revision, and the number of changes. Each change checks the
stored manifest and signs a new one in the same transaction. So a new manifest never confirms a
row that somebody inserted, deleted or restored without Swapproof.

`signed_snapshot` checks the manifest for routers, and `row_faults` for `swapproof doctor`.
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

# The database joins values by this separator. To fetch ten thousand rows would take most of a
# call's time.
_SEPARATOR: Final = "\n"
# Key of a connection's `info`: the database state at the last successful check.
_VERIFIED_STATE: Final = "swapproof_fits"


def _join_values(column: sa.ColumnElement[Any]) -> tuple[sa.ColumnElement[Any], ...]:
    """Selects the number of rows, and a column's values as one text."""
    values = sa.func.aggregate_strings(sa.func.coalesce(column, ""), _SEPARATOR)
    return sa.func.count().label("rows"), values.label("joined")


def _select_live_signatures(name: str, table: SignedTable) -> sa.Select[Any]:
    if table.table is route_version:
        column = NEWEST_SIGNATURES.subquery("newest").c.signature
        return sa.select(sa.literal(name).label("table"), *_join_values(column))
    joined = _join_values(table.table.c.signature)
    return sa.select(sa.literal(name).label("table"), *joined).where(
        cast("sa.ColumnElement[bool]", table.live)
    )


LIVE_SIGNATURES: Final = sa.union_all(
    *(
        _select_live_signatures(name, table)
        for name, table in SIGNED.items()
        if table.live is not None
    )
)
STORED_MANIFEST: Final = sa.select(manifest).where(manifest.c.id == 1)
COUNTERS: Final = sa.select(
    meta.c.epoch,
    meta.c.changes,
    sa.select(sa.func.coalesce(sa.func.max(route_version.c.revision), 0))
    .scalar_subquery()
    .label("revision"),
)
_IS_REVOKED: Final = sa.and_(api_key.c.role.is_(None), api_key.c.revoked_at.is_not(None))
REVOKED: Final = sa.select(api_key.c.id).where(_IS_REVOKED)
REVOKED_IDS: Final = sa.select(*_join_values(api_key.c.id)).where(_IS_REVOKED)
LOG_END: Final = (
    sa.select(audit_event.c.number, audit_event.c.mac)
    .order_by(audit_event.c.number.desc())
    .limit(1)
)

REVOKED_KEYS_DIFFER: Final = (
    "the manifest does not fit: someone other than Swapproof added or removed a revoked key; "
    f"{REMEDY}"
)
MANIFEST_MISSING: Final = f"the manifest of the signed rows is missing; {REMEDY}"


@dataclass(frozen=True, slots=True)
class ManifestContent:
    """The statement about a database's rows. Two databases with equal content have equal
    snapshots.

    epoch: rises if a person accepts a restored database. changes: number of changes to rows
    without a revision.
    """

    epoch: int
    revision: int
    changes: int
    digest: str  # SHA-256 over the sorted signatures of a snapshot's rows
    revoked: str  # SHA-256 over the sorted ids of the revoked client keys


@dataclass(frozen=True, slots=True)
class Manifest(ManifestContent):
    """The stored, signed statement. signed_at: ISO 8601 in UTC."""

    signed_at: str
    log_end: str  # as in `Lineage`


def digest_of(signatures: Sequence[str]) -> str:
    """Returns the SHA-256 of the sorted signatures, in hexadecimal digits."""
    return hash_content("\n".join(sorted(signatures)))


EMPTY_DIGEST: Final = digest_of([])


def from_row(row: Row) -> Manifest:
    return record_of(Manifest, row, manifest, signed_at=row.signed_at.isoformat())


def read_content(read: Callable[[sa.Executable], sa.CursorResult[Any]]) -> ManifestContent:
    """Computes the manifest's content from the database. Raises SignatureInvalid for a row
    without a signature.
    """
    signatures_by_table = tuple(
        (row.table, row.rows, row.joined or "") for row in read(LIVE_SIGNATURES)
    )
    revoked = read(REVOKED_IDS).one()
    counters = read(COUNTERS).one()
    return ManifestContent(
        counters.epoch,
        counters.revision,
        counters.changes,
        _digest_live_rows(signatures_by_table),
        _digest_revoked_keys(revoked.rows, revoked.joined or ""),
    )


def _split_values(rows: int, joined: str) -> list[str] | None:
    """Splits values that the database joined; None if their number is wrong."""
    values = joined.split(_SEPARATOR) if rows else []
    return values if all(values) and len(values) == rows else None


# Cached, because the signatures seldom change between calls.
@lru_cache(maxsize=1)
def _digest_live_rows(tables: tuple[tuple[str, int, str], ...]) -> str:
    by_table = {name: _split_values(rows, joined) for name, rows, joined in tables}
    unsigned_tables = sorted(
        name for name, signatures in by_table.items() if signatures is None
    )
    if unsigned_tables:
        raise SignatureInvalid(
            f"rows of {', '.join(unsigned_tables)} have no signature; {REMEDY}"
        )
    return digest_of([value for values in by_table.values() for value in values or ()])


@lru_cache(maxsize=1)
def _digest_revoked_keys(rows: int, joined: str) -> str:
    ids = _split_values(rows, joined)
    if ids is None:
        raise SignatureInvalid(REVOKED_KEYS_DIFFER)
    return digest_of(ids)


class Manifests:
    """Checks and signs the manifest in transactions."""

    def check(self, tx: Transaction) -> Manifest | None:
        """Reads and checks the stored manifest; None without one. Raises SignatureInvalid.

        Does not read the rows again if the database has not changed since the last successful
        check. Otherwise each API call could read ten thousand keys.
        """
        # A writing transaction always reads the rows, because its state does not show its own
        # writes.
        state = None if tx.writable else visible_state(tx.db)
        is_verified = state is not None and tx.db.info.get(_VERIFIED_STATE) == state
        content = None if is_verified else read_content(tx.read)
        row = tx.read(STORED_MANIFEST).first()
        if row is None:
            if content is not None and content.digest != EMPTY_DIGEST:
                raise SignatureInvalid(MANIFEST_MISSING)
            return None
        stored = from_row(row)
        tx.signatures.check_manifest(asdict(stored), row.signature)
        if content is not None:
            check_content(stored, content)
            tx.db.info[_VERIFIED_STATE] = state
        return stored

    def write(self, tx: Transaction) -> None:
        """Signs the current content and replaces the stored manifest. Raises SignatureInvalid
        for a row without a signature.
        """
        now = tx.now().astimezone(UTC)
        last_event = tx.read(LOG_END).first()
        content = asdict(read_content(tx.read)) | {
            "signed_at": now.isoformat(),
            "log_end": f"{last_event.number}:{last_event.mac}"
            if last_event is not None
            else "",
        }
        signature = tx.signatures.sign_document(manifest.name, content)
        values = content | {
            "id": 1,
            "signed_at": now,
            SIGNATURE: signature,
        }
        if not tx.write(sa.update(manifest).values(values)):
            tx.write(sa.insert(manifest).values(values))


def check_content(stored: Manifest, current: ManifestContent) -> None:
    """Raises SignatureInvalid if the database's current rows differ from the manifest."""
    expected = (stored.epoch, stored.revision, stored.changes)
    counted = (current.epoch, current.revision, current.changes)
    if current.digest != stored.digest:
        raise SignatureInvalid(
            "the manifest does not fit: someone other than Swapproof added, deleted or "
            "restored a row of the routing table, a provider, a key, a person, a switch, a "
            f"shadow, a stored credential or an agent's grant; {REMEDY}"
        )
    if current.revoked != stored.revoked:
        raise SignatureInvalid(REVOKED_KEYS_DIFFER)
    if expected != counted:
        raise SignatureInvalid(
            "the manifest does not fit: its epoch, revision and changes are "
            f"{expected}, and those of the database {counted}; {REMEDY}"
        )
