"""A request of the management API that spends money, and came with an `Idempotency-Key`."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# How long a request may be sent again under its key.
KEEP: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    scope: str  # who sent it, with which role, and to which place
    key: str
    request_hash: str  # of the body
    sent_at: datetime
    made: str = ""  # the id of what it made
