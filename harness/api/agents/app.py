"""Builds the agents API's ASGI app: error guard, access and strict body around the endpoints
below /agents, and an OpenAPI document of its own with examples.
"""

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from harness.api import health
from harness.api.agents import agents, messages, sessions, switches
from harness.api.agents.access import AgentsAccess, FailedKeys
from harness.api.agents.approvals import ApprovalPages
from harness.api.agents.errors import (
    ErrorAnswer,
    answer_error,
    answer_http_error,
    answer_unforeseen,
    answer_validation_error,
)
from harness.api.frame.error_status import ErrorGuard
from harness.api.frame.openapi import DocumentedApi, add_errors_and_keys, object_schema
from harness.api.frame.request_body import StrictBody
from harness.app.agents.turn_service import TurnService
from harness.app.installation import Installation
from harness.domain.operations.access import DATA_KEY_PREFIX

_TEXT: Final = {"type": "string"}
_ERROR: Final = object_schema(
    {
        "message": _TEXT,
        "type": {**_TEXT, "description": "e.g. invalid_request_error"},
        "code": {**_TEXT, "description": "e.g. session_busy"},
        "param": {"type": ["string", "null"], "description": "the field, if it is one"},
    }
)


def build_agents_app(installation: Installation, turns: TurnService) -> FastAPI:
    """The ASGI app of an installation, whose turns run as long as it serves."""
    where, ctx = installation.settings.agents, installation.context
    failed = FailedKeys(installation)
    app = DocumentedApi(
        "Swapgate agents", "/agents/openapi.json", _complete, lambda _: turns.running()
    )
    app.state.installation = installation
    app.state.turns, app.state.tools = turns.turns, turns.tools
    app.include_router(health.probes)
    for subject in (sessions, agents, messages, switches):
        app.include_router(subject.router, tags=[subject.__name__.rpartition(".")[2]])
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    # The last one added is the outermost.
    app.add_middleware(StrictBody, max_bytes=where.max_message_bytes, too_large=_too_large)
    app.add_middleware(
        AgentsAccess, installation=installation, is_open=where.open_on_loopback, failed=failed
    )
    # Before the keys: who opens a link in a browser sends a form.
    app.add_middleware(ApprovalPages, ctx=ctx, secret=installation.secret, failed=failed)
    app.add_middleware(
        ErrorGuard, chance=ctx.chance, answer=answer_error, unforeseen=answer_unforeseen
    )
    return app


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    keys = f"a data key, {DATA_KEY_PREFIX}…, or a management key"
    add_errors_and_keys(document, _ERROR, keys)
    return document


def _too_large(max_bytes: int) -> Response:
    return ErrorAnswer(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {max_bytes} bytes (agents.max_message_bytes)",
        "request_too_large",
        headers={"connection": "close"},
    )
