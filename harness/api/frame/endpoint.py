"""`endpoint` registers a handler that returns a domain object, which becomes JSON; its return
type documents the answer, and an `Idempotency-Key` is honoured. `ApiCaller` is what handlers
get: actor, context, secret.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response

from harness.api.frame.idempotency import SentRequest, answer_once
from harness.api.frame.json_answers import JsonAnswer
from harness.api.frame.request_fields import Body, PageQuery
from harness.app.installation import Installation
from harness.control.context import Context, NoCipher
from harness.domain.operations.access import Actor
from harness.ports import Cipher

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ApiCaller:
    """Says who asks, and holds what a handler needs. idempotency_key: only where something is
    made.
    """

    ctx: Context
    actor: Actor
    secret: bytes
    idempotency_key: str | None = None
    answers: Cipher = field(default_factory=NoCipher)  # for those that are kept


def _caller(request: Request) -> ApiCaller:
    installation: Installation = request.app.state.installation
    actor: Actor = request.state.actor
    return ApiCaller(
        ctx=installation.context,
        actor=actor,
        secret=installation.secret,
        answers=installation.answer_cipher,
    )


CallerParam = Annotated[ApiCaller, Depends(_caller)]
IdempotencyKeyParam = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)
]


def _maker(who: CallerParam, idempotency_key: IdempotencyKeyParam = None) -> ApiCaller:
    return replace(who, idempotency_key=idempotency_key)


BodyFactory = Annotated[ApiCaller, Depends(_maker)]
PathPart = Annotated[PageQuery, Query()]


def endpoint(
    router: APIRouter,
    method: str,
    path: str,
    *,
    status: int = 200,
) -> Callable[[F], F]:
    """Registers a handler. It takes `who` and perhaps `body`; it is called in a thread."""

    def register(handler: F) -> F:
        @wraps(handler)
        def answered(**given: Any) -> Response:
            who: ApiCaller = given["who"]

            if status == 204:
                handler(**given)
                return Response(status_code=status)

            def do(ctx: Context) -> JsonAnswer:
                own = {**given, "who": replace(who, ctx=ctx)}
                return JsonAnswer(handler(**own), status_code=status)

            body: Body | None = given.get("body")
            if who.idempotency_key is None or body is None:
                return do(who.ctx)
            place, fingerprint = f"{method} {path}", body.request_fingerprint()
            sent = SentRequest(who.actor, place, who.idempotency_key, fingerprint)
            return answer_once(who.ctx, who.secret, who.answers, sent, do)

        router.add_api_route(
            path, answered, methods=[method], status_code=status, response_model=None
        )
        return handler

    return register
