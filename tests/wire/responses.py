"""OpenAI's Responses, strictly: items that this provider never stored, reasoning that another
one encrypted, and unknown fields are refused in its own words.

Sources: its API reference (responses), and the errors that people met:
`invalid_encrypted_content`, `Item with id … not found`, `… without its required 'reasoning'
item`.
"""

import json
from typing import Any, Final

from tests.wire.openai import error, need
from tests.wire.server import Json, Reading, Reply, Turn, names

FIELDS: Final = names(
    "model input instructions max_output_tokens stream store include reasoning text tools "
    "tool_choice parallel_tool_calls temperature top_p metadata user truncation "
    "previous_response_id prompt_cache_key safety_identifier client_metadata service_tier"
)
TOOLS: Final = names("function custom namespace web_search")
CALLS: Final = names("function_call custom_tool_call")
RESULTS: Final = names("function_call_output custom_tool_call_output")
HOSTED: Final = names("web_search_call code_interpreter_call mcp_call")


def read(body: Json, provider: str) -> Reading:
    """Reads a request as this provider does. Raises Refused."""
    for name in body:
        if name not in FIELDS:
            raise error(400, f"Unknown parameter: '{name}'.", "unknown_parameter")
    for tool in body.get("tools", ()):
        need(tool["type"] in TOOLS, f"Invalid value: '{tool['type']}'.")
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    waiting: list[str] = []
    turns: list[Turn] = []
    reasons = False
    for number, item in enumerate(items):
        kind = item.get("type") or "message"
        if kind == "reasoning":
            _check_reasoning(item, provider, stored=body.get("store") is not False)
        elif kind in CALLS:
            need(
                len(item["call_id"]) <= 64,
                f"Invalid 'input[{number}].call_id': string too long.",
            )
            _check_id(item, provider, reasons=reasons)
            waiting.append(item["call_id"])
        elif kind in RESULTS:
            need(item["call_id"] in waiting, "No tool call found for function call output")
            waiting.remove(item["call_id"])
            turns.append(Turn("tool", results=(_text(item["output"]),)))
        elif kind == "message":
            _check_id(item, provider, reasons=reasons)
            turns.append(Turn(item["role"], _text(item["content"])))
        else:
            need(kind in HOSTED, f"Invalid value: '{kind}'.")
        reasons = kind == "reasoning" or (reasons and kind in CALLS | HOSTED)
    need(not waiting, f"No tool output found for function call {waiting}.")
    offered = tuple(str(tool.get("name")) for tool in body.get("tools", ()))
    return Reading("", tuple(turns), offered, thinks=bool(body.get("reasoning")))


def _check_reasoning(item: Json, provider: str, *, stored: bool) -> None:
    encrypted = item.get("encrypted_content")
    if encrypted is None:
        known = stored and str(item["id"]).startswith(f"rs_{provider}_")
        words = "Items are not persisted when `store` is set to false."
        if not known:
            raise error(404, f"Item with id '{item['id']}' not found. {words}")
    elif encrypted != sealed(provider):
        words = f"The encrypted content for item {item['id']} could not be verified."
        raise error(400, words, "invalid_encrypted_content")


def _check_id(item: Json, provider: str, *, reasons: bool) -> None:
    """An id of this provider wants the reasoning that came before it."""
    id_ = str(item.get("id") or "")
    if id_:
        own = id_.partition("_")[2].startswith(f"{provider}_")
        need(own, f"Item with id '{id_}' not found.")
        need(reasons, f"Item '{id_}' was provided without its required 'reasoning' item.")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def sealed(provider: str) -> str:
    """Reasoning that this provider encrypted."""
    return f"gAAAAAB{provider}"


def whole(reply: Reply, body: Json, provider: str) -> Json:
    """The response to a request."""
    output: list[Json] = []
    if reply.reasoning:
        item: Json = {"id": f"rs_{provider}_1", "type": "reasoning", "summary": []}
        if "reasoning.encrypted_content" in body.get("include", ()):
            item["encrypted_content"] = sealed(provider)
        output.append(item)
    own = bool(reply.reasoning)
    for number, (name, arguments) in enumerate(reply.calls):
        call = {
            "type": "function_call",
            "status": "completed",
            "call_id": _call_id(body, number),
        }
        call |= {"id": f"fc_{provider}_{number}"} if own else {}
        output.append({**call, "name": name, "arguments": json.dumps(arguments)})
    if reply.text:
        part = {"type": "output_text", "text": reply.text, "annotations": []}
        said = {"type": "message", "role": "assistant", "status": "completed"}
        said |= {"id": f"msg_{provider}_1"} if own else {}
        output.append({**said, "content": [part]})
    usage = {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed"}
    return {**head, "model": body["model"], "output": output, "usage": usage}


def _call_id(body: Json, number: int) -> str:
    return f"call_{len(body['input'])}_{number}"


def events(answer: Json) -> list[bytes]:
    """The response as a stream."""
    began = {**answer, "status": "in_progress", "output": []}
    told: list[Json] = [{"type": "response.created", "response": began}]
    for index, item in enumerate(answer["output"]):
        place = {"output_index": index, "item": item}
        told.append({"type": "response.output_item.added", **place})
        if item["type"] == "message":
            text = {"output_index": index, "content_index": 0, "item_id": item.get("id", "")}
            delta = item["content"][0]["text"]
            told.append({"type": "response.output_text.delta", **text, "delta": delta})
        told.append({"type": "response.output_item.done", **place})
    told.append({"type": "response.completed", "response": answer})
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in told]
