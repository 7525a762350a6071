"""Says as text what a provider's own tools and files left in a conversation."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

# What its provider alone can read, or no model needs.
_UNREADABLE: Final = frozenset(
    {
        "cache_control",
        "call_id",
        "caller",
        "citations",
        "container_id",
        "encrypted_content",
        "encrypted_index",
        "id",
        "media_type",
        "signature",
        "status",
        "tool_use_id",
        "type",
    }
)
# Types of parts that may name a file by its id.
_INPUTS: Final = ("input_file", "input_image")
_FILES: Final = ("container_upload", "document", "file", "image")
# A longer text without a blank is data: a picture, a file.
_LONGEST_WORD: Final = 2_000


def hosted_text(block: Mapping[str, object]) -> str:
    """Says a block or item: its kind, then each of its texts and numbers with its name."""
    said = [f"{name}: {text}" for name, text in _leaves(block, "")]
    return "\n".join((f"[{block.get('type')}]", *said))


def has_text(block: Mapping[str, object]) -> bool:
    return next(_leaves(block, ""), None) is not None


def last_answer(turns: Sequence[object]) -> int:
    """The place of the last turn or item that a model wrote: files before it are history. The
    last one of all may be the beginning of the answer that is asked for.
    """
    return max((n for n, turn in enumerate(turns[:-1]) if _is_answer(turn)), default=0)


def say_files(turns: object, values: Collection[str] | None = None) -> Iterator[str]:
    """Says each file of the history as text; yields the parts' types. values: ids of files."""
    given = turns if isinstance(turns, list) else []
    for turn in given[: last_answer(given)]:
        holders = [turn]
        while holders:
            holder = holders.pop()
            if not isinstance(holder, dict):
                continue
            for name in ("content", "output"):
                given_parts = holder.get(name)
                parts: list[Any] = given_parts if isinstance(given_parts, list) else []
                for at, part in enumerate(parts):
                    id_ = _file_id(part)
                    if id_ and (values is None or id_ in values):
                        yield str(part["type"])
                        kind = "input_text" if part["type"] in _INPUTS else "text"
                        parts[at] = {"type": kind, "text": hosted_text(part)}
                    elif isinstance(part, dict):
                        holders.append(part)  # a tool's result


def _is_answer(turn: object) -> bool:
    return isinstance(turn, Mapping) and (
        turn.get("role") == "assistant"
        or str(turn.get("type")).endswith(("_call", "reasoning"))
    )


def _file_id(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") not in (*_INPUTS, *_FILES):
        return ""
    for holder in (part, part.get("source"), part.get("file")):
        if isinstance(holder, dict) and holder.get("file_id"):
            return str(holder["file_id"])
    return ""


def _leaves(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _UNREADABLE:
                yield from _leaves(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    elif isinstance(value, str):
        is_data = len(value) > _LONGEST_WORD and " " not in value
        if value.strip() and not is_data and not value.startswith("data:"):
            yield name, value
    elif value is not None and not isinstance(value, bool):
        yield name, str(value)
