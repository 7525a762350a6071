"""Reads logged requests from OTLP JSON, as the file exporter of OpenTelemetry's collector
writes it.

It reads the content in these published forms, in this order: `gen_ai.input.messages` of the
semantic conventions; their earlier events `gen_ai.user.message` and `gen_ai.choice`, as events
of a span or as log records; OpenLLMetry's `gen_ai.prompt.0.content`; OpenInference's
`llm.input_messages.0.message.content`; `ai.prompt.messages` of the AI SDK (`ai_sdk_spans`).

A span without content gives no request, and the report says so.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from evals.suites.ai_sdk_spans import CONTENT_KEYS, read_ai_sdk
from evals.suites.request_log import (
    FAILED,
    OK,
    LoggedRequest,
    RequestLog,
    count_tokens,
    name_error,
    read_number,
)
from evals.suites.source_records import SourceFile
from evals.suites.span_values import list_objects, parse_json, write_text
from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.providers.models.capabilities import Endpoint

Json = dict[str, Any]
_OTHER_OPERATIONS: Final = (
    "embeddings",
    "execute_tool",
    "invoke_agent",
    "create_agent",
    "EMBEDDING",
)
_NO_CONTENT: Final = (
    "calls of a model without content: let the instrumentation record it "
    "(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT, TRACELOOP_TRACE_CONTENT)"
)
_MARKS: Final = ("gen_ai.", "llm.")
_ERROR: Final = (2, "STATUS_CODE_ERROR")
# Sources: OpenTelemetry's registry of attributes; OpenInference; Langfuse; OpenLLMetry.
_CALLERS: Final = (
    "enduser.pseudo.id",
    "enduser.id",
    "user.id",
    "langfuse.user.id",
    "traceloop.association.properties.user_id",
)
_CONVERSATIONS: Final = (
    "gen_ai.conversation.id",
    "session.id",
    "langfuse.session.id",
    "traceloop.association.properties.session_id",
)
_EVENT: Final = "gen_ai."


def read_spans(source: SourceFile) -> RequestLog:
    """Raises InputError as `file:line: …` for a file that is not OTLP JSON."""
    requests: list[LoggedRequest] = []
    without_content: list[LoggedRequest] = []
    keys: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    events = _read_log_events(source)
    for place, resource, span in _list_entries(source, "resourceSpans", "scopeSpans", "spans"):
        attributes = _read_attributes(span.get("attributes"), place)
        model_attributes = [name for name in attributes if name.startswith(_MARKS)]
        span_log_events = events.pop(_identify_span(span), [])
        if not model_attributes and not span_log_events:
            lost["spans of other work"] += 1
            continue
        kinds = (
            attributes.get("gen_ai.operation.name"),
            attributes.get(_SPAN_KIND),
        )
        if any(kind in _OTHER_OPERATIONS for kind in kinds):
            lost["spans of embeddings, tools and agents, not calls of a chat model"] += 1
            continue
        span_events = _require_objects(span.get("events"), place, "events")
        all_events = [
            *(_read_span_event(event, place) for event in span_events),
            *span_log_events,
        ]
        content = _read_content(attributes, all_events)
        keys.update({_cut_index(name) for name in model_attributes})
        keys.update({name for name, _ in all_events if name.startswith(_EVENT)})
        if content is None:
            lost[_NO_CONTENT] += 1
        request = _build_request(place, resource, span, attributes, content or ({}, {}))
        (without_content if content is None else requests).append(request)
    # The log records whose span is in another file.
    for (trace, span_id), span_log_events in events.items():
        if (content := _read_content({}, span_log_events)) is not None:
            keys.update({name for name, _ in span_log_events})
            ids = {"traceId": trace, "spanId": span_id}
            place = str(source.path)
            at = {"startTimeUnixNano": span_log_events[0][1].get("_at")}
            requests.append(_build_request(place, {}, {**ids, **at}, {}, content))
    return RequestLog(
        requests,
        {key: _describe_key(key, n) for key, n in keys.items()},
        lost,
        without_content,
    )


_SPAN_KIND: Final = "openinference.span.kind"
_CONTENT_KEYS: Final = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.prompt",
    "gen_ai.completion",
    "llm.tools",
    "llm.input_messages",
    "llm.output_messages",
    "llm.request.functions",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "llm.model_name",
    "gen_ai.system",
    "gen_ai.provider.name",
    "gen_ai.choice",
    "gen_ai.conversation.id",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.prompt_tokens",
    "gen_ai.usage.completion_tokens",
    "gen_ai.usage.cost",
    "llm.token_count.prompt",
    "llm.token_count.completion",
    "llm.cost.total",
    *CONTENT_KEYS,
)


def _describe_key(key: str, number: int) -> tuple[bool, str]:
    """Returns whether a key's content is taken, and a text about it.

    Args:
        number: of its spans.
    """
    is_taken = key in _CONTENT_KEYS or key.endswith(".message")
    return is_taken, format_quantity(number, "span") if is_taken else "not used in a request"


def _cut_index(name: str) -> str:
    """Cuts a flattened list at its first index: `gen_ai.prompt.0.role` → `gen_ai.prompt`."""
    parts = name.split(".")
    index = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[:index])


def _list_entries(
    source: SourceFile,
    resources: str,
    scopes: str,
    entries: str,
) -> Iterator[tuple[str, Json, Json]]:
    """Yields place, the resource's attributes and each entry."""
    for record in source.records:
        for resource in _require_objects(record.fields.get(resources), record.place, resources):
            resource_fields = resource.get("resource")
            attributes = (
                resource_fields.get("attributes") if isinstance(resource_fields, dict) else None
            )
            resource_attributes = _read_attributes(attributes, record.place)
            for scope in _require_objects(resource.get(scopes), record.place, scopes):
                for entry in _require_objects(scope.get(entries), record.place, entries):
                    yield record.place, resource_attributes, entry


