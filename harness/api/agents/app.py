"""Builds the agents API's ASGI app: error guard, access and strict body around the endpoints
below /agents, and an OpenAPI document of its own with examples.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from harness import __version__
from harness.api.agents import agents, health, messages, sessions, switches
from harness.api.agents.access import AgentsAccess, AgentsAccessRules, FailedKeys
from harness.api.agents.approvals import ApprovalPages
from harness.api.agents.errors import (
    ErrorAnswer,
    answer_error,
    answer_http_error,
    answer_unforeseen,
    answer_validation_error,
)
from harness.api.agents.request import AgentsService
from harness.api.error_status import ErrorGuard
from harness.api.request_body import StrictBody
from harness.domain.operations.access import DATA_KEY_PREFIX

OPENAPI_PATH: Final = "/agents/openapi.json"
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


class _AgentsApi(FastAPI):
    """With one shape of error in its OpenAPI document, and the bearer key."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _document(super().openapi())
        return self.openapi_schema


def build_agents_app(
    service: AgentsService,
    rules: AgentsAccessRules,
    *,
    lifespan: Lifespan,
) -> FastAPI:
    """The ASGI app. lifespan: what runs as long as it serves."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        async with lifespan():
            yield

    app = _AgentsApi(
        title="Swapgate agents",
        version=__version__,
        openapi_url=OPENAPI_PATH,
        # The usual pages load scripts from a remote host.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation,
        lifespan=running,
    )
    app.state.service = service
    app.include_router(health.router)
    for subject in (sessions, agents, messages, switches):
        app.include_router(subject.router, tags=[subject.__name__.rpartition(".")[2]])
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    # The last one added is the outermost.
    app.add_middleware(
        StrictBody, max_bytes=service.settings.max_message_bytes, too_large=_too_large
    )
    failed = FailedKeys(rules)
    app.add_middleware(AgentsAccess, rules=rules, failed=failed)
    # Before the keys: who opens a link in a browser sends a form.
    app.add_middleware(ApprovalPages, ctx=service.ctx, secret=rules.secret, failed=failed)
    app.add_middleware(
        ErrorGuard,
        chance=service.ctx.chance,
        answer=answer_error,
        unforeseen=answer_unforeseen,
    )
    return app


def _operation(route: APIRoute) -> str:
    return route.name


def _too_large(max_bytes: int) -> Response:
    return ErrorAnswer(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {max_bytes} bytes (agents.max_message_bytes)",
        "request_too_large",
        headers={"connection": "close"},
    )


_TEXT: Final = {"type": "string"}
_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": _TEXT,
                "type": {**_TEXT, "description": "e.g. invalid_request_error"},
                "code": {**_TEXT, "description": "e.g. session_busy"},
                "param": {"type": ["string", "null"], "description": "the field, if it is one"},
            },
            "required": ["message", "type", "code", "param"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}


def _document(plain: dict[str, Any]) -> dict[str, Any]:
    schemas = plain.setdefault("components", {}).setdefault("schemas", {})
    for operations in plain["paths"].values():
        for operation in operations.values():
            # FastAPI's own shape of a wrong field, which is not sent.
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "What went wrong",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
                },
            }
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = _ERROR
    plain["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": f"a data key, {DATA_KEY_PREFIX}…, or a management key",
        }
    }
    plain["security"] = [{"key": []}]
    return plain
