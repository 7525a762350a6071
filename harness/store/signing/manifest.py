"""The manifest is control's signed statement of which rows make a snapshot, so that none is
missing or old. Here: the queries behind it, how the next one is made, and how one is checked
against the rows found.

A row's signature says that control wrote it, once. It does not say that the row is still the
one that counts, nor that no other was deleted. The manifest does: a digest over the signatures
of all live rows, with the revision and the number of changes, signed anew in the same unit of
work as each change. Whoever signs the next one has checked the one before: a row that somebody
slipped in, took out or put back never becomes part of it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.content_hash import hash_content
from harness.domain.errors import SignatureInvalid
from harness.store.schema.columns import SIGNATURE, Row
from harness.store.schema.operations import api_key, audit_event, meta
from harness.store.schema.routing import route_version
from harness.store.schema.signed_tables import SIGNED, manifest
from harness.store.signing.row_signatures import REMEDY

LIVE_SIGNATURES: Final = sa.union_all(
    *(
        sa.select(sa.literal(name).label("table"), table.table.c.signature).where(table.live)
        for name, table in SIGNED.items()
        if table.live is not None
    )
)
STORED: Final = sa.select(manifest).where(manifest.c.id == 1)
COUNTERS: Final = sa.select(
    meta.c.epoch,
    meta.c.changes,
    sa.select(sa.func.coalesce(sa.func.max(route_version.c.revision), 0))
    .scalar_subquery()
    .label("revision"),
)
REVOKED: Final = sa.select(api_key.c.id).where(
    api_key.c.role.is_(None), api_key.c.revoked_at.is_not(None)
)
LOG_END: Final = (
    sa.select(audit_event.c.number, audit_event.c.mac)
    .order_by(audit_event.c.number.desc())
    .limit(1)
)

MISSING: Final = f"the manifest of the signed rows is missing; {REMEDY}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A signed statement of the rows that a snapshot is made of."""

    epoch: int
    revision: int
    changes: int
    digest: str  # SHA-256 over the sorted signatures of all rows that make a snapshot
    signed_at: str
    revoked: str  # as well, over the ids of the data keys that were revoked
    log_end: str  # as in `Lineage`


def digest_of(signatures: Sequence[str]) -> str:
    return hash_content("\n".join(sorted(signatures)))


def from_row(row: Row) -> Manifest:
    signed_at = row.signed_at.isoformat()
    return Manifest(
        row.epoch, row.revision, row.changes, row.digest, signed_at, row.revoked, row.log_end
    )


def next_manifest(
    counters: Row,
    signatures: Sequence[str],
    revoked: Sequence[str],
    log_end: str,
    now: datetime,
) -> Manifest:
    return Manifest(
        counters.epoch,
        counters.revision,
        counters.changes,
        digest_of(signatures),
        now.isoformat(),
        digest_of(revoked),
        log_end,
    )


def columns(new: Manifest, signature: str, now: datetime) -> dict[str, object]:
    return asdict(new) | {"id": 1, "signed_at": now, SIGNATURE: signature}


def signed_values(of: Manifest) -> dict[str, object]:
    return asdict(of)


def live_signatures(rows: list[Row]) -> list[str]:
    """Lists the signatures of the rows that make a snapshot. Raises SignatureInvalid for a row
    without one.
    """
    unsigned = sorted({row.table for row in rows if not row.signature})
    if unsigned:
        raise SignatureInvalid(
            f"rows of {', '.join(unsigned)} have no signature: sign the rows from before there "
            f"were signatures with `swapgate db sign`; {REMEDY}"
        )
    return [row.signature for row in rows]


def check_content(
    stored: Manifest,
    found: tuple[int, int, int],
    signatures: Sequence[str],
    revoked: Sequence[str],
) -> None:
    """Compares the live rows with the manifest. found: epoch, revision and changes. revoked:
    the ids.

    Raises SignatureInvalid where the live rows are not those that were signed last.
    """
    expected = (stored.epoch, stored.revision, stored.changes)
    if digest_of(signatures) != stored.digest:
        raise SignatureInvalid(
            "the manifest does not fit: a row of the routing table, a provider, a key, a "
            "person, a switch, a shadow, a stored credential or an agent's grant was added, "
            f"deleted or put back by somebody else than Swapgate; {REMEDY}"
        )
    if digest_of(revoked) != stored.revoked:
        raise SignatureInvalid(
            "the manifest does not fit: a revoked key was added or taken away by somebody else "
            f"than Swapgate; {REMEDY}"
        )
    if expected != found:
        raise SignatureInvalid(
            "the manifest does not fit: it was signed for epoch, revision and changes "
            f"{expected}, and the database says {found}; {REMEDY}"
        )
