"""Reads the signed rows of a router's snapshot from the database (`read`), and builds the
snapshot from verified rows (`build_verified`). The rows come from the database or from a
router's disk, and pass the same checks. `harness.frame.records` verifies signatures, and
`manifest` the set of all rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, cast

import sqlalchemy as sa

from harness.agents.records import AGENT_GRANT, agent_grant
from harness.app.store import manifest as manifests
from harness.app.store.row_faults import CHAINS
from harness.app.store.tables import SIGNED
from harness.frame.errors import SignatureInvalid, SnapshotInvalid
from harness.frame.people.access import ApiKey
from harness.frame.people.records import API_KEY
from harness.frame.ports import Verifier
from harness.frame.records.columns import SIGNATURE, Row
from harness.frame.records.signed_tables import (
    RowVerifier,
    StoredRow,
    covered_values,
)
from harness.frame.records.transaction import Transaction
from harness.frame.signing.signed_rows import (
    Lineage,
    Revocations,
    SignedRows,
    head_text,
)
from harness.providers.credential import keys_for_routers
from harness.providers.force import active_switches
from harness.providers.records import CREDENTIAL, PROVIDER, TARGET, target
from harness.providers.target import Target
from harness.routing.records.installation import Installations
from harness.routing.records.interventions import SWITCH, shadow_from_row
from harness.routing.records.versions import (
    route_fallback,
    route_from_row,
    route_version,
)
from harness.routing.table import KeyGrant, RoutingTable, Snapshot, order_fallbacks

LIVE_TABLES: Final = tuple(name for name, table in SIGNED.items() if table.live is not None)
_NEWEST_CHAINS: Final = CHAINS.join(
    route_version,
    sa.and_(
        route_version.c.route == route_fallback.c.route,
        route_version.c.version == route_fallback.c.version,
    ),
).where(cast("sa.ColumnElement[bool]", SIGNED[route_version.name].live))


def read(tx: Transaction) -> SignedRows:
    """Reads a snapshot's rows in their stored form, without verifying them."""
    rows: dict[str, list[dict[str, object]]] = {}
    for name in LIVE_TABLES:
        signed = SIGNED[name]
        query = sa.select(signed.table).where(cast("sa.ColumnElement[bool]", signed.live))
        table_rows = tx.read(query.order_by(*signed.table.primary_key.columns))
        rows[name] = [_select_signed_values(name, row) for row in table_rows]
    chains: dict[str, list[list[str]]] = defaultdict(list)
    for row in tx.read(_NEWEST_CHAINS):
        chains[row.route].append([row.target, row.evidence])
    used_targets = _collect_targets(rows, chains)
    query = sa.select(target).where(target.c.id.in_(sorted(used_targets))).order_by(target.c.id)
    rows[target.name] = [_select_signed_values(target.name, row) for row in tx.read(query)]
    manifest = tx.read(manifests.STORED_MANIFEST).first()
    counters = tx.read(manifests.COUNTERS).one()
    return SignedRows(
        installation=Installations(tx).lineage().installation,
        revision=counters.revision,
        changes=counters.changes,
        epoch=counters.epoch,
        rows=rows,
        chains=dict(chains),
        revoked=sorted(tx.read(manifests.REVOKED).scalars()),
        manifest=asdict(manifests.from_row(manifest)) if manifest else {},
        signature=manifest.signature if manifest else "",
    )


def _select_signed_values(name: str, row: Row) -> dict[str, object]:
    """Returns the row's columns that the signature covers, and the signature."""
    values = row._asdict()
    return covered_values(SIGNED[name], values) | {SIGNATURE: values[SIGNATURE]}


def _collect_targets(
    rows: Mapping[str, list[dict[str, object]]],
    chains: Mapping[str, list[list[str]]],
) -> set[str]:
    """Collects the ids of the targets that routes, chains, grants and shadows name."""
    targets = {target for chain in chains.values() for target, _ in chain}
    for row in rows[route_version.name]:
        targets |= {
            str(row[role]) for role in ("incumbent", "canary", "holdback") if role in row
        }
    targets |= {str(row["target"]) for row in rows[agent_grant.name]}
    return targets | {str(row["candidate"]) for row in rows["shadow"]}


