"""Decides which parts of a chat request a translation keeps, drops or refuses.

The screening drops and names a hint. It refuses a part that the answer depends on. It never
fetches a URL that a client named. It runs before litellm, which would drop or invent parts
silently. `request_validation` finds errors of form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from harness.providers.models.capabilities import UNKNOWN_CAPABILITIES, Capabilities
from router.conversation.tool_schemas import SCHEMA_RULES, write_schema
from router.frame.failure import MalformedRequest, Untranslatable
from router.upstream.translate.chat_forms import write_common_forms
from router.upstream.translate.file_parts import (
    CONVERSE_DOCUMENTS,
    PDF,
    is_file_url,
    write_file,
)
from router.upstream.translate.request_validation import (
    check_fields,
    check_messages,
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ScreeningRules:
    """The parts of a chat that have a counterpart in the protocol of one kind."""

    fields: frozenset[str]  # top-level fields with a counterpart
    parts: frozenset[str]  # types of content
    urls: tuple[str, ...]  # prefixes of URLs that the provider fetches
    caching: bool  # the provider supports `cache_control`
    documents: frozenset[str] = frozenset()  # media types of its documents; empty for any


@dataclass(frozen=True, slots=True)
class ScreenedRequest:
    """A request whose parts all have a counterpart.

    messages, params: as litellm reads them. dropped: names for the header
    x-swapproof-degraded.
    """

    model: str
    messages: list[Json]
    params: Json  # without model, messages and stream
    dropped: dict[str, None] = field(default_factory=dict)  # names of omitted parts
    # The parameters' schema for the provider, by tool; litellm would lose parts of it.
    schemas: dict[str, Json] = field(default_factory=dict)
    can: Capabilities = UNKNOWN_CAPABILITIES  # of the target's model


_COMMON_FIELDS: Final = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "thinking",
        "top_k",
        "web_search_options",
    }
)
_GOOGLE_FIELDS: Final = _COMMON_FIELDS | {
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "top_logprobs",
}
_ROUTER_FIELDS: Final = frozenset({"model", "messages", "stream", "stream_options", "n"})
# Fields that change the kind of answer: the translation refuses them instead of dropping them.
_REFUSED_FIELDS: Final[Mapping[str, str]] = {
    "logprobs": "it returns no log probabilities",
    "top_logprobs": "it returns no log probabilities",
    "audio": "it returns only text",
    "modalities": "it returns only text",
    "functions": "the older form of tools; send `tools`",
    "function_call": "the older form of tools; send `tool_choice`",
}
# Fields that no translation supports. Google's models do return log probabilities.
_NATIVE_FIELDS: Final = (
    "audio",
    "modalities",
    "functions",
    "function_call",
)
NATIVE_FIELDS: Final = ("n", *_NATIVE_FIELDS)
_EMPTY_VALUES: Final[tuple[object, ...]] = (
    "",
    [],
    {},
    ["text"],
)

RULES: Final[Mapping[str, ScreeningRules]] = {
    "anthropic": ScreeningRules(
        _COMMON_FIELDS | {"user", "cache_control"},
        frozenset({"text", "image_url", "file"}),
        ("https://",),
        caching=True,
        documents=frozenset({PDF}),
    ),
    "bedrock": ScreeningRules(
        _COMMON_FIELDS,
        frozenset({"text", "image_url", "file"}),
        (),
        caching=True,
        documents=CONVERSE_DOCUMENTS,
    ),
    "gemini": ScreeningRules(
        _GOOGLE_FIELDS,
        frozenset({"text", "image_url", "file", "input_audio"}),
        ("https://generativelanguage.googleapis.com/v1beta/files/",),
        caching=False,
    ),
    "vertex": ScreeningRules(
        _GOOGLE_FIELDS,
        frozenset({"text", "image_url", "file", "input_audio"}),
        (),
        caching=False,
    ),
}
# Kinds with Google's protocol.
GOOGLE: Final = ("gemini", "vertex")
# Kinds with the rules of Anthropic's models.
_ANTHROPIC_KINDS: Final = ("anthropic", "bedrock")
_JSON_INSTRUCTION: Final = "Answer with one JSON object and nothing else."
_OPENING_TURN: Final = "(The conversation begins with your answer.)"


def screen_request(body: Json, kind: str) -> ScreenedRequest:
    """Screens a body and changes it in place. Raises Untranslatable, or MalformedRequest."""
    rules = RULES[kind]
    _refuse_choices(body)
    messages = body.get("messages")
    model = body.get("model")
    if not isinstance(model, str):
        raise MalformedRequest("model", "is not a text")
    check_messages(messages)
    unsaid = write_common_forms(body)
    check_fields(body)
    request = ScreenedRequest(model, [], {}, dropped=dict.fromkeys(unsaid))
    for name, value in body.items():
        if name in _ROUTER_FIELDS or value is None:
            continue
        if name in rules.fields:
            request.params[name] = value
        elif (
            value is False
            or value in _EMPTY_VALUES
            or (name.endswith("_penalty") and value == 0)
        ):
            continue
        elif name in _REFUSED_FIELDS:
            raise Untranslatable(
                f"{kind} does not support `{name}`: {_REFUSED_FIELDS[name]}", name
            )
        else:
            request.dropped[name] = None
    if request.params.get("logprobs") is False:
        del request.params["logprobs"]
    for index, message in enumerate(body["messages"]):
        request.messages.append(_screen_message(message, f"messages[{index}]", kind, request))
    _screen_tools(request, kind)
    _fit_to_claude(request, kind)
    if not rules.caching:
        _remove_cache_marks(request)
    return request


def _fit_to_claude(request: ScreenedRequest, kind: str) -> None:
    """Rewrites the parts that Anthropic's models refuse, and names them in `dropped`."""
    if kind not in _ANTHROPIC_KINDS:
        return
    params = request.params
    messages = request.messages
    stops = params.get("stop")
    sequences = stops if isinstance(stops, list) else [stops]
    readable_sequences = [
        stop for stop in sequences if not isinstance(stop, str) or stop.strip()
    ]
    if len(readable_sequences) < len(sequences):
        request.dropped["stop"] = None
        params["stop"] = readable_sequences
        if not readable_sequences:
            del params["stop"]
    first_turn = next(
        (n for n, m in enumerate(messages) if m["role"] != "system"),
        len(messages),
    )
    if first_turn < len(messages) and messages[first_turn]["role"] == "assistant":
        messages.insert(first_turn, {"role": "user", "content": _OPENING_TURN})
        request.dropped["messages"] = None
    if (params.get("response_format") or {}).get("type") == "json_object":
        del params["response_format"]
        messages.insert(first_turn, {"role": "system", "content": _JSON_INSTRUCTION})
        request.dropped["response_format"] = None


