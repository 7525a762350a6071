"""Tools that a provider runs itself (searches, code interpreters): beside tools of the client
they are left out for a target without them; a request that asks for nothing else, or for one of
them by name, binds to the targets that have it. Also the name of a tool in a namespace. Pure.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from router.protocols.object_lists import iter_objects

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
    """Names the hosted tool that a request asks for; empty where it does without one. clients:
    types of tools that the client runs.
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
    """Names a tool of `hosted_tools_alone` by a closed list, with nothing of the client's."""
    known = next((kind for kind in _KINDS if f"'{kind}" in tool), "")
    return f"the tool {known}" if known else "another hosted tool"


def without_hosted(
    tools: object, clients: Collection[object], dropped: dict[str, None]
) -> Iterator[Mapping[str, object]]:
    """Yields the tools that the client runs. dropped: gets the names of the others."""
    for tool in iter_objects(tools):
        if _is_clients(tool, clients):
            yield tool
        else:
            dropped[f"tools.{tool.get('type')}"] = None


def flat_name(tool: Mapping[str, object]) -> str:
    """The name of a tool, a call or a choice in a chat, which has no namespaces."""
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
