"""A turn is what one message of a client sets off in a session. Its process holds it by a
lease; when that lapses the process is dead, and the turn is over. Also here: the key under
which a client may send the same request again, and what it got. Pure.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.domain.errors import SessionBusy

# A process renews its leases in less than half of it.
LEASE: Final = timedelta(seconds=20)


class TurnState(StrEnum):
    """INTERRUPTED: its process ended before it did, or its session was closed."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class TurnOwner:
    """A process that runs turns. Of two with one name, the later took the former's place."""

    name: str  # no other live process has it, such as `HOST:PORT`
    incarnation: str  # another one at each start

    @property
    def text(self) -> str:
        return f"{self.name}#{self.incarnation}"

    def follows(self, owner: str) -> bool:
        """Whether that one was a process before this one. owner: as `text`."""
        return owner != self.text and owner.rpartition("#")[0] == self.name


@dataclass(frozen=True, slots=True)
class SessionTurn:
    id: str  # `tu_…`
    session: str
    owner: str  # as `TurnOwner.text`
    begun_at: datetime
    lease_until: datetime
    state: TurnState = TurnState.RUNNING
    ended_at: datetime | None = None

    def has_lapsed(self, now: datetime) -> bool:
        """Whether nobody holds it any more. A lease that ends much later was written by a clock
        that has been set back since.
        """
        return not now < self.lease_until <= now + 2 * LEASE


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's name of a request, so that sending it again does not do it twice."""

    scope: str  # who sends it, and to which place
    key: str
    request_hash: str  # of the request's content


@dataclass(frozen=True, slots=True)
class IdempotentAnswer:
    key: IdempotencyKey
    created_at: datetime
    session: str = ""  # session, turn: that it set off; empty for a request without
    turn: str = ""
    status: int | None = None  # of HTTP; None while there is no answer
    body: str = field(default="", repr=False)  # the answer's text


def busy(session: str) -> SessionBusy:
    return SessionBusy(
        f"session {session} answers another message: wait until that has ended",
        code="session_busy",
    )
