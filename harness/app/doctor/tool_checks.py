"""Runs the same tool loop on any target: `swapproof doctor --tools`.

`harness.providers.calls.tool_probe` judges the answers, by the same rules for every target. The
loop runs through a router with a temporary database (`single_target_router`), which live checks
use too.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Generic, TypeVar

from harness.app.installation import Installation
from harness.app.router_process import embed_router
from harness.client.async_client import AsyncModelClient
from harness.client.in_process import EmbeddedRouter, InProcessChannel
from harness.client.tool_loop import ToolFunction
from harness.client.types import CompletionRequest, Message, ToolDefinition
from harness.frame.errors import CallFailed, CallRefused, ToolLoopUnfinished
from harness.frame.failures import FailureClass
from harness.frame.people.access import SYSTEM
from harness.frame.ports import Cipher, Signatures
from harness.frame.runtime import telemetry
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing import ed25519
from harness.frame.signing.keyring import KeyPurpose
from harness.operations import keys as data_keys
from harness.providers.calls import tool_probe
from harness.providers.calls.tool_probe import (
    ProbeToolCall,
    ToolFinding,
    ToolLoopTrace,
    ToolOutcome,
    ToolProbeResult,
)
from harness.providers.credential import (
    ProviderKey,
    hide_provider_secrets,
    lacks_key,
)
from harness.providers.force import KillSwitch
from harness.providers.records import Credentials
from harness.providers.registry import named_models, provider_secrets, targets
from harness.providers.target import Provider, Target
from harness.routing.control import routes
from harness.routing.route_settings import RouteSettings

MAX_TURNS: Final = 4
MAX_TEXT: Final = 300
_TIMEOUT_TEXT: Final = "it did not answer in time; allow more time with --timeout"
_DESCRIPTIONS: Final = {
    tool_probe.STOCK_TOOL: "How many of an item are in stock.",
    tool_probe.PRICE_TOOL: "What one of an item costs.",
}
TOOLS: Final = tuple(
    ToolDefinition(name, _DESCRIPTIONS[name], schema, strict=True)
    for name, schema in tool_probe.TOOL_SCHEMAS.items()
)
FoundT = TypeVar("FoundT")


@dataclass(frozen=True, slots=True)
class TargetReport(Generic[FoundT]):
    """The findings about one target."""

    target: str
    ok: bool  # whether all declared abilities work, and doctor could try all of them
    findings: Sequence[FoundT]


def find_targets(installation: Installation, name: str) -> list[tuple[Target, Provider]]:
    """Finds the targets of a route, or one target, by its name. Raises NotFound."""
    ctx = installation.context
    table = routes.load_table(ctx)
    with ctx.store.read() as tx:
        if route := table.routes.get(name):
            route_targets = [table.targets[id_] for id_ in route.targets]
            return [(target, targets.provider_of(tx, target)) for target in route_targets]
        target = named_models.find_model(ctx, tx, name)
        return [(target, targets.provider_of(tx, target))]


def probe_tools(
    installation: Installation,
    target: Target,
    provider: Provider,
    timeout_s: float,
) -> TargetReport[ToolFinding]:
    """Runs and judges the loops: at most nine answers and a refusal.

    Args:
        timeout_s: for all loops together.
    """
    keys = provider_secrets.keys_of_provider(installation.context, provider)
    if lacks_key(provider, keys):
        step = f"`swapproof provider key set {provider.name}`"
        findings = [ToolFinding("key", ToolOutcome.DOES_NOT, True, "it has no key", step)]  # noqa: FBT003
    else:
        with TemporaryDirectory(prefix="swapproof-doctor-") as folder:
            router, key = single_target_router(
                installation,
                target,
                provider,
                Path(folder),
            )
            channel = InProcessChannel(router, key)
            error_text = partial(_describe_error, provider, keys)
            probe_result = asyncio.run(_probe_loops(channel, timeout_s, error_text))
        findings = list(tool_probe.tool_findings(provider, target, probe_result))
    return TargetReport(
        target.name,
        not any(finding.failed for finding in findings),
        findings,
    )


def _describe_error(
    provider: Provider,
    keys: Sequence[ProviderKey],
    error: CallFailed,
) -> str:
    if FailureClass.MODEL_UNKNOWN in f"{error.details.get('attempts')}":
        return f"{provider.name} does not know the model"
    return without_secrets(" ".join(str(error).split()), provider, keys)[:MAX_TEXT]


def without_secrets(
    text: str,
    provider: Provider,
    keys: Sequence[ProviderKey],
) -> str:
    """Hides the provider's keys and headers in a text that the provider may have sent back."""
    hidden = text.encode("utf-8", "replace")
    for key in keys or (None,):
        hidden = hide_provider_secrets(hidden, provider, key)
    return hidden.decode("utf-8", "replace")


