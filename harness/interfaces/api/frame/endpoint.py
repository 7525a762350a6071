"""`operation_endpoint` builds an endpoint from a declared operation, and `operation` from a use
case and a body that is written by hand. `endpoint` registers a handler, whose return value
becomes JSON and whose return type documents the answer.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial, wraps
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.responses import Response

from harness.app.installation import Installation
from harness.frame.idempotency import (
    IdempotentRequest,
    NoteCreated,
    do_once,
    note_nothing,
)
from harness.frame.operation import Operation
from harness.frame.pagination import MOST_LISTED, Page, PageRequest
from harness.frame.people.access import Actor, Role
from harness.frame.plain_data import canonical_json, digest
from harness.interfaces.api.frame.error_status import JsonAnswer, json_answer
from harness.operations.context import Context

Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Json = dict[str, JsonValue]
Cursor = Annotated[str, Field(min_length=1, max_length=1000)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    def arguments(self) -> dict[str, Any]:
        """Returns the fields as arguments of a use case, without null fields."""
        given = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in given if value is not None}


class PageQuery(Body):
    """Pages a list. after: `next` of the previous page."""

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 100
    after: Cursor | None = None

    @property
    def page(self) -> PageRequest:
        return PageRequest(self.limit, self.after)

    def arguments(self) -> dict[str, Any]:
        fields = super().arguments().items()
        filters = {name: value for name, value in fields if name not in ("limit", "after")}
        return {**filters, "page_request": self.page}


class ReasonBody(Body):
    reason: Text = ""


class OverruleBody(Body):
    """The required reason of an operation."""

    reason: Text


class RouteQuery(PageQuery):
    """Filters and pages a list by route."""

    route: Name | None = None


REPLAYED: Final = "idempotent-replayed"
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True)
class ApiCaller:
    """The caller of a request, and the context of its handler. idempotency_key: only for
    requests that spend money. headers: response headers.
    """

    ctx: Context
    actor: Actor
    secret: bytes
    idempotency_key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def once(
        self,
        body: Body,
        do: Callable[[NoteCreated], T],
        load: Callable[[Context, str], T],
    ) -> T:
        """Handles a repeated request only once. Raises as `idempotency.do_once`."""
        if self.idempotency_key is None:
            return do(note_nothing)
        # The role is part of the place, because a caller with a lower role must not get an
        # answer that was stored for a higher role.
        place = [
            self.actor.principal,
            self.actor.role.name,
            type(body).__name__,
        ]
        request = IdempotentRequest(
            canonical_json(place),
            self.idempotency_key,
            digest(body.model_dump(mode="json")),
            self.ctx.clock.now(),
        )
        result, is_repeated = do_once(
            self.ctx,
            request,
            do,
            load,
        )
        if is_repeated:
            self.headers[REPLAYED] = "true"
        return result


def _caller(request: Request) -> ApiCaller:
    installation: Installation = request.app.state.installation
    actor: Actor = request.state.actor
    return ApiCaller(installation.context, actor, installation.secret)


CallerParam = Annotated[ApiCaller, Depends(_caller)]
IdempotencyKeyParam = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)
]


def _spender(who: CallerParam, idempotency_key: IdempotencyKeyParam = None) -> ApiCaller:
    return replace(who, idempotency_key=idempotency_key)


SpenderParam = Annotated[ApiCaller, Depends(_spender)]
PathPart = Annotated[PageQuery, Query()]


def endpoint(
    router: APIRouter,
    method: str,
    path: str,
    *,
    status: int = 200,
) -> Callable[[F], F]:
    """Registers a handler, which takes `who` and its parameters, and runs in a thread."""

    def register(handler: F) -> F:
        @wraps(handler)
        def answered(**given: Any) -> Response:
            who: ApiCaller = given["who"]
            found = handler(**given)
            if status == 204:
                return Response(status_code=status)
            return JsonAnswer(found, status_code=status, headers=who.headers)

        router.add_api_route(
            path,
            answered,
            methods=[method],
            status_code=status,
            response_model=None,
        )
        return handler

    return register


def operation(
    router: APIRouter,
    call: str,
    name: str,
    use_case: Callable[..., Any],
    body: type[Body] | None = None,
    *,
    status: int = 200,
) -> None:
    """Registers a use case whose body, or GET query, is written by hand. Its fields are the use
    case's further arguments.

    call: `METHOD /path/{name}`. The path's names are the use case's first arguments.
    """
    declared = Operation(
        use_case=use_case,
        role=Role.VIEWER,
        words="",
        endpoint=call,
        name=name,
        status=status,
    )
    operation_endpoint(router, declared, body)


def operation_endpoint(
    router: APIRouter,
    declared: Operation[Any],
    body: type[Body] | None,
) -> None:
    """Registers a declared operation with the use case's docstring."""
    use_case = declared.use_case
    method, path = declared.endpoint.split()
    names = declared.path_names
    in_path = dict(zip(names, (entered.name for entered in declared.inputs), strict=False))
    durations = {entered.name for entered in declared.inputs if _is_duration(entered.kind)}

    def handler(
        who: ApiCaller,
        body: Body | None = None,
        **given: str,
    ) -> object:
        named: dict[str, Any] = {in_path[name]: value for name, value in given.items()}
        for name, value in (body.arguments() if body else {}).items():
            named[name] = timedelta(seconds=value) if name in durations else value
        found = declared.run(who, named).result
        if kind is None:
            return None
        return json_answer(found) if is_list else found

    no_content = declared.status == HTTPStatus.NO_CONTENT
    kind = None if no_content else use_case.__annotations__["return"]
    origin: object = get_origin(kind)
    is_list = origin in (list, Sequence)
    returns = Page[get_args(kind)[0]] if is_list else kind  # type: ignore[misc]
    handler.__name__ = declared.id
    handler.__doc__ = _description(use_case)
    parameters = list(_parameters(method, names, body))
    signature = inspect.Signature(parameters, return_annotation=returns)
    handler.__signature__ = signature  # type: ignore[attr-defined]
    handler.__annotations__ = {"return": returns}
    endpoint(router, method, path, status=declared.status)(handler)


def _is_duration(kind: Any) -> bool:
    return kind is timedelta or timedelta in get_args(kind)


def _parameters(
    method: str,
    names: Sequence[str],
    body: type[Body] | None,
) -> Iterator[inspect.Parameter]:
    make = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    yield make("who", annotation=CallerParam)
    yield from (make(name, annotation=str) for name in names)
    if body is None:
        return
    if method in ("GET", "DELETE"):
        yield make("body", annotation=Annotated[body, Query()])
        return
    needed = any(field.is_required() for field in body.model_fields.values())
    yield make(
        "body",
        annotation=body,
        default=inspect.Parameter.empty if needed else body(),
    )


def _description(use_case: Callable[..., Any]) -> str:
    """Removes argument notes and `Raises` from a use case's docstring, because the API
    documents fields and statuses itself.
    """
    names = "|".join(inspect.signature(use_case).parameters)
    left_out = rf"\s*\b(?:Raises\b.*|(?:{names}): .*?(?=\n\n|\Z))"
    return re.sub(left_out, "", inspect.getdoc(use_case) or "", flags=re.DOTALL).strip()
