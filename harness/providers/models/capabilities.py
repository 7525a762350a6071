"""Compares what a request needs with what a target can do. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal


class Endpoint(StrEnum):
    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"


# Of Responses and Messages: the provider's own endpoint is asked.
NATIVE: Final = "native"


@dataclass(frozen=True, slots=True)
class Needs:
    endpoint: Endpoint = Endpoint.CHAT
    stream: bool = False
    tools: bool = False
    parallel_tools: bool = False  # the client asked for parallel calls in so many words
    json_schema: bool = False
    vision: bool = False
    # A low estimate, lest a target is left out that could have answered.
    approx_input_tokens: int = 0
    max_output_tokens: int = 0  # what the client allows, 0 when it does not say
    # A field or tool that no translation can say, in words; empty for none.
    native: str = ""

    @property
    def tokens(self) -> int:
        return self.approx_input_tokens + self.max_output_tokens


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a target can do. The default claims everything: the unknown is not left out."""

    chat: bool = True  # speaks Chat Completions
    stream: bool = True  # can stream its answer
    tools: bool = True  # can call tools
    parallel_tools: bool = True  # can call several tools in one answer
    json_schema: bool = True  # can be held to a JSON schema
    vision: bool = True  # reads pictures
    embeddings: bool = True  # makes embeddings
    # Answers Responses: as its kind does; false: by translation; native: at its own endpoint.
    responses: bool | Literal["native"] = True
    messages: bool | Literal["native"] = True  # answers Anthropic's Messages, likewise
    # Tokens of input and output together, None when unknown.
    context_window: int | None = None
    # A hint, as all up to `top_k`: an answer can do without it.
    seed: bool = True
    logprobs: bool = True  # gives log probabilities
    reasoning: bool = True  # takes how hard to think
    caching: bool = True  # takes marks for its cache
    service_tier: bool = True  # takes a service tier
    top_k: bool = True  # takes top_k
    # This model's own, None for the router's.
    first_token_timeout_s: float | None = None
    first_byte_timeout_s: float | None = None  # as above, of a plain answer

    def larger_than(self, other: "Capabilities") -> bool:
        if self.context_window is None or other.context_window is None:
            return False
        return self.context_window > other.context_window


UNKNOWN_CAPABILITIES: Final = Capabilities()


def restrict_endpoints(
    has: Capabilities,
    spoken: frozenset[Endpoint],
    translated: frozenset[Endpoint] = frozenset(),
) -> Capabilities:
    changes = {
        endpoint.value: endpoint in spoken
        for endpoint in Endpoint
        if endpoint not in spoken or endpoint in translated
    }
    changed = any(bool(getattr(has, name)) is not able for name, able in changes.items())
    return replace(has, **changes) if changed else has


def missing_capabilities(needs: Needs, has: Capabilities) -> tuple[str, ...]:
    if has is UNKNOWN_CAPABILITIES:
        return ()
    lacks = (
        (needs.stream and not has.stream, "streaming"),
        (needs.tools and not has.tools, "tools"),
        (needs.parallel_tools and not has.parallel_tools, "parallel tool calls"),
        (needs.json_schema and not has.json_schema, "JSON schema"),
        (needs.vision and not has.vision, "vision"),
    )
    words = [word for lack, word in lacks if lack]
    if not getattr(has, needs.endpoint.value):
        words.append(needs.native or f"the {needs.endpoint.value} endpoint")
    window = has.context_window
    if window is not None and needs.tokens > window:
        words.append(f"the context window (about {needs.tokens} tokens, it holds {window})")
    return tuple(words)


def must_serialize_tools(needs: Needs, plan: tuple[Capabilities, ...]) -> bool:
    """Whether a target has no parallel calls, and the client asked for none (B7)."""
    return needs.tools and not all(capabilities.parallel_tools for capabilities in plan)


class OptionalFeature(StrEnum):
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
    """Names the hints that a target does not get. by_kind: what none of its kind takes."""
    lost = LOST_IN_TRANSLATION.get(endpoint, frozenset()) if translated else frozenset()
    if cache_marks:
        lost -= {OptionalFeature.CACHING}
    own = {
        hint
        for hint in OptionalFeature
        if hint.value in by_kind or not getattr(has, hint.value)
    }
    return lost | own
