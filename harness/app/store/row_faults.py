"""Finds signed rows that do not verify and gaps between route versions; signs all rows again
(`swapproof db retire-key`), and removes forged rows (`swapproof db remove-forged`). Both
changes run as the tables' owner, in one transaction, `without_triggers`.

`Store` opens the transactions and writes the audit events.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from harness.app.store.manifest import Manifest, Manifests
from harness.app.store.tables import SIGNED, metadata
from harness.frame.errors import SignatureInvalid
from harness.frame.people.access import LOCAL_PRINCIPAL
from harness.frame.people.records import principal
from harness.frame.records.columns import SIGNATURE, Row
from harness.frame.records.signed_tables import SignedTable
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import audit_event
from harness.frame.signing.signed_rows import RowFault
from harness.gate.run import RUNNABLE_STATES
from harness.routing.records.proposals import (
    HAS_NOT_ENDED,
    LIVE_STATE_VALUES,
    proposal,
    rollout,
)
from harness.routing.records.runs import eval_run
from harness.routing.records.versions import route_fallback, route_version

# The number of rows in memory at a time, because rows contain texts.
ROWS_PER_PAGE: Final = 1_000
CHAINS: Final = sa.select(route_fallback).order_by(*route_fallback.primary_key.columns)
_CHAIN: Final = [route_fallback.c.route, route_fallback.c.version]
UNFINISHED_ROWS: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    proposal.name: HAS_NOT_ENDED,
    rollout.name: sa.or_(
        rollout.c.state.in_(LIVE_STATE_VALUES),
        rollout.c.bake_ends_at.is_not(None),
    ),
    eval_run.name: eval_run.c.state.in_([state.value for state in RUNNABLE_STATES]),
}
Chains = dict[tuple[str, int], list[list[str]]]


def load_chains(tx: Transaction, rows: Sequence[Row]) -> Chains:
    """Reads the fallbacks of consecutive route versions in their signed form."""
    chains: Chains = defaultdict(list)
    if rows:
        first = [rows[0].route, rows[0].version]
        last = [rows[-1].route, rows[-1].version]
        between = sa.tuple_(*_CHAIN).between(
            _build_sql_tuple(_CHAIN, first), _build_sql_tuple(_CHAIN, last)
        )
        for row in tx.read(CHAINS.where(between)):
            chains[row.route, row.version].append([row.target, row.evidence])
    return chains


def find_working_faults(tx: Transaction) -> Iterator[RowFault]:
    """Finds only the faults of unfinished proposals, rollouts and runs, because a periodic
    check must be quick.
    """
    for name, where in UNFINISHED_ROWS.items():
        rows = tx.read(_select_covered(SIGNED[name]).where(where)).all()
        yield from _find_page_faults(tx, SIGNED[name], rows, None)


def find_row_faults(tx: Transaction) -> Iterator[RowFault]:
    """Finds all faults, table by table. The manifest's fault comes last, with an empty key."""
    for signed in SIGNED.values():
        key = list(signed.table.primary_key.columns)
        query = _select_covered(signed).order_by(*key).limit(ROWS_PER_PAGE)
        rows = tx.read(query).all()
        last_row = None
        while rows:
            yield from _find_page_faults(tx, signed, rows, last_row)
            last_row = rows[-1]
            last = _build_sql_tuple(key, [last_row._asdict()[name] for name in signed.key])
            rows = tx.read(query.where(sa.tuple_(*key) > last)).all()
    is_local = principal.c.id == LOCAL_PRINCIPAL.id
    if tx.read(sa.select(principal.c.id).where(is_local)).first() is None:
        yield RowFault(principal.name, (LOCAL_PRINCIPAL.id,), "it is gone")
    try:
        _check_log_end(tx, Manifests().check(tx))
    except SignatureInvalid as error:
        yield RowFault("manifest", (), str(error))


def _check_log_end(tx: Transaction, manifest: Manifest | None) -> None:
    """Raises SignatureInvalid if the audit log lacks the event that the manifest names."""
    number, _, mac = (manifest.log_end if manifest else "").partition(":")
    if not number:
        return
    event = sa.select(audit_event.c.mac).where(audit_event.c.number == int(number))
    if tx.read(event).scalar() != mac:
        raise SignatureInvalid(
            f"the manifest was signed after event {number} of the audit log, and the log lacks "
            "this event or has another event: somebody cut or changed the log"
        )


def _find_page_faults(
    tx: Transaction,
    signed: SignedTable,
    rows: Sequence[Row],
    previous: Row | None,
) -> Iterator[RowFault]:
    """Finds faults of rows.

    Args:
        previous: the row before them. A route's version refers to its previous version.
    """
    are_versions = signed.table is route_version
    chains = load_chains(tx, rows) if are_versions else {}
    for row in rows:
        further_values: dict[str, object] = {}
        if are_versions:
            further_values = {"fallbacks": chains.get((row.route, row.version), [])}
        fault = tx.fault(signed.table, row, **further_values)
        if fault is None and are_versions and (reason := _find_version_fault(previous, row)):
            key = tuple(str(getattr(row, name)) for name in signed.key)
            fault = RowFault(signed.table.name, key, reason)
        if fault is not None:
            yield fault
        previous = row


def _select_covered(signed: SignedTable) -> sa.Select[*tuple[Any, ...]]:
    """Selects the columns that a check needs. Omits columns, such as texts, that the signature
    does not cover.
    """
    key = signed.table.primary_key.columns
    keys = [column for column in key if column not in signed.covered]
    return sa.select(*signed.covered, *keys, signed.table.c[SIGNATURE])


