"""Decides which parts of a chat request a translation keeps, drops or refuses.

A hint is dropped and named; a part that the answer depends on is refused. The translation
never fetches a URL that a client named. It runs before litellm, which would drop or invent
parts silently. Form errors are found in `request_validation`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from harness.providers.models.capabilities import UNKNOWN_CAPABILITIES, Capabilities
from router.conversation.tool_schemas import SCHEMA_RULES, write_schema
from router.frame.failure import MalformedRequest, Untranslatable
from router.upstream.translate.request_validation import (
    check_fields,
    check_messages,
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ScreeningRules:
    """The parts of a chat that one kind of provider has a counterpart for."""

    fields: frozenset[str]  # top-level fields with a counterpart
    parts: frozenset[str]  # types of content
    urls: tuple[str, ...]  # prefixes of URLs that the provider fetches
    caching: bool  # the provider supports `cache_control`


@dataclass(frozen=True, slots=True)
class ScreenedRequest:
    """A request whose parts all have a counterpart.

    messages, params: as litellm reads them. dropped: names for the header
    x-swapgate-degraded.
    """

    model: str
    messages: list[Json]
    params: Json  # without model, messages and stream
    dropped: dict[str, None] = field(default_factory=dict)  # names of omitted parts
    # The parameters' schema for the provider, by tool; litellm would lose parts of it.
    schemas: dict[str, Json] = field(default_factory=dict)
    can: Capabilities = UNKNOWN_CAPABILITIES  # of the target's model


_EVERYWHERE: Final = frozenset(
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
_GOOGLES: Final = _EVERYWHERE | {
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "top_logprobs",
}
_ROUTED: Final = frozenset({"model", "messages", "stream", "stream_options", "n"})
# Fields that change the kind of answer: the translation refuses them instead of dropping them.
_NO_HINTS: Final[Mapping[str, str]] = {
    "logprobs": "it returns no log probabilities",
    "top_logprobs": "it returns no log probabilities",
    "audio": "it returns only text",
    "modalities": "it returns only text",
    "functions": "the older form of tools; send `tools`",
    "function_call": "the older form of tools; send `tool_choice`",
}
# Fields that no translation supports. Google's models do return log probabilities.
_NO_COUNTERPART: Final = (
    "audio",
    "modalities",
    "functions",
    "function_call",
)
NATIVE_FIELDS: Final = ("n", *_NO_COUNTERPART)
_NOTHING: Final[tuple[object, ...]] = (
    "",
    [],
    {},
    ["text"],
)

RULES: Final[Mapping[str, ScreeningRules]] = {
    "anthropic": ScreeningRules(
        _EVERYWHERE | {"user", "cache_control"},
        frozenset({"text", "image_url", "file"}),
        ("https://",),
        caching=True,
    ),
    "bedrock": ScreeningRules(
        _EVERYWHERE,
        frozenset({"text", "image_url", "file"}),
        (),
        caching=True,
    ),
    "gemini": ScreeningRules(
        _GOOGLES,
        frozenset({"text", "image_url", "file", "input_audio"}),
        ("https://generativelanguage.googleapis.com/v1beta/files/",),
        caching=False,
    ),
    "vertex": ScreeningRules(
        _GOOGLES,
        frozenset({"text", "image_url", "file", "input_audio"}),
        (),
        caching=False,
    ),
}
# Kinds with Google's protocol.
GOOGLE: Final = ("gemini", "vertex")
# Kinds with the rules of Anthropic's models.
_ANTHROPICS: Final = ("anthropic", "bedrock")
_JSON_ALONE: Final = "Answer with one JSON object and nothing else."
_OPENING: Final = "(The conversation begins with your answer.)"


def screen_request(body: Json, kind: str) -> ScreenedRequest:
    """Screens a body and changes it in place. Raises Untranslatable, or MalformedRequest."""
    rules = RULES[kind]
    _refuse_choices(body)
    messages = body.get("messages")
    model = body.get("model")
    if not isinstance(model, str):
        raise MalformedRequest("model", "is not a text")
    check_messages(messages)
    check_fields(body)
    request = ScreenedRequest(model, [], {})
    for name, value in body.items():
        if name in _ROUTED or value is None:
            continue
        if name in rules.fields:
            request.params[name] = value
        elif value is False or value in _NOTHING or (name.endswith("_penalty") and value == 0):
            continue
        elif name in _NO_HINTS:
            raise Untranslatable(f"{kind} does not support `{name}`: {_NO_HINTS[name]}", name)
        else:
            request.dropped[name] = None
    if request.params.get("logprobs") is False:
        del request.params["logprobs"]
    for place, message in enumerate(body["messages"]):
        request.messages.append(_message(message, f"messages[{place}]", kind, request))
    _look_at_tools(request, kind)
    _fit_to_claude(request, kind)
    if not rules.caching:
        _uncached(request)
    return request


def _fit_to_claude(request: ScreenedRequest, kind: str) -> None:
    """Rewrites the parts that Anthropic's models refuse, and names them in `dropped`."""
    if kind not in _ANTHROPICS:
        return
    params = request.params
    messages = request.messages
    stops = params.get("stop")
    given = stops if isinstance(stops, list) else [stops]
    kept = [stop for stop in given if not isinstance(stop, str) or stop.strip()]
    if len(kept) < len(given):
        request.dropped["stop"] = None
        params["stop"] = kept
        if not kept:
            del params["stop"]
    first = next(
        (n for n, m in enumerate(messages) if m["role"] != "system"),
        len(messages),
    )
    if first < len(messages) and messages[first]["role"] == "assistant":
        messages.insert(first, {"role": "user", "content": _OPENING})
        request.dropped["messages"] = None
    if (params.get("response_format") or {}).get("type") == "json_object":
        del params["response_format"]
        messages.insert(first, {"role": "system", "content": _JSON_ALONE})
        request.dropped["response_format"] = None


