"""A request with an `Idempotency-Key` takes effect once, whichever control process it is sent
to: its key is stored in the unit of work that makes the proposal or the run, which a second
request with that key cannot commit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

import sqlalchemy as sa

from harness.frame.errors import Conflict, InputError
from harness.frame.ports import World
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.frame.records.transaction import Transaction

# How long a request may be sent again under its key.
KEEP: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    scope: str  # who sent it, with which role, and to which place
    key: str
    request_hash: str  # of the body
    sent_at: datetime
    made: str = ""  # the id of what it made


# Forgotten after a day.
IDEMPOTENT_REQUEST: Final = record(
    IdempotentRequest,
    "idempotent_request",
    sa.Index("ix_idempotent_request_sent_at", "sent_at"),
    key="scope key",
    free="scope key",
)

idempotent_request = IDEMPOTENT_REQUEST.table


class IdempotentRequests(Records[IdempotentRequest]):
    record = IDEMPOTENT_REQUEST

    def find(self, scope: str, key: str) -> IdempotentRequest | None:
        columns = idempotent_request.c
        return self._first(self._select(columns.scope == scope, columns.key == key))

    def add_new(self, new: IdempotentRequest) -> bool:
        """Adds a request; False where its key is taken."""
        return self._tx.write_new(idempotent_request, self.record.write(new))

    def forget(self, until: datetime) -> int:
        return self._delete(idempotent_request.c.sent_at <= until)


T = TypeVar("T")

C = TypeVar("C", bound=World)

# Notes the id of what is made, in the unit of work that makes it.
NoteMade = Callable[[Transaction, str], None]


def note_nothing(_: Transaction, __: str) -> None:
    """Notes nothing: the request came without a key."""


def do_once(
    ctx: C,
    request: IdempotentRequest,
    do: Callable[[NoteMade], T],
    load: Callable[[C, str], T],
) -> tuple[T, bool]:
    """Returns what the request made, and whether that was there before. load: by its id.

    Raises InputError where the key came with another body, and as `do`.
    """

    def note(tx: Transaction, made: str) -> None:
        IdempotentRequests(tx).forget(tx.now() - KEEP)
        if not IdempotentRequests(tx).add_new(replace(request, made=made)):
            raise Conflict("the same request was sent twice at once")

    made = _find_made(ctx, request)
    if not made:
        try:
            return do(note), False
        except Conflict:
            if not (made := _find_made(ctx, request)):
                raise
    return load(ctx, made), True


def _find_made(ctx: World, request: IdempotentRequest) -> str:
    with ctx.store.read() as tx:
        known = IdempotentRequests(tx).find(request.scope, request.key)
    if known is None or known.sent_at + KEEP <= request.sent_at:
        return ""
    if known.request_hash != request.request_hash:
        raise InputError("this Idempotency-Key came before with another body: take a new key")
    return known.made