def build_verified(
    signed_rows: SignedRows,
    verifier: Verifier,
    etag: str,
    now: datetime,
) -> Snapshot:
    """Verifies the rows and builds the snapshot.

    Args:
        etag: the database's ETag for these rows.

    Raises SnapshotInvalid for a row or manifest that does not verify, and for rows that do not
    fit together.
    """
    try:
        rows = RowVerifier(verifier, lambda: signed_rows.installation)
        _verify(signed_rows, rows)
        for former in signed_rows.former:
            _verify_former(former, rows)
        return _build_snapshot(signed_rows, etag, now)
    except SignatureInvalid as error:
        raise SnapshotInvalid(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotInvalid(f"the signed rows do not form a snapshot: {error}") from error


def _verify(signed_rows: SignedRows, signatures: RowVerifier) -> None:
    """Checks each row's signature, then the manifest. The manifest reveals missing and outdated
    rows.
    """
    for name, rows in signed_rows.rows.items():
        signed = SIGNED[name]
        for row in rows:
            further_values = {}
            if name == route_version.name:
                further_values["fallbacks"] = signed_rows.chains.get(str(row["route"]), [])
            stored = cast("Row", StoredRow(signed.table, row))
            signatures.check_row(signed.table, stored, **further_values)
    # A router's disk may lack the rows of a new table. The manifest's digest shows whether a
    # row is missing.
    live_rows = [row for name in LIVE_TABLES for row in signed_rows.rows.get(name, ())]
    if not signed_rows.manifest:
        if live_rows:
            raise SignatureInvalid(manifests.MANIFEST_MISSING)
        return
    signatures.check_manifest(signed_rows.manifest, signed_rows.signature)
    manifests.check_content(
        manifests.Manifest(**cast("dict[str, Any]", signed_rows.manifest)),
        manifests.ManifestContent(
            signed_rows.epoch,
            signed_rows.revision,
            signed_rows.changes,
            manifests.digest_of([str(row[SIGNATURE]) for row in live_rows]),
            manifests.digest_of(signed_rows.revoked),
        ),
    )


def _verify_former(former: Revocations, signatures: RowVerifier) -> None:
    """Checks the revoked keys of an earlier epoch of the database."""
    signatures.check_manifest(former.manifest, former.signature)
    if manifests.digest_of(former.ids) != former.manifest["revoked"]:
        raise SignatureInvalid(
            "the revoked keys of an earlier epoch differ from the signed keys"
        )


def _build_snapshot(
    signed_rows: SignedRows,
    etag: str,
    now: datetime,
) -> Snapshot:
    """Builds the snapshot. Omits expired grants, and targets that no route and no
    grant uses.
    """
    tables = {
        name: [cast("Row", StoredRow(SIGNED[name].table, row)) for row in rows]
        for name, rows in signed_rows.rows.items()
    }
    targets = {row.id: _read_target(row) for row in tables[target.name]}
    routes = {
        row.route: order_fallbacks(
            route_from_row(
                row,
                tuple(id_ for id_, _ in signed_rows.chains.get(row.route, [])),
            ),
            now,
        )
        for row in tables[route_version.name]
    }
    grants = [AGENT_GRANT.read(row) for row in tables.get(agent_grant.name, ())]
    current_grants = tuple(grant for grant in grants if now < grant.expires_at)
    used_targets = frozenset(grant.target for grant in current_grants).union(
        *(route.targets for route in routes.values())
    )
    live_shadows = [
        shadow_from_row(row, targets)
        for row in _sort_newest_first(tables["shadow"], "started_at")
    ]
    switches = [
        SWITCH.read(row).switch for row in _sort_newest_first(tables["switch"], "created_at")
    ]
    keys = sorted(tables["api_key"], key=lambda row: (row.created_at, row.id))
    revoked = frozenset(signed_rows.revoked).union(
        *(revocations.ids for revocations in signed_rows.former)
    )
    credentials = sorted(
        tables["credential"],
        key=lambda row: (row.provider, row.position, row.name),
    )
    return Snapshot(
        RoutingTable(
            signed_rows.revision,
            routes,
            {id_: row for id_, row in targets.items() if id_ in used_targets},
        ),
        {row.name: PROVIDER.read(row) for row in tables["provider"]},
        _build_key_grants(API_KEY.read(row) for row in keys if row.id not in revoked),
        etag,
        active_switches(switches, now),
        tuple(live_shadows),
        keys_for_routers([CREDENTIAL.read(row) for row in credentials], now),
        signed_rows,
        _build_lineage(signed_rows),
        revoked,
        current_grants,
    )


def _build_key_grants(keys: Iterable[ApiKey]) -> tuple[KeyGrant, ...]:
    """Selects the client keys that are not revoked. Omits management keys, which have a role
    and no routes.
    """
    return tuple(
        KeyGrant(
            key.id,
            key.hash,
            key.routes,
            key.limits and key.limits.or_none,
            key.opt_outs,
            key.name,
        )
        for key in keys
        if key.role is None and key.revoked_at is None
    )


def _build_lineage(rows: SignedRows) -> Lineage:
    return Lineage(
        rows.installation,
        rows.epoch,
        rows.revision,
        rows.changes,
        str(rows.manifest.get("digest", "")),
        {
            str(row["route"]): head_text(row["version"], row["at"])
            for row in rows.rows[route_version.name]
        },
        str(rows.manifest.get("log_end", "")),
    )


def _sort_newest_first(rows: list[Row], time: str) -> list[Row]:
    return sorted(rows, key=lambda row: (getattr(row, time), row.id), reverse=True)


def _read_target(row: Row) -> Target:
    """Reads a target. Raises SnapshotInvalid if its id is not the hash of its content."""
    target_ = TARGET.read(row)
    if target_.id != row.id:
        raise SnapshotInvalid(
            f"somebody edited target {row.id} in the database: its content is {target_.id}'s. "
            "Restore the row from a backup"
        )
    return target_