def _require_objects(
    value: object,
    place: str,
    name: str,
) -> list[Json]:
    """Returns a list of objects; empty for None. Raises InputError for another value."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{place}: field {name!r}: must be a list of objects, as in OTLP JSON")
    return value


def _read_attributes(entries: object, place: str) -> Json:
    attributes = {}
    for entry in _require_objects(entries, place, "attributes"):
        attributes[str(entry.get("key"))] = _read_value(entry, "value", place)
    return attributes


def _read_value(
    entry: Mapping[str, Any],
    name: str,
    place: str,
) -> Any:
    """Reads an AnyValue of an entry. Raises InputError with the place."""
    try:
        return _parse_value(entry.get(name))
    except (TypeError, ValueError):
        raise InputError(
            f"{place}: field {name!r} of {entry.get('key', 'a log record')!r}: is not a value "
            'of OTLP JSON, such as {"stringValue": "…"}'
        ) from None


def _parse_value(value: object) -> Any:
    """Reads OTLP's AnyValue."""
    match value:
        case {"arrayValue": dict() as array}:
            return [_parse_value(inner) for inner in array.get("values") or ()]
        case {"kvlistValue": dict() as pairs}:
            return {
                str(entry.get("key")): _parse_value(entry.get("value"))
                for entry in pairs.get("values") or ()
                if isinstance(entry, dict)
            }
        case {"intValue": number}:
            return int(number)
        case dict() if len(value) == 1:
            return next(iter(value.values()))
        case _:
            return None


def _identify_span(entry: Mapping[str, Any]) -> tuple[str, str]:
    return str(entry.get("traceId")), str(entry.get("spanId"))


Event = tuple[str, Json]


def _read_span_event(event: Json, place: str) -> Event:
    return str(event.get("name")), _read_attributes(event.get("attributes"), place)


