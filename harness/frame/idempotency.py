"""A request with an `Idempotency-Key` takes effect once, whichever control process it is sent
to: its key is stored in the unit of work that makes the proposal or the run, which a second
request with that key cannot commit.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from harness.frame.errors import Conflict, InputError
from harness.frame.idempotency_records import IdempotentRequests
from harness.frame.idempotent_request import KEEP, IdempotentRequest
from harness.frame.records.transaction import Transaction
from harness.frame.world import World

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
