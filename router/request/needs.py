"""A request's needs of a target, its losses there, and its number of tokens.

`planner` compares the needs with the targets' capabilities. `upstream_call` removes the
hints that a target does not take, and `routed_response` names them in a header. This module
reads parsed bodies only; the members' names by protocol are in `router.snapshot.compiled`
(OPTIONAL_FIELDS) and `router.protocols`.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any, Final

from harness.providers.models.capabilities import (
    Endpoint,
    Needs,
    OptionalFeature,
    Prefill,
)
from harness.providers.target import RequestTarget
from harness.routing.plan import RoutePlan
from harness.routing.reliability.slowdown import RequestSize
from router.conversation.prefill_forms import ANSWER, is_open_answer, is_prefill_marked
from router.frame.body import ClientRequest, to_json
from router.frame.replies import JSON, Header, Reply
from router.snapshot.compiled import (
    CACHE_MARK,
    OPTIONAL_FIELDS,
    CompiledTarget,
)

# Most tokenizers need at most one token for four bytes of English; other scripts need more.
BYTES_PER_TOKEN: Final = 4
_INPUTS: Final = (
    "messages",
    "input",
    "system",
    "instructions",
    "tools",
    "functions",
)
_FORMATS: Final = ("response_format", "text", "output_config")
_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_IMAGES: Final = frozenset({"image_url", "input_image", "image"})
# Parts whose data are not text: their tokens do not depend on their length.
_AUDIO: Final = frozenset({"input_audio"})
_DOCUMENTS: Final = frozenset({"file", "input_file", "document"})
_NO_TEXT: Final = _IMAGES | _AUDIO | _DOCUMENTS


def detect_needs(
    request: ClientRequest,
    incumbent: Prefill = Prefill.UNKNOWN,
) -> Needs:
    """Returns the abilities and the context window that a request needs of its target.

    Args:
        incumbent: how the route's incumbent reads a last turn of the assistant.

    Counts the tokens of the text, at four bytes each; for embeddings, of the longest text.
    Pictures, sound and files count no tokens. The count is an estimate: the planner does
    not let it exclude all targets.
    """
    if request.endpoint is Endpoint.EMBEDDINGS:
        value = request.value("input")
        items = value if isinstance(value, list) else [value]
        longest = max((_count_text_bytes(item, set()) for item in items), default=0)
        return Needs(
            Endpoint.EMBEDDINGS,
            approx_input_tokens=longest // BYTES_PER_TOKEN,
        )
    members = request.members.found
    kinds: set[str] = set()
    size = sum(_count_text_bytes(members[name], kinds) for name in _INPUTS if name in members)
    last = detect_last_turn(request, incumbent)
    return Needs(
        endpoint=request.endpoint,
        stream=request.stream,
        tools=bool(request.value("tools") or request.value("functions")),
        parallel_tools=request.value("parallel_tool_calls") is True,
        json_schema=_asks_for_schema(members),
        vision=not kinds.isdisjoint(_IMAGES),
        documents=not kinds.isdisjoint(_DOCUMENTS),
        audio=not kinds.isdisjoint(_AUDIO),
        several_choices=_count_choices(request) > 1,
        prefill=last.prefill,
        new_answer=last.new_answer,
        approx_input_tokens=size // BYTES_PER_TOKEN,
        max_output_tokens=read_output_limit(request),
    )


_FLAG_NAMES: Final = tuple(
    need.name for need in fields(Needs) if isinstance(need.default, bool)
)


def need_names(needs: Needs) -> tuple[str, ...]:
    """Names the needs as traffic counts them: the endpoint, and the fields that are true."""
    return (needs.endpoint.value, *(name for name in _FLAG_NAMES if getattr(needs, name)))


# A role of another turn than the assistant's.
_OTHER_ROLE: Final = re.compile(r'"role"\s*:\s*"(?:user|tool|system|developer|function)"')


def detect_last_turn(request: ClientRequest, incumbent: Prefill) -> Needs:
    """Returns `prefill` or `new_answer` if the last turn is a text of the assistant's.

    Messages continues it, and Responses begins a further answer. A chat continues it if a
    field says so. Without a field, the chat is meant as the route's incumbent reads it.
    """
    endpoint = request.endpoint
    text = request.text
    start = text.rfind(ANSWER)
    # Most conversations end here, without a parse.
    if start < 0 or _OTHER_ROLE.search(text, start) or endpoint is Endpoint.EMBEDDINGS:
        return Needs(endpoint)
    turns = request.value("input" if endpoint is Endpoint.RESPONSES else "messages")
    if not isinstance(turns, list) or not turns or not is_open_answer(turns[-1]):
        return Needs(endpoint)
    if endpoint is Endpoint.RESPONSES:
        return Needs(endpoint, new_answer=True)
    if endpoint is Endpoint.MESSAGES or is_prefill_marked(turns[-1], request.value):
        return Needs(endpoint, prefill=True)
    begins_anew = incumbent.begins_anew
    return Needs(
        endpoint,
        prefill=not begins_anew and incumbent is not Prefill.UNKNOWN,
        new_answer=begins_anew,
    )


def estimate_prompt(request: ClientRequest) -> int:
    """Estimates the tokens of a prompt from its texts, at four bytes each; at least 1.

    Pictures, sound and files count no tokens, so that the estimate tends to be too low.
    """
    members = request.members.found
    size = 0
    for name in _INPUTS:
        if name in members:
            size += _count_text_bytes(members[name], set())
    return max(1, size // BYTES_PER_TOKEN)


def _count_text_bytes(value: object, kinds: set[str]) -> int:
    """Returns the bytes of all texts in a value as UTF-8, and adds the types of its other
    parts, such as pictures, to `kinds`.
    """
    # Parsed JSON has only these types; testing for them is faster than for protocols.
    if type(value) is str:
        return len(value if value.isascii() else value.encode("utf-8", "surrogatepass"))
    if type(value) is list:
        return sum([_count_text_bytes(item, kinds) for item in value])  # noqa: C419 - faster
    if type(value) is not dict:
        return 0
    kind = value.get("type")
    if type(kind) is str and kind in _NO_TEXT:
        kinds.add(kind)
        return 0
    return sum([_count_text_bytes(item, kinds) for item in value.values()])  # noqa: C419 - as above


def _asks_for_schema(members: Mapping[str, object]) -> bool:
    for name in _FORMATS:
        format_ = members.get(name)
        if isinstance(format_, dict):
            schema = format_ if name == "response_format" else format_.get("format")
            if isinstance(schema, dict) and schema.get("type") == "json_schema":
                return True
    return False


def read_output_limit(request: ClientRequest) -> int:
    """Returns the client's limit for the answer in tokens; 0 without a valid limit."""
    get = request.members.get
    for name in _LIMITS:
        limit = get(name)
        if limit is None:
            continue
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return limit
    return 0