def _read_log_events(source: SourceFile) -> dict[tuple[str, str], list[Event]]:
    """Returns the events that are log records, by the span that they belong to."""
    events: dict[tuple[str, str], list[Event]] = {}
    for place, _, entry in _list_entries(source, "resourceLogs", "scopeLogs", "logRecords"):
        attributes = _read_attributes(entry.get("attributes"), place)
        name = str(entry.get("eventName") or attributes.get("event.name") or "")
        if name.startswith(_EVENT):
            body = _read_value(entry, "body", place)
            at = entry.get("timeUnixNano") or entry.get("observedTimeUnixNano")
            fields = {
                **attributes,
                **(body if isinstance(body, dict) else {}),
                "_at": at,
            }
            events.setdefault(_identify_span(entry), []).append((name, fields))
    return events


def _build_request(
    place: str,
    resource: Json,
    span: Json,
    attributes: Json,
    content: tuple[Json, Json],
) -> LoggedRequest:
    """Builds a logged chat.

    Args:
        content: the body of its request, and the answer.
    """
    provider = attributes.get("gen_ai.provider.name") or attributes.get("gen_ai.system")
    provider = provider or attributes.get("llm.system")
    names = (
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.model_name",
    )
    model = _find_text(attributes, names)
    span_status = span.get("status")
    status = span_status if isinstance(span_status, dict) else {}
    failed = status.get("code") in _ERROR
    try:
        at = datetime.fromtimestamp(int(span.get("startTimeUnixNano") or 0) / 1e9, UTC)
    except (ValueError, OverflowError, TypeError):
        raise InputError(f"{place}: field 'startTimeUnixNano': must be a number") from None
    return LoggedRequest(
        place=place,
        id=":".join(_identify_span(span)),
        at=at,
        endpoint=Endpoint.CHAT.value,
        model=f"{provider}/{model}".lower() if provider and model else model,
        source=str(resource.get("service.name") or ""),
        body=content[0],
        answer=content[1],
        outcome=FAILED if failed else OK,
        caller=_find_text(attributes, _CALLERS),
        conversation=_find_text(attributes, _CONVERSATIONS),
        trace=str(span.get("traceId") or ""),
        provider=str(provider or "").lower(),
        served_model=model,
        input_tokens=count_tokens(_find_text(attributes, _INPUT_TOKENS)),
        output_tokens=count_tokens(_find_text(attributes, _OUTPUT_TOKENS)),
        cost_usd=read_number(_find_text(attributes, _COSTS)),
        duration_s=_find_duration(span),
        error=name_error(_find_text(attributes, ("error.type",))) if failed else "",
    )


# Sources: OpenTelemetry's registry of attributes, now and before 1.27; OpenInference; OpenLIT.
_INPUT_TOKENS: Final = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
)
_OUTPUT_TOKENS: Final = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
)
_COSTS: Final = ("gen_ai.usage.cost", "llm.cost.total")


def _find_duration(span: Json) -> float | None:
    """Returns a span's duration in seconds; None without its end."""
    start_ns = read_number(span.get("startTimeUnixNano"))
    end_ns = read_number(span.get("endTimeUnixNano"))
    if not start_ns or not end_ns or end_ns < start_ns:
        return None
    return (end_ns - start_ns) / 1e9


def _find_text(attributes: Json, names: Sequence[str]) -> str:
    """Returns the first of these attributes that has a text; empty without one."""
    return next((str(attributes[name]) for name in names if attributes.get(name)), "")


def _read_content(attributes: Json, events: Sequence[Event]) -> tuple[Json, Json] | None:
    """Returns a chat's body and answer, from the first form that the span has."""
    readers: tuple[Callable[[], tuple[list[Json], list[Json], list[Json]]], ...] = (
        lambda: _read_conventions(attributes, events),
        lambda: _read_events(events),
        lambda: _read_flat(attributes),
        lambda: _read_openinference(attributes),
        lambda: read_ai_sdk(attributes),
    )
    for reader in readers:
        messages, answers, tools = reader()
        if messages:
            message = answers[0] if answers else {"role": "assistant", "content": None}
            finish = message.pop("finish_reason", None)
            choice = {
                "index": 0,
                "message": message,
                "finish_reason": finish,
            }
            body: Json = {
                "messages": messages,
                **({"tools": tools} if tools else {}),
            }
            return body, {"choices": [choice]}
    return None