def untranslatable_field(field_value: Callable[[str], object]) -> str:
    """Names a field of a chat that no translation supports; empty without one."""
    if field_value("n") not in (None, 1):
        return "n"
    for name in _NATIVE_FIELDS:
        value = field_value(name)
        if value is not None and value is not False and value not in _EMPTY_VALUES:
            return name
    return ""


def _refuse_choices(body: Json) -> None:
    if body.get("n") not in (None, 1):
        raise Untranslatable("`n` must be 1: this target returns one answer per request", "n")


def _screen_message(
    message: Json,
    place: str,
    kind: str,
    request: ScreenedRequest,
) -> Json:
    """Keeps only the members of a message that have a counterpart in the kind, in place.

    Args:
        place: the message's path, for the error.
    """
    role = message.get("role")
    if role == "developer":
        message["role"] = "system"
    elif role not in ("system", "user", "assistant", "tool"):
        raise Untranslatable(
            f"`{place}.role` {str(role)[:40]!r} has no counterpart",
            f"{place}.role",
        )
    if message.pop("name", None) and role != "tool":
        request.dropped["messages.name"] = None
    if message.pop("function_call", None) is not None:
        path = f"{place}.function_call"
        raise Untranslatable(f"`{path}`: the older form of a call; send `tool_calls`", path)
    if message.pop("audio", None) is not None:
        request.dropped["messages.audio"] = None
    message.pop("annotations", None)
    refusal = message.pop("refusal", None)
    content = message["content"] = message.get("content") or refusal
    if role == "tool" and content is None:
        message["content"] = ""  # litellm would leave the result out
    if isinstance(content, list):
        message["content"] = [
            _screen_part(part, f"{place}.content[{position}]", kind, request)
            for position, part in enumerate(content)
        ]
    if role == "assistant":
        _move_signatures(message, kind)
    return message