# About as many characters are one token.
_CHARS_PER_TOKEN: Final = 4


def request_size(request: ClientRequest) -> RequestSize:
    """Returns the size of a request with the answers that it allows."""
    tokens = _count_choices(request) * read_output_limit(request)
    return RequestSize(len(request.text), _CHARS_PER_TOKEN * tokens)


def _count_choices(request: ClientRequest) -> int:
    """Returns how many answers the client asks for; 1 without a valid number."""
    count = request.members.get("n")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return 1
    return count


# Values of a response's `include` that need a feature.
_INCLUDED: Final = {
    OptionalFeature.REASONING: "reasoning.",
    OptionalFeature.LOGPROBS: "logprobs",
}


def used_features(
    request: ClientRequest, features: Collection[OptionalFeature]
) -> tuple[OptionalFeature, ...]:
    """Returns the optional features that the request uses, among `features`."""
    fields = OPTIONAL_FIELDS[request.endpoint]
    return tuple(
        [
            feature
            for feature in fields
            if feature in features and _uses_feature(request, feature, fields)
        ]
    )


def remove_fields(
    body: bytes,
    endpoint: Endpoint,
    features: Collection[OptionalFeature],
    target: RequestTarget,
) -> bytes:
    """Returns the body without the fields of some optional features.

    Fields that the target's own configuration sets stay: its operator chose them. Also
    removes a feature's parts in other places, such as cache marks inside messages.

    Args:
        body: JSON of an object.
    """
    target_fields = {*target.parameters, *target.request_patch.parameters}
    fields: dict[str, Any] = json.loads(body)
    for feature in features:
        for name in OPTIONAL_FIELDS[endpoint][feature]:
            if name not in target_fields:
                fields.pop(name, None)
        if feature in _INCLUDED and isinstance(fields.get("include"), list):
            prefix = _INCLUDED[feature]
            fields["include"] = [
                option for option in fields["include"] if prefix not in str(option)
            ]
    if OptionalFeature.REASONING in features and isinstance(fields.get("output_config"), dict):
        fields["output_config"].pop("effort", None)
        if not fields["output_config"]:
            del fields["output_config"]
    if OptionalFeature.CACHING in features:
        _remove_cache_marks(fields)
    return to_json(fields).encode()


def _uses_feature(
    request: ClientRequest,
    feature: OptionalFeature,
    fields: Mapping[OptionalFeature, tuple[str, ...]],
) -> bool:
    """Returns whether the request uses a feature.

    In Anthropic's protocol, a request with disabled thinking does not use reasoning, and a
    request with an effort does.
    """
    if feature is OptionalFeature.CACHING and CACHE_MARK in request.text:
        return True
    if feature is OptionalFeature.REASONING and request.endpoint is Endpoint.MESSAGES:
        thinking = request.value("thinking")
        config = request.value("output_config")
        if isinstance(thinking, dict) and thinking.get("type") == "disabled":
            return False
        if isinstance(config, dict) and config.get("effort"):
            return True
    get = request.members.get
    for name in fields[feature]:  # noqa: SIM110 - a generator takes a call for each
        if get(name) is not None:
            return True
    return False


