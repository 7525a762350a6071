"""Lets a request with an `Idempotency-Key` take effect once, even with several control
processes. The transaction that creates the proposal or run also stores the key, so a second
request with the same key cannot commit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

import sqlalchemy as sa

from harness.frame.errors import Conflict, InputError
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.frame.records.transaction import Transaction
from harness.frame.world import World

# How long Swapproof remembers a key.
KEEP: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    scope: str  # the sender, the sender's role and the endpoint
    key: str
    request_hash: str  # SHA-256 of the body, in hexadecimal digits
    sent_at: datetime
    made: str = ""  # the id of the created object


IDEMPOTENT_REQUEST: Final = record(
    IdempotentRequest,
    "idempotent_request",
    sa.Index("ix_idempotent_request_sent_at", "sent_at"),
    key="scope key",
)

idempotent_request = IDEMPOTENT_REQUEST.table


class IdempotentRequests(Records[IdempotentRequest]):
    record = IDEMPOTENT_REQUEST

    def find(self, scope: str, key: str) -> IdempotentRequest | None:
        columns = idempotent_request.c
        return self._first(self._select(columns.scope == scope, columns.key == key))

    def add_new(self, new: IdempotentRequest) -> bool:
        """Adds a request. Returns False if its key exists already."""
        return self._tx.write_new(idempotent_request, self.record.write(new))

    def forget(self, until: datetime) -> int:
        return self._delete(idempotent_request.c.sent_at <= until)


T = TypeVar("T")

C = TypeVar("C", bound=World)

# Stores the id of the created object, in the transaction that creates it.
NoteCreated = Callable[[Transaction, str], None]


def note_nothing(_: Transaction, __: str) -> None:
    """Does nothing, for a request without a key."""


def do_once(
    ctx: C,
    request: IdempotentRequest,
    do: Callable[[NoteCreated], T],
    load: Callable[[C, str], T],
) -> tuple[T, bool]:
    """Returns the object that the request created, and whether an earlier request created it.

    Args:
        load: loads the object by its id.

    Raises InputError if an earlier request had the same key and another body; errors of `do`.
    """

    def note(tx: Transaction, created_id: str) -> None:
        IdempotentRequests(tx).forget(tx.now() - KEEP)
        if not IdempotentRequests(tx).add_new(replace(request, made=created_id)):
            raise Conflict("two requests with this Idempotency-Key arrived at the same time")

    created_id = _find_created(ctx, request)
    if not created_id:
        try:
            return do(note), False
        except Conflict:
            if not (created_id := _find_created(ctx, request)):
                raise
    return load(ctx, created_id), True


def _find_created(ctx: World, request: IdempotentRequest) -> str:
    with ctx.store.read() as tx:
        earlier = IdempotentRequests(tx).find(request.scope, request.key)
    if earlier is None or earlier.sent_at + KEEP <= request.sent_at:
        return ""
    if earlier.request_hash != request.request_hash:
        raise InputError(
            "an earlier request used this Idempotency-Key with another body: use a new key"
        )
    return earlier.made
