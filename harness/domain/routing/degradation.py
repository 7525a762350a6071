"""Degradation rules decide what happens to a request whose target lacks a feature that it asks
for (B7): the target is left out, tools are called one at a time, or the feature is dropped.
Pure.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final

from harness.domain.routing.capabilities import Capabilities, Endpoint


class DegradationRule(Enum):
    """LEAVE_OUT: the target is not asked; 422 when no other is left. SERIALIZE: all targets of
    the plan call tools one at a time, unless the client asked for parallel calls in so many
    words. DROP: the target is asked without it, and the answer says so.
    """

    LEAVE_OUT = "leave out"
    SERIALIZE = "serialize"
    DROP = "drop"


class OptionalFeature(StrEnum):
    """What an answer can do without. Of the capabilities, those whose rule is DROP."""

    SEED = "seed"
    LOGPROBS = "logprobs"
    REASONING = "reasoning"
    CACHING = "caching"
    SERVICE_TIER = "service_tier"
    TOP_K = "top_k"


DEGRADATION_RULES: Final[Mapping[str, DegradationRule]] = {
    **dict.fromkeys((endpoint.value for endpoint in Endpoint), DegradationRule.LEAVE_OUT),
    "stream": DegradationRule.LEAVE_OUT,
    "tools": DegradationRule.LEAVE_OUT,
    "json_schema": DegradationRule.LEAVE_OUT,
    "vision": DegradationRule.LEAVE_OUT,
    "context_window": DegradationRule.LEAVE_OUT,
    "parallel_tools": DegradationRule.SERIALIZE,
    **dict.fromkeys(
        (optional_feature.value for optional_feature in OptionalFeature), DegradationRule.DROP
    ),
}
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
