"""Reads a Responses request and answer (OpenAI) into the shape of a transcript, for judges,
shadow comparison and captures; a streamed answer is the one in its last event. Anything but
text and tools is left out by name.
"""

from typing import Any

Json = dict[str, Any]


def request_from_response(body: Json) -> Json:
    messages: list[Json] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    given = body["input"]
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    else:
        messages += [_item(item) for item in given if item.get("type") != "reasoning"]
    tools = [_tool(tool) for tool in body.get("tools") or () if tool.get("type") == "function"]
    found: Json = {"messages": messages}
    if tools:
        found["tools"] = tools
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        found["tool_choice"] = choice
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        schema = {name: form[name] for name in ("name", "schema", "strict") if name in form}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.get("type") == "json_object":
        found["response_format"] = {"type": "json_object"}
    return found


def _item(item: Json) -> Json:
    match item.get("type", "message"):
        case "message":
            return {"role": item["role"], "content": _text(item["content"])}
        case "function_call":
            return {"role": "assistant", "content": None, "tool_calls": [_call(item)]}
        case "function_call_output":
            said = _text(item["output"])
            return {"role": "tool", "tool_call_id": item["call_id"], "content": said}
        case other:
            return {"role": "assistant", "content": f"[{other} left out]"}


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part["text"] if isinstance(part.get("text"), str) else f"[{part['type']} left out]"
        for part in parts
    )


def _call(item: Json) -> Json:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item.get("call_id", ""), "type": "function", "function": function}


def _tool(given: Json) -> Json:
    named = ("name", "description", "parameters", "strict")
    kept = {name: given[name] for name in named if given.get(name) is not None}
    return {"type": "function", "function": kept}


def answer_from_response(body: Json) -> Json:
    items = body["output"]
    texts = [_text(item["content"]) for item in items if item["type"] == "message"]
    calls = [_call(item) for item in items if item["type"] == "function_call"]
    found: Json = {
        "role": "assistant",
        "content": "\n".join(texts) if texts else None,
        "finish_reason": body.get("status"),
    }
    return {**found, "tool_calls": calls} if calls else found


def assemble_response_stream(events: list[Json]) -> Json:
    """The last event has the whole answer. Raises ValueError without it."""
    for event in reversed(events):
        if event.get("type") in ("response.completed", "response.incomplete"):
            whole: Json = event["response"]
            return whole
    raise ValueError("no event with the whole answer")
