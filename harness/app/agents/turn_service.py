"""`TurnService` joins what the agents process runs turns with: models behind the router, tools
of the server and the turn runner; and keeps them for as long as the process serves.

The agents process has no signing key. What needs a signature it passes on to the
`ControlPlane`, which looks at the client's key and the agent before it signs.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from harness.app.agents.model_calls import RouterModelCalls
from harness.app.installation import Installation, open_installation
from harness.control.agents.auto import AutoTargets
from harness.control.agents.built_in_tools import (
    ServerTools,
    build_credentials_tool,
    build_switch_tool,
)
from harness.control.agents.spawn import Spawner
from harness.control.agents.turn_runner import TurnRunner
from harness.domain.agents.caller import PEER_HEADER, sign_peer_header
from harness.domain.agents.turn import TurnOwner
from harness.domain.errors import ConfigError
from harness.domain.operations.row_signatures import KeyPurpose
from harness.domain.settings import http_url
from harness.runtime import signing_keys, telemetry

# What the control plane has to know of a client's request.
_PASSED_ON: Final = (
    "accept",
    "authorization",
    "content-type",
    "host",
    "origin",
    "sec-fetch-site",
)
TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class ControlAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class ControlPlane:
    """The control plane, as the agents process asks it."""

    def __init__(self, installation: Installation) -> None:
        settings = installation.settings
        where = settings.control
        self._url = settings.agents.control_url or http_url(where.host, where.port)
        self._secret, self._clock = installation.secret, installation.clock

    def pass_on(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, peer: str
    ) -> ControlAnswer:
        """Passes a client's request on. peer: the client's address. Raises ConfigError."""
        own = {name: headers[name] for name in _PASSED_ON if name in headers}
        signed = sign_peer_header(peer, self._secret, self._clock.now().timestamp())
        own[PEER_HEADER.decode()] = signed.decode()
        parts = urlsplit(self._url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        try:
            with closing(kind(parts.netloc, timeout=TIMEOUT_S)) as connection:
                connection.request(method, path, body, own)
                answer = connection.getresponse()
                return ControlAnswer(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, HTTPException) as error:
            raise ConfigError(
                "this process has no signing key, and the control plane, which has it, does "
                f"not answer at {self._url} ({type(error).__name__}): run `swapgate serve "
                "control`, or correct `agents.control_url`"
            ) from error


def open_agents(config: Path | None, *, signs_as: KeyPurpose | None = None) -> Installation:
    """The installation, for a process that runs agents. signs_as: None for the agents process,
    which has no signing key. Raises ConfigError.
    """
    telemetry.configure()
    if signs_as is None:
        for variable in signing_keys.PRIVATE_VARIABLES.values():
            os.environ.pop(variable, None)
            os.environ.pop(f"{variable}_FILE", None)
    return open_installation(config, signs_as=signs_as)


class TurnService:
    """Builds and holds what turns need: the tools, the calls of models and the runner. One
    event loop has one.
    """

    def __init__(self, installation: Installation, *, place: str = "") -> None:
        """place: what no other live process of this machine has; empty for the port."""
        settings, ctx = installation.settings, installation.context
        self.drain_s = settings.router.drain_s
        servers = None
        if settings.agents.tool_servers:
            from harness.runtime.tool_servers import ToolServers  # noqa: PLC0415 - mcp takes its time

            servers = ToolServers(
                settings.agents.tool_servers, os.environ, installation.clock.monotonic
            )
        tools = ServerTools([build_switch_tool(ctx), build_credentials_tool(ctx)], servers)
        router_url = settings.agents.router_url or http_url(
            settings.router.host, settings.router.port
        )
        self._calls = RouterModelCalls(router_url, installation.secret, installation.clock)
        # Of two processes with one name, only the later can be alive: it has the port.
        name = f"{socket.gethostname()}:{place or settings.agents.port}"
        owner = TurnOwner(name, ctx.chance.token(""))
        # None where this process signs itself.
        self.control = ControlPlane(installation) if installation.signs_as is None else None
        auto = AutoTargets(settings.agents.floors, installation.standing_switches)
        self.turns = TurnRunner(ctx, self._calls, tools, owner, auto)
        spawn = Spawner(ctx, self.turns).tool()
        tools.add(spawn)
        # That act in the name of a session, for clients that may wait for a person.
        self.session_tools = (build_switch_tool(ctx, waits=True), spawn)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the leases of turns; at its end all turns have ended."""
        self._loop = asyncio.get_running_loop()
        leases = asyncio.create_task(self.turns.keep_leases())
        try:
            yield
        finally:
            await self.turns.close(0.0)
            leases.cancel()
            await asyncio.wait({leases})
            await self._calls.aclose()

    def end_turns(self) -> None:
        """Begins no more, and lets those that run end for a while. From a signal's handler."""

        def begin() -> None:
            self._closing = self._loop.create_task(self.turns.close(self.drain_s))

        self._loop.call_soon_threadsafe(begin)
