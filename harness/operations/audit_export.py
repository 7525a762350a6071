"""Exports audit events. It also prints JSON lines: each new event, and the chain's signed head
every hour and at each promotion. A printed head proves it if
someone later cuts off the end of the log.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TextIO

from harness.frame.errors import InputError, SignatureInvalid
from harness.frame.formatting import escape_formula
from harness.frame.plain_data import canonical_json, to_shown
from harness.frame.ports import Signatures
from harness.frame.signing.audit import AuditEvent, AuditPosition, hide_identity
from harness.frame.signing.audit_log import AuditLog
from harness.frame.signing.keyring import KeyPurpose
from harness.routing.context import Context

COLUMNS: Final = (
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
    return json.dumps(to_shown(event), ensure_ascii=False)


def write_json_lines(events: Iterable[AuditEvent], file: TextIO) -> int:
    count = 0
    for event in events:
        file.write(event_line(event) + "\n")
        count += 1
    return count


def write_csv(events: Iterable[AuditEvent], file: TextIO) -> int:
    """Writes events as CSV with a header, and returns their number. It quotes every text, so
    that programs that separate cells by `;` split no text.
    """
    writer = csv.DictWriter(file, COLUMNS, quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    count = 0
    for event in events:
        writer.writerow({k: escape_formula(v) for k, v in event_row(event).items()})
        count += 1
    return count


HEAD_EVERY: Final = timedelta(hours=1)
PROMOTION: Final = "canary.promote"
EVENTS_AT_ONCE: Final = 500
# Distinguishes a head's signature from signatures over other bytes.
_DOMAIN: Final = b"swapgate audit head 1\n"


class AuditLines:
    """Writes the events recorded after its first call. Each control process has its own."""

    def __init__(self, signatures: Signatures, write: Callable[[str], None]) -> None:
        self._signatures = signatures
        self._write = write
        self._last: AuditPosition | None = None
        self._head_at: datetime | None = None  # when the last head was written

    def __call__(self, ctx: Context) -> bool:
        """Writes new events. Returns whether there were none."""
        with ctx.store.read() as tx:
            if self._last is None:
                self._last = next(
                    (AuditPosition(event.number, event.mac) for event in AuditLog(tx).tail(1)),
                    AuditPosition(),
                )
            events = AuditLog(tx).after(self._last.number, EVENTS_AT_ONCE)
        for event in events:
            self._write(f'{{"audit": {event_line(hide_identity(event))}}}')
            self._last = AuditPosition(event.number, event.mac)
            if event.action == PROMOTION:
                self._write_head(self._last, ctx.clock.now())
        now = ctx.clock.now()
        if self._head_at is None or now - self._head_at >= HEAD_EVERY:
            self._write_head(self._last, now)
        return not events

    def _write_head(self, head: AuditPosition, now: datetime) -> None:
        self._write(head_line(head, now, self._signatures))
        self._head_at = now


def head_line(head: AuditPosition, at: datetime, signatures: Signatures) -> str:
    """Writes the chain's head as a signed line of JSON. at: not signed."""
    return canonical_json(
        {
            "audit_head": head.number,
            "mac": head.mac,
            "signature": signatures.sign(_payload(head)),
            "at": at.isoformat(),
        }
    )


def read_heads(text: str, signatures: Signatures) -> Sequence[AuditPosition]:
    """Parses the heads in lines of text, which may have a log collector's prefix. Raises
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
            signatures.check(_payload(head), signature, KeyPurpose.CONTROL)
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


def _payload(head: AuditPosition) -> bytes:
    return _DOMAIN + canonical_json([head.number, head.mac]).encode()
