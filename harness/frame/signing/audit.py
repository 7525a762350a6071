"""The audit log is append-only; each event is chained to the one before by an HMAC."""

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
# What a sign-in by single sign-on says of the person at that server: for admins.
IDENTITY_DETAILS: Final = frozenset({"issuer", "subject"})
FOR_ADMINS: Final = "for admins"


@dataclass(frozen=True)
class AuditEvent:
    number: int  # 1, 2, 3 … without gaps
    at: datetime
    actor: str  # who (a person, or `swapgate` itself)
    action: str
    subject: str  # `proposal p_…`, `route triage`
    details: Mapping[str, object]
    previous: str  # previous, mac: 64 hexadecimal digits
    mac: str
    # principal, key: who that is, whatever he is called, and the management key that he used.
    principal: str | None = None
    key: str | None = None


def hide_identity(event: AuditEvent) -> AuditEvent:
    """Leaves out who somebody is at a single sign-on's server; the mac covers all of it."""
    if event.action != "dashboard.sign_in" or not IDENTITY_DETAILS & event.details.keys():
        return event
    hidden = dict.fromkeys(IDENTITY_DETAILS & event.details.keys(), FOR_ADMINS)
    return replace(event, details={**event.details, **hidden})


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Selects audit events by parts of texts, in any case; an empty text selects all."""

    actor: str = ""  # who acted, or the id of the management key
    action: str = ""  # what was done, such as `route.rollback`
    subject: str = ""  # what it was done to, such as `route triage`
    since: datetime | None = None  # since, until: from this moment on, and before that one
    until: datetime | None = None


ALL_EVENTS: Final = AuditFilter()


@dataclass(frozen=True, slots=True)
class AuditPosition:
    """Marks a place in the audit log: an event's number and mac, by default before them all."""

    number: int = 0
    mac: str = GENESIS


@dataclass(slots=True)
class AuditReading:
    position: AuditPosition = AuditPosition()
    is_whole: bool = False  # the log was read to its end


def require_reason(reason: str, act: str) -> str:
    """Returns the reason, stripped. Raises InputError for one that nobody could read.

    act: what needs it, for the error, e.g. `to pause by hand`.
    """
    if all(category(character)[0] in "CZ" for character in reason):
        raise InputError(
            f"{act} needs a reason (`--reason` on the command line); the audit log keeps it"
        )
    return reason.strip()


def event_mac(event: AuditEvent, secret: bytes) -> str:
    """Computes the HMAC-SHA-256 over the event and the mac before it."""
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
    events: Iterable[AuditEvent], secret: bytes, after: int = 0, previous: str = GENESIS
) -> int | None:
    """The number of the first event that does not fit the chain, None when it is whole.

    after, previous: number and mac of the event before the first of `events`.
    """
    for number, event in enumerate(events, start=after + 1):
        good = event.number == number and event.previous == previous
        if not (good and hmac.compare_digest(event.mac, event_mac(event, secret))):
            return number
        previous = event.mac
    return None
