"""Runs the MCP server: over stdin and stdout for the program that started it, or over
streamable HTTP with the keys of whoever calls.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
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

from harness.api.agents.access import AgentsAccess, AgentsAccessRules, FailedKeys
from harness.api.agents.errors import answer_error, answer_unforeseen
from harness.api.error_status import ErrorGuard
from harness.api.mcp.server import McpService, build_server
from harness.app.agents.model_calls import RouterModelCalls
from harness.app.agents.turn_service import TurnService, open_agents, router_url
from harness.app.installation import Installation
from harness.control.agents.client import AgentsClient
from harness.control.operations import keys
from harness.domain.agents.caller import listens_on_loopback
from harness.domain.operations.access import DATA_KEY_PREFIX, Role
from harness.domain.operations.principals import OPERATOR

KEY_VARIABLE: Final = "SWAPGATE_MANAGEMENT_KEY"
PATH: Final = "/mcp"
SERVER: Final[Mapping[str, Any]] = {
    "access_log": False,
    "log_level": "warning",
    # A caller could name any address, and who asks without a key is known by it.
    "proxy_headers": False,
    "server_header": False,
}


def key_client(installation: Installation, text: str) -> AgentsClient:
    """Who a key stands for; without one the operator of this machine, who runs the agent, and
    lets it propose at most. Raises NotAllowed for a key that is none.
    """
    store, secret = installation.store, installation.secret
    if not text:
        return AgentsClient.of_person(replace(OPERATOR, role=Role.PROPOSER))
    if text.startswith(DATA_KEY_PREFIX):
        return AgentsClient.of_data_key(keys.authenticate_data_key(store, text, secret=secret))
    return AgentsClient.of_person(keys.authenticate(store, text, secret=secret))


def request_client(context: ServerRequestContext[Any, Any]) -> AgentsClient:
    """Whom `AgentsAccess` has let in."""
    assert isinstance(context.request, Request)  # noqa: S101 - of HTTP
    client = context.request.scope["state"]["client"]
    assert isinstance(client, AgentsClient)  # noqa: S101 - it puts no other there
    return client


def http_app(installation: Installation, server: Server[Any], host: str) -> ASGIApp:
    """The ASGI app: every request with a key of its own, and nothing kept between two."""
    opens = installation.settings.agents.open_on_loopback and listens_on_loopback(host)
    app: ASGIApp = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        # `AgentsAccess` looks at Host and Origin of what comes without a key.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        custom_starlette_routes=[Route("/healthz", lambda _: JSONResponse({"status": "ok"}))],
    )
    rules = AgentsAccessRules(
        installation.store,
        installation.secret,
        installation.clock,
        open_on_loopback=opens,
    )
    app = AgentsAccess(app, rules=rules, failed=FailedKeys(rules))
    chance = installation.context.chance
    return ErrorGuard(app, chance=chance, answer=answer_error, unforeseen=answer_unforeseen)


async def serve(installation: Installation, given: argparse.Namespace) -> None:
    calls = RouterModelCalls(
        router_url(installation.settings), installation.secret, installation.clock
    )
    turns = TurnService(installation, calls, place=f"mcp:{os.getpid()}")
    client = request_client if given.http else partial(_own_client, installation)
    server = build_server(
        McpService(
            installation.context,
            installation.secret,
            client,
            turns.session_tools,
            session=given.session,
        )
    )
    async with turns.running():
        if given.http:
            app = http_app(installation, server, given.host)
            await uvicorn.Server(
                uvicorn.Config(app, host=given.host, port=given.port, **SERVER)
            ).serve()
            return
        async with stdio_server() as (received, sent):
            await server.run(received, sent, server.create_initialization_options())


def _own_client(installation: Installation, _: ServerRequestContext[Any, Any]) -> AgentsClient:
    """In each request anew: a key that is revoked opens nothing more."""
    return key_client(installation, os.environ.get(KEY_VARIABLE, ""))


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m harness.api.mcp.process [--config FILE] [--http] …`."""
    parser = argparse.ArgumentParser(prog="swapgate mcp")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8086)
    parser.add_argument("--session", default="")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    installation = open_agents(given.config)
    try:
        if not given.http:
            # Before a client waits for tools that it will not get.
            key_client(installation, os.environ.get(KEY_VARIABLE, ""))
        asyncio.run(serve(installation, given))
    finally:
        installation.close()


if __name__ == "__main__":
    main()
