"""Reads the signed rows of a router's snapshot from the database (`read`), and builds the
snapshot from verified rows (`verified`). The rows come from the database or a router's disk.

Both sources pass the same checks, so a router trusts its disk no more than its database. The
signatures are in `harness.frame.records`, and the manifest over all rows in `manifest`.
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
from harness.routing.table import KeyGrant, RoutingTable, Snapshot

LIVE: Final = tuple(name for name, table in SIGNED.items() if table.live is not None)
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
    for name in LIVE:
        signed = SIGNED[name]
        query = sa.select(signed.table).where(cast("sa.ColumnElement[bool]", signed.live))
        found = tx.read(query.order_by(*signed.table.primary_key.columns))
        rows[name] = [_stored(name, row) for row in found]
    chains: dict[str, list[list[str]]] = defaultdict(list)
    for row in tx.read(_NEWEST_CHAINS):
        chains[row.route].append([row.target, row.evidence])
    used = _targets_used(rows, chains)
    query = sa.select(target).where(target.c.id.in_(sorted(used))).order_by(target.c.id)
    rows[target.name] = [_stored(target.name, row) for row in tx.read(query)]
    manifest = tx.read(manifests.STORED).first()
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


def _stored(name: str, row: Row) -> dict[str, object]:
    """Returns the row's columns that the signature covers, and the signature."""
    values = row._asdict()
    return covered_values(SIGNED[name], values) | {SIGNATURE: values[SIGNATURE]}


def _targets_used(
    rows: Mapping[str, list[dict[str, object]]],
    chains: Mapping[str, list[list[str]]],
) -> set[str]:
    """Collects the ids of the targets that routes, chains, grants and shadows name."""
    used = {target for chain in chains.values() for target, _ in chain}
    for row in rows[route_version.name]:
        used |= {str(row[role]) for role in ("incumbent", "canary", "holdback") if role in row}
    used |= {str(row["target"]) for row in rows[agent_grant.name]}
    return used | {str(row["candidate"]) for row in rows["shadow"]}


def verified(
    signed_rows: SignedRows,
    verifier: Verifier,
    etag: str,
    now: datetime,
) -> Snapshot:
    """Verifies the rows and builds the snapshot. etag: the database's ETag for these rows.

    Raises SnapshotInvalid for a row or manifest that does not verify, and for rows that do not
    fit together.
    """
    try:
        rows = RowVerifier(verifier, lambda: signed_rows.installation)
        _verify(signed_rows, rows)
        for former in signed_rows.former:
            _verify_former(former, rows)
        return _built(signed_rows, etag, now)
    except SignatureInvalid as error:
        raise SnapshotInvalid(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotInvalid(f"the signed rows do not form a snapshot: {error}") from error


def _verify(signed_rows: SignedRows, signatures: RowVerifier) -> None:
    """Checks each row's signature, then the manifest, which also finds missing and outdated
    rows.
    """
    for name, rows in signed_rows.rows.items():
        signed = SIGNED[name]
        for row in rows:
            more = {}
            if name == route_version.name:
                more["fallbacks"] = signed_rows.chains.get(str(row["route"]), [])
            stored = cast("Row", StoredRow(signed.table, row))
            signatures.check_row(signed.table, stored, **more)
    # Rows of a new table may be missing on a router's disk. The manifest's digest shows whether
    # rows are missing that should exist.
    live = [row for name in LIVE for row in signed_rows.rows.get(name, ())]
    if not signed_rows.manifest:
        if live:
            raise SignatureInvalid(manifests.MISSING)
        return
    signatures.check_manifest(signed_rows.manifest, signed_rows.signature)
    manifests.check_content(
        manifests.Manifest(**cast("dict[str, Any]", signed_rows.manifest)),
        manifests.Content(
            signed_rows.epoch,
            signed_rows.revision,
            signed_rows.changes,
            manifests.digest_of([str(row[SIGNATURE]) for row in live]),
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


def _built(
    signed_rows: SignedRows,
    etag: str,
    now: datetime,
) -> Snapshot:
    """Builds the snapshot. Leaves out expired grants and targets that no route and no grant
    uses.
    """
    tables = {
        name: [cast("Row", StoredRow(SIGNED[name].table, row)) for row in rows]
        for name, rows in signed_rows.rows.items()
    }
    targets = {row.id: _target(row) for row in tables[target.name]}
    routes = {
        row.route: route_from_row(
            row,
            tuple(id_ for id_, _ in signed_rows.chains.get(row.route, [])),
        )
        for row in tables[route_version.name]
    }
    granted = [AGENT_GRANT.read(row) for row in tables.get(agent_grant.name, ())]
    grants_now = tuple(grant for grant in granted if now < grant.expires_at)
    used = frozenset(grant.target for grant in grants_now).union(
        *(route.targets for route in routes.values())
    )
    live = [shadow_from_row(row, targets) for row in _newest(tables["shadow"], "started_at")]
    thrown = [SWITCH.read(row).switch for row in _newest(tables["switch"], "created_at")]
    keys = sorted(tables["api_key"], key=lambda row: (row.created_at, row.id))
    revoked = frozenset(signed_rows.revoked).union(
        *(revocations.ids for revocations in signed_rows.former)
    )
    stored = sorted(
        tables["credential"],
        key=lambda row: (row.provider, row.position, row.name),
    )
    return Snapshot(
        RoutingTable(
            signed_rows.revision,
            routes,
            {id_: row for id_, row in targets.items() if id_ in used},
        ),
        {row.name: PROVIDER.read(row) for row in tables["provider"]},
        _key_grants(API_KEY.read(row) for row in keys if row.id not in revoked),
        etag,
        active_switches(thrown, now),
        tuple(live),
        keys_for_routers([CREDENTIAL.read(row) for row in stored], now),
        signed_rows,
        _lineage(signed_rows),
        revoked,
        grants_now,
    )


def _key_grants(keys: Iterable[ApiKey]) -> tuple[KeyGrant, ...]:
    """Selects the data keys that are not revoked. Management keys have a role and open no
    route.
    """
    return tuple(
        KeyGrant(
            key.id,
            key.hash,
            key.routes,
            key.limits and key.limits.some,
            key.opt_outs,
        )
        for key in keys
        if key.role is None and key.revoked_at is None
    )


def _lineage(rows: SignedRows) -> Lineage:
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


def _newest(rows: list[Row], time: str) -> list[Row]:
    return sorted(rows, key=lambda row: (getattr(row, time), row.id), reverse=True)


def _target(row: Row) -> Target:
    """Reads a target. Raises SnapshotInvalid if its id is not the hash of its content."""
    found = TARGET.read(row)
    if found.id != row.id:
        raise SnapshotInvalid(
            f"somebody edited target {row.id} in the database: its content is {found.id}'s. "
            "Restore the row from a backup"
        )
    return found
