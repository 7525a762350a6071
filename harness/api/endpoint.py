"""`endpoint` registers a handler that returns a domain object, which becomes JSON; its return
type documents the answer, and an `Idempotency-Key` is honoured. `ApiCaller` is what handlers
get: actor, context, secret.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response

from harness.api.idempotency import IdempotencyCache
from harness.api.json_answers import JsonAnswer
from harness.api.request_fields import Body, PageQuery
from harness.app.installation import Installation
from harness.control.context import Context
from harness.domain.operations.access import Actor

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ApiCaller:
    """Says who asks, and holds what a handler needs. idempotency_key: only where something is
    made.
    """

    ctx: Context
    actor: Actor
    secret: bytes
    remembered: IdempotencyCache
    idempotency_key: str | None = None


def _caller(request: Request) -> ApiCaller:
    installation: Installation = request.app.state.installation
    return ApiCaller(
        ctx=installation.context,
        actor=request.state.actor,
        secret=installation.secret,
        remembered=request.app.state.remembered,
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
    router: APIRouter, method: str, path: str, *, status: int = 200
) -> Callable[[F], F]:
    """Registers a handler. It takes `who` and perhaps `body`; it is called in a thread."""

    def register(handler: F) -> F:
        @wraps(handler)
        def answered(**given: Any) -> Response:
            def do() -> JsonAnswer:
                return JsonAnswer(handler(**given), status_code=status)

            if status == 204:
                handler(**given)
                return Response(status_code=status)
            return _once(given["who"], f"{method} {path}", given.get("body"), do)

        router.add_api_route(
            path, answered, methods=[method], status_code=status, response_model=None
        )
        return handler

    return register


def _once(
    who: ApiCaller, what: str, body: Body | None, do: Callable[[], JsonAnswer]
) -> JsonAnswer:
    if who.idempotency_key is None or body is None:
        return do()
    # The role too: a lesser key of the same person must not be shown what this one was.
    scope = (who.actor.principal, who.actor.role.name, what, who.idempotency_key)
    return who.remembered.once(scope, body.request_fingerprint(), do)