def _remove_cache_marks(value: object) -> None:
    """Removes cache marks from a value, in place. A tool call's arguments stay unchanged."""
    if isinstance(value, list):
        for item in value:
            _remove_cache_marks(item)
    elif isinstance(value, dict):
        value.pop("cache_control", None)
        for name in (
            "system",
            "messages",
            "tools",
            "content",
            "input",
            "function",
        ):
            # A call's arguments are the client's own data.
            is_data = name == "input" and value.get("type") == "tool_use"
            if isinstance(value.get(name), list | dict) and not is_data:
                _remove_cache_marks(value[name])


DEGRADED_HEADER: Final = b"x-swapproof-degraded"
SERIALIZED: Final = "parallel_tool_calls"
MOST_FIELDS: Final = 20
_FIELD: Final = re.compile(r"[A-Za-z0-9_.-]{1,96}")


def lost_features(
    request: ClientRequest, upstream: CompiledTarget
) -> tuple[OptionalFeature, ...]:
    """Returns the optional features of the request that the target does not get."""
    lacks = upstream.lacks[request.endpoint]
    return used_features(request, lacks) if lacks else ()


def build_degradation_header(
    plan: RoutePlan,
    request: ClientRequest,
    upstream: CompiledTarget | None,
    dropped: Sequence[str] = (),
) -> tuple[Header, ...]:
    """Names the parts that the request lost; empty if it lost nothing.

    Args:
        upstream: the target that answers; None if no target answered.
        dropped: further fields that a translation removed. Only names that a header can hold
            are shown, at most MOST_FIELDS.
    """
    names: list[str] = []
    if is_serializing_tools(plan, request):
        names.append(SERIALIZED)
    if upstream is not None and (features := lost_features(request, upstream)):
        names += (feature.value for feature in features)
    if dropped:
        # A client may have chosen the names, and a header cannot hold every name.
        names += islice((name for name in dropped if _FIELD.fullmatch(name)), MOST_FIELDS)
    return ((DEGRADED_HEADER, ", ".join(dict.fromkeys(names)).encode()),) if names else ()


def is_serializing_tools(plan: RoutePlan, request: ClientRequest) -> bool:
    """Returns whether the plan forbids parallel tool calls that the client allows."""
    return plan.serialize_tools and not request.serial_tools


COUNT_PATHS: Final[Mapping[str, Endpoint]] = {
    "/v1/messages/count_tokens": Endpoint.MESSAGES,
    "/v1/responses/input_tokens": Endpoint.RESPONSES,
}
PROVIDER_PATHS: Final = {
    endpoint: path.removeprefix("/v1") for path, endpoint in COUNT_PATHS.items()
}
COUNTED_FIELDS: Final[Mapping[Endpoint, tuple[str, ...]]] = {
    Endpoint.MESSAGES: (
        "messages",
        "model",
        "system",
        "tools",
        "tool_choice",
        "thinking",
    ),
    Endpoint.RESPONSES: (
        "conversation",
        "input",
        "instructions",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    ),
}
# English text has about four characters per token; a picture takes up to 1,600 tokens.
CHARACTERS_PER_TOKEN: Final = 4
COUNT_TIMEOUT_S: Final = 10.0
TOKENS_PER_FILE: Final = 1_600


def build_count_body(body: bytes, endpoint: Endpoint) -> bytes:
    """Returns the body for a provider's counting endpoint, with only the fields that it
    takes.
    """
    fields = json.loads(body)
    names = COUNTED_FIELDS[endpoint]
    return json.dumps({name: fields[name] for name in names if name in fields}).encode()


def estimate_tokens(request: ClientRequest) -> Reply:
    """Estimates a request's tokens; the answer's header tells the client that it is an
    estimate.

    Four characters are one token, and each file or picture inside the request is
    TOKENS_PER_FILE. The result is at least 1.
    """
    names = COUNTED_FIELDS[request.endpoint]
    fields = [request.value(name) for name in names if name != "model"]
    characters, files = _count_text([value for value in fields if value is not None])
    tokens = -(-characters // CHARACTERS_PER_TOKEN) + files * TOKENS_PER_FILE
    result: dict[str, object] = {"input_tokens": max(tokens, 1)}
    if request.endpoint is Endpoint.RESPONSES:
        result["object"] = "response.input_tokens"
    path = PROVIDER_PATHS[request.endpoint]
    estimate_header = (b"x-swapproof-degraded", path.rpartition("/")[2].encode())
    return Reply(200, (JSON, estimate_header), json.dumps(result).encode())


def _count_text(value: object) -> tuple[int, int]:
    """Counts the characters of a value, and its files, whose base64 is not text."""
    if isinstance(value, str):
        return (0, 1) if value.startswith("data:") else (len(value), 0)
    if isinstance(value, Mapping):
        if value.get("type") == "base64":
            return 0, 1
        parts = [len(str(name)) for name in value]
        weights = [_count_text(member) for member in value.values()]
        return sum(parts) + sum(count for count, _ in weights), sum(
            files for _, files in weights
        )
    if isinstance(value, list):
        weights = [_count_text(member) for member in value]
        return sum(count for count, _ in weights), sum(files for _, files in weights)
    return 1, 0
