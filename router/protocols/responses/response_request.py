"""Translates a Responses request (OpenAI) into a chat completion's: input, tools, text format,
reasoning effort. Says what only OpenAI's own endpoint can do (`untranslatable_field`), and
whether a summary of the reasoning is asked for.
"""

from collections.abc import Callable, Mapping
from typing import Final

from router.conversation.response_history import check_references
from router.protocols.chat_way import ChatWay
from router.protocols.hosted_tools import hosted_tools_alone
from router.protocols.object_lists import iter_objects
from router.protocols.responses.chat_turns import chat_messages
from router.protocols.responses.response_tools import CLIENTS, ResponseTools
from router.protocols.untranslatable import REFERENCE, untranslatable_error

# Said otherwise, below; or about what the provider stores, shows or runs by itself.
_OWN: Final = frozenset(
    {
        "background",
        "client_metadata",
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
# OpenAI's own hints: left out, and named.
_LEFT_OUT: Final = frozenset(
    {"access_programs", "background_options", "context_management", "image"}
)
# State at the provider, on which an answer depends.
NATIVE_FIELDS: Final = ("previous_response_id", "conversation", "prompt", "background")


def chat_body(
    request: Mapping[str, object], tools: ResponseTools, way: ChatWay
) -> dict[str, object]:
    """Writes a request for a response as the body of a chat. tools: the request's. Fields that
    are unknown here go along. Raises Untranslatable.
    """
    check_references(request)
    own = untranslatable_field(request.get)
    if own:
        raise untranslatable_error(own)
    body = {
        name: value
        for name, value in way.without(request, _OWN, _LEFT_OUT).items()
        if not (value is None or name in NATIVE_FIELDS)
    }
    body["messages"] = chat_messages(request.get("instructions"), request.get("input"), way)
    if request.get("max_output_tokens") is not None:
        body[way.limit_field] = request["max_output_tokens"]
    if request.get("stream"):
        body["stream_options"] = {"include_usage": True}
    if request.get("top_logprobs"):
        body |= {"logprobs": True, "top_logprobs": request["top_logprobs"]}
    reasoning = request.get("reasoning")
    if isinstance(reasoning, Mapping) and reasoning.get("effort"):
        body["reasoning_effort"] = reasoning["effort"]
    body |= _text(request.get("text"))
    if not tools.functions:
        body.pop("parallel_tool_calls", None)
        return body
    return body | {"tools": tools.functions} | tools.choice(request.get("tool_choice"))


def untranslatable_field(value: Callable[[str], object]) -> str:
    """What only OpenAI's own endpoint can do, of the fields; empty for nothing."""
    for name in NATIVE_FIELDS:
        if value(name):
            return f"`{name}`"
    items = iter_objects(value("input"))
    if any(item.get("type") == "item_reference" for item in items):
        return REFERENCE
    return hosted_tools_alone(value("tools"), value("tool_choice"), CLIENTS)


def wants_thinking(request: Mapping[str, object]) -> bool:
    """Whether a summary of the reasoning is asked for."""
    reasoning = request.get("reasoning")
    return isinstance(reasoning, Mapping) and bool(
        reasoning.get("summary") or reasoning.get("generate_summary")
    )


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
