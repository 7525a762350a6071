"""Features of a request that a target may lack without being left out (B7): the router drops
them, and the answer says so. Pure.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from harness.domain.routing.capabilities import Capabilities, Endpoint


class OptionalFeature(StrEnum):
    """What an answer can do without."""

    SEED = "seed"
    LOGPROBS = "logprobs"
    REASONING = "reasoning"
    CACHING = "caching"
    SERVICE_TIER = "service_tier"
    TOP_K = "top_k"


# OpenAI's chat has no place for them; that of some kinds has one (`cache_marks`).
LOST_IN_TRANSLATION: Final[Mapping[Endpoint, frozenset[OptionalFeature]]] = {
    Endpoint.MESSAGES: frozenset({OptionalFeature.CACHING})
}


def dropped_features(
    has: Capabilities,
    by_kind: frozenset[str],
    endpoint: Endpoint,
    *,
    translated: bool,
    cache_marks: bool = False,
) -> frozenset[OptionalFeature]:
    """The hints that a target does not get.

    by_kind: what no model of its kind takes. translated: it answers the endpoint so.
    cache_marks: its chats take them, so a translation keeps them.
    """
    lost = LOST_IN_TRANSLATION.get(endpoint, frozenset()) if translated else frozenset()
    if cache_marks:
        lost -= {OptionalFeature.CACHING}
    own = {
        hint
        for hint in OptionalFeature
        if hint.value in by_kind or not getattr(has, hint.value)
    }
    return lost | own
