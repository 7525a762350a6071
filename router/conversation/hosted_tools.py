"""Hosted tools and files in a request. A translation into a chat omits them, or names them
in text.

In a history, text replaces their results. A hosted tool runs at the provider, so a target
of another protocol cannot run it. The translations themselves are in `router.protocols`;
this module only reads and rewrites parts of a request.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.providers.models.capabilities import StrictSchema
from router.conversation.strict_schemas import meets_strict
from router.frame.body import iter_objects

# Members that only the provider can read, or that no model needs.
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
# A longer text without a space is data, such as an image or a file.
_LONGEST_WORD: Final = 2_000


def hosted_text(block: Mapping[str, object]) -> str:
    """Writes a block or item as text: its type, then its texts and numbers with their names."""
    lines = [f"{name}: {text}" for name, text in _leaves(block, "")]
    return "\n".join((f"[{block.get('type')}]", *lines))


def has_text(block: Mapping[str, object]) -> bool:
    """Returns whether a block or item has a text or a number that a model can read."""
    return next(_leaves(block, ""), None) is not None


def last_answer(turns: Sequence[object]) -> int:
    """Returns the index of the last turn or item that a model wrote; earlier files are history.

    It ignores the final turn, which may be the prefilled beginning of the next answer.
    """
    return max(
        (n for n, turn in enumerate(turns[:-1]) if _is_answer(turn)),
        default=0,
    )


def say_files(turns: object, values: Collection[str] | None = None) -> Iterator[str]:
    """Replaces the history's files by text and yields their types. values: only these ids."""
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
    if not isinstance(part, dict) or part.get("type") not in (
        *_INPUTS,
        *_FILES,
    ):
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


@dataclass(slots=True)
class ChatWay:
    """The options of one translation into a chat.

    limit_field: the provider's name for the output limit.
    maker: the maker of the target's model; the target gets only that maker's reasoning.
    strict: the target's demands on strict schemas.
    dropped: names of the request parts that the translation omits or rewrites.
    """

    limit_field: str = "max_tokens"
    maker: str = ""
    strict: StrictSchema = StrictSchema.UNKNOWN
    dropped: dict[str, None] = field(default_factory=dict)

    def is_strict(self, holder: Mapping[str, object], schema: str, name: str) -> bool:
        """Returns whether a tool or format is sent as strict, which its client may wish.

        holder: with the wish in `strict`. schema: its member with the JSON schema. name: for
        `dropped` if the target would refuse the schema.
        """
        if holder.get("strict") is not True:
            return False
        fits = meets_strict(holder.get(schema), self.strict)
        if not fits:
            self.dropped[name] = None
        return fits

    def without(
        self,
        request: Mapping[str, object],
        worded: Collection[str],
        absent: Collection[str],
    ) -> dict[str, object]:
        """Returns the fields that a chat has, too.

        worded: fields that the caller translates.
        absent: fields that the translation omits and names in `dropped`.
        """
        self.dropped |= {name: None for name in request if name in absent and request[name]}
        return {n: v for n, v in request.items() if n not in worded and n not in absent}


# Prefixes of the types of hosted tools; a date or a version may follow.
_KINDS: Final = (
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


def hosted_tools_alone(
    tools: object,
    choice: object,
    clients: Collection[object],
) -> str:
    """Describes the hosted tool that a request needs; empty if it can do without.

    A request needs one if the client chose it, or if it has no other tools. clients: types
    that the client runs.
    """
    given = list(iter_objects(tools))
    hosted = [tool for tool in given if not _is_clients(tool, clients)]
    if not hosted:
        return ""
    chosen = next((tool for tool in hosted if _is_chosen(tool, choice)), None)
    if chosen is None and len(hosted) < len(given):
        return ""
    return f"a tool of type {str((chosen or hosted[0]).get('type'))[:60]!r}"


def name_hosted(tool: str) -> str:
    """Returns a short name for a description of `hosted_tools_alone`, for lists and
    metrics.
    """
    known = next((kind for kind in _KINDS if f"'{kind}" in tool), "")
    return f"the tool {known}" if known else "another hosted tool"


def without_hosted(
    tools: object,
    clients: Collection[object],
    dropped: dict[str, None],
) -> Iterator[Mapping[str, object]]:
    """Yields the tools that the client runs, and notes the others in `dropped`."""
    for tool in iter_objects(tools):
        if _is_clients(tool, clients):
            yield tool
        else:
            dropped[f"tools.{tool.get('type')}"] = None


def flat_name(tool: Mapping[str, object]) -> str:
    """Returns a tool's name with its namespace, for protocols without namespaces."""
    space = tool.get("namespace")
    name = str(tool.get("name") or "")
    return f"{space}__{name}" if space else name


def _is_clients(tool: Mapping[str, object], clients: Collection[object]) -> bool:
    kind = tool.get("type")
    return (kind is None or isinstance(kind, str)) and kind in clients


def _is_chosen(tool: Mapping[str, object], choice: object) -> bool:
    if not isinstance(choice, Mapping):
        return False
    named = choice.get("name") is not None and choice.get("name") == tool.get("name")
    return named or choice.get("type") == tool.get("type")
