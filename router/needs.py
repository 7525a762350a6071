"""What a request needs of a target, read from its body. Pure.

Asked only on a route with a target whose capabilities are known: it walks the whole input.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from harness.domain.capabilities import Endpoint, Needs
from router.body import ClientRequest

# Few tokenizers need more tokens than one for four bytes of English; other scripts need more.
BYTES_PER_TOKEN: Final = 4
_INPUTS: Final = ("messages", "input", "system", "instructions", "tools", "functions")
_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_IMAGES: Final = frozenset({"image_url", "input_image", "image"})
# Their data are no text: what they cost in tokens has nothing to do with their length.
_NO_TEXT: Final = _IMAGES | {"input_audio", "file", "input_file", "document"}


class _Read(NamedTuple):
    text_bytes: int
    images: bool


def needs_of(request: ClientRequest) -> Needs:
    """Tokens: of the text alone, at four bytes each; of embeddings, of the longest input."""
    read = [_read(request.value(name)) for name in _INPUTS]
    if request.endpoint is Endpoint.EMBEDDINGS:
        return Needs(Endpoint.EMBEDDINGS, approx_input_tokens=_longest(request.value("input")))
    return Needs(
        endpoint=request.endpoint,
        stream=request.stream,
        tools=bool(request.value("tools") or request.value("functions")),
        parallel_tools=request.value("parallel_tool_calls") is True,
        json_schema=_asks_for_schema(request),
        vision=any(each.images for each in read),
        approx_input_tokens=sum(each.text_bytes for each in read) // BYTES_PER_TOKEN,
        max_output_tokens=_output_limit(request),
    )


def _read(value: object) -> _Read:
    match value:
        case str():
            return _Read(len(value.encode("utf-8", "surrogatepass")), images=False)
        case Mapping():
            kind = value.get("type")
            if isinstance(kind, str) and kind in _NO_TEXT:
                return _Read(0, kind in _IMAGES)
            parts = [_read(each) for each in value.values()]
        case list():
            parts = [_read(each) for each in value]
        case _:
            return _Read(0, images=False)
    return _Read(sum(each.text_bytes for each in parts), any(each.images for each in parts))


def _longest(value: object) -> int:
    items = value if isinstance(value, list) else [value]
    return max((_read(each).text_bytes for each in items), default=0) // BYTES_PER_TOKEN


def _asks_for_schema(request: ClientRequest) -> bool:
    """`response_format` of chat, `text.format` of responses, `output_config` of messages."""
    outer = (request.value(name) for name in ("text", "output_config"))
    inner = (each.get("format") for each in outer if isinstance(each, Mapping))
    return any(
        isinstance(each, Mapping) and each.get("type") == "json_schema"
        for each in (request.value("response_format"), *inner)
    )


def _output_limit(request: ClientRequest) -> int:
    for name in _LIMITS:
        limit = request.value(name)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return limit
    return 0
