"""Translates a Messages request into a chat, and names what only Anthropic can do."""

from collections.abc import Callable, Mapping
from typing import Final

from router.frame.failure import untranslatable_error
from router.protocols.caller_names import BILLING
from router.protocols.chat_way import ChatWay, hosted_tools_alone, without_hosted
from router.protocols.messages.chat_turns import cache_mark, chat_messages, text_or_parts

# Said otherwise, below; or what only Anthropic can act on and no answer depends on.
_OWN: Final = frozenset(
    {
        "context_management",
        "max_tokens",
        "messages",
        "metadata",
        "output_config",
        "output_format",
        "stop_sequences",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)
# Anthropic's own hints and accounts: left out, and named.
_LEFT_OUT: Final = frozenset(
    {
        "billing_policy",
        "compaction",
        "container",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "speed",
        "user_profile_id",
        "workspace_id",
    }
)
# What an answer depends on, and nobody else has.
NATIVE_FIELDS: Final = ("container", "mcp_servers", "inference_geo")
# Types of the tools that the client itself runs.
_CLIENTS: Final = frozenset({None, "custom"})
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
# Thinking budgets in tokens, up to which an effort is meant.
_EFFORTS: Final = ((2048, "low"), (8192, "medium"))
_EFFORT_NAMES: Final = {"max": "xhigh"}


def chat_body(request: Mapping[str, object], way: ChatWay) -> dict[str, object]:
    """Unknown fields go along: they may be the target's own. Raises Untranslatable."""
    own = untranslatable_field(request.get)
    if own:
        raise untranslatable_error(own)
    body = way.without(request, _OWN, _LEFT_OUT)
    # Anthropic's other tier is OpenAI's default.
    if body.get("service_tier") == "standard_only":
        body["service_tier"] = "default"
    body["messages"] = [
        *_system(request.get("system")),
        *chat_messages(request.get("messages"), way.maker, way.dropped),
    ]
    if request.get("max_tokens") is not None:
        body[way.limit_field] = request["max_tokens"]
    if request.get("stop_sequences"):
        body["stop"] = request["stop_sequences"]
    if request.get("stream"):
        body["stream_options"] = {"include_usage": True}
    body |= _tools(request, way.dropped)
    body |= _format(request)
    effort = _effort(request)
    if effort and "reasoning_effort" not in body:
        body["reasoning_effort"] = effort
    return body


def untranslatable_field(value: Callable[[str], object]) -> str:
    """What only Anthropic can do, of the fields; empty for nothing. value: of a field."""
    for name in NATIVE_FIELDS:
        given = value(name)
        # The container of an earlier turn's tool is state that the tool can do without.
        needed = (
            given if name != "container" else isinstance(given, dict) and given.get("skills")
        )
        if needed:
            return f"`{name}`"
    return hosted_tools_alone(value("tools"), value("tool_choice"), _CLIENTS)


def wants_thinking(request: Mapping[str, object]) -> bool:
    thinking = request.get("thinking")
    return (
        isinstance(thinking, Mapping)
        and thinking.get("type") in ("enabled", "adaptive")
        and thinking.get("display") != "omitted"
    )


def _system(system: object) -> list[dict[str, object]]:
    """Without the client's line about its bill: it differs between requests, so that no other
    provider would find the prompt in its cache.
    """
    if isinstance(system, list):
        system = [block for block in system if not _is_billed(block)]
    elif isinstance(system, str) and system.startswith(BILLING):
        system = system.partition("\n")[2]
    content = text_or_parts(system, "system")
    return [{"role": "system", "content": content}] if content else []


def _is_billed(block: object) -> bool:
    return isinstance(block, Mapping) and str(block.get("text")).startswith(BILLING)


def _tools(request: Mapping[str, object], dropped: dict[str, None]) -> dict[str, object]:
    kept = without_hosted(request.get("tools"), _CLIENTS, dropped)
    tools = [_tool(tool) for tool in kept]
    if not tools:
        return {}
    found: dict[str, object] = {"tools": tools}
    choice = request.get("tool_choice")
    if isinstance(choice, Mapping):
        kind = choice.get("type")
        if kind == "tool":
            chosen = {"name": choice.get("name")}
            found["tool_choice"] = {"type": "function", "function": chosen}
        else:
            found["tool_choice"] = _CHOICES.get(str(kind), "auto")
        if choice.get("disable_parallel_tool_use") is True:
            found["parallel_tool_calls"] = False
    return found


def _tool(tool: Mapping[str, object]) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.get("name")}
    if tool.get("description"):
        function["description"] = tool["description"]
    function["parameters"] = tool.get("input_schema") or {"type": "object", "properties": {}}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function} | cache_mark(tool)


def _format(request: Mapping[str, object]) -> dict[str, object]:
    config = request.get("output_config")
    wanted = config.get("format") if isinstance(config, Mapping) else None
    wanted = wanted or request.get("output_format")
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        return {}
    schema = {"name": "answer", "schema": wanted.get("schema"), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _effort(request: Mapping[str, object]) -> str:
    config = request.get("output_config")
    named = config.get("effort") if isinstance(config, Mapping) else None
    thinking = request.get("thinking")
    if not isinstance(thinking, Mapping) or thinking.get("type") == "disabled":
        return ""
    if isinstance(named, str):
        return _EFFORT_NAMES.get(named, named)
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        return ""
    return next((effort for most, effort in _EFFORTS if budget <= most), "high")
