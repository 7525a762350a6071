"""Assembles the parts that run turns. `RouterModelCalls` calls models through the router, with
a signed header that names the key, agent and session.

The agents process and the API share `TurnService`. The rules of turns are in `harness.agents`,
the endpoints in `harness.interfaces.api.agents`.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from harness.agents.auto import AutoTargets
from harness.agents.built_in_tools import (
    ServerTools,
    build_credentials_tool,
    build_switch_tool,
)
from harness.agents.caller import (
    AGENT_HEADER,
    AgentCaller,
    sign_agent_header,
)
from harness.agents.message import MessageToolCall, MessageUsage, ServedBy
from harness.agents.spawner import Spawner
from harness.agents.turn import (
    AnswerPiece,
    ModelCallAnswer,
    ModelCallRequest,
    OnPiece,
)
from harness.agents.turn_runner import TurnRunner
from harness.app import secret_files
from harness.app.installation import Installation, open_installation
from harness.client.async_client import AsyncModelClient
from harness.client.http import HttpChannel
from harness.client.stream import ChannelAnswer
from harness.client.types import (
    Caller,
    CompletionRequest,
    CompletionResponse,
    Message,
    ToolDefinition,
)
from harness.frame.errors import (
    CallFailed,
    CallRefused,
    NobodyAnswered,
    RouterUnreachable,
)
from harness.frame.ports import Clock
from harness.frame.runtime import telemetry
from harness.frame.signing.keyring import KeyPurpose
from harness.routing.agent import LITERAL_MARK, SPAWN
from harness.routing.settings import http_url

CONNECTION_TIMEOUT_S: Final = 24 * 3600.0  # longer than any turn; each call has its own limit
GRACE_S: Final = 5.0  # beyond the router's limit for a call, so that its error can arrive
# A router reads a new grant within two seconds. Before it serves the grant, it may need seconds
# of CPU time to load a protocol's translation.
NEW_GRANT_WAIT_S: Final = 60.0
RETRY_EVERY_S: Final = 0.2


class RouterModelCalls:
    """Calls models through one router; the owner closes it by `aclose`. new_grant_wait_s: how
    long a router may take to serve a new grant.
    """

    def __init__(
        self,
        router_url: str,
        secret: bytes,
        clock: Clock,
        *,
        new_grant_wait_s: float = NEW_GRANT_WAIT_S,
    ) -> None:
        self._channel = HttpChannel(
            router_url,
            "",
            timeout_s=CONNECTION_TIMEOUT_S,
            connections=0,
        )
        self._secret = secret
        self._clock = clock
        self._new_grant_wait_s = new_grant_wait_s

    async def ask(
        self, request: ModelCallRequest, on_piece: OnPiece | None = None
    ) -> ModelCallAnswer:
        """Returns the whole answer, as `ModelCalls.ask`.

        Raises RouterUnreachable if the answer is not whole within the request's time,
        NobodyAnswered if the router does not know a new grant in time, and CallFailed for every
        other failure.
        """
        try:
            async with asyncio.timeout(request.timeout_s + GRACE_S):
                return _convert_answer(await self._complete(request, on_piece))
        except TimeoutError:
            raise RouterUnreachable(
                f"model {request.model!r} gave no whole answer within "
                f"{request.timeout_s:g} s; ask for less, or allow more (agents.limits)"
            ) from None
        except CallFailed as error:
            error.args = (_make_valid_utf8(str(error)),)  # an error may quote a provider's text
            raise

    async def _complete(
        self, request: ModelCallRequest, on_piece: OnPiece | None
    ) -> CompletionResponse:
        """Calls the router. Repeats a refused call, because the router may not know a new grant
        yet.
        """
        channel = _SignedChannel(self._channel, request.caller, self._secret, self._clock)
        client = AsyncModelClient(channel, self._clock)
        completion = CompletionRequest(
            # The messages are in the router's form; the client sends `extra` unchanged.
            messages=[Message(message["role"], extra=message) for message in request.messages],
            route=request.model,
            tools=[ToolDefinition(t.name, t.description, t.parameters) for t in request.tools],
            user=request.user,
            # A session stays on one arm of the route.
            caller=Caller(sticky=request.caller.session, timeout_s=request.timeout_s),
        )
        wait_s = min(self._new_grant_wait_s, request.timeout_s)
        deadline_s = self._clock.monotonic() + wait_s
        while True:
            try:
                if on_piece is None:
                    return await client.complete(completion)
                async with client.stream(completion) as chunks:
                    async for chunk in chunks:
                        text = _make_valid_utf8(chunk.text or chunk.refusal)
                        reasoning = chunk.reasoning
                        if text or reasoning:
                            on_piece(AnswerPiece(text, _make_valid_utf8(reasoning)))
                    return chunks.response()
            except CallRefused as error:
                if not request.caller.grant or error.code != "model_not_found":
                    raise
                if self._clock.monotonic() >= deadline_s:
                    name = request.model.removeprefix(LITERAL_MARK)
                    raise NobodyAnswered(
                        f"the router does not serve {name!r} yet after {wait_s:g} s: it needs "
                        "time to load the first model of a protocol; send the message again",
                        status=503,
                        code="model_not_ready",
                        request_id=error.request_id,
                    ) from error
            await asyncio.sleep(RETRY_EVERY_S)

    async def aclose(self) -> None:
        await self._channel.aclose()


class _SignedChannel:
    """Adds the signed header to each request of one caller."""

    def __init__(
        self,
        channel: HttpChannel,
        caller: AgentCaller,
        secret: bytes,
        clock: Clock,
    ) -> None:
        self._channel = channel
        self._caller = caller
        self._secret = secret
        self._clock = clock

    async def post(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> ChannelAnswer:
        # Each attempt needs a new signature, because a signature soon becomes stale.
        now = self._clock.now().timestamp()
        signed = sign_agent_header(self._caller, self._secret, now).decode()
        signed_headers = {AGENT_HEADER.decode(): signed}
        return await self._channel.post(path, body, {**headers, **signed_headers})

    async def aclose(self) -> None: ...


def _convert_answer(response: CompletionResponse) -> ModelCallAnswer:
    served = response.served
    usage = response.usage
    return ModelCallAnswer(
        text=_make_valid_utf8(response.text or response.refusal),
        finish_reason=response.finish_reason,
        served=ServedBy(
            route=served.route,
            target=served.target,
            request_id=served.request_id,
        ),
        tool_calls=tuple(
            MessageToolCall(
                _make_valid_utf8(call.id),
                _make_valid_utf8(call.name),
                _make_valid_utf8(call.arguments_text),
                call.extra,
            )
            for call in response.tool_requests
        ),
        usage=MessageUsage(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        if usage
        else MessageUsage(),
        extra=response.message_extra,
    )


def _make_valid_utf8(text: str) -> str:
    """Makes a model's text valid UTF-8. A pair of surrogates becomes its character, and a lone
    surrogate, which JSON may contain, becomes �.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def open_agents(config: Path | None, *, signs_as: KeyPurpose | None = None) -> Installation:
    """Opens the installation.

    Args:
        signs_as: None for the agents process, which then has no private key.

    Raises ConfigError.
    """
    telemetry.configure()
    if signs_as is None:
        for variable in secret_files.PRIVATE_VARIABLES.values():
            os.environ.pop(variable, None)
            os.environ.pop(f"{variable}_FILE", None)
    return open_installation(config, signs_as=signs_as)