def untranslatable_field(field_value: Callable[[str], object]) -> str:
    """Names a field of a chat that no translation supports; empty without one."""
    if field_value("n") not in (None, 1):
        return "n"
    for name in _NO_COUNTERPART:
        value = field_value(name)
        if value is not None and value is not False and value not in _NOTHING:
            return name
    return ""


def _refuse_choices(body: Json) -> None:
    if body.get("n") not in (None, 1):
        raise Untranslatable("`n` must be 1: this target returns one answer per request", "n")


def _message(
    message: Json,
    place: str,
    kind: str,
    request: ScreenedRequest,
) -> Json:
    """Returns a message with only the members that the kind has a counterpart for.

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
        where = f"{place}.function_call"
        raise Untranslatable(f"`{where}`: the older form of a call; send `tool_calls`", where)
    if message.pop("audio", None) is not None:
        request.dropped["messages.audio"] = None
    message.pop("annotations", None)
    refusal = message.pop("refusal", None)
    content = message["content"] = message.get("content") or refusal
    if role == "tool" and content is None:
        message["content"] = ""  # litellm would leave the result out
    if isinstance(content, list):
        message["content"] = [
            _part(part, f"{place}.content[{at}]", kind, request)
            for at, part in enumerate(content)
        ]
    if role == "assistant":
        _with_signatures(message, kind)
    return message


def _part(
    part: object,
    place: str,
    kind: str,
    request: ScreenedRequest,
) -> Json:
    """Returns a part of a message's content. Raises Untranslatable for an unsupported type
    or URL.
    """
    if not isinstance(part, dict):
        raise Untranslatable(f"`{place}` is not an object", place)
    rules = RULES[kind]
    type_ = part.get("type")
    if type_ == "refusal":
        return {"type": "text", "text": str(part.get("refusal") or "")}
    if type_ not in rules.parts:
        why = f"`{place}.type` {str(type_)[:40]!r}: {kind} does not support this type"
        raise Untranslatable(why, place)
    if type_ == "image_url":
        given = part.get("image_url")
        image = given if isinstance(given, dict) else {"url": given}
        _check_url(image.get("url"), f"{place}.image_url", kind)
        # Drop other fields: litellm would read them as its own options.
        if image.get("detail") not in (None, "auto"):
            request.dropped["image_url.detail"] = None
        part["image_url"] = {"url": image["url"]}
    if type_ == "file":
        file = part.get("file")
        data = file.get("file_data") if isinstance(file, dict) else None
        if data is None:
            why = f"`{place}.file`: send `file_data`; file ids belong to another provider"
            raise Untranslatable(why, place)
        _check_url(data, f"{place}.file", kind)
        part["file"] = {"file_data": data}
    return part


def _check_url(
    url: object,
    place: str,
    kind: str,
) -> None:
    """Raises Untranslatable for a URL that the provider itself would not fetch."""
    allowed = ("data:", *RULES[kind].urls)
    if not isinstance(url, str) or not url.startswith(allowed):
        ways = " or ".join(f"{prefix}…" for prefix in allowed)
        why = f"`{place}`: {kind} accepts {ways}; send the content itself"
        raise Untranslatable(why, place)
    if url.startswith("data:") and ";base64," not in url[:200]:
        raise Untranslatable(f"`{place}`: send the data URL in base64", place)


def _look_at_tools(request: ScreenedRequest, kind: str) -> None:
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


def _uncached(request: ScreenedRequest) -> None:
    """Removes all cache marks, and names them once."""
    marked = [request.params]
    marked += request.messages
    marked += [tool for tool in request.params.get("tools", []) if isinstance(tool, dict)]
    marked += [tool["function"] for tool in request.params.get("tools", [])]
    for message in request.messages:
        if isinstance(message.get("content"), list):
            marked += message["content"]
    for place in marked:
        if place.pop("cache_control", None) is not None:
            request.dropped["cache_control"] = None


def _with_signatures(message: Json, kind: str) -> None:
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
    found = google.get("thought_signature") if isinstance(google, dict) else None
    return found if isinstance(found, str) else ""