def _read_conventions(
    attributes: Json, events: Sequence[Event]
) -> tuple[list[Json], list[Json], list[Json]]:
    """Reads the semantic conventions' messages: questions, answers and tools, each as chats
    have them.
    """
    details = next(
        (fields for _, fields in events if "gen_ai.input.messages" in fields),
        {},
    )
    known_fields = {**details, **attributes}
    system = parse_json(known_fields.get("gen_ai.system_instructions"))
    parts = (
        [{"type": "text", "content": system}]
        if isinstance(system, str)
        else list_objects(system)
    )
    messages = _convert_parts({"role": "system", "parts": parts}) if parts else []
    for message in list_objects(known_fields.get("gen_ai.input.messages")):
        messages += _convert_parts(message)
    answers = [
        {**turn, "finish_reason": message.get("finish_reason")}
        for message in list_objects(known_fields.get("gen_ai.output.messages"))
        for turn in _convert_parts(message)
    ]
    return (
        messages,
        answers,
        [*map(_convert_tool, list_objects(known_fields.get("gen_ai.tool.definitions")))],
    )


def _convert_parts(message: Json) -> list[Json]:
    """Converts a message with parts; each tool's response is a message of its own."""
    parts = message.get("parts")
    if not isinstance(parts, list):
        return [_convert_message(message)]
    role = str(message.get("role") or "user")
    turns: list[Json] = []
    texts: list[Json] = []
    calls: list[Json] = []
    for part in (part for part in parts if isinstance(part, dict)):
        match part.get("type"):
            case "text":
                texts.append({"type": "text", "text": str(part.get("content") or "")})
            case "tool_call":
                calls.append(_convert_call(part))
            case "tool_call_response":
                response = part.get("response", part.get("result"))
                turns.append(_build_tool_turn(part.get("id"), response))
            case "reasoning" | "thinking":
                pass
            case _:
                texts.append({"type": str(part.get("type") or "part")})
    if texts or calls or not turns:
        plain = len(texts) == 1 and "text" in texts[0]
        content = texts[0]["text"] if plain else texts or None
        turns.append(
            {
                "role": role,
                "content": content,
                **({"tool_calls": calls} if calls else {}),
            }
        )
    return turns


def _build_tool_turn(id_: object, response: object) -> Json:
    return {
        "role": "tool",
        "tool_call_id": str(id_ or ""),
        "content": write_text(response),
    }


def _convert_call(call: Json) -> Json:
    """Converts a tool call, flat or with a `function`."""
    inner = call.get("function")
    function = inner if isinstance(inner, dict) else call
    arguments = function.get("arguments")
    function_fields = {
        "name": str(function.get("name")),
        "arguments": "{}" if arguments in (None, "") else write_text(arguments),
    }
    return {
        "id": str(call.get("id") or ""),
        "type": "function",
        "function": function_fields,
    }


def _convert_tool(tool: Json) -> Json:
    """Converts a tool's definition, flat or with a `function`."""
    inner = parse_json(tool.get("function"))
    function = dict(inner) if isinstance(inner, dict) else dict(tool)
    function.pop("type", None)
    function["parameters"] = parse_json(function.get("parameters")) or {}
    return {"type": "function", "function": function}


def _convert_message(message: Json) -> Json:
    """Converts a message with `content`, which may be JSON of a list of parts."""
    content = message.get("content")
    if isinstance(content, str) and content.startswith("[{"):
        content = parse_json(content)
    converted = {"role": str(message.get("role") or "user"), "content": content}
    if calls := list_objects(message.get("tool_calls")):
        converted["tool_calls"] = [*map(_convert_call, calls)]
    id_ = message.get("tool_call_id") or (
        message.get("id") if converted["role"] == "tool" else None
    )
    if converted["role"] == "tool":
        converted["tool_call_id"] = str(id_ or "")
        converted["content"] = write_text(content)
    return converted


