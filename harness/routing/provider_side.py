"""Finds requests whose copy would act at the provider, or need the provider's state. Pure.

A hosted tool may write, and a remote MCP server may send a message. A conversation that the
provider keeps has one more turn after each request. So Swapproof asks no such request a second
time: shadows and suites of traffic read this one list.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

# Members that refer to state at the provider, or change it.
_STATE_MEMBERS: Final = (
    "previous_response_id",
    "conversation",
    "background",
    "container",
    "prompt",
    "assistant_id",
    "thread_id",
    "cachedContent",
    "cached_content",
)
# Members by which the provider or a gateway searches the web or runs a tool.
_TOOL_MEMBERS: Final = (
    "mcp_servers",
    "web_search_options",
    "search_parameters",
    "enable_search",
    "plugins",
    "connectors",
    "data_sources",
)
_FILE_MEMBERS: Final = frozenset({"file_id", "file_ids", "vector_store_ids"})
_FILE_PARTS: Final = frozenset({"item_reference", "container_upload"})
# A gateway runs functions with these names itself.
_GATEWAY_FUNCTIONS: Final = frozenset({"litellm_web_search"})
_ONLINE: Final = ":online"  # OpenRouter's suffix of a model that searches the web
_CLIENT_TYPES: Final = frozenset({None, "function", "custom"})
# Each function tool has one of these members, by protocol.
_FUNCTION_MEMBERS: Final = ("function", "name")

HOSTED_TOOL: Final = "a tool that the provider runs"
KEPT_ANSWER: Final = "`store: true`"
PROVIDER_FILE: Final = "a file at the provider"


def find_provider_state(read: Callable[[str], Any]) -> str:
    """Returns why a copy of a request could act or need state at the provider, as a phrase;
    empty if it cannot.

    Args:
        read: returns a member of the request's body, None without it.

    Files in the messages are not searched here; see `find_provider_file`.
    """
    for member in _STATE_MEMBERS:
        if read(member):
            return f"`{member}`"
    if read("store") is True:
        return KEPT_ANSWER
    for member in _TOOL_MEMBERS:
        # An empty object is a setting too: `web_search_options: {}` searches the web.
        if read(member) not in (None, False, [], ""):
            return f"`{member}`"
    if str(read("model") or "").endswith(_ONLINE):
        return f"a model with `{_ONLINE}`"
    return HOSTED_TOOL if has_hosted_tool(read("tools")) else ""


def has_hosted_tool(tools: object) -> bool:
    """Tells whether a list of tools has one that the client does not run itself. Tools in
    another form than a list may be such tools.
    """
    if not isinstance(tools, list):
        return bool(tools)
    return not all(map(_is_client_tool, tools))


def _is_client_tool(tool: object) -> bool:
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    if not (kind is None or isinstance(kind, str)) or kind not in _CLIENT_TYPES:
        return False
    function = tool.get("function")
    holder = function if isinstance(function, Mapping) else tool
    # Gemini's `{"googleSearch": {}}` has neither type nor name.
    has_name = kind is not None or any(tool.get(name) for name in _FUNCTION_MEMBERS)
    return has_name and holder.get("name") not in _GATEWAY_FUNCTIONS


def find_provider_file(body: Mapping[str, Any]) -> str:
    """Returns a phrase if a body names a file or an item at the provider; empty if it does
    not.
    """
    return PROVIDER_FILE if any(map(_names_file, _iter_objects(body))) else ""


def _names_file(holder: Mapping[str, Any]) -> bool:
    kind = holder.get("type")
    named = any(holder.get(name) for name in _FILE_MEMBERS)
    return named or (isinstance(kind, str) and kind in _FILE_PARTS)


def _iter_objects(value: object) -> Iterator[Mapping[str, Any]]:
    """Yields all objects of a JSON value, except in the schemas of tools."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            yield value
            left += [inner for name, inner in value.items() if name not in _SCHEMAS]
        elif isinstance(value, list):
            left += value


# A schema may describe a parameter `file_id` that the client's own tool reads.
_SCHEMAS: Final = frozenset({"parameters", "input_schema", "schema", "arguments"})
