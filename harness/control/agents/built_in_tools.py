"""A `BuiltInTool` is a tool of Swapgate's own, as models call it in a turn, and MCP clients in
the name of a session. By `switch_model` an agent looks at models and asks for another one, the
same over HTTP, MCP and within a turn. `manage_credentials` says which providers are set up,
never a value.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from harness.control.agents import agents, switches
from harness.control.agents.conversation import run_unit
from harness.control.agents.model_matching import ModelQuestion, choose_model, list_models
from harness.control.agents.switches import SwitchSpec
from harness.control.context import Context
from harness.control.providers import credentials
from harness.control.serialize import to_plain
from harness.domain.agents.agent import MANAGE_CREDENTIALS, SWITCH_MODEL, AgentTool
from harness.domain.agents.message import MessageToolCall, MessageUsage
from harness.domain.agents.model_call import ToolCaller, ToolResult
from harness.domain.agents.model_figures import ModelFigures
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState, decision_text
from harness.domain.agents.turn import OfferedTool
from harness.domain.errors import InputError, SwapgateError

log = structlog.get_logger("swapgate.agents")
Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a built-in tool answers, which becomes JSON."""

    content: object
    # Of models that it asked.
    usage: MessageUsage = field(default_factory=lambda: MessageUsage(cost_usd=0.0))


@dataclass(frozen=True)
class BuiltInTool:
    """Implements ToolRuntime for one name."""

    offered: OfferedTool
    answer: Callable[[Arguments, ToolCaller], Awaitable[ToolAnswer]]

    def has(self, tool: AgentTool) -> bool:
        return tool.name == self.offered.name and not tool.runs_at_client

    def runs(self, name: str) -> bool:
        return name == self.offered.name

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:
        return [self.offered] if any(self.has(tool) for tool in tools) else []

    async def run(
        self,
        call: MessageToolCall,
        caller: ToolCaller,
        timeout_s: float,  # noqa: ARG002 - who calls has this limit
    ) -> ToolResult:
        try:
            answer = await self.answer(json.loads(call.arguments or "{}"), caller)
            content = json.dumps(to_plain(answer.content), ensure_ascii=False)
            return ToolResult(call.id, content, usage=answer.usage)
        # It tells the model what to do about an error of ours, and nothing of others.
        except SwapgateError as error:
            return ToolResult(call.id, str(error), is_error=True)
        except Exception:
            log.exception("tool_failed", tool=self.offered.name, session=caller.session)
            return ToolResult(call.id, "the tool failed; go on without it", is_error=True)


LIST: Final = "list"
SWITCH: Final = "switch"
# A model pays for what it reads, in each further step.
MOST_MODELS: Final = 100


@dataclass(frozen=True, slots=True)
class SwitchCall:
    """One call of the tool. model: for the action list, words that the names must have."""

    session: str
    action: str
    model: str = ""
    reason: str = ""
    wait_s: float = 0.0  # how long a decision is waited for


async def switch_model(ctx: Context, call: SwitchCall) -> dict[str, object]:
    """The answer as JSON: `status` says what came of it. Raises InputError for another action
    and for a model that cannot hold the conversation; NotFound, NotAllowed and Conflict as
    `request_switch`.
    """
    if call.action == LIST:
        return await run_unit(lambda: _list(ctx, call))
    if call.action != SWITCH:
        raise InputError(f"action: {call.action[:40]!r} is neither `list` nor `switch`")
    chosen = await run_unit(lambda: choose_model(ctx, call.model))
    if isinstance(chosen, ModelQuestion):
        return {
            "status": "question",
            "message": f"{chosen.reason}; call it again with one of the candidates",
            "candidates": list(chosen.candidates),
        }
    spec = SwitchSpec(call.session, (chosen,), call.reason)
    request = await run_unit(lambda: switches.request_switch(ctx, spec))
    if call.wait_s > 0:
        wait_s = min(call.wait_s, ctx.agents.switch_timeout_s)
        request = await switches.wait_for_decision(ctx, request.id, wait_s)
    return switch_answer(ctx, request)