class TurnService:
    """Builds the tools, the model calls and the runner of turns, once for an event loop.

    turns: starts turns. session_tools: the tools that MCP clients call on behalf of a session.
    """

    def __init__(self, installation: Installation, *, place: str = "") -> None:
        """Creates the service of one process.

        Args:
            place: makes this process's name unique on the machine; by default, the port.
        """
        settings = installation.settings
        ctx = installation.context
        self.drain_s = settings.router.drain_s
        servers = None
        if settings.agents.tool_servers:
            from harness.agents.tool_servers import ToolServers  # noqa: PLC0415 - mcp is slow to import

            servers = ToolServers(
                settings.agents.tool_servers,
                os.environ,
                installation.clock.monotonic,
            )
        tools = ServerTools([build_switch_tool(ctx), build_credentials_tool(ctx)], servers)
        router_url = settings.agents.router_url or http_url(
            settings.router.host, settings.router.port
        )
        self._calls = RouterModelCalls(router_url, installation.secret, installation.clock)
        # The port makes the name unique, because only one process can listen on it.
        name = f"{socket.gethostname()}:{place or settings.agents.port}"
        owner = f"{name}#{ctx.chance.token('')}"
        auto = AutoTargets(settings.agents.floors, installation.standing_switches)
        self.turns = TurnRunner(ctx, self._calls, tools, owner, auto)
        spawn = Spawner(ctx, self.turns).tool()
        tools.built_in[SPAWN] = spawn
        # For MCP clients: their `switch_model` may wait until a person decides.
        self.session_tools = (build_switch_tool(ctx, waits=True), spawn)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Renews the leases of turns, and ends all turns when the block ends."""
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
        """Refuses new turns, and gives running turns `drain_s` seconds to end. Safe in a signal
        handler.
        """

        def begin() -> None:
            self._closing = self._loop.create_task(self.turns.close(self.drain_s))

        self._loop.call_soon_threadsafe(begin)
