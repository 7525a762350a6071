"""Detects the segments of a request (`harness.domain.canary.observation`) from what is parsed
already. Asked only for requests that a live rollout scores.
"""

from collections.abc import Mapping
from typing import Final

from harness.domain.canary.observation import SEGMENTS, Segment
from harness.domain.routing.capabilities import Endpoint
from router.request.body import ClientRequest

_BITS: Final[Mapping[Segment, int]] = {segment: 1 << n for n, segment in enumerate(SEGMENTS)}
# As plain numbers: to look up a member of an enumeration costs more than all the rest.
_STREAM, _WHOLE = _BITS[Segment.STREAM], _BITS[Segment.WHOLE]
_TOOLS, _NO_TOOLS = _BITS[Segment.TOOLS], _BITS[Segment.NO_TOOLS]
_ENDPOINTS: Final = {endpoint: _BITS[Segment(endpoint.value)] for endpoint in Endpoint}


_SOURCES: Final = {
    "header:": _BITS[Segment.HEADER],
    "key:": _BITS[Segment.HEADER],  # the API key, which stands in one
    "opening:": _BITS[Segment.OPENING],
    "": _BITS[Segment.REQUEST],
}
_FIELD: Final = _BITS[Segment.FIELD]


def detect_segments(request: ClientRequest, sticky_key: str) -> int:
    """Finds the segments of a request, as bits in the order of `SEGMENTS`; one of each kind."""
    return (
        (_STREAM if request.stream else _WHOLE)
        | (_TOOLS if request.members.get("tools") else _NO_TOOLS)
        | _ENDPOINTS[request.endpoint]
        | _SOURCES.get(sticky_key[: sticky_key.find(":") + 1], _FIELD)
    )
