"""`ServerTools` runs the tools of tool servers and Swapproof's own tools (`BuiltInTool`).
Models call them in a turn; MCP clients call built-in tools on behalf of a session.

This module builds `switch_model` and `manage_credentials`; `spawner` builds `spawn`. The
descriptions and the arguments' fields are texts for models. A tool must not show or change a
secret.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.agents import models, switches
from harness.agents.context import AgentsContext
from harness.agents.conversation import run_transaction
from harness.agents.message import FREE, MessageToolCall, MessageUsage
from harness.agents.models import SwitchModelAnswer
from harness.agents.switch_request import (
    LEFT_OUT,
    ModelSwitchRequest,
    SwitchState,
    decision_text,
)
from harness.agents.turn import (
    OfferedTool,
    ToolCaller,
    ToolResult,
    ToolRuntime,
    no_such_tool,
)
from harness.frame.errors import AmbiguousName, InputError, SwapproofError
from harness.frame.plain_data import to_shown
from harness.frame.suggestions import describe_fault, find_fault_path
from harness.providers.registry import credentials
from harness.routing.agent import MANAGE_CREDENTIALS, SWITCH_MODEL, AgentTool

log = structlog.get_logger("swapproof.agents")
Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    content: object  # sent as JSON
    usage: MessageUsage = FREE  # usage of the models that the tool called


@dataclass(frozen=True)
class BuiltInTool:
    """A tool of Swapproof's own.

    answer: validates the arguments and runs the tool. Raises SwapproofError with a text for the
    caller.
    """

    offered: OfferedTool
    answer: Callable[[Arguments, ToolCaller], Awaitable[ToolAnswer]]

    async def run(self, call: MessageToolCall, caller: ToolCaller) -> ToolResult:
        """Runs the tool for a model. An error becomes a result, so that the turn continues. The
        result has a SwapproofError's text, but not another error's text.
        """
        try:
            answer = await self.answer(json.loads(call.arguments or "{}"), caller)
            content = json.dumps(to_shown(answer.content), ensure_ascii=False)
            return ToolResult(call.id, content, usage=answer.usage)
        # Only the texts of Swapproof's own errors are written for models.
        except SwapproofError as error:
            return ToolResult(call.id, str(error), is_error=True)
        except Exception:
            log.exception("tool_failed", tool=self.offered.name, session=caller.session)
            return ToolResult(
                call.id,
                "the tool failed; continue without it",
                is_error=True,
            )


class ServerTools:
    """Runs the server's tools. `spawn` is added later, because it needs the turns."""

    def __init__(
        self,
        built_in: Iterable[BuiltInTool] = (),
        servers: ToolRuntime | None = None,
    ) -> None:
        self.built_in = {tool.offered.name: tool for tool in built_in}
        self._servers = servers

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:
        names = [tool.name for tool in tools if not tool.runs_at_client]
        built_in = [self.built_in[name].offered for name in names if name in self.built_in]
        return [
            *built_in,
            *(await self._servers.list_tools(tools) if self._servers else ()),
        ]

    async def run(self, call: MessageToolCall, caller: ToolCaller) -> ToolResult:
        if (tool := self.built_in.get(call.name)) is not None:
            return await tool.run(call, caller)
        if self._servers is not None:
            return await self._servers.run(call, caller)
        return no_such_tool(call)


class ToolArguments(BaseModel):
    model_config = ConfigDict(
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        json_schema_extra={"additionalProperties": False},
    )


A = TypeVar("A", bound=ToolArguments)


def build_tool(
    name: str,
    description: str,
    kind: type[A],
    answer: Callable[[A, ToolCaller], Awaitable[ToolAnswer]],
) -> BuiltInTool:
    """Builds a tool with the JSON Schema of its arguments.

    Args:
        kind: the arguments' model; `answer` gets a valid instance.

    The tool raises InputError for other arguments, with the path of the first fault.
    """
    schema = kind.model_json_schema()

    async def read_and_answer(arguments: Arguments, caller: ToolCaller) -> ToolAnswer:
        try:
            valid_arguments = kind.model_validate(arguments)
        except ValidationError as error:
            fault = error.errors()[0]
            path = find_fault_path(fault, arguments)
            reason = describe_fault(fault, path, schema)
            place = f"{'.'.join(map(str, path))}: " if path else ""
            raise InputError(f"{place}{reason}") from None
        return await answer(valid_arguments, caller)

    return BuiltInTool(OfferedTool(name, description, schema), read_and_answer)


