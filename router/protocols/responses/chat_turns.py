"""Translates the input items and instructions of a Responses request (OpenAI) into chat
messages: texts, pictures, files, function calls and their outputs. Reasoning is left out; what
a chat cannot carry is refused.
"""

from collections.abc import Mapping
from typing import Final

from router.protocols.object_lists import iter_objects
from router.protocols.untranslatable import no_chat_error

Turn = dict[str, object]
_ROLES: Final = {"developer": "system"}  # which few others know
_GAP: Final = "\n\n"
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})


def chat_messages(instructions: object, given: object) -> list[Turn]:
    """Calls that follow one another, or a text, are one turn of the assistant's.

    Raises Untranslatable.
    """
    turns: list[Turn] = []
    if isinstance(instructions, str) and instructions:
        turns.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*turns, {"role": "user", "content": given}]
    for item in iter_objects(given):
        kind = item.get("type") or "message"
        if kind == "message":
            turns.append(_message(item))
        elif kind == "function_call":
            _add_call(turns, item)
        elif kind == "function_call_output":
            turns += _result(item)
        elif kind != "reasoning":  # its own provider's alone; an answer does without
            raise no_chat_error(f"an input item of type {str(kind)[:60]!r}", "input")
    return turns


def _message(item: Mapping[str, object]) -> Turn:
    role = str(item.get("role"))
    content = item.get("content")
    if not isinstance(content, list):
        return {"role": _ROLES.get(role, role), "content": content}
    parts = [_part(entry) for entry in iter_objects(content)]
    if all(part["type"] == "text" for part in parts):
        gap = "" if role == "assistant" else _GAP
        text = gap.join(str(part["text"]) for part in parts)
        return {"role": _ROLES.get(role, role), "content": text}
    return {"role": _ROLES.get(role, role), "content": parts}


def _add_call(turns: list[Turn], item: Mapping[str, object]) -> None:
    function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    last = turns[-1] if turns else None
    if last is None or last["role"] != "assistant":
        last = {"role": "assistant", "content": None}
        turns.append(last)
    calls = last.setdefault("tool_calls", [])
    if isinstance(calls, list):
        calls.append(call)


def _result(item: Mapping[str, object]) -> list[Turn]:
    """A chat's result is text alone: its pictures follow as the user's."""
    output = item.get("output")
    told = {"role": "tool", "tool_call_id": item.get("call_id")}
    if not isinstance(output, list):
        return [{**told, "content": output if isinstance(output, str) else ""}]
    parts = [_part(entry) for entry in iter_objects(output)]
    texts = [str(part["text"]) for part in parts if part["type"] == "text"]
    others = [part for part in parts if part["type"] != "text"]
    if not others:
        return [{**told, "content": _GAP.join(texts)}]
    texts.append("(What else it gave is in the next message.)")
    note = {"type": "text", "text": f"(This is from the tool call {item.get('call_id')}.)"}
    return [
        {**told, "content": _GAP.join(texts)},
        {"role": "user", "content": [note, *others]},
    ]


def _part(part: Mapping[str, object]) -> Turn:
    kind = str(part.get("type"))
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if kind == "input_image" and part.get("image_url"):
        picture = {"url": part["image_url"]}
        if part.get("detail"):
            picture["detail"] = part["detail"]
        return {"type": "image_url", "image_url": picture}
    if kind == "input_file" and part.get("file_data"):
        names = ("filename", "file_data")
        return {"type": "file", "file": {n: part[n] for n in names if part.get(n)}}
    raise no_chat_error(f"content of type {kind[:60]!r} without its data", "input")