def _read_events(events: Sequence[Event]) -> tuple[list[Json], list[Json], list[Json]]:
    """Reads the messages of events. They contain no definitions of tools."""
    messages: list[Json] = []
    answers: list[Json] = []
    for name, fields in events:
        nested = parse_json(fields.get("gen_ai.event.content"))
        all_fields = {**fields, **(nested if isinstance(nested, dict) else {})}
        if name == "gen_ai.content.prompt":
            messages += map(_convert_message, list_objects(all_fields.get("gen_ai.prompt")))
        elif name == "gen_ai.content.completion":
            spoken_turns = list_objects(all_fields.get("gen_ai.completion"))
            answers += [
                _convert_message({"role": "assistant", **turn}) for turn in spoken_turns
            ]
        elif name == "gen_ai.choice":
            message = parse_json(all_fields.get("message"))
            content = message if isinstance(message, dict) else all_fields
            turn = _convert_message({"role": "assistant", **content})
            answers.append({**turn, "finish_reason": all_fields.get("finish_reason")})
        elif name.startswith(_EVENT) and name.endswith(".message"):
            role = all_fields.get("role") or name.split(".")[1]
            messages.append(_convert_message({**all_fields, "role": role}))
    return messages, answers, []


def _read_flat(attributes: Json) -> tuple[list[Json], list[Json], list[Json]]:
    """Reads OpenLLMetry's attributes, one for each field of each message."""
    messages = [*map(_convert_message, _unflatten(attributes, "gen_ai.prompt."))]
    answers = [
        {
            **_convert_message({"role": "assistant", **turn}),
            "finish_reason": turn.get("finish_reason"),
        }
        for turn in _unflatten(attributes, "gen_ai.completion.")
    ]
    return (
        messages,
        answers,
        [*map(_convert_tool, _unflatten(attributes, "llm.request.functions."))],
    )


def _read_openinference(attributes: Json) -> tuple[list[Json], list[Json], list[Json]]:
    """Reads OpenInference's attributes, which nest each message in a `message`."""

    def turns(prefix: str) -> list[Json]:
        messages = []
        for entry in _unflatten(attributes, prefix):
            message = entry.get("message") or {}
            contents = [part.get("message_content", {}) for part in message.get("contents", ())]
            calls = [call.get("tool_call", {}) for call in message.get("tool_calls", ())]
            content = contents or message.get("content")
            messages.append(
                _convert_message(
                    {
                        **message,
                        "content": content,
                        "tool_calls": calls,
                    }
                )
            )
        return messages

    tools = [
        _convert_tool(schema)
        for entry in _unflatten(attributes, "llm.tools.")
        if isinstance(
            schema := parse_json((entry.get("tool") or {}).get("json_schema")),
            dict,
        )
    ]
    return turns("llm.input_messages."), turns("llm.output_messages."), tools


def _unflatten(attributes: Json, prefix: str) -> list[Json]:
    """Builds a list from keys such as `PREFIX0.role` and `PREFIX0.tool_calls.0.name`."""
    tree: Json = {}
    for key, value in attributes.items():
        if not key.startswith(prefix):
            continue
        *parents, last = key.removeprefix(prefix).split(".")
        place = tree
        for part in parents:
            inner = place.setdefault(part, {})
            place = inner if isinstance(inner, dict) else place.setdefault(f"{part}.", {})
        place[last] = value
    built = _restore_lists({"list": tree})["list"]
    return [entry for entry in built if isinstance(entry, dict)] if tree else []


def _restore_lists(tree: Json) -> Json:
    """Makes a list of each object whose keys are all numbers."""
    restored: Json = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            inner = _restore_lists(value)
            numbered = bool(inner) and all(name.isdigit() for name in inner)
            in_order = [inner[name] for name in sorted(inner, key=int)] if numbered else []
            restored[key] = in_order or inner
        else:
            restored[key] = value
    return restored
