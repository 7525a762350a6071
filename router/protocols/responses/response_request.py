"""Translates a Responses request (OpenAI) into a chat completion's: input, tools, text format,
reasoning effort. Says what only OpenAI's own endpoint can do (`untranslatable_field`), and
whether a summary of the reasoning is asked for.
"""

from collections.abc import Callable, Mapping
from typing import Final

from router.protocols.object_lists import iter_objects
from router.protocols.responses.chat_turns import chat_messages
from router.protocols.untranslatable import no_chat_error, untranslatable_error

# Said otherwise, below; or about what the provider stores, shows or runs by itself.
_OWN: Final = frozenset(
    {
        "background",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "reasoning",
        "store",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
    }
)
# State at the provider, on which an answer depends.
_HELD: Final = ("previous_response_id", "conversation", "prompt", "background")


def chat_body(
    request: Mapping[str, object], limit_field: str = "max_tokens"
) -> dict[str, object]:
    """Writes a request for a response as the body of a chat. limit_field: what the provider
    calls the output's limit. Fields that are unknown here go along. Raises Untranslatable.
    """
    own = untranslatable_field(request.get)
    if own:
        raise untranslatable_error(own)
    body = {
        name: value
        for name, value in request.items()
        if name not in _OWN and not (value is None or name in _HELD)
    }
    body["messages"] = chat_messages(request.get("instructions"), request.get("input"))
    if request.get("max_output_tokens") is not None:
        body[limit_field] = request["max_output_tokens"]
    if request.get("stream"):
        body["stream_options"] = {"include_usage": True}
    if request.get("top_logprobs"):
        body |= {"logprobs": True, "top_logprobs": request["top_logprobs"]}
    reasoning = request.get("reasoning")
    if isinstance(reasoning, Mapping) and reasoning.get("effort"):
        body["reasoning_effort"] = reasoning["effort"]
    body |= _text(request.get("text"))
    tools = [_tool(tool) for tool in iter_objects(request.get("tools"))]
    if not tools:
        body.pop("parallel_tool_calls", None)
        return body
    body["tools"] = tools
    return body | _choice(request.get("tool_choice"))


def untranslatable_field(value: Callable[[str], object]) -> str:
    """What only OpenAI's own endpoint can do, of the fields; empty for nothing."""
    for name in _HELD:
        if value(name):
            return f"`{name}`"
    kinds = (tool.get("type") for tool in iter_objects(value("tools")))
    own = next((kind for kind in kinds if kind != "function"), None)
    return f"a tool of type {str(own)[:60]!r}" if own is not None else ""


def wants_thinking(request: Mapping[str, object]) -> bool:
    """Whether a summary of the reasoning is asked for."""
    reasoning = request.get("reasoning")
    return isinstance(reasoning, Mapping) and bool(
        reasoning.get("summary") or reasoning.get("generate_summary")
    )


def _tool(tool: Mapping[str, object]) -> dict[str, object]:
    names = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in names if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _choice(choice: object) -> dict[str, object]:
    if isinstance(choice, str):
        return {"tool_choice": choice}
    if not isinstance(choice, Mapping):
        return {}
    if choice.get("type") != "function":
        what = f"a tool_choice of type {str(choice.get('type'))[:60]!r}"
        raise no_chat_error(what, "tool_choice")
    return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}}


def _text(text: object) -> dict[str, object]:
    """Its format, whose schema a chat has one level down, and its verbosity."""
    if not isinstance(text, Mapping):
        return {}
    found: dict[str, object] = {}
    if text.get("verbosity"):
        found["verbosity"] = text["verbosity"]
    wanted = text.get("format")
    if isinstance(wanted, Mapping):
        if wanted.get("type") == "json_schema":
            schema = {name: value for name, value in wanted.items() if name != "type"}
            found["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif wanted.get("type") == "json_object":
            found["response_format"] = {"type": "json_object"}
    return found
