"""Events of the audit log. The log is append-only, and an HMAC chains each event to the
previous event.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Final
from unicodedata import category

from harness.frame.errors import InputError
from harness.frame.plain_data import canonical_json

GENESIS = "0" * 64
# Details of a single sign-on that identify the person at the sign-on server. Only admins see
# them.
IDENTITY_DETAILS: Final = frozenset({"issuer", "subject"})
FOR_ADMINS: Final = "for admins"


@dataclass(frozen=True)
class AuditEvent:
    number: int  # 1, 2, 3 … without gaps
    at: datetime
    actor: str  # the name of a person or service, or `swapproof` itself
    action: str
    subject: str  # `proposal p_…`, `route triage`
    details: Mapping[str, object]
    previous: str  # the mac of the previous event: 64 hexadecimal digits
    mac: str
    principal: str | None = None  # the actor's permanent id
    key: str | None = None  # the id of the management key that the actor used


def hide_identity(event: AuditEvent) -> AuditEvent:
    """Hides the details that identify a person at a single sign-on server. The mac still covers
    the original event.
    """
    if event.action != "dashboard.sign_in" or not IDENTITY_DETAILS & event.details.keys():
        return event
    hidden = dict.fromkeys(IDENTITY_DETAILS & event.details.keys(), FOR_ADMINS)
    return replace(event, details={**event.details, **hidden})


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Selects audit events by case-insensitive substrings; an empty text matches all events."""

    actor: str = ""  # the actor's name, or the whole id of the management key
    action: str = ""  # such as `route.rollback`
    subject: str = ""  # such as `route triage`
    since: datetime | None = None  # inclusive
    until: datetime | None = None  # exclusive


ALL_EVENTS: Final = AuditFilter()


@dataclass(frozen=True, slots=True)
class AuditPosition:
    """Marks an event in the audit log by its number and mac; by default before all events."""

    number: int = 0
    mac: str = GENESIS


@dataclass(slots=True)
class AuditReading:
    """How far a reader has verified the audit log."""

    position: AuditPosition = AuditPosition()
    is_whole: bool = False  # whether the reader reached the log's end


def require_reason(reason: str, act: str) -> str:
    """Returns the reason, stripped. Raises InputError if it has no visible character.

    Args:
        act: the action that needs a reason, for the error, such as `to pause by hand`.
    """
    if all(category(character)[0] in "CZ" for character in reason):
        raise InputError(
            f"{act} needs a reason (`--reason` on the command line); the audit log keeps it"
        )
    return reason.strip()


def event_mac(event: AuditEvent, secret: bytes) -> str:
    """Computes the HMAC-SHA-256 over the event and the previous mac."""
    body: list[object] = [
        event.number,
        event.at.isoformat(),
        event.actor,
        event.action,
        event.subject,
        event.details,
        event.previous,
    ]
    if event.principal is not None or event.key is not None:
        body += [event.principal, event.key]
    return hmac.new(secret, canonical_json(body).encode(), sha256).hexdigest()


def find_chain_break(
    events: Iterable[AuditEvent],
    secret: bytes,
    after: int = 0,
    previous: str = GENESIS,
) -> int | None:
    """Returns the number of the first event that breaks the chain; None if no event does.

    Args:
        after: number of the event before the first of `events`.
        previous: mac of that event.
    """
    for number, event in enumerate(events, start=after + 1):
        is_next = event.number == number and event.previous == previous
        if not (is_next and hmac.compare_digest(event.mac, event_mac(event, secret))):
            return number
        previous = event.mac
    return None
