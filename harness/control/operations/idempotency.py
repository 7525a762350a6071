"""A request with an `Idempotency-Key` is done once, whichever control process it is sent to.

It is claimed first. Each unit of work in which it takes effect notes that in the claim, and is
refused where another process has taken the claim over; a claim that has had an effect is never
taken over. So where a process ends before it has stored the answer, the request either had no
effect, and is done by whom it is sent to next, or it is not done again, and who sends it is
told to look.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from harness.control.context import Context, with_ending_store
from harness.domain.content_hash import canonical_json
from harness.domain.errors import (
    Conflict,
    DecryptionFailed,
    InputError,
    StaleWrite,
    StoreUnavailable,
    SwapgateError,
)
from harness.domain.operations.idempotent_request import LEASE, IdempotentRequest
from harness.ports import Cipher
from harness.store.transaction import Transaction

# One that is under way elsewhere is waited for until its lease has lapsed.
LOOK_EVERY_S: Final = 0.1
LOOKS: Final = int(LEASE.total_seconds() / LOOK_EVERY_S) + 20

Answer = tuple[int, str]  # status of HTTP, body


def do_once(
    ctx: Context,
    cipher: Cipher,
    request: IdempotentRequest,
    do: Callable[[Context], Answer],
    *,
    sleep: Callable[[float], None],
) -> tuple[Answer, bool]:
    """The answer, and whether it is one from before. do: works within the context that it gets;
    where it raises, the request may be sent again. sleep: for so many seconds.

    Raises InputError where the key came with another request, Conflict where the request is
    under way, or took effect and was not answered.
    """
    known = _claim(ctx, request, sleep)
    if known is not None:
        return _open_answer(cipher, known), True

    def note_effect(tx: Transaction) -> None:
        if not tx.idempotent_requests.note_effect(request):
            raise StaleWrite(
                f"the request with the Idempotency-Key {request.key!r} took so long that it is "
                "done elsewhere: send it again to get that answer"
            )

    try:
        status, body = do(with_ending_store(ctx, note_effect))
    except BaseException as error:
        is_refused = isinstance(error, SwapgateError) and not error.retryable
        with suppress(StoreUnavailable), ctx.store.write() as tx:
            tx.idempotent_requests.release(request, with_effect=is_refused)
        raise
    sealed = cipher.encrypt(canonical_json([request.scope, request.key, body]))
    # It was done: who asked gets the answer, and who sends it again is told to look.
    with suppress(StoreUnavailable), ctx.store.write() as tx:
        tx.idempotent_requests.answer(replace(request, status=status, body=sealed))
    return (status, body), False


def _claim(
    ctx: Context, request: IdempotentRequest, sleep: Callable[[float], None]
) -> IdempotentRequest | None:
    """The answer that is there; None where the request is to be done. Raises as `do_once`."""
    for _ in range(LOOKS):
        with ctx.store.read() as tx:
            known = tx.idempotent_requests.find(request.scope, request.key)
        now = ctx.clock.now()
        if known is not None and known.is_forgotten(now):
            with ctx.store.write() as tx:
                tx.idempotent_requests.release(known, with_effect=True)
            known = None
        if known is None:
            with ctx.store.write() as tx:
                if tx.idempotent_requests.claim(replace(request, claimed_at=now)):
                    return None
            continue
        if known.request_hash != request.request_hash:
            raise InputError(
                "this Idempotency-Key came before with another body: take a new key"
            )
        if known.status is not None:
            return known
        if known.has_lapsed(now):
            _require_no_effect(known)
            taken = replace(request, claimed_at=now)
            with ctx.store.write() as tx:
                if tx.idempotent_requests.take_over(known, taken):
                    return None
            continue
        sleep(LOOK_EVERY_S)
    raise Conflict(
        f"the request with the Idempotency-Key {request.key!r} is under way: send it again "
        "in a moment",
        code="idempotency_key_in_use",
    )


def _require_no_effect(known: IdempotentRequest) -> None:
    if known.took_effect:
        raise Conflict(
            f"the request with the Idempotency-Key {known.key!r} took effect, and is not "
            "answered yet: send it again in a moment; if there is no answer then, its control "
            "process ended before it: look at what it made",
            code="idempotency_key_in_use",
        )


def _open_answer(cipher: Cipher, known: IdempotentRequest) -> Answer:
    status = known.status or 0
    try:
        # All of it was encrypted together: nobody can put it under another key.
        scope, key, body = json.loads(cipher.decrypt(known.body))
    except DecryptionFailed:
        scope = key = body = ""
    if (scope, key) != (known.scope, known.key):
        raise Conflict(
            f"the request with the Idempotency-Key {known.key!r} was done, and its stored "
            "answer cannot be read with this installation's secret: look at what it made"
        )
    return status, body
