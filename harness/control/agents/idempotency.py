"""A request with an idempotency key is done once: what it made and the answer that it got are
stored in one unit of work, and the same request gets that answer again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

from harness.control.context import Context
from harness.domain.agents.turn_lease import IdempotencyKey, IdempotentAnswer
from harness.domain.errors import Conflict
from harness.ports import Store, Transaction


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a request was answered, and is answered again."""

    status: int  # of HTTP
    body: str = field(repr=False)
    session: str = ""  # whose it is: deleted with it


class _UnitStore:
    """A store whose units of work are all part of one that is open already."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        yield self._tx

    read = write


def do_once(
    ctx: Context,
    key: IdempotencyKey,
    create: Callable[[Context], KeptAnswer],
    *,
    encrypt: bool,
) -> tuple[KeptAnswer, bool]:
    """The answer, and whether it is one from before. create: works within the context that it
    gets; where it raises, nothing is kept.

    Raises Conflict where the key came with another request.
    """
    with ctx.store.write() as tx:
        known = tx.idempotent_answers.get(key.scope, key.key)
        if known is not None:
            known.key.require_same(key.request_hash)
            if known.status is None:
                raise Conflict(
                    f"the request with the idempotency key {key.key!r} is not answered yet",
                    code="idempotency_key_in_use",
                )
            body = ctx.cipher.decrypt(known.body) if known.encrypted else known.body
            return KeptAnswer(known.status, body), True
        answer = create(replace(ctx, store=cast("Store", _UnitStore(tx))))
        body = ctx.cipher.encrypt(answer.body) if encrypt else answer.body
        now = ctx.clock.now()
        tx.idempotent_answers.add(
            IdempotentAnswer(
                key, now, answer.session, status=answer.status, body=body, encrypted=encrypt
            )
        )
        return answer, False
