"""Detects what a request demands of a target, from its body: endpoint, stream, tools, JSON
schema, vision, and about how many tokens. Pure.

Asked only on a route with a target whose capabilities are known: it walks the whole input.
"""

from collections.abc import Mapping
from typing import Final

from harness.domain.routing.capabilities import Endpoint, Needs
from router.request.body import ClientRequest
from router.request.json_walk import JsonSpan

# Few tokenizers need more tokens than one for four bytes of English; other scripts need more.
BYTES_PER_TOKEN: Final = 4
_INPUTS: Final = ("messages", "input", "system", "instructions", "tools", "functions")
_FORMATS: Final = ("response_format", "text", "output_config")
_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_IMAGES: Final = frozenset({"image_url", "input_image", "image"})
# Their data are no text: what they cost in tokens has nothing to do with their length.
_NO_TEXT: Final = _IMAGES | {"input_audio", "file", "input_file", "document"}


def detect_needs(request: ClientRequest) -> Needs:
    """Finds what a request needs of a target. Tokens are counted of the text alone, at four
    bytes each; of embeddings, for the longest input.
    """
    if request.endpoint is Endpoint.EMBEDDINGS:
        return Needs(Endpoint.EMBEDDINGS, approx_input_tokens=_longest(request.value("input")))
    values = request.members.values
    kinds: set[str] = set()
    size = sum(_text_bytes(values[name].value, kinds) for name in _INPUTS if name in values)
    return Needs(
        endpoint=request.endpoint,
        stream=request.stream,
        tools=bool(request.value("tools") or request.value("functions")),
        parallel_tools=request.value("parallel_tool_calls") is True,
        json_schema=_asks_for_schema(values),
        vision=bool(kinds),
        approx_input_tokens=size // BYTES_PER_TOKEN,
        max_output_tokens=output_limit(request),
    )


def _text_bytes(value: object, images: set[str]) -> int:
    """Of all strings in it but those of pictures and files; adds the kinds of its pictures."""
    # Parsed JSON has these types and no others; this is quicker than asking for protocols.
    if type(value) is str:
        return len(value if value.isascii() else value.encode("utf-8", "surrogatepass"))
    if type(value) is list:
        return sum([_text_bytes(item, images) for item in value])
    if type(value) is not dict:
        return 0
    kind = value.get("type")
    if type(kind) is str and kind in _NO_TEXT:
        if kind in _IMAGES:
            images.add(kind)
        return 0
    return sum([_text_bytes(item, images) for item in value.values()])


def _longest(value: object) -> int:
    items = value if isinstance(value, list) else [value]
    return max((_text_bytes(item, set()) for item in items), default=0) // BYTES_PER_TOKEN


def _asks_for_schema(values: Mapping[str, JsonSpan]) -> bool:
    """`response_format` of chat, `text.format` of responses, `output_config` of messages."""
    for name in _FORMATS:
        given = values[name].value if name in values else None
        if isinstance(given, dict):
            wanted = given if name == "response_format" else given.get("format")
            if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
                return True
    return False


def output_limit(request: ClientRequest) -> int:
    """Tokens that the client allows as output, 0 when it does not say."""
    get = request.members.get
    for name in _LIMITS:
        limit = get(name)
        if limit is None:
            continue
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return limit
    return 0
