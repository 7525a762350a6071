"""A request with an idempotency key is done once: what it made and the answer that it got are
stored in one unit of work, and the same request gets that answer again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from harness.control.context import Context
from harness.domain.agents.turn_lease import IdempotencyKey, IdempotentAnswer
from harness.domain.errors import Conflict
from harness.ports import Store, Transaction


class _UnitStore:
    """A store whose units of work are all part of one that is open already."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        yield self._tx

    read = write


def do_once(
    ctx: Context, key: IdempotencyKey, create: Callable[[Context], tuple[int, str, str]]
) -> tuple[IdempotentAnswer, bool]:
    """The answer, and whether it is one from before. create: works within the context that it
    gets, and gives the answer's status and body, and the session that it is deleted with; where
    it raises, nothing is kept.

    Raises Conflict where the key came with another request.
    """
    with ctx.store.write() as tx:
        known = find_answer(tx, key)
        if known is not None and known.status is None:
            raise Conflict(
                f"the request with the idempotency key {key.key!r} is not answered yet",
                code="idempotency_key_in_use",
            )
        if known is not None:
            return known, True
        status, body, session = create(replace(ctx, store=cast("Store", _UnitStore(tx))))
        answer = IdempotentAnswer(key, ctx.clock.now(), session, status=status, body=body)
        tx.idempotent_answers.add(answer)
        return answer, False


def find_answer(tx: Transaction, key: IdempotencyKey) -> IdempotentAnswer | None:
    """What became of the request; None for a new one. Raises Conflict where the key
    came with another request.
    """
    known = tx.idempotent_answers.get(key.scope, key.key)
    if known is None:
        return None
    known.key.require_same(key.request_hash)
    return known


def load_answer(ctx: Context, key: IdempotencyKey) -> IdempotentAnswer | None:
    """What the request was answered; None where it was not yet. Raises as `find_answer`."""
    with ctx.store.read() as tx:
        known = find_answer(tx, key)
    return known if known is not None and known.status is not None else None
