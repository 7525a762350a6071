"""`chained` prepares an audit event for storing: its values as the database will give them
back, and the HMAC over them that links it to the event before. `store/sql/audit.py` appends it.
"""

import json
from dataclasses import replace
from datetime import UTC

from harness.domain.content_hash import canonical_json
from harness.domain.operations.audit import AuditEvent, event_mac
from harness.store.schema.columns import storable


def chained(event: AuditEvent, secret: bytes) -> AuditEvent:
    """The event as it will be read back, with its mac: what is signed is what is stored."""
    stored = replace(
        event,
        at=event.at.astimezone(UTC),
        actor=storable(event.actor),
        action=storable(event.action),
        subject=storable(event.subject),
        details=json.loads(canonical_json(event.details)),
    )
    return replace(stored, mac=event_mac(stored, secret))
