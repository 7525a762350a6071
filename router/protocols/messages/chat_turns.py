"""Translates the turns of a Messages request (Anthropic) into chat messages: texts, pictures,
documents, tool calls and results, marks for the prompt cache. Thinking is left out; what a chat
cannot carry is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from router.protocols.object_lists import iter_objects
from router.protocols.untranslatable import Untranslatable, no_chat_error
from router.request.body_patch import to_json

# Only their own provider can read them, and an answer does without.
_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
_GAP: Final = "\n\n"
_ERROR: Final = "Error: "
Turn = dict[str, object]


def chat_messages(messages: object) -> Iterator[Turn]:
    """Translates Anthropic's messages into a chat's turns. Raises Untranslatable."""
    for message in iter_objects(messages):
        content = message.get("content")
        if message.get("role") == "assistant":
            yield _assistant(content)
        elif message.get("role") == "system":
            yield {"role": "system", "content": text_or_parts(content)}
        else:
            yield from _user(content)


def plain_text(content: object, param: str = "messages") -> str:
    """Joins a list of text blocks into one text; a text stays as it is. param: the field that
    it is in.

    Raises Untranslatable for any other block.
    """
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    for block in iter_objects(content):
        if block.get("type") != "text":
            raise _no_place(block, param)
    return _GAP.join(str(block.get("text") or "") for block in iter_objects(content))


def text_or_parts(content: object, param: str = "messages") -> object:
    """Translates content into one text, or into parts where one is marked for the cache: the
    marks' places count.

    Raises Untranslatable for any block but a text.
    """
    text = plain_text(content, param)
    blocks = list(iter_objects(content)) if isinstance(content, list) else []
    return (
        [_part(block) for block in blocks]
        if any(cache_mark(block) for block in blocks)
        else text
    )


def cache_mark(block: Mapping[str, object]) -> Turn:
    """The mark for the prompt's cache, as a chat has it too; empty for none. What no target can
    use was taken out before (`router.request.degradation`).
    """
    mark = block.get("cache_control")
    return {"cache_control": mark} if isinstance(mark, Mapping) else {}


def _assistant(content: object) -> Turn:
    if not isinstance(content, list):
        return {"role": "assistant", "content": content}
    texts: list[Turn] = []
    calls: list[Turn] = []
    for block in iter_objects(content):
        kind = str(block.get("type"))
        if kind == "text":
            texts.append(_part(block))
        elif kind == "tool_use":
            arguments = to_json(block.get("input") or {})
            function = {"name": block.get("name"), "arguments": arguments}
            call = {"id": block.get("id"), "type": "function", "function": function}
            calls.append(call | cache_mark(block))
        elif kind not in _THOUGHTS:
            raise _no_place(block)
    text = "".join(str(part["text"]) for part in texts)
    marked = any("cache_control" in part for part in texts)
    said: object = texts if marked else text or (None if calls else "")
    turn: Turn = {"role": "assistant", "content": said}
    return turn | {"tool_calls": calls} if calls else turn


def _user(content: object) -> Iterator[Turn]:
    """Results of tools first: they must follow the calls at once."""
    if not isinstance(content, list):
        yield {"role": "user", "content": content}
        return
    parts: list[Turn] = []
    for block in iter_objects(content):
        if block.get("type") == "tool_result":
            yield _result(block)
            parts += _pictures_of(block)
    parts += [_part(b) for b in iter_objects(content) if b.get("type") != "tool_result"]
    if all(part["type"] == "text" and "cache_control" not in part for part in parts):
        if parts:
            yield {"role": "user", "content": _GAP.join(str(part["text"]) for part in parts)}
    else:
        yield {"role": "user", "content": parts}


def _result(block: Mapping[str, object]) -> Turn:
    """A chat's result is text alone: its pictures follow as the user's."""
    content = block.get("content")
    if isinstance(content, list):
        texts = [_result_text(part) for part in iter_objects(content)]
        text = _GAP.join(part for part in texts if part)
    else:
        text = content if isinstance(content, str) else ""
    if block.get("is_error") is True and not text.lower().startswith("error"):
        text = _ERROR + text
    within = iter_objects(content) if isinstance(content, list) else ()
    mark = next((turn for inner in (block, *within) if (turn := cache_mark(inner))), {})
    said = [{"type": "text", "text": text, **mark}] if mark else text
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": said}


def _result_text(block: Mapping[str, object]) -> str:
    match block.get("type"):
        case "text":
            return str(block.get("text") or "")
        case "image" | "document":
            return f"(The {block['type']} is in the next message.)"
        case _:
            raise _no_place(block)


def _pictures_of(result: Mapping[str, object]) -> list[Turn]:
    found = [
        _part(item)
        for item in iter_objects(result.get("content"))
        if item.get("type") != "text"
    ]
    if not found:
        return []
    told = f"(This is from the tool call {result.get('tool_use_id')}.)"
    return [{"type": "text", "text": told}, *found]


def _part(block: Mapping[str, object]) -> Turn:
    return _unmarked(block) | cache_mark(block)


def _unmarked(block: Mapping[str, object]) -> Turn:
    match block.get("type"):
        case "text":
            return {"type": "text", "text": str(block.get("text") or "")}
        case "image":
            return {"type": "image_url", "image_url": {"url": _picture(block)}}
        case "document":
            return _document(block)
        case _:
            raise _no_place(block)


def _picture(block: Mapping[str, object]) -> str:
    source = block.get("source")
    if isinstance(source, Mapping):
        if source.get("type") == "base64":
            return f"data:{source.get('media_type')};base64,{source.get('data')}"
        if source.get("type") == "url":
            return str(source.get("url"))
    raise _no_place(block)


def _document(block: Mapping[str, object]) -> Turn:
    source = block.get("source")
    title = str(block.get("title") or "document")
    if isinstance(source, Mapping):
        if source.get("type") == "text":
            return {"type": "text", "text": f"{title}:{_GAP}{source.get('data')}"}
        if source.get("type") == "base64":
            data = f"data:{source.get('media_type')};base64,{source.get('data')}"
            return {"type": "file", "file": {"filename": title, "file_data": data}}
    raise _no_place(block)


def _no_place(block: Mapping[str, object], param: str = "messages") -> Untranslatable:
    source = block.get("source")
    of = f" with a source of type {source.get('type')!r}" if isinstance(source, Mapping) else ""
    return no_chat_error(f"content of type {str(block.get('type'))[:60]!r}{of}", param)
