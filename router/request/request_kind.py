"""What kind of request one is seen to be, for the overrides of its route (D6). Pure.

Asked only on a route that has overrides: it walks the conversation, not what tools were given.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.overrides import RequestKind
from router.request.body import ClientRequest

# Of chat's, responses' and messages' parts; videos as the servers that take them have it.
PARTS: Final[Mapping[str, RequestKind]] = {
    **dict.fromkeys(("image_url", "input_image", "image"), RequestKind.VISION),
    **dict.fromkeys(("video_url", "input_video", "video"), RequestKind.VIDEO),
}
# Where a turn, or a tool's result in it, has its parts.
_HOLDERS: Final = ("content", "output")
MAKES_IMAGES: Final = "image_generation"


def detect_kinds(request: ClientRequest) -> frozenset[RequestKind]:
    """A picture of an earlier turn counts: the model sees all turns."""
    if request.endpoint is Endpoint.EMBEDDINGS:
        return frozenset({RequestKind.EMBEDDING})
    turns = (request.value("messages"), request.value("input"))
    seen = {PARTS[kind] for each in turns for kind in _kinds(each) if kind in PARTS}
    if _wants_image(request):
        seen.add(RequestKind.IMAGE)
    return frozenset(seen)


def _kinds(value: object) -> Iterator[str]:
    """The types of all parts in a list of turns or parts."""
    for part in _objects(value):
        kind = part.get("type")
        if isinstance(kind, str):
            yield kind
        for holder in _HOLDERS:
            yield from _kinds(part.get(holder))


def _wants_image(request: ClientRequest) -> bool:
    modalities = request.value("modalities")
    if isinstance(modalities, list) and "image" in modalities:
        return True
    tools = _objects(request.value("tools"))
    return any(each.get("type") == MAKES_IMAGES for each in tools)


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))
