"""Reads a Messages request and answer (Anthropic) into the shape of a transcript, for judges,
shadow comparison and captures; puts a streamed answer together first. Anything but text and
tools is left out by name.
"""

import json
from typing import Any

Json = dict[str, Any]
_CHOICES = {"any": "required", "auto": "auto", "none": "none"}


def request_from_message(body: Json) -> Json:
    messages: list[Json] = []
    if body.get("system"):
        messages.append({"role": "system", "content": _text(body["system"])})
    for turn in body["messages"]:
        messages += _chat_messages(turn)
    tools = [_tool(tool) for tool in body.get("tools") or () if "input_schema" in tool]
    choice = (body.get("tool_choice") or {}).get("type")
    found: Json = {"messages": messages}
    if tools:
        found["tools"] = tools
    if choice in _CHOICES:
        found["tool_choice"] = _CHOICES[choice]
    elif choice == "tool":
        name = body["tool_choice"]["name"]
        found["tool_choice"] = {"type": "function", "function": {"name": name}}
    return found


def _chat_messages(given: Json) -> list[Json]:
    """One message of theirs: results of tools are messages of their own with us."""
    content = given["content"]
    if isinstance(content, str):
        return [{"role": given["role"], "content": content}]
    results = [part for part in content if part["type"] == "tool_result"]
    rest = [part for part in content if part["type"] != "tool_result"]
    turns = [
        {
            "role": "tool",
            "tool_call_id": result["tool_use_id"],
            "content": _text(result.get("content") or ""),
        }
        for result in results
    ]
    return turns + ([_message(given["role"], rest)] if rest else [])


def _message(role: str, blocks: list[Json]) -> Json:
    calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
    spoken = [block for block in blocks if block["type"] not in ("tool_use", "thinking")]
    found: Json = {"role": role, "content": _text(spoken) if spoken else None}
    return {**found, "tool_calls": calls} if calls else found


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(
        block["text"] if isinstance(block.get("text"), str) else f"[{block['type']} left out]"
        for block in blocks
    )


def _call(block: Json) -> Json:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block.get("id", ""), "type": "function", "function": function}


def _tool(given: Json) -> Json:
    function = {"name": given["name"], "parameters": given["input_schema"]}
    if given.get("description"):
        function["description"] = given["description"]
    return {"type": "function", "function": function}


def answer_from_message(body: Json) -> Json:
    found = _message("assistant", body["content"])
    return {**found, "finish_reason": body.get("stop_reason")}


def assemble_message_stream(events: list[Json]) -> Json:
    blocks: dict[int, Json] = {}
    stop = None
    for event in events:
        match event.get("type"):
            case "content_block_start":
                blocks[event["index"]] = {**event["content_block"], "partial": ""}
            case "content_block_delta":
                _add(blocks[event["index"]], event["delta"])
            case "message_delta":
                stop = event["delta"].get("stop_reason") or stop
            case _:
                pass
    whole = [_ended(blocks[index]) for index in sorted(blocks)]
    return {"content": whole, "stop_reason": stop}


def _add(block: Json, delta: Json) -> None:
    if isinstance(delta.get("text"), str):
        block["text"] = block.get("text", "") + delta["text"]
    block["partial"] += delta.get("partial_json") or ""


def _ended(block: Json) -> Json:
    partial = block.pop("partial")
    return {**block, "input": json.loads(partial)} if partial else block
