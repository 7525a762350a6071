"""Reads the content of spans of Vercel's AI SDK, for `otel_spans`.

The SDK writes `ai.prompt.messages` and `ai.response.text` beside the tokens and the model of
the semantic conventions: https://ai-sdk.dev/docs/ai-sdk-core/telemetry#collected-data
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from evals.suites.span_values import list_objects, write_text

Json = dict[str, Any]
_PROMPT: Final = "ai.prompt.messages"
_TOOLS: Final = "ai.prompt.tools"
_TEXT: Final = "ai.response.text"
_OBJECT: Final = "ai.response.object"
_CALLS: Final = "ai.response.toolCalls"
CONTENT_KEYS: Final = (_PROMPT, _TOOLS, _TEXT, _OBJECT, _CALLS)
_FINISH_REASONS: Final[Mapping[str, str]] = {
    "tool-calls": "tool_calls",
    "content-filter": "content_filter",
}


def read_ai_sdk(attributes: Json) -> tuple[list[Json], list[Json], list[Json]]:
    """Returns questions, answers and tools, each as chats have them; empty without a prompt."""
    messages = [
        turn for entry in list_objects(attributes.get(_PROMPT)) for turn in _convert_turn(entry)
    ]
    calls = [_convert_call(c) for c in list_objects(attributes.get(_CALLS))]
    text = attributes.get(_TEXT) or attributes.get(_OBJECT)
    answer: Json = {"role": "assistant", "content": text or None}
    if calls:
        answer["tool_calls"] = calls
    reason = str(attributes.get("ai.response.finishReason") or "stop")
    answer["finish_reason"] = _FINISH_REASONS.get(reason, reason)
    tools = [_convert_tool(tool) for tool in list_objects(attributes.get(_TOOLS))]
    return messages, [answer] if text or calls else [], tools


def _convert_turn(entry: Json) -> Iterator[Json]:
    """Converts a message; each tool's result is a message of its own."""
    role = str(entry.get("role") or "user")
    content = entry.get("content")
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    parts = list_objects(content)
    texts = [
        {"type": "text", "text": str(part.get("text") or "")}
        if part.get("type") == "text"
        else {"type": str(part.get("type") or "part")}
        for part in parts
        if part.get("type") not in ("tool-call", "tool-result", "reasoning")
    ]
    calls = [_convert_call(part) for part in parts if part.get("type") == "tool-call"]
    if texts or calls:
        is_plain = len(texts) == 1 and "text" in texts[0]
        turn = {"role": role, "content": texts[0]["text"] if is_plain else texts or None}
        yield turn | ({"tool_calls": calls} if calls else {})
    for part in parts:
        if part.get("type") == "tool-result":
            yield {
                "role": "tool",
                "tool_call_id": str(part.get("toolCallId") or ""),
                "content": _write_output(part),
            }


def _convert_call(call: Json) -> Json:
    arguments = call.get("input", call.get("args"))
    function = {
        "name": str(call.get("toolName")),
        "arguments": "{}" if arguments in (None, "") else write_text(arguments),
    }
    return {"id": str(call.get("toolCallId") or ""), "type": "function", "function": function}


def _convert_tool(tool: Json) -> Json:
    schema = tool.get("inputSchema", tool.get("parameters"))
    function = {"name": str(tool.get("name")), "parameters": schema or {}}
    if tool.get("description"):
        function["description"] = str(tool["description"])
    return {"type": "function", "function": function}


def _write_output(part: Json) -> str:
    output = part.get("output", part.get("result"))
    if isinstance(output, dict) and "value" in output:  # since version 5
        output = output["value"]
    return write_text(output)
