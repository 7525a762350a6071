"""The audit log: append-only, each row chained to the one before by an HMAC."""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from harness.domain.content import canonical_json

GENESIS = "0" * 64


@dataclass(frozen=True)
class AuditEvent:
    """actor: who (a person, or `swapgate` itself). subject: `proposal p_…`, `route triage`.

    number: 1, 2, 3 … without gaps. previous, mac: 64 hexadecimal digits.
    """

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, object]
    previous: str
    mac: str


def mac_of(event: AuditEvent, secret: bytes) -> str:
    """HMAC-SHA-256 over the event and the mac before it."""
    body = canonical_json(
        [
            event.number,
            event.at.isoformat(),
            event.actor,
            event.action,
            event.subject,
            event.details,
            event.previous,
        ]
    )
    return hmac.new(secret, body.encode(), sha256).hexdigest()


def first_break(events: Iterable[AuditEvent], secret: bytes) -> int | None:
    """The number of the first event that does not fit the chain, None when it is whole."""
    previous = GENESIS
    for number, event in enumerate(events, start=1):
        good = event.number == number and event.previous == previous
        if not (good and hmac.compare_digest(event.mac, mac_of(event, secret))):
            return number
        previous = event.mac
    return None