def _build_sql_tuple(columns: Sequence[sa.Column[Any]], key: Sequence[object]) -> sa.Tuple:
    pairs = zip(columns, key, strict=True)
    return sa.tuple_(*(sa.literal(value, column.type) for column, value in pairs))


def _find_version_fault(previous: Row | None, row: Row) -> str:
    """Returns why a version does not continue the previous version of its route; empty if it
    does.
    """
    if previous is None or previous.route != row.route:
        is_first = row.version == 1 and row.prev_signature is None
        return "" if is_first else "its earlier versions are missing"
    if previous.version + 1 != row.version or previous.signature != row.prev_signature:
        return "its previous version was removed or replaced"
    return ""


TRIGGERS_OF_SQLITE: Final = sa.text(
    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
)


@contextmanager
def without_triggers(tx: Transaction) -> Iterator[None]:
    """Drops the triggers of signed tables and of tables that refer to them, inside the block.
    Other transactions still have the triggers.
    """
    referring = {
        other.name
        for fault in SIGNED.values()
        for other, _ in _list_unsigned_referrers(fault.table)
    }
    tables = sorted({*SIGNED, route_fallback.name, *referring})
    if tx.dialect == "postgresql":
        for table in tables:
            tx.write(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        yield
        tx.write(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))
        for table in tables:
            tx.write(sa.text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))
        return
    triggers = tx.read(TRIGGERS_OF_SQLITE).all()
    for trigger in triggers:
        tx.write(sa.text(f'DROP TRIGGER "{trigger.name}"'))
    yield
    for trigger in triggers:
        # As a script, because sa.text would read a colon in the trigger as a parameter.
        tx.script(trigger.sql)


def sign_rows(tx: Transaction) -> int:
    """Signs all rows again. The caller has verified them. Returns their number. Call it within
    `without_triggers`.
    """
    count = 0
    for signed in SIGNED.values():
        table = signed.table
        rows = tx.read(sa.select(table).order_by(*table.primary_key.columns)).all()
        count += len(rows)
        if table is route_version:
            _sign_versions(tx, rows)
            continue
        for row in rows:
            values = row._asdict()
            _update_signature(
                tx,
                table,
                values | {SIGNATURE: tx.signatures.sign(table, values)},
            )
    return count


def _sign_versions(tx: Transaction, rows: Sequence[Row]) -> None:
    """Signs route versions in order, because each signature covers the previous version's
    signature.
    """
    chains = load_chains(tx, rows)
    previous: dict[str, Any] = {}
    for row in rows:
        values = row._asdict()
        is_next_version = previous.get("route") == row.route
        values["prev_signature"] = previous[SIGNATURE] if is_next_version else None
        chain = chains.get((row.route, row.version), [])
        values[SIGNATURE] = tx.signatures.sign(route_version, values, fallbacks=chain)
        _update_signature(tx, route_version, values, "prev_signature")
        previous = values


def _update_signature(
    tx: Transaction,
    table: sa.Table,
    values: dict[str, Any],
    *columns: str,
) -> None:
    is_row = [column == values[column.name] for column in table.primary_key.columns]
    changed_values = {name: values[name] for name in (*columns, SIGNATURE)}
    tx.write(sa.update(table).where(*is_row).values(changed_values))


def remove_rows(tx: Transaction, faults: Sequence[RowFault]) -> int:
    """Deletes the rows. Returns their number. Call it within `without_triggers`.

    Also deletes a version's fallback chain, and unsigned rows that refer to a deleted row.
    Raises RowRefused if a remaining signed row refers to a deleted row.
    """
    count = 0
    for table in reversed(metadata.sorted_tables):
        # Deletes the newest version first, because each version refers to the previous version.
        table_faults = sorted(
            (fault for fault in faults if fault.table == table.name),
            key=lambda fault: int(fault.key[1]) if table is route_version else 0,
            reverse=True,
        )
        for fault in table_faults:
            if table is route_version:
                route, version = fault.key
                tx.write(
                    sa.delete(route_fallback).where(
                        route_fallback.c.route == route,
                        route_fallback.c.version == int(version),
                    )
                )
            is_row = [
                sa.cast(column, sa.Text) == value
                for column, value in zip(table.primary_key.columns, fault.key, strict=False)
            ]
            if is_row:
                _remove_referrers(tx, table, is_row)
                count += tx.write(sa.delete(table).where(*is_row))
    return count


def _remove_referrers(
    tx: Transaction,
    table: sa.Table,
    where: Sequence[sa.ColumnElement[bool]],
) -> None:
    """Deletes unsigned rows that refer to these rows by a foreign key."""
    for other, constraint in _list_unsigned_referrers(table):
        pairs = zip(constraint.columns, constraint.elements, strict=True)
        pairs_equal = (column == element.column for column, element in pairs)
        refers = sa.exists(
            sa.select(sa.literal(1)).select_from(table).where(*where, *pairs_equal)
        )
        condition = [refers.correlate(other)]
        _remove_referrers(tx, other, condition)
        tx.write(sa.delete(other).where(*condition))


def _list_unsigned_referrers(
    table: sa.Table,
) -> Iterator[tuple[sa.Table, sa.ForeignKeyConstraint]]:
    """Lists the unsigned tables that refer to a table. Omits fallbacks, which the signature of
    their route's version covers.
    """
    for other in metadata.sorted_tables:
        if other.name in SIGNED or other in (table, route_fallback):
            continue
        for constraint in sorted(other.foreign_key_constraints, key=lambda key: str(key.name)):
            if constraint.referred_table is table:
                yield other, constraint
