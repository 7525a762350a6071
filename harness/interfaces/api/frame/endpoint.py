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
        fields = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in fields if value is not None}


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


REPLAYED_HEADER: Final = "idempotent-replayed"
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
        """Handles a repeated request only once. Raises as `idempotency.do_once`.

        Args:
            do: handles the request.
            load: loads the result of the earlier request by its id.
        """
        if self.idempotency_key is None:
            return do(note_nothing)
        # The place includes the role: a lower role must not get an answer that Swapproof stored
        # for a higher role.
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
            self.headers[REPLAYED_HEADER] = "true"
        return result


def _identify_caller(request: Request) -> ApiCaller:
    installation: Installation = request.app.state.installation
    actor: Actor = request.state.actor
    return ApiCaller(installation.context, actor, installation.secret)


CallerParam = Annotated[ApiCaller, Depends(_identify_caller)]
IdempotencyKeyParam = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)
]


def _identify_spender(
    caller: CallerParam, idempotency_key: IdempotencyKeyParam = None
) -> ApiCaller:
    return replace(caller, idempotency_key=idempotency_key)


SpenderParam = Annotated[ApiCaller, Depends(_identify_spender)]
PageParam = Annotated[PageQuery, Query()]


def endpoint(
    router: APIRouter,
    method: str,
    path: str,
    *,
    status: int = 200,
) -> Callable[[F], F]:
    """Registers a handler, which takes `caller` and its parameters, and runs in a thread."""

    def register(handler: F) -> F:
        @wraps(handler)
        def answer(**arguments: Any) -> Response:
            caller: ApiCaller = arguments["caller"]
            content = handler(**arguments)
            if status == 204:
                return Response(status_code=status)
            return JsonAnswer(content, status_code=status, headers=caller.headers)

        router.add_api_route(
            path,
            answer,
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
    """Registers a use case whose body, or GET query, is written by hand.

    Args:
        call: `METHOD /path/{name}`. The path's names are the use case's first arguments; the
            body's fields are its further arguments.
    """
    declaration = Operation(
        use_case=use_case,
        role=Role.VIEWER,
        words="",
        endpoint=call,
        name=name,
        status=status,
    )
    operation_endpoint(router, declaration, body)


def operation_endpoint(
    router: APIRouter,
    declaration: Operation[Any],
    body: type[Body] | None,
) -> None:
    """Registers a declared operation with the use case's docstring."""
    use_case = declaration.use_case
    method, path = declaration.endpoint.split()
    path_names = declaration.path_names
    input_names = dict(
        zip(path_names, (input_.name for input_ in declaration.inputs), strict=False)
    )
    durations = {input_.name for input_ in declaration.inputs if _is_duration(input_.kind)}

    def handler(
        caller: ApiCaller,
        body: Body | None = None,
        **path_values: str,
    ) -> object:
        inputs: dict[str, Any] = {
            input_names[name]: value for name, value in path_values.items()
        }
        for name, value in (body.arguments() if body else {}).items():
            inputs[name] = timedelta(seconds=value) if name in durations else value
        result = declaration.run(caller, inputs).result
        if kind is None:
            return None
        return json_answer(result) if is_list else result

    no_content = declaration.status == HTTPStatus.NO_CONTENT
    kind = None if no_content else use_case.__annotations__["return"]
    origin: object = get_origin(kind)
    is_list = origin in (list, Sequence)
    returns = Page[get_args(kind)[0]] if is_list else kind  # type: ignore[misc]
    handler.__name__ = declaration.id
    handler.__doc__ = _describe(use_case)
    parameters = list(_list_parameters(method, path_names, body))
    signature = inspect.Signature(parameters, return_annotation=returns)
    handler.__signature__ = signature  # type: ignore[attr-defined]
    handler.__annotations__ = {"return": returns}
    endpoint(router, method, path, status=declaration.status)(handler)


def _is_duration(kind: Any) -> bool:
    return kind is timedelta or timedelta in get_args(kind)


def _list_parameters(
    method: str,
    path_names: Sequence[str],
    body: type[Body] | None,
) -> Iterator[inspect.Parameter]:
    new_parameter = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    yield new_parameter("caller", annotation=CallerParam)
    yield from (new_parameter(name, annotation=str) for name in path_names)
    if body is None:
        return
    if method in ("GET", "DELETE"):
        yield new_parameter("body", annotation=Annotated[body, Query()])
        return
    is_required = any(field.is_required() for field in body.model_fields.values())
    yield new_parameter(
        "body",
        annotation=body,
        default=inspect.Parameter.empty if is_required else body(),
    )


def _describe(use_case: Callable[..., Any]) -> str:
    """Removes the section `Args:` and `Raises` from a use case's docstring, because the API
    documents fields and statuses itself.
    """
    argument_notes = r"\s*\b(?:Raises\b.*|Args:\n.*?(?=\n\n|\Z))"
    return re.sub(argument_notes, "", inspect.getdoc(use_case) or "", flags=re.DOTALL).strip()
