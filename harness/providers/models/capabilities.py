"""Compares a request's needs with a target's capabilities. Pure.

A missing capability excludes a target from a request's plan (`harness.routing.plan`). An
optional feature does not: the router removes it from the request. An unknown capability counts
as present, so that an incomplete catalogue excludes no target. The facts come from `catalogue`
and people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal

from harness.frame.configuration.setting import ANSWER_TOKENS, WAIT_S, Range, number


class Endpoint(StrEnum):
    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"


# A value of `responses` and `messages`: the router calls the provider's own endpoint.
NATIVE: Final = "native"


class ThinkingForm(StrEnum):
    """The form in which a model takes a request for thinking by Messages."""

    UNKNOWN = "unknown"
    BUDGET = "budget"  # `enabled` with `budget_tokens`
    ADAPTIVE = "adaptive"  # `adaptive` with `output_config.effort`
    BOTH = "both"


class Prefill(StrEnum):
    """A model's reading of a request whose last turn is the assistant's."""

    UNKNOWN = "unknown"
    CONTINUES = "continues"  # continues that turn
    PREFIX = "prefix"  # continues it if the turn has `prefix: true`
    PARTIAL = "partial"  # continues it if the turn has `partial: true`
    FLAGS = "flags"  # continues it if the request has `continue_final_message: true`
    BEGINS_ANEW = "begins_anew"  # writes a further answer
    REFUSES = "refuses"  # refuses the request

    @property
    def can_continue(self) -> bool:
        """Whether the model can continue the last turn, as far as known."""
        return self not in (Prefill.BEGINS_ANEW, Prefill.REFUSES)

    @property
    def can_begin_anew(self) -> bool:
        """Whether the model can write a further answer after the last one, as far as known."""
        return self not in (Prefill.CONTINUES, Prefill.PREFIX, Prefill.REFUSES)

    @property
    def begins_anew(self) -> bool:
        """Whether the model writes a further answer unless the request sets a flag."""
        return self in (Prefill.BEGINS_ANEW, Prefill.PARTIAL, Prefill.FLAGS)


class StrictSchema(StrEnum):
    """The demands of `strict` on a JSON schema."""

    UNKNOWN = "unknown"
    ALL_REQUIRED = "all_required"  # each property required, no additional properties
    CLOSED = "closed"  # no additional properties; properties may be optional
    ANY = "any"  # any schema
    NONE = "none"  # `strict` has no effect, or is refused


@dataclass(frozen=True, slots=True)
class Needs:
    """The capabilities that a request needs. Counts are tokens."""

    endpoint: Endpoint = Endpoint.CHAT
    stream: bool = False
    tools: bool = False
    parallel_tools: bool = False  # the client explicitly requests parallel calls
    json_schema: bool = False
    vision: bool = False
    documents: bool = False
    audio: bool = False
    several_choices: bool = False
    # The last turn is the assistant's. `prefill`: the answer continues it. `new_answer`: a
    # further answer follows it.
    prefill: bool = False
    new_answer: bool = False
    # A low estimate, so that the router excludes no target that could answer.
    approx_input_tokens: int = 0
    max_output_tokens: int = 0  # the client's limit; 0 without one
    # For people: a field or tool that the router cannot translate; empty without one.
    native: str = ""

    @property
    def tokens(self) -> int:
        """The tokens of input and answer together, which must fit into the context window."""
        return self.approx_input_tokens + self.max_output_tokens


@dataclass(frozen=True, slots=True)
class Capabilities:
    """A target's capabilities; by default all, so that the router uses unknown models."""

    chat: bool = True  # speaks Chat Completions
    stream: bool = True  # can stream its answer
    tools: bool = True  # can call tools
    parallel_tools: bool = True  # can call several tools in one answer
    json_schema: bool = True  # can follow a JSON schema
    vision: bool = True  # reads pictures
    embeddings: bool = True  # makes embeddings
    # Serves the Responses API; true: as usual for its kind, false: by translation, native:
    # at the server's own endpoint.
    responses: bool | Literal["native"] = True
    # The same for Anthropic's Messages.
    messages: bool | Literal["native"] = True
    context_window: int | None = number(
        None,
        "Tokens of input and output together; null if unknown.",
        ANSWER_TOKENS,
        unit="tokens",
    )
    # Supports a seed. The abilities from `seed` to `top_k` are optional features.
    seed: bool = True
    logprobs: bool = True  # returns log probabilities
    reasoning: bool = True  # supports a reasoning effort
    caching: bool = True  # supports cache marks
    service_tier: bool = True  # supports a service tier
    top_k: bool = True  # supports top_k
    first_token_timeout_s: float | None = number(
        None,
        "Limit for a stream's first output; null for the router's setting.",
        WAIT_S,
    )
    first_byte_timeout_s: float | None = number(
        None,
        "Limit for a plain answer's first byte; null for the router's setting.",
        WAIT_S,
    )
    # The fields below are null or `unknown` if you do not set them: the table of models'
    # abilities then decides.
    # The form of a request for thinking that it takes by Messages.
    thinking: ThinkingForm = ThinkingForm.UNKNOWN
    thinks_always: bool | None = None  # refuses to turn thinking off
    # The values of `output_config.effort` that it takes by Messages; empty for no effort.
    efforts: tuple[str, ...] | None = None
    # Its reading of a request whose last turn is the assistant's.
    prefill: Prefill = Prefill.UNKNOWN
    # The demands of `strict` on a schema.
    strict_schema: StrictSchema = StrictSchema.UNKNOWN
    # Takes tools beside reasoning by Chat Completions; false: only by Responses.
    tools_with_reasoning: bool | None = None
    reasons_by_default: bool | None = None  # reasons if a request names no effort
    sampling: bool | None = None  # takes temperature, top_p and top_k
    # Takes temperature and top_p while it reasons.
    sampling_while_reasoning: bool | None = None
    # Takes temperature and top_p in one request.
    temperature_with_top_p: bool | None = None
    # Takes null for a flag, an empty schema, an empty content and a flat custom tool.
    loose_forms: bool | None = None
    several_choices: bool | None = None  # takes `n` above 1
    max_stop_sequences: int | None = number(
        None,
        "Largest number of stop sequences; 0 if it takes none.",
        Range(0, 1_000),
    )
    max_output_tokens: int | None = number(
        None,
        "Longest answer, in tokens.",
        ANSWER_TOKENS,
    )
    documents: bool | None = None  # reads documents, such as PDF
    audio: bool | None = None  # reads sound

    def larger_than(self, other: "Capabilities") -> bool:
        """Tells whether both context windows are known and this one is larger."""
        if self.context_window is None or other.context_window is None:
            return False
        return self.context_window > other.context_window


