"""Runs the MCP server on stdin and stdout, or over streamable HTTP with the callers' keys."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from harness.api.agents.access import AgentsAccess, FailedKeys, key_client
from harness.api.agents.errors import answer_error, answer_unforeseen
from harness.api.frame.access import SERVER
from harness.api.frame.error_status import ErrorGuard
from harness.api.mcp.server import McpServer
from harness.app.agents import TurnService, open_agents
from harness.app.installation import Installation
from harness.control.agents.sessions import AgentsClient
from harness.domain.agents.caller import listens_on_loopback
from harness.domain.operations.access import Role
from harness.domain.operations.keyring import KeyPurpose
from harness.domain.operations.principals import OPERATOR
from harness.imports import leave_alone_what_serves

KEY_VARIABLE: Final = "SWAPGATE_MANAGEMENT_KEY"
PATH: Final = "/mcp"


def own_client(
    installation: Installation, _: ServerRequestContext[Any, Any] | None = None
) -> AgentsClient:
    """Builds the client of the key that this process was started with, looked at anew in each
    request; without a key the operator of this machine, who runs the agent, and lets it propose
    at most. Raises NotAllowed.
    """
    if key := os.environ.get(KEY_VARIABLE, ""):
        return key_client(installation, key)
    return AgentsClient.of_person(replace(OPERATOR, role=Role.PROPOSER))


def request_client(context: ServerRequestContext[Any, Any]) -> AgentsClient:
    """Whom `AgentsAccess` has let in."""
    assert isinstance(context.request, Request)  # noqa: S101 - of HTTP
    client = context.request.scope["state"]["client"]
    assert isinstance(client, AgentsClient)  # noqa: S101 - it puts no other there
    return client


def http_app(installation: Installation, server: Server[Any], host: str) -> ASGIApp:
    """The ASGI app: every request with a key of its own, and nothing kept between two."""
    is_open = installation.settings.agents.open_on_loopback and listens_on_loopback(host)
    app: ASGIApp = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        # `AgentsAccess` looks at Host and Origin of what comes without a key.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        custom_starlette_routes=[Route("/healthz", lambda _: JSONResponse({"status": "ok"}))],
    )
    failed = FailedKeys(installation)
    app = AgentsAccess(app, installation=installation, is_open=is_open, failed=failed)
    chance = installation.context.chance
    return ErrorGuard(app, chance=chance, answer=answer_error, unforeseen=answer_unforeseen)


def run_mcp(config: Path | None, address: tuple[str, int] | None, session: str) -> None:
    """Blocks until SIGTERM, Ctrl-C, or the end of stdin. address: host and port to serve HTTP;
    None for stdin and stdout. session: of the agent in whose name tools are called.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    installation = open_agents(config, signs_as=KeyPurpose.CONTROL)
    try:
        if address is None:
            # Before a client waits for tools that it will not get.
            own_client(installation)
        asyncio.run(_serve(installation, address, session))
    finally:
        installation.close()


async def _serve(
    installation: Installation, address: tuple[str, int] | None, session: str
) -> None:
    turns = TurnService(installation, place=f"mcp:{os.getpid()}")
    client = request_client if address else partial(own_client, installation)
    server = McpServer(installation, client, turns.session_tools, session).build()
    async with turns.running():
        if address is None:
            async with stdio_server() as (received, sent):
                await server.run(received, sent, server.create_initialization_options())
            return
        host, port = address
        app = http_app(installation, server, host)
        leave_alone_what_serves()
        await uvicorn.Server(uvicorn.Config(app, host=host, port=port, **SERVER)).serve()
