"""Answers a request with an `Idempotency-Key` once (`answer_once`): sent again, to whichever
control process, it gets the same answer, and has no other effect.

The answer may show a secret once, such as a new key: it is stored encrypted, with a key made
of the installation's secret, and of the request's content a keyed hash alone.
"""

import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.api.frame.json_answers import JsonAnswer
from harness.control.context import Context
from harness.control.operations import idempotency
from harness.domain.operations.access import Actor
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.ports import Cipher

REPLAYED: Final = "idempotent-replayed"


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request as its key stands for it."""

    actor: Actor
    place: str  # method and path
    key: str
    fingerprint: str  # of its body

    @property
    def scope(self) -> str:
        # The role too: a lesser key of the same person must not be shown what this one was.
        actor = self.actor
        return json.dumps([actor.principal, actor.role.name, self.place])


def answer_once(
    ctx: Context,
    secret: bytes,
    cipher: Cipher,
    sent: SentRequest,
    do: Callable[[Context], JsonAnswer],
) -> JsonAnswer:
    """The first answer to this request. One that raises is not kept. secret: of the
    installation, for the hash of the body. cipher: for the answer. Raises as
    `idempotency.do_once`.
    """
    request = IdempotentRequest(
        sent.scope,
        sent.key,
        _hash(secret, sent.fingerprint),
        ctx.chance.token("ir_"),
        ctx.clock.now(),
    )

    def answer(within: Context) -> idempotency.Answer:
        made = do(within)
        return made.status_code, bytes(made.body).decode()

    (status, body), is_replayed = idempotency.do_once(
        ctx, cipher, request, answer, sleep=time.sleep
    )
    made = JsonAnswer(
        None, status_code=status, headers={REPLAYED: "true"} if is_replayed else {}
    )
    made.body = body.encode()
    made.headers["content-length"] = str(len(made.body))
    return made


def _hash(secret: bytes, fingerprint: str) -> str:
    message = f"swapgate: idempotent request: {fingerprint}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret, message, "sha256").hex()
