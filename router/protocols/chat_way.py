"""What a translation into a chat knows of the target, and what it leaves behind."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from router.frame.body import iter_objects


@dataclass(slots=True)
class ChatWay:
    """The way into a chat. limit_field: the provider's name of the output's limit. maker: gets
    its own reasoning back. dropped: names of what was left out or said otherwise.
    """

    limit_field: str = "max_tokens"
    maker: str = ""
    dropped: dict[str, None] = field(default_factory=dict)

    def without(
        self, request: Mapping[str, object], worded: Collection[str], absent: Collection[str]
    ) -> dict[str, object]:
        """Keeps what a chat has, too. worded: said otherwise. absent: left out and named."""
        self.dropped |= {name: None for name in request if name in absent and request[name]}
        return {n: v for n, v in request.items() if n not in worded and n not in absent}


# What types of hosted tools begin with: a date or a version may follow.
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


def hosted_tools_alone(tools: object, choice: object, clients: Collection[object]) -> str:
    """Names the hosted tool that a request asks for. clients: types that the client runs."""
    given = list(iter_objects(tools))
    hosted = [tool for tool in given if not _is_clients(tool, clients)]
    if not hosted:
        return ""
    chosen = next((tool for tool in hosted if _is_chosen(tool, choice)), None)
    if chosen is None and len(hosted) < len(given):
        return ""
    return f"a tool of type {str((chosen or hosted[0]).get('type'))[:60]!r}"


def name_hosted(tool: str) -> str:
    known = next((kind for kind in _KINDS if f"'{kind}" in tool), "")
    return f"the tool {known}" if known else "another hosted tool"


def without_hosted(
    tools: object, clients: Collection[object], dropped: dict[str, None]
) -> Iterator[Mapping[str, object]]:
    for tool in iter_objects(tools):
        if _is_clients(tool, clients):
            yield tool
        else:
            dropped[f"tools.{tool.get('type')}"] = None


def flat_name(tool: Mapping[str, object]) -> str:
    space, name = tool.get("namespace"), str(tool.get("name") or "")
    return f"{space}__{name}" if space else name


def _is_clients(tool: Mapping[str, object], clients: Collection[object]) -> bool:
    kind = tool.get("type")
    return (kind is None or isinstance(kind, str)) and kind in clients


def _is_chosen(tool: Mapping[str, object], choice: object) -> bool:
    if not isinstance(choice, Mapping):
        return False
    named = choice.get("name") is not None and choice.get("name") == tool.get("name")
    return named or choice.get("type") == tool.get("type")