UNKNOWN_CAPABILITIES: Final = Capabilities()


def restrict_endpoints(
    capabilities: Capabilities,
    served: frozenset[Endpoint],
    translated: frozenset[Endpoint] = frozenset(),
) -> Capabilities:
    """Limits a target's endpoints to those of its kind. Returns the same object if nothing
    changes.

    Args:
        served: endpoints that the kind serves.
        translated: endpoints that the router translates for the kind.
    """
    changes: dict[str, Any] = {
        endpoint.value: endpoint in served
        for endpoint in Endpoint
        if endpoint not in served or endpoint in translated
    }
    is_changed = any(
        bool(getattr(capabilities, name)) is not is_able for name, is_able in changes.items()
    )
    return replace(capabilities, **changes) if is_changed else capabilities


def missing_capabilities(needs: Needs, capabilities: Capabilities) -> tuple[str, ...]:
    """Lists the capabilities that a request needs and a target lacks, as words for people."""
    if capabilities is UNKNOWN_CAPABILITIES:
        return ()
    requirements = (
        (needs.stream and not capabilities.stream, "streaming"),
        (needs.tools and not capabilities.tools, "tools"),
        (
            needs.parallel_tools and not capabilities.parallel_tools,
            "parallel tool calls",
        ),
        (needs.json_schema and not capabilities.json_schema, "JSON schema"),
        (needs.vision and not capabilities.vision, "vision"),
        (needs.documents and capabilities.documents is False, "documents"),
        (needs.audio and capabilities.audio is False, "sound"),
        (needs.several_choices and capabilities.several_choices is False, "several choices"),
        (needs.prefill and not capabilities.prefill.can_continue, "prefill"),
        (
            needs.new_answer and not capabilities.prefill.can_begin_anew,
            "new answer after an answer",
        ),
    )
    words = [word for is_missing, word in requirements if is_missing]
    if not getattr(capabilities, needs.endpoint.value):
        words.append(needs.native or f"the {needs.endpoint.value} endpoint")
    window = capabilities.context_window
    if window is not None and needs.tokens > window:
        words.append(f"a context window of about {needs.tokens} tokens (it has {window})")
    return tuple(words)


def must_serialize_tools(needs: Needs, plan: tuple[Capabilities, ...]) -> bool:
    """Tells whether the request has tools, and a target of the plan lacks parallel calls."""
    return needs.tools and not all(capabilities.parallel_tools for capabilities in plan)


class OptionalFeature(StrEnum):
    """Features that the router removes from a request to a target that lacks them."""

    SEED = "seed"
    LOGPROBS = "logprobs"
    REASONING = "reasoning"
    CACHING = "caching"
    SERVICE_TIER = "service_tier"
    TOP_K = "top_k"


# Translation to OpenAI's chat loses these features, unless the kind has `cache_marks`.
REMOVED_BY_TRANSLATION: Final[Mapping[Endpoint, frozenset[OptionalFeature]]] = {
    Endpoint.MESSAGES: frozenset({OptionalFeature.CACHING})
}


def dropped_features(
    capabilities: Capabilities,
    endpoint: Endpoint,
    *,
    translated: bool,
    cache_marks: bool = False,
) -> frozenset[OptionalFeature]:
    """Returns the optional features that the router removes from a request to a target."""
    removed = REMOVED_BY_TRANSLATION.get(endpoint, frozenset()) if translated else frozenset()
    if cache_marks:
        removed -= {OptionalFeature.CACHING}
    unsupported = {
        feature for feature in OptionalFeature if not getattr(capabilities, feature.value)
    }
    return removed | unsupported
