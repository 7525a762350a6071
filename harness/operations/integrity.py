"""Verifies stored rows; a fault opens the alert `audit_broken`. The control plane does not act
on a database that was restored from a backup until a person accepts it.

Exports audit events. It also prints JSON lines: each new event, and the chain's signed head
every hour and at each promotion. If somebody later removes the end of the log, a printed head
proves it.

No function here repairs a row. Signatures and the chain are in `harness.frame.signing`; the
snapshot that routers verify is in `harness.app.store`.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TextIO

import structlog

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    InputError,
    SignatureInvalid,
    SnapshotInvalid,
)
from harness.frame.formatting import escape_formula
from harness.frame.people.access import Actor, Role
from harness.frame.plain_data import canonical_json, to_shown
from harness.frame.ports import Signatures
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import (
    AuditEvent,
    AuditPosition,
    AuditReading,
    hide_identity,
)
from harness.frame.signing.audit_log import AuditLog
from harness.frame.signing.audit_sentences import describe_event
from harness.frame.signing.keyring import KeyPurpose
from harness.frame.signing.signed_rows import Lineage, RowFault
from harness.operations.context import Context
from harness.routing.records.installation import Installations

log = structlog.get_logger("swapproof.integrity")

# A turn reads at most this many pages, so that it does not delay the next job.
PAGES_PER_TURN: Final = 20
EVENTS_PER_PAGE: Final = 1_000


def check_audit_log(ctx: Context) -> list[str]:
    """Verifies the events since the last call. Returns the faults for people."""
    reading = ctx.audit_reading
    with ctx.store.read() as tx:
        broken = _verify_next_pages(tx, reading)
    if broken is not None:
        log.error("audit_chain_broken", number=broken, next="swapproof audit verify")
    # Keeps another process's alert until this process has read the whole log.
    is_certain = broken is not None or reading.is_whole
    if is_certain:
        notice = alerts.AlertNotice(
            "audit log",
            f"the audit log does not fit its chain from event {broken} on",
            "A person changed it in the database, or the installation's secret has changed.",
        )
        alerts.update_alert(
            ctx,
            AlertKind.AUDIT_BROKEN,
            "log",
            notice if broken is not None else None,
        )
    return [] if broken is None else [f"the audit log is broken from event {broken} on"]


def _verify_next_pages(tx: Transaction, reading: AuditReading) -> int | None:
    """Verifies further pages of the log. Returns the number of the first event that breaks the
    chain; None if no event does.

    Begins again at the first event if the last verified event is gone or differs, because
    somebody replaced the database.
    """
    position = reading.position
    if position.number:
        last = AuditLog(tx).find(position.number)
        if last is None or last.mac != position.mac:
            reading.position = position = AuditPosition()  # somebody replaced the database
    reading.is_whole = False
    for _ in range(PAGES_PER_TURN):
        events = AuditLog(tx).after(reading.position.number, EVENTS_PER_PAGE)
        broken = AuditLog(tx).break_after(reading.position, events)
        if broken is not None:
            return broken
        if events:
            reading.position = AuditPosition(events[-1].number, events[-1].mac)
        if len(events) < EVENTS_PER_PAGE:
            reading.is_whole = True
            break
    return None


def check_snapshot(ctx: Context) -> bool:
    """Verifies the signatures of the routers' snapshot, and opens an alert for faults. Returns
    whether all are valid.
    """
    try:
        ctx.store.snapshot()
        faults = _describe_faults(ctx.store.signature_faults(working=True))
    except SnapshotInvalid as error:
        faults = str(error)
    if faults and not alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "snapshot"):
        log.error("signature_invalid", found=faults, next="swapproof db check")
    notice = alerts.AlertNotice(
        "database",
        "rows of the database have invalid signatures",
        f"{faults}. Swapproof does not use them; routers serve the last valid snapshot.",
    )
    alerts.update_alert(ctx, AlertKind.AUDIT_BROKEN, "snapshot", notice if faults else None)
    return not faults


def _describe_faults(faults: Sequence[RowFault]) -> str:
    """Describes the number of faults and the first three; empty without faults."""
    first = "; ".join(f"{fault.name}: {fault.why}" for fault in faults[:3])
    return f"{len(faults)} rows, the first: {first}" if faults else ""


MAX_REVISION: Final = 2**53


def accept_restore(
    ctx: Context,
    actor: Actor,
    *,
    reason: str,
    above: int,
) -> Lineage:
    """Opens a new epoch, so that routers follow the restored database. Changes after the backup
    are lost.

    Args:
        above: the highest revision that any router served; the epoch's revisions are higher.

    Raises InputError for a wrong number, or without a reason.
    """
    actor.require(Role.ADMIN)
    if not reason.strip():
        raise InputError("accepting a restored database needs a reason; the audit log keeps it")
    if not 0 <= above <= MAX_REVISION:
        raise InputError(
            f"the highest revision that routers served is from 0 to {MAX_REVISION}, not {above}"
        )
    with ctx.store.write() as tx:
        former = Installations(tx).lineage()
        current = Installations(tx).open_epoch(above=max(above, former.revision))
        if AuditLog(tx).first_break() is None:
            # The alert can end, because the stored events fit the chain, and a person accepted
            # the loss of later events.
            alerts.resolve_alert(tx, AlertKind.AUDIT_BROKEN, "log")
        # Ends the alert for all routers, because the router that raised it may be dead.
        alerts.end_alert(tx, AlertKind.DATABASE_RESTORED)
        AuditLog(tx).append(
            actor,
            "database.accept_restore",
            f"installation {former.installation}",
            {
                "reason": reason.strip(),
                "epoch": current.epoch,
                "revision": former.revision,
                "revisions_above": max(above, former.revision),
            },
        )
    return current


def highest_known_revision(ctx: Context, other_revisions: Iterable[int] = ()) -> int:
    """Returns the highest revision that the database, a router or `other_revisions` names."""
    with ctx.store.read() as tx:
        return max(
            Installations(tx).lineage().revision,
            Installations(tx).highest_served(),
            *other_revisions,
            0,
        )


def is_unaccepted(tx: Transaction) -> bool:
    """Tells whether a router reports a restored database that a person has not accepted."""
    record = Alerts(tx).newest(AlertKind.DATABASE_RESTORED.value)
    return record is not None and record.resolved_at is None


CSV_COLUMNS: Final = (
    "number",
    "at",
    "actor",
    "principal",
    "key",
    "action",
    "subject",
    "reason",
    "details",
    "previous",
    "mac",
)


def event_row(event: AuditEvent) -> Mapping[str, str | int]:
    """Writes an event as a row: `reason`, and the other details as JSON."""
    details = dict(event.details)
    reason = details.pop("reason", "")
    return {
        "number": event.number,
        "at": event.at.isoformat(),
        "actor": event.actor,
        "principal": event.principal or "",
        "key": event.key or "",
        "action": event.action,
        "subject": event.subject,
        "reason": reason if isinstance(reason, str) else json.dumps(reason),
        "details": json.dumps(details, ensure_ascii=False, sort_keys=True),
        "previous": event.previous,
        "mac": event.mac,
    }


def event_line(event: AuditEvent) -> str:
    """Writes an event as one line of JSON, with all its fields."""
    return json.dumps(to_shown(event), ensure_ascii=False)


def write_json_lines(events: Iterable[AuditEvent], file: TextIO) -> int:
    """Writes one line of JSON for each event, and returns their number."""
    count = 0
    for event in events:
        file.write(event_line(event) + "\n")
        count += 1
    return count


def write_csv(events: Iterable[AuditEvent], file: TextIO) -> int:
    """Writes events as CSV with a header, and returns their number. Quotes every text, so that
    a program that separates cells by `;` splits no text.
    """
    writer = csv.DictWriter(file, CSV_COLUMNS, quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    count = 0
    for event in events:
        writer.writerow({k: escape_formula(v) for k, v in event_row(event).items()})
        count += 1
    return count


HEAD_EVERY: Final = timedelta(hours=1)
PROMOTION: Final = "canary.promote"
LINES_PER_CALL: Final = 500
# Distinguishes a head's signature from signatures over other bytes.
_DOMAIN: Final = b"swapproof audit head 1\n"


class AuditLines:
    """Writes the audit events that follow its first call. Each control process has its own
    instance.

    for_people: whether a person reads the lines: sentences instead of JSON, no signed heads.
    """

    def __init__(
        self,
        signatures: Signatures,
        write: Callable[[str], None],
        *,
        for_people: bool = False,
    ) -> None:
        self._signatures = signatures
        self._write = write
        self._for_people = for_people
        self._last: AuditPosition | None = None
        self._head_at: datetime | None = None  # when the last head was written

    def __call__(self, ctx: Context) -> bool:
        """Writes the new events. Returns whether there was no new event."""
        with ctx.store.read() as tx:
            if self._last is None:
                self._last = next(
                    (AuditPosition(event.number, event.mac) for event in AuditLog(tx).tail(1)),
                    AuditPosition(),
                )
            events = AuditLog(tx).after(self._last.number, LINES_PER_CALL)
        for event in events:
            shown = hide_identity(event)
            if self._for_people:
                self._write(f"{event.at:%H:%M:%S}  {describe_event(shown)}")
            else:
                self._write(f'{{"audit": {event_line(shown)}}}')
            self._last = AuditPosition(event.number, event.mac)
            if event.action == PROMOTION:
                self._write_head(self._last, ctx.clock.now())
        now = ctx.clock.now()
        if self._head_at is None or now - self._head_at >= HEAD_EVERY:
            self._write_head(self._last, now)
        return not events

    def _write_head(self, head: AuditPosition, now: datetime) -> None:
        if not self._for_people:
            self._write(head_line(head, now, self._signatures))
        self._head_at = now


def head_line(
    head: AuditPosition,
    at: datetime,
    signatures: Signatures,
) -> str:
    """Writes the chain's head as a signed line of JSON.

    Args:
        at: the time in the line, which the signature does not cover.
    """
    return canonical_json(
        {
            "audit_head": head.number,
            "mac": head.mac,
            "signature": signatures.sign(_build_head_payload(head)),
            "at": at.isoformat(),
        }
    )


def read_heads(text: str, signatures: Signatures) -> Sequence[AuditPosition]:
    """Parses the heads in a text, whose lines may begin with a log collector's prefix. Raises
    SignatureInvalid for a head that the control plane did not sign, InputError without a head.
    """
    heads = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            stored = json.loads(line[line.index("{") :])
            head = AuditPosition(int(stored["audit_head"]), str(stored["mac"]))
            signature = str(stored["signature"])
        except (ValueError, LookupError, TypeError):
            continue
        try:
            signatures.check(_build_head_payload(head), signature, KeyPurpose.CONTROL)
        except SignatureInvalid as error:
            raise SignatureInvalid(f"line {number}, head {head.number}: {error}") from None
        heads.append(head)
    if not heads:
        raise InputError("the text has no printed head of an audit log (`audit_head`)")
    return heads


def find_missing_head(ctx: Context, heads: Sequence[AuditPosition]) -> int | None:
    """Returns the number of the first head whose event is missing or has other content."""
    with ctx.store.read() as tx:
        for head in sorted(heads, key=lambda head: head.number):
            event = AuditLog(tx).find(head.number) if head.number else None
            if head.number and (event is None or event.mac != head.mac):
                return head.number
    return None


def _build_head_payload(head: AuditPosition) -> bytes:
    """Returns the bytes that a head's signature covers; the time is not among them."""
    return _DOMAIN + canonical_json([head.number, head.mac]).encode()