def switch_answer(ctx: Context, request: ModelSwitchRequest) -> dict[str, object]:
    state = request.state_at(ctx.clock.now())
    message = decision_text(request, state)
    if state is SwitchState.PENDING:
        message = (
            f"A person decides until {request.expires_at:%Y-%m-%d %H:%M} UTC. Until then the "
            "session stays on its model: go on with it."
        )
    return {
        "status": state.value,
        "message": message,
        "request": request.id,
        "model": request.wanted,
        "omissions": list(request.omissions),
        "expiresAt": request.expires_at.isoformat(),
    }


def _list(ctx: Context, call: SwitchCall) -> dict[str, object]:
    models = list_models(ctx, call.model)
    with ctx.store.read() as tx:
        agent = tx.agents.get(tx.sessions.get(call.session).agent)
        opened = agents.owner_of(tx, agent).routes
        known = tx.routing.table().routes
        routes = sorted(name for name in known if not opened or name in opened)
    rest = len(models) - MOST_MODELS
    more = f"; {rest} more: give words of the name as `model`" if rest > 0 else ""
    return {
        "status": "listed",
        "message": f"{len(models)} models{more}",
        "routes": routes,
        "models": [_listed_model(model) for model in models[:MOST_MODELS]],
    }


def _listed_model(model: ModelFigures) -> dict[str, object]:
    price = model.price
    return {
        "model": model.name,
        "inputUsdPerMtok": price.input_usd_per_mtok if price else None,
        "outputUsdPerMtok": price.output_usd_per_mtok if price else None,
        "contextWindow": model.context_window,
        "lastVerdict": model.verdict or None,
        "routes": list(model.routes),
        "listedOn": model.listed_on or None,
    }


def list_providers(ctx: Context) -> dict[str, object]:
    return {
        "providers": [
            {"provider": row.name, "kind": row.kind, "hasKey": row.has_value,
             "usable": not row.lacks_key}
            for row in credentials.list_credentials(ctx)
        ]
    }  # fmt: skip


def build_switch_tool(ctx: Context, *, waits: bool = False) -> BuiltInTool:
    """`switch_model`. waits: callers may wait for the decision; a turn never does."""

    async def answer(arguments: Arguments, caller: ToolCaller) -> ToolAnswer:
        call = SwitchCall(
            caller.session,
            _text(arguments, "action"),
            _text(arguments, "model"),
            _text(arguments, "reason"),
            _seconds(arguments, "wait_s") if waits else 0.0,
        )
        return ToolAnswer(await switch_model(ctx, call))

    return BuiltInTool(_offer_switch(waits=waits), answer)


def build_credentials_tool(ctx: Context) -> BuiltInTool:
    async def answer(arguments: Arguments, caller: ToolCaller) -> ToolAnswer:
        del caller  # all agents see the same
        if _text(arguments, "action") != LIST:
            raise InputError("action: it is `list`; a person enters keys, never an agent")
        return ToolAnswer(await run_unit(lambda: list_providers(ctx)))

    description = (
        "List which providers are set up. It never shows a key, and cannot change one."
    )
    properties = {"action": {"type": "string", "enum": [LIST]}}
    return BuiltInTool(_offer(MANAGE_CREDENTIALS, description, properties), answer)


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name, "")
    if not isinstance(value, str):
        raise InputError(f"{name}: it is a text")
    return value


def _seconds(arguments: Arguments, name: str) -> float:
    value = arguments.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InputError(f"{name}: it is a number of seconds")
    return value


def _offer_switch(*, waits: bool) -> OfferedTool:
    properties: dict[str, object] = {
        "action": {"type": "string", "enum": [LIST, SWITCH]},
        "model": {
            "type": "string",
            "description": "switch: the model's name, a loose one will do. list: words that "
            "the names must have, or nothing.",
        },
        "reason": {"type": "string", "description": "switch: why, for the person."},
    }
    if waits:
        text = "switch: how long to wait for the decision, in seconds; 0 to ask and go on."
        properties["wait_s"] = {"type": "number", "minimum": 0, "description": text}
    return _offer(
        SWITCH_MODEL,
        "List the models that are available, or ask to go on with another one. A person "
        "approves every switch; an approved one is in force from the next message on, with "
        "the whole conversation kept.",
        properties,
    )


def _offer(name: str, description: str, properties: Mapping[str, object]) -> OfferedTool:
    return OfferedTool(
        name,
        description,
        {
            "type": "object",
            "properties": properties,
            "required": ["action"],
            "additionalProperties": False,
        },
        runs_at_client=False,
    )
