"""The agents process serves the agents API and runs turns. After a signal, the process waits up
to `router.drain_s` for running turns, and then interrupts them.
"""

import signal
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from harness.agents.caller import PEER_HEADER
from harness.app.installation import Installation
from harness.frame.calm_server import CalmServer
from harness.frame.imports import freeze_application
from harness.frame.people.access import DATA_KEY_PREFIX
from harness.interfaces.api import health
from harness.interfaces.api.agents import agents, messages
from harness.interfaces.api.agents.access import (
    AgentsAccess,
    ErrorAnswer,
    FailedKeys,
    answer_error,
    answer_http_error,
    answer_unforeseen,
    answer_validation_error,
    find_peer,
)
from harness.interfaces.api.agents.approvals import ApprovalPages
from harness.interfaces.api.frame.access import SERVER
from harness.interfaces.api.frame.error_status import ErrorGuard
from harness.interfaces.api.frame.openapi import (
    DocumentedApi,
    add_errors_and_keys,
    object_schema,
)
from harness.interfaces.api.frame.request_body import StrictBody

if TYPE_CHECKING:
    from harness.app.agents import TurnService

_TEXT: Final = {"type": "string"}
_ERROR: Final = object_schema(
    {
        "message": _TEXT,
        "type": {**_TEXT, "description": "e.g. invalid_request_error"},
        "code": {**_TEXT, "description": "e.g. session_busy"},
        "param": {
            "type": ["string", "null"],
            "description": "the wrong field, if any",
        },
    }
)


def build_agents_app(installation: Installation, service: "TurnService") -> FastAPI:
    """Builds the ASGI app, which ends the turns when it stops serving."""

    def complete(document: dict[str, Any]) -> dict[str, Any]:
        keys = f"a client key, {DATA_KEY_PREFIX}…, or a management key"
        add_errors_and_keys(document, _ERROR, keys)
        return document

    app = DocumentedApi(
        "Swapproof agents",
        "/agents/openapi.json",
        complete,
        lambda _: service.running(),
    )
    app.state.turns = service.turns
    app.include_router(health.probes)
    for module in (agents, messages):
        app.include_router(module.router, tags=[module.__name__.rpartition(".")[2]])
    return _add_middleware(app, installation)


def _add_middleware(app: FastAPI, installation: Installation) -> FastAPI:
    settings = installation.settings.agents
    failed = FailedKeys(installation)
    app.state.installation = installation
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    # The middleware added last runs first.
    app.add_middleware(
        StrictBody, max_bytes=settings.max_message_bytes, too_large=_answer_too_large
    )
    app.add_middleware(
        AgentsAccess,
        installation=installation,
        is_open=settings.open_on_loopback,
        failed=failed,
    )
    # This runs before `AgentsAccess`, which would refuse a browser's form: it is not JSON, and
    # its request has no key.
    app.add_middleware(ApprovalPages, installation=installation, failed=failed)
    chance = installation.context.chance
    app.add_middleware(
        ErrorGuard,
        chance=chance,
        answer=answer_error,
        unforeseen=answer_unforeseen,
    )
    return app


class SignsForAgents:
    """Serves the requests that the agents process passes on to the control plane for a
    signature. A signed header proves that the agents process sent them; other clients get 404.
    """

    def __init__(self, app: ASGIApp, installation: Installation) -> None:
        signing_app = FastAPI(openapi_url=None)
        signing_app.include_router(agents.router)
        self._app = app
        self._installation = installation
        self._signing_app = _add_middleware(signing_app, installation)

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"].startswith(agents.PATH):
            is_signed = PEER_HEADER.decode() in Headers(scope=scope)
            if is_signed and find_peer(scope, self._installation) is not None:
                app = self._signing_app
            else:
                text = "agents are served below the router's /agents"
                if is_signed:
                    text += (
                        "; the header x-swapproof-peer is not from this installation, or over "
                        "a minute old: compare the secrets and clocks of both machines"
                    )
                app = ErrorAnswer(HTTPStatus.NOT_FOUND, text, "not_found")
        await app(scope, receive, send)


def _answer_too_large(max_bytes: int) -> Response:
    return ErrorAnswer(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {max_bytes} bytes (agents.max_message_bytes)",
        "request_too_large",
        headers={"connection": "close"},
    )


LAST_BYTES_S: Final = 5  # time to send the last answers after the turns have ended


class AgentsServer(CalmServer):
    """Ends the turns at a signal, so that waiting clients get an answer."""

    def __init__(self, config: uvicorn.Config, end_turns: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_turns = end_turns

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._end_turns()
        super().handle_exit(sig, frame)


def run_agents(config: Path | None) -> None:
    """Blocks until SIGTERM or Ctrl-C."""
    from harness.app.agents import TurnService, open_agents  # noqa: PLC0415 - the control plane imports this module without aiohttp

    # At its end, uvicorn raises the signal again. Without this handler, `finally` would not
    # run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    installation = open_agents(config)
    settings = installation.settings.agents
    turns = TurnService(installation)
    server = uvicorn.Config(
        build_agents_app(installation, turns),
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=round(turns.drain_s) + LAST_BYTES_S,
        **SERVER,
    )
    freeze_application()
    try:
        # Bind the port first: only its owner may end the turns of an earlier process.
        listener = server.bind_socket()
        AgentsServer(server, turns.end_turns).run(sockets=[listener])
    finally:
        installation.close()
