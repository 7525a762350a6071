"""Finds the hosted tools and files of a request, and writes them as text.

A hosted tool runs at the provider, so a target of another protocol cannot run it. A translation
into a chat omits such a tool. In the history it replaces the tool's results by text. The
translations themselves are in `router.protocols`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.providers.models.capabilities import StrictSchema
from router.conversation.strict_schemas import meets_strict
from router.frame.body import iter_objects

# Members that only the provider can read, or that no model needs.
_UNREADABLE_MEMBERS: Final = frozenset(
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
_RESPONSE_FILE_TYPES: Final = ("input_file", "input_image")
_OTHER_FILE_TYPES: Final = ("container_upload", "document", "file", "image")
# A longer text without a space is data, such as an image or a file.
_LONGEST_WORD_CHARS: Final = 2_000


def block_as_text(block: Mapping[str, object]) -> str:
    """Writes a block or item as text: its type, then each text or number after its name."""
    lines = [f"{name}: {text}" for name, text in _iter_leaves(block, "")]
    return "\n".join((f"[{block.get('type')}]", *lines))


def has_text(block: Mapping[str, object]) -> bool:
    """Returns whether a block or item has a text or a number that a model can read."""
    return next(_iter_leaves(block, ""), None) is not None


def last_answer(turns: Sequence[object]) -> int:
    """Returns the index of the last turn or item that a model wrote: the end of the history.

    Ignores the final turn, which may be the prefilled beginning of the next answer.
    """
    return max(
        (n for n, turn in enumerate(turns[:-1]) if _is_answer(turn)),
        default=0,
    )


def files_to_text(turns: object, values: Collection[str] | None = None) -> Iterator[str]:
    """Replaces files in the history by text, and yields their types.

    Args:
        values: ids of the files to replace; all files by default.
    """
    all_turns = turns if isinstance(turns, list) else []
    for turn in all_turns[: last_answer(all_turns)]:
        holders = [turn]
        while holders:
            holder = holders.pop()
            if not isinstance(holder, dict):
                continue
            for name in ("content", "output"):
                content = holder.get(name)
                parts: list[Any] = content if isinstance(content, list) else []
                for index, part in enumerate(parts):
                    id_ = _file_id(part)
                    if id_ and (values is None or id_ in values):
                        yield str(part["type"])
                        kind = "input_text" if part["type"] in _RESPONSE_FILE_TYPES else "text"
                        parts[index] = {"type": kind, "text": block_as_text(part)}
                    elif isinstance(part, dict):
                        holders.append(part)  # a tool's result


def _is_answer(turn: object) -> bool:
    return isinstance(turn, Mapping) and (
        turn.get("role") == "assistant"
        or str(turn.get("type")).endswith(("_call", "reasoning"))
    )


def _file_id(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") not in (
        *_RESPONSE_FILE_TYPES,
        *_OTHER_FILE_TYPES,
    ):
        return ""
    for holder in (part, part.get("source"), part.get("file")):
        if isinstance(holder, dict) and holder.get("file_id"):
            return str(holder["file_id"])
    return ""


def _iter_leaves(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _UNREADABLE_MEMBERS:
                yield from _iter_leaves(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _iter_leaves(inner, name)
    elif isinstance(value, str):
        is_data = len(value) > _LONGEST_WORD_CHARS and " " not in value
        if value.strip() and not is_data and not value.startswith("data:"):
            yield name, value
    elif value is not None and not isinstance(value, bool):
        yield name, str(value)


@dataclass(slots=True)
class ChatTranslation:
    """One translation of a request into a chat: its options, and the dropped parts.

    limit_field: the provider's name for the output limit.
    maker: the maker of the target's model; the target gets only that maker's reasoning.
    strict: the target's demands on strict schemas.
    file_urls: prefixes of the URLs of files that the target fetches.
    dropped: names of the request parts that the translation omits or writes as text.
    """

    limit_field: str = "max_tokens"
    maker: str = ""
    strict: StrictSchema = StrictSchema.UNKNOWN
    file_urls: tuple[str, ...] = ()
    dropped: dict[str, None] = field(default_factory=dict)

    def is_strict(self, holder: Mapping[str, object], schema: str, name: str) -> bool:
        """Returns whether the router sends a tool or format as strict.

        The client asks for it with `strict` in the tool or format, the `holder`. If the target
        would refuse the schema, the method adds `name` to `dropped`.

        Args:
            schema: the member of `holder` with the JSON schema.
        """
        if holder.get("strict") is not True:
            return False
        fits = meets_strict(holder.get(schema), self.strict)
        if not fits:
            self.dropped[name] = None
        return fits

    def copy_other_fields(
        self,
        request: Mapping[str, object],
        translated: Collection[str],
        omitted: Collection[str],
    ) -> dict[str, object]:
        """Returns the fields that a chat can keep unchanged.

        Args:
            translated: fields that the calling module translates.
            omitted: fields that the translation omits; the method adds them to `dropped`.
        """
        self.dropped |= {name: None for name in request if name in omitted and request[name]}
        return {
            n: value for n, value in request.items() if n not in translated and n not in omitted
        }


# Prefixes of the types of hosted tools; a date or a version may follow.
_TYPE_PREFIXES: Final = (
    "apply_patch",
    "bash",
    "code_execution",
    "code_interpreter",
    "computer",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "memory",
    "shell",
    "text_editor",
    "tool_search",
    "web_fetch",
    "web_search",
)


def required_hosted_tool(
    tools: object,
    choice: object,
    client_types: Collection[object],
) -> str:
    """Describes the hosted tool that a request needs; empty if it needs no hosted tool.

    A request needs a hosted tool if the client chose that tool, or if all its tools are hosted.

    Args:
        client_types: types of tools that the client runs.
    """
    offered = list(iter_objects(tools))
    hosted_tools = [tool for tool in offered if not _is_client_tool(tool, client_types)]
    if not hosted_tools:
        return ""
    chosen = next((tool for tool in hosted_tools if _is_chosen(tool, choice)), None)
    if chosen is None and len(hosted_tools) < len(offered):
        return ""
    return f"a tool of type {str((chosen or hosted_tools[0]).get('type'))[:60]!r}"


def short_tool_name(tool: str) -> str:
    """Shortens a description of `required_hosted_tool`, for lists and metrics."""
    prefix = next(
        (type_prefix for type_prefix in _TYPE_PREFIXES if f"'{type_prefix}" in tool), ""
    )
    return f"the tool {prefix}" if prefix else "another hosted tool"


def keep_client_tools(
    tools: object,
    client_types: Collection[object],
    dropped: dict[str, None],
) -> Iterator[Mapping[str, object]]:
    """Yields the tools that the client runs, and notes the others in `dropped`."""
    for tool in iter_objects(tools):
        if _is_client_tool(tool, client_types):
            yield tool
        else:
            dropped[f"tools.{tool.get('type')}"] = None


def flat_name(tool: Mapping[str, object]) -> str:
    """Returns a tool's name with its namespace, for protocols without namespaces."""
    namespace = tool.get("namespace")
    name = str(tool.get("name") or "")
    return f"{namespace}__{name}" if namespace else name


def _is_client_tool(tool: Mapping[str, object], client_types: Collection[object]) -> bool:
    kind = tool.get("type")
    return (kind is None or isinstance(kind, str)) and kind in client_types


def _is_chosen(tool: Mapping[str, object], choice: object) -> bool:
    if not isinstance(choice, Mapping):
        return False
    has_chosen_name = choice.get("name") is not None and choice.get("name") == tool.get("name")
    return has_chosen_name or choice.get("type") == tool.get("type")
