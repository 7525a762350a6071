"""A request to the management API that came with an `Idempotency-Key`: who does it, whether it
has taken effect, and what it was answered. All control processes know it. Pure.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

# How long a request may be sent again under its key.
KEEP: Final = timedelta(days=1)
# After it another process may do a request that has had no effect so far.
LEASE: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request as it is stored. Its first doer alone may let it take effect, until the lease
    lapses.
    """

    scope: str  # who sends it, and to which place
    key: str
    request_hash: str  # of the request's content, keyed
    owner: str  # another one for each attempt to do it
    claimed_at: datetime
    took_effect: bool = False
    status: int | None = None  # of HTTP; None while there is no answer
    body: str = field(default="", repr=False)  # the answer's ciphertext

    def is_forgotten(self, now: datetime) -> bool:
        """Whether the key stands for a new request, though its row is not deleted yet."""
        return self.claimed_at + KEEP <= now

    def has_lapsed(self, now: datetime) -> bool:
        """Whether whoever does it has had its time. A claim from much later was made by a clock
        that has been set back since, or is wrong.
        """
        return not self.claimed_at - LEASE <= now < self.claimed_at + LEASE