def _screen_part(
    part: object,
    place: str,
    kind: str,
    request: ScreenedRequest,
) -> Json:
    """Screens a part of a message's content.

    Raises Untranslatable for an unsupported type or URL.
    """
    if not isinstance(part, dict):
        raise Untranslatable(f"`{place}` is not an object", place)
    rules = RULES[kind]
    part_type = part.get("type")
    if part_type == "refusal":
        return {"type": "text", "text": str(part.get("refusal") or "")}
    if not isinstance(part_type, str) or part_type not in rules.parts:
        why = f"`{place}.type` {str(part_type)[:40]!r}: {kind} does not support this type"
        raise Untranslatable(why, place)
    if part_type == "image_url":
        image_value = part.get("image_url")
        image = image_value if isinstance(image_value, dict) else {"url": image_value}
        if is_file_url(image.get("url")):
            return _screen_file(part, {"file_data": image["url"]}, place, kind)
        _check_url(image.get("url"), f"{place}.image_url", kind)
        # Drop other fields: litellm would read them as its own options.
        if image.get("detail") not in (None, "auto"):
            request.dropped["image_url.detail"] = None
        part["image_url"] = {"url": image["url"]}
    if part_type == "file":
        file = part.get("file")
        data = file.get("file_data") if isinstance(file, dict) else None
        if data is None or not isinstance(file, dict):
            why = f"`{place}.file`: send `file_data`; file ids belong to another provider"
            raise Untranslatable(why, place)
        return _screen_file(part, {**file, "file_data": data}, place, kind)
    return part


def _screen_file(
    part: Json,
    file: Json,
    place: str,
    kind: str,
) -> Json:
    """Writes a file as the kind reads it. The part's cache mark stays."""
    _check_url(file["file_data"], f"{place}.file", kind)
    mark = {name: part[name] for name in ("cache_control",) if name in part}
    return write_file(file, place, RULES[kind].documents) | mark


def _check_url(
    url: object,
    place: str,
    kind: str,
) -> None:
    """Checks a URL. Raises Untranslatable if the provider itself would not fetch it."""
    allowed = ("data:", *RULES[kind].urls)
    if not isinstance(url, str) or not url.startswith(allowed):
        prefixes = " or ".join(f"{prefix}…" for prefix in allowed)
        why = f"`{place}`: {kind} accepts {prefixes}; send the content itself"
        raise Untranslatable(why, place)
    if url.startswith("data:") and ";base64," not in url[:200]:
        raise Untranslatable(f"`{place}`: send the data URL in base64", place)


def _screen_tools(request: ScreenedRequest, kind: str) -> None:
    """Writes the tools' schemas for the kind, and names schemas that lost a constraint."""
    tools = request.params.get("tools")
    if not tools:
        request.params.pop("tools", None)
        request.params.pop("tool_choice", None)
        request.params.pop("parallel_tool_calls", None)
        return
    for tool in tools:
        function = tool["function"]
        if function.pop("strict", None):
            request.dropped["tools.strict"] = None
        if function.get("parameters"):
            written = write_schema(function["parameters"], SCHEMA_RULES[kind])
            function["parameters"] = request.schemas[function["name"]] = written.schema
            if written.is_weaker:
                request.dropped[f"tools.{function['name']}.parameters"] = None


def _remove_cache_marks(request: ScreenedRequest) -> None:
    """Removes all cache marks, and names them once."""
    holders = [request.params]
    holders += request.messages
    holders += [tool for tool in request.params.get("tools", []) if isinstance(tool, dict)]
    holders += [tool["function"] for tool in request.params.get("tools", [])]
    for message in request.messages:
        if isinstance(message.get("content"), list):
            holders += message["content"]
    for holder in holders:
        if holder.pop("cache_control", None) is not None:
            request.dropped["cache_control"] = None


def _move_signatures(message: Json, kind: str) -> None:
    """Moves an earlier answer's signatures to the place where litellm reads them."""
    calls = message.get("tool_calls")
    message.pop("provider_specific_fields", None)
    signature = _google_signature(message.pop("extra_content", None))
    if kind in GOOGLE:
        message.pop("thinking_blocks", None)
        message.pop("reasoning_content", None)
        if signature:
            message["provider_specific_fields"] = {"thought_signatures": [signature]}
    if message.get("content") == "":
        message["content"] = None
    if not calls:
        message.pop("tool_calls", None)
        return
    for call in calls:
        # litellm invents missing arguments.
        call["function"]["arguments"] = call["function"].get("arguments", "").strip() or "{}"
        call.pop("provider_specific_fields", None)
        signature = _google_signature(call.pop("extra_content", None))
        if signature and kind in GOOGLE:
            call["provider_specific_fields"] = {"thought_signature": signature}


def _google_signature(extra: object) -> str:
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else ""