async def switch_model(
    ctx: AgentsContext,
    session: str,
    action: str,
    model: str = "",
    reason: str = "",
    wait_s: float = 0.0,
) -> SwitchModelAnswer:
    """Answers a call of the tool. Raises as `request_switch`, and NotFound.

    Args:
        model: with the action `list`, words that a model's name must contain.
        wait_s: seconds to wait for the decision.
    """
    if action == "list":
        return await run_transaction(lambda: models.list_for_session(ctx, session, model))
    try:
        chosen = await run_transaction(lambda: models.choose_model(ctx, model))
    except AmbiguousName as question:
        return SwitchModelAnswer(
            status="question",
            message="several models fit: call the tool again with one of the candidates",
            candidates=list(question.candidates),
        )
    request = await run_transaction(
        lambda: switches.request_switch(ctx, session, [chosen], reason)
    )
    if wait_s > 0:
        wait_s = min(wait_s, ctx.agents.switch_timeout_s)
        request = await switches.wait_for_decision(ctx, request.id, wait_s)
    return switch_answer(ctx, request)


def switch_answer(ctx: AgentsContext, request: ModelSwitchRequest) -> SwitchModelAnswer:
    """Describes a request to the agent in the request's present state."""
    state = request.state_at(ctx.clock.now())
    message = decision_text(request, state)
    if state is SwitchState.PENDING:
        message = (
            f"A person must decide by {request.expires_at:%Y-%m-%d %H:%M} UTC. Until then the "
            "session stays on its model: continue with it."
        )
    return SwitchModelAnswer(
        status=state.value,
        message=message,
        request=request.id,
        model=request.wanted,
        omissions=[fact["text"] for fact in request.facts if fact["name"] == LEFT_OUT],
        expires_at=request.expires_at,
    )


class SwitchArguments(ToolArguments):
    action: Literal["list", "switch"]
    model: str = Field(
        "",
        description="switch: the model's name; an approximate name is enough. list: words that "
        "a model's name must contain; empty for all models.",
    )
    reason: str = Field("", description="switch: your reason, for the person who decides.")


class WaitingSwitchArguments(SwitchArguments):
    wait_s: float = Field(
        0.0,
        ge=0,
        description="switch: seconds to wait for the decision; 0 to continue at once.",
    )


class ListArguments(ToolArguments):
    action: Literal["list"]


def build_switch_tool(ctx: AgentsContext, *, waits: bool = False) -> BuiltInTool:
    """Builds `switch_model`.

    Args:
        waits: callers may wait for the decision; a turn never waits.
    """

    async def answer(arguments: SwitchArguments, caller: ToolCaller) -> ToolAnswer:
        switched = await switch_model(ctx, caller.session, **arguments.model_dump())
        return ToolAnswer(switched.model_dump(mode="json", by_alias=True, exclude_unset=True))

    return build_tool(
        SWITCH_MODEL,
        "List the available models, or request a switch of this conversation to another model. "
        "A person approves every switch. An approved switch applies from the next message on, "
        "and keeps the whole conversation.",
        WaitingSwitchArguments if waits else SwitchArguments,
        answer,
    )


def build_credentials_tool(ctx: AgentsContext) -> BuiltInTool:
    """Builds `manage_credentials`. It only lists providers, because only people may
    enter keys.
    """

    async def answer(_: ListArguments, __: ToolCaller) -> ToolAnswer:
        credentials_list = await run_transaction(lambda: credentials.list_credentials(ctx))
        return ToolAnswer(
            {
                "providers": [
                    {
                        "provider": row.name,
                        "kind": row.kind,
                        "hasKey": row.has_value,
                        "usable": not row.lacks_key,
                    }
                    for row in credentials_list
                ]
            }
        )

    return build_tool(
        MANAGE_CREDENTIALS,
        "List the providers that are set up. It cannot show or change a key.",
        ListArguments,
        answer,
    )
