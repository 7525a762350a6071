"""Translates the turns of a Messages request into chat messages."""

from collections.abc import Iterator, Mapping
from typing import Final

from router.conversation.hosted_text import hosted_text, last_answer
from router.conversation.makers import read_mark
from router.frame.body_patch import to_json
from router.frame.failure import Untranslatable, no_chat_error
from router.frame.object_lists import iter_objects

# Only their own provider can read them, and an answer does without.
_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
# Of a tool's result, what follows as the user's.
_DATA: Final = frozenset({"image", "document"})
_GAP: Final = "\n\n"
_ERROR: Final = "Error: "
Turn = dict[str, object]


Dropped = dict[str, None]


def chat_messages(messages: object, maker: str, dropped: Dropped) -> Iterator[Turn]:
    """Translates turns. maker: whose thinking goes back. dropped: gets names. Raises
    Untranslatable for what is asked now; the history is said as text.
    """
    given = list(iter_objects(messages))
    answered = last_answer(given)
    for number, message in enumerate(given):
        content = message.get("content")
        blocks = _Blocks(dropped, is_history=number < answered)
        if message.get("role") == "assistant":
            yield _assistant(content, maker, blocks)
        elif message.get("role") == "system":
            yield {"role": "system", "content": text_or_parts(content)}
        else:
            yield from _user(content, blocks)


def plain_text(content: object, param: str = "messages") -> str:
    """Joins text blocks. param: their field. Raises Untranslatable for any other block."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    for block in iter_objects(content):
        if block.get("type") != "text":
            raise _no_place(block, param)
    return _GAP.join(str(block.get("text") or "") for block in iter_objects(content))


def text_or_parts(content: object, param: str = "messages") -> object:
    """Makes parts where one is marked for the cache, else one text. Raises Untranslatable."""
    text = plain_text(content, param)
    blocks = list(iter_objects(content)) if isinstance(content, list) else []
    return (
        [
            {"type": "text", "text": str(block.get("text") or "")} | cache_mark(block)
            for block in blocks
        ]
        if any(cache_mark(block) for block in blocks)
        else text
    )


def cache_mark(block: Mapping[str, object]) -> Turn:
    """Returns the mark; what no target can use was taken out before (`request.needs`)."""
    mark = block.get("cache_control")
    return {"cache_control": mark} if isinstance(mark, Mapping) else {}


def _assistant(content: object, maker: str, blocks: "_Blocks") -> Turn:
    if not isinstance(content, list):
        return {"role": "assistant", "content": content}
    texts: list[Turn] = []
    calls: list[Turn] = []
    for block in iter_objects(content):
        kind = str(block.get("type"))
        if kind == "tool_use":
            arguments = to_json(block.get("input") or {})
            function = {"name": block.get("name"), "arguments": arguments}
            call = {"id": block.get("id"), "type": "function", "function": function}
            calls.append(call | cache_mark(block))
        elif kind not in _THOUGHTS:
            texts.append(blocks.part(block))
    text = "".join(str(part.get("text") or "") for part in texts)
    marked = any("cache_control" in part for part in texts)
    said: object = texts if marked else text or (None if calls else "")
    turn: Turn = {"role": "assistant", "content": said}
    thought = _own_thoughts(content, maker) if maker else ""
    turn |= {"reasoning_content": thought} if thought else {}
    return turn | {"tool_calls": calls} if calls else turn


def _own_thoughts(content: object, maker: str) -> str:
    return "".join(
        str(block.get("thinking") or "")
        for block in iter_objects(content)
        if read_mark(block.get("signature")) == (maker, "")
    )


def _user(content: object, blocks: "_Blocks") -> Iterator[Turn]:
    """Results of tools first: they must follow the calls at once."""
    if not isinstance(content, list):
        yield {"role": "user", "content": content}
        return
    parts: list[Turn] = []
    for block in iter_objects(content):
        if block.get("type") == "tool_result":
            yield _result(block, blocks)
            parts += _pictures_of(block, blocks)
    parts += [blocks.part(b) for b in iter_objects(content) if b.get("type") != "tool_result"]
    if all(part["type"] == "text" and "cache_control" not in part for part in parts):
        if parts:
            yield {"role": "user", "content": _GAP.join(str(part["text"]) for part in parts)}
    else:
        yield {"role": "user", "content": parts}


def _result(block: Mapping[str, object], blocks: "_Blocks") -> Turn:
    content = block.get("content")
    if isinstance(content, list):
        texts = [_result_text(part, blocks) for part in iter_objects(content)]
        text = _GAP.join(part for part in texts if part)
    else:
        text = content if isinstance(content, str) else ""
    if block.get("is_error") is True and not text.lower().startswith("error"):
        text = _ERROR + text
    within = iter_objects(content) if isinstance(content, list) else ()
    mark = next((turn for inner in (block, *within) if (turn := cache_mark(inner))), {})
    said = [{"type": "text", "text": text, **mark}] if mark else text
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": said}


def _result_text(block: Mapping[str, object], blocks: "_Blocks") -> str:
    if block.get("type") in _DATA:
        return f"(The {block['type']} is in the next message.)"
    return str(blocks.part(block).get("text") or "")


def _pictures_of(result: Mapping[str, object], blocks: "_Blocks") -> list[Turn]:
    found = [
        blocks.part(item)
        for item in iter_objects(result.get("content"))
        if item.get("type") in _DATA
    ]
    if not found:
        return []
    told = f"(This is from the tool call {result.get('tool_use_id')}.)"
    return [{"type": "text", "text": told}, *found]


class _Blocks:
    """Translates a message's blocks into a chat's parts."""

    def __init__(self, dropped: Dropped, *, is_history: bool) -> None:
        self._dropped = dropped
        self._is_history = is_history

    def part(self, block: Mapping[str, object]) -> Turn:
        """Raises Untranslatable for data of the last message that its provider alone has."""
        return self._unmarked(block) | cache_mark(block)

    def _unmarked(self, block: Mapping[str, object]) -> Turn:
        source = block.get("source")
        of = source if isinstance(source, Mapping) else {}
        match block.get("type"), of.get("type"):
            case "text", _:
                return {"type": "text", "text": str(block.get("text") or "")}
            case "image", "base64":
                url = f"data:{of.get('media_type')};base64,{of.get('data')}"
                return {"type": "image_url", "image_url": {"url": url}}
            case "image", "url":
                return {"type": "image_url", "image_url": {"url": str(of.get("url"))}}
            case "document", "text":
                return {"type": "text", "text": f"{_title(block)}:{_GAP}{of.get('data')}"}
            case "document", "base64":
                data = f"data:{of.get('media_type')};base64,{of.get('data')}"
                return {"type": "file", "file": {"filename": _title(block), "file_data": data}}
            case (("image" | "document" | "container_upload"), "file" | None):
                if not self._is_history:
                    raise _no_place(block)
            case _:
                pass
        self._dropped[f"messages.{block.get('type')}"] = None
        return {"type": "text", "text": hosted_text(block)}


def _title(block: Mapping[str, object]) -> str:
    return str(block.get("title") or "document")


def _no_place(block: Mapping[str, object], param: str = "messages") -> Untranslatable:
    source = block.get("source")
    of = f" with a source of type {source.get('type')!r}" if isinstance(source, Mapping) else ""
    return no_chat_error(f"content of type {str(block.get('type'))[:60]!r}{of}", param)
