"""Writes audit events for export: as rows of a table, as JSON Lines or as CSV. No spreadsheet
runs a text of them as a formula.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from typing import Final, TextIO

from harness.control.serialize import to_plain
from harness.domain.formatting import escape_formula
from harness.domain.operations.audit import AuditEvent

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
    """Writes an event as a row of a table: the reason beside the other details, these as
    JSON.
    """
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
    """Writes a whole event as one line of JSON."""
    return json.dumps(to_plain(event), ensure_ascii=False)


def write_json_lines(events: Iterable[AuditEvent], file: TextIO) -> int:
    """Writes each whole event as one line of JSON; returns how many there were."""
    count = 0
    for event in events:
        file.write(event_line(event) + "\n")
        count += 1
    return count


def write_csv(events: Iterable[AuditEvent], file: TextIO) -> int:
    """Writes the events as CSV with a head; returns how many there were. Every text stands in
    quotes: where `;` parts the cells, one within it begins no new cell.
    """
    writer = csv.DictWriter(file, COLUMNS, quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    count = 0
    for event in events:
        writer.writerow({k: escape_formula(v) for k, v in event_row(event).items()})
        count += 1
    return count