async def _probe_loops(
    channel: InProcessChannel,
    timeout_s: float,
    error_text: Callable[[CallFailed], str],
) -> ToolProbeResult:
    """Runs the loops, and describes a failure in its trace. Sends no `max_tokens`, because some
    providers refuse it.
    """
    deadline_s = asyncio.get_running_loop().time() + timeout_s

    async def trace_loop(loop: Awaitable[ToolLoopTrace]) -> ToolLoopTrace:
        try:
            async with asyncio.timeout_at(deadline_s):
                return await loop
        except TimeoutError:
            return ToolLoopTrace(error=_TIMEOUT_TEXT)
        except CallFailed as error:
            return ToolLoopTrace(error=error_text(error))

    request = CompletionRequest(
        route=ROUTE,
        messages=(Message.user(tool_probe.TOOL_QUESTION),),
        tools=TOOLS,
        tool_choice="required",
        parallel_tools=True,
    )
    forced = replace(
        request,
        messages=(Message.user(tool_probe.FORCED_QUESTION),),
        tool_choice=tool_probe.PRICE_TOOL,
        parallel_tools=None,
    )
    async with AsyncModelClient(channel, SystemClock()) as client:
        first_trace = await trace_loop(_run_with_choice(client, request))
        if not first_trace.turns:
            return ToolProbeResult(first_trace)
        return ToolProbeResult(
            first_trace,
            await trace_loop(_ask_for_tool(client, forced)),
            await trace_loop(_run_loop(client, request, streamed=True)),
        )


async def _run_with_choice(
    client: AsyncModelClient, request: CompletionRequest
) -> ToolLoopTrace:
    """Runs a loop that requires a tool. If the target refuses that, runs it without a tool
    choice.
    """
    with suppress(CallRefused):
        return await _run_loop(client, request)
    return await _run_loop(client, replace(request, tool_choice=""))


async def _run_loop(
    client: AsyncModelClient,
    request: CompletionRequest,
    *,
    streamed: bool = False,
) -> ToolLoopTrace:
    """Runs a tool loop of at most `MAX_TURNS` answers. An unfinished loop is a trace with an
    error.
    """
    on_chunk = (lambda _: None) if streamed else None
    try:
        run = await client.complete_with_tools(
            request,
            _FUNCTIONS,
            max_turns=MAX_TURNS,
            on_chunk=on_chunk,
        )
    except ToolLoopUnfinished as unfinished:
        error = f"after {MAX_TURNS} turns the model still calls tools"
        return ToolLoopTrace(_extract_turns(unfinished.conversation), error=error)
    return ToolLoopTrace(_extract_turns(run.messages), run.text)


async def _ask_for_tool(client: AsyncModelClient, request: CompletionRequest) -> ToolLoopTrace:
    """Asks for one particular tool. Raises CallFailed."""
    answer = await client.complete(request)
    return ToolLoopTrace(_extract_turns([answer.message]), answer.text)


def _extract_turns(messages: Sequence[object]) -> list[list[ProbeToolCall]]:
    return [
        [ProbeToolCall(call.name, call.arguments_text) for call in message.tool_requests]
        for message in messages
        if isinstance(message, Message) and message.role == "assistant"
    ]


def _build_function(name: str) -> ToolFunction:
    return lambda **_: json.dumps({"result": tool_probe.TOOL_ANSWERS[name]})


_FUNCTIONS: Final = {name: _build_function(name) for name in tool_probe.TOOL_ANSWERS}


ROUTE: Final = "doctor"


@dataclass(frozen=True)
class _SeparateInstallation(Installation):
    """Creates a temporary database, signed with a key that exists only in this process."""

    of: Installation | None = None

    @cached_property
    def signatures(self) -> Signatures:
        private = ed25519.new_private_key()
        public = ed25519.public_key(private, KeyPurpose.CONTROL)
        return ed25519.Ed25519Signatures(lambda: {public.id: public}, lambda: private)

    @cached_property
    def cipher(self) -> Cipher:
        assert self.of is not None  # noqa: S101 - `single_target_router` gives it
        return self.of.cipher

    @cached_property
    def standing_switches(self) -> tuple[KillSwitch, ...]:
        """Returns no kill switches, because a switch would replace the target under test."""
        return ()


def single_target_router(
    installation: Installation,
    target: Target,
    provider: Provider,
    folder: Path,
) -> tuple[EmbeddedRouter, str]:
    """Builds a router whose `ROUTE` has only this target, and a client key. Ignores the model's
    declared abilities. Does not change the installation. The caller closes the router, then
    deletes the folder. Raises InputError for an address that no provider may have.
    """
    from harness.app.store import migrate  # noqa: PLC0415 - slow to import

    telemetry.log_through_application()
    database_url = f"sqlite:///{folder / 'swapproof.db'}"
    migrate.upgrade(database_url)
    settings = replace(installation.settings, home=folder, database_url=database_url)
    separate = _SeparateInstallation(
        settings, installation.secret, installation.clock, of=installation
    )
    ctx = separate.context
    with installation.store.read() as source_tx:
        credentials = [
            credential
            for credential in Credentials(source_tx).all()
            if credential.provider == provider.name
        ]
    # The router would not use an ability that is declared as missing, but doctor must test it.
    targets.put_provider(ctx, SYSTEM, replace(provider, models={}))
    with separate.store.write() as tx:
        for stored_key in credentials:
            Credentials(tx).put(stored_key)
    registered_target = targets.add_target(ctx, SYSTEM, target)
    routes.create_route(ctx, SYSTEM, ROUTE, registered_target.id, settings=RouteSettings())
    _, key = data_keys.create_key(
        ctx,
        SYSTEM,
        "doctor",
        secret=separate.secret,
    )
    return embed_router(separate, "doctor-"), key
