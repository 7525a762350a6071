"""Reads logged requests from exports of traces: Langfuse, LangSmith, Braintrust, Phoenix,
promptfoo's results, and Swapproof's own captures.

`trace_forms` says where each tool writes what. A call without a conversation in a known form
gives a request without content, and the report says so.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from evals.suites.items import parse_cell
from evals.suites.logs.trace_forms import TRACE_FORMS, Places, TraceForm
from evals.suites.request_log import (
    FAILED,
    NO_ANSWER,
    NO_DATE,
    OK,
    LoggedRequest,
    RequestLog,
    count_tokens,
    name_error,
    parse_time,
    read_number,
    seconds_between,
)
from evals.suites.source_records import SourceFile, SourceRecord
from harness.frame.formatting import format_quantity
from harness.providers.models.capabilities import Endpoint

Fields = Mapping[str, Any]
_EMPTY: Final[tuple[object, ...]] = (None, "", "null", {}, [], "{}", "[]")
_NO_CONTENT: Final = "calls of a model whose input is no conversation"
_OTHER_WORK: Final = "records of other work, not calls of a model"
# LangChain's and OpenInference's names of roles.
_ROLES: Final[Mapping[str, str]] = {
    "human": "user",
    "ai": "assistant",
    "aimessage": "assistant",
    "humanmessage": "user",
    "systemmessage": "system",
    "toolmessage": "tool",
    "model": "assistant",
}
# Settings of a request that a chat has under the same name.
_SETTINGS: Final = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "tool_choice",
    "parallel_tool_calls",
    "n",
    "stop",
    "stream",
    "store",
    "previous_response_id",
    "background",
    "conversation",
)
_DEPTH: Final = 50  # of nested traces


def read_traces(tool: str, source: SourceFile) -> RequestLog:
    """Reads a tool's traces.

    Args:
        tool: a key of TRACE_FORMS.

    Raises InputError as `file:line: …` at the first fault.
    """
    form = TRACE_FORMS[tool]
    requests: list[LoggedRequest] = []
    without_content: list[LoggedRequest] = []
    lost: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for record in source.records:
        for fields in _flatten(record.fields, form):
            if not _is_call(fields, form):
                lost[_OTHER_WORK] += 1
                continue
            keys.update(fields.keys())
            request = _build_request(SourceRecord(record.place, fields), form)
            if request.body:
                requests.append(request)
            else:
                lost[_NO_CONTENT] += 1
                without_content.append(request)
    taken = _list_taken(form)
    described = {
        name: (
            name.partition(".")[0] in taken,
            format_quantity(number, "record"),
        )
        for name, number in keys.items()
    }
    return RequestLog(requests, described, lost, without_content)


TRACE_READERS: Final = {tool: partial(read_traces, tool) for tool in TRACE_FORMS}


def _is_call(fields: Fields, form: TraceForm) -> bool:
    """Tells whether a record is a call of a model. A record without a kind is if it names its
    model, as in an API's answer that lists calls only.
    """
    kind = _find_text(fields, form.kind).lower()
    if form.calls and kind:
        return kind in form.calls
    return not form.calls or _find(fields, form.model) is not None


def _list_taken(form: TraceForm) -> frozenset[str]:
    """Lists the fields that a form reads."""
    places: tuple[Places, ...] = (
        form.id,
        form.start,
        form.end,
        form.model,
        form.question,
        form.answer,
        form.usage,
        form.cost,
        form.settings,
        form.error,
    )
    return frozenset(place.partition(".")[0] for group in places for place in group)


def _flatten(fields: Fields, form: TraceForm, depth: int = 0) -> Iterator[Fields]:
    """Yields a record, or the records that it contains."""
    children = _find(fields, form.children)
    if not isinstance(children, list) or depth > _DEPTH:
        yield fields
        return
    handed_down = {
        place.rpartition(".")[2]: value
        for place in form.handed_down
        if (value := _find(fields, (place,))) is not None
    }
    if _find(fields, form.kind) is not None and form.calls:
        yield {name: value for name, value in fields.items() if value is not children}
    for child in children:
        if isinstance(child, dict):
            own = {name: value for name, value in child.items() if value is not None}
            yield from _flatten({**handed_down, **own}, form, depth + 1)


def _find(fields: Fields, places: Places) -> Any:
    """Returns the value at the first place that has one; None without one."""
    for place in places:
        value = fields.get(place)
        if value in _EMPTY and "." in place:
            value = _walk(fields, place)
        if value not in _EMPTY:
            return value
    return None


def _find_text(fields: Fields, places: Places) -> str:
    """Returns the text or number at a place; empty without one. An object is no name."""
    value = _find(fields, places)
    return str(value) if isinstance(value, str | int | float) else ""


def _walk(fields: Fields, place: str) -> Any:
    """Follows a path, whose first steps may together be one column's name."""
    steps = place.split(".")
    for length in range(len(steps) - 1, 0, -1):
        inner = fields.get(".".join(steps[:length]))
        if inner in _EMPTY:
            continue
        inner = _parse_json(inner)
        if isinstance(inner, Mapping):
            rest = ".".join(steps[length:])
            value = inner.get(rest)
            return value if value is not None else _walk(inner, rest)
    return None


def _parse_json(value: object) -> Any:
    """Reads a cell or an attribute that is JSON in a text."""
    return parse_cell(value) if isinstance(value, str) else value


def _build_request(record: SourceRecord, form: TraceForm) -> LoggedRequest:
    fields = record.fields
    started_at = _read_time(fields, form.start, record.place)
    provider, model = _split_model(
        _find_text(fields, form.provider), _find_text(fields, form.model)
    )
    status = _find_text(fields, form.failure).lower()
    error = _find(fields, form.error)
    failed = status in form.failures if status else error is not None
    body = _build_body(fields, form)
    answer = {} if failed or not body else _build_answer(_find(fields, form.answer))
    return LoggedRequest(
        place=record.place,
        id=_find_text(fields, form.id),
        at=started_at,
        endpoint=Endpoint.CHAT.value,
        model=f"{provider}/{model}" if provider and model else model,
        source=_find_text(fields, form.source),
        body=body,
        answer=answer,
        outcome=FAILED if failed else OK if answer else NO_ANSWER,
        caller=_find_text(fields, form.caller),
        conversation=_find_text(fields, form.conversation),
        trace=_find_text(fields, form.trace),
        provider=provider,
        served_model=model,
        input_tokens=_count(fields, form, "input", form.input_tokens),
        output_tokens=_count(fields, form, "output", form.output_tokens),
        cost_usd=_find_cost(fields, form),
        duration_s=_find_duration(fields, form, started_at, record.place),
        error=name_error(str(error or "")) if failed else "",
    )


def _split_model(provider: str, model: str) -> tuple[str, str]:
    """Splits promptfoo's `openai:chat:gpt-5-mini` into its provider and its model."""
    if not provider and ":" in model:
        provider, _, rest = model.partition(":")
        first, _, last = rest.partition(":")
        model = last if last and first in ("chat", "messages", "responses") else rest
    return provider.lower(), model


def _read_time(fields: Fields, places: Places, place: str) -> datetime:
    """Reads a date, or seconds since 1970. Raises InputError."""
    value = _find(fields, places)
    if value is None:
        return NO_DATE
    if (seconds := read_number(value)) is not None:
        try:
            return datetime.fromtimestamp(seconds if seconds < 1e11 else seconds / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            pass
    return parse_time(value, place, places[0])


def _count(fields: Fields, form: TraceForm, word: str, places: Places) -> int | None:
    """Counts the tokens of input or output.

    Args:
        word: the part of a kind's name in `usage`.

    The kinds add up, unless the total shows that the others are parts of `input` and `output`.
    """
    usage = _parse_json(_find(fields, form.usage))
    if isinstance(usage, Mapping):
        whole = [read_number(usage.get(name)) for name in ("input", "output")]
        total = read_number(usage.get("total"))
        if total and None not in whole and total == sum(n or 0 for n in whole):
            return count_tokens(usage.get(word))
        counts = [read_number(value) for name, value in usage.items() if word in str(name)]
        if known := [count for count in counts if count]:
            return count_tokens(sum(known))
    return count_tokens(_find(fields, places))


def _find_cost(fields: Fields, form: TraceForm) -> float | None:
    """Returns a call's cost in US dollars. 0 is unknown, because tools write it for a model
    without a price.
    """
    return read_number(_find(fields, form.cost)) or None


def _find_duration(
    fields: Fields, form: TraceForm, started_at: datetime, place: str
) -> float | None:
    """Returns a call's duration in seconds; None if it is unknown."""
    between_s = seconds_between(started_at, _read_time(fields, form.end, place))
    if between_s is not None:
        return between_s
    seconds = read_number(_find(fields, form.duration_s))
    milliseconds = read_number(_find(fields, form.duration_ms))
    return seconds if milliseconds is None else milliseconds / 1000


def _build_body(fields: Fields, form: TraceForm) -> dict[str, Any]:
    """Builds a chat's request; empty if the record has no conversation in a known form."""
    messages = _read_messages(_find(fields, form.question))
    if not messages:
        return {}
    settings = _parse_json(_find(fields, form.settings))
    known = settings if isinstance(settings, Mapping) else {}
    tools = [*_list_tools(_find(fields, form.tools))] or [*_list_tools(known.get("tools"))]
    return {
        "messages": messages,
        **({"tools": tools} if tools else {}),
        **{name: known[name] for name in _SETTINGS if known.get(name) is not None},
    }


def _read_messages(value: object) -> list[dict[str, Any]]:
    value = _parse_json(value)
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else []
    if isinstance(value, Mapping):
        inner = value.get("messages")
        return _read_messages(inner) if isinstance(inner, list) else []
    if not isinstance(value, list):
        return []
    if value and isinstance(value[0], list):  # LangChain has one list for each prompt
        value = value[0]
    if len(value) == 1 and isinstance(value[0], str):
        return _read_messages(value[0])
    messages = [_read_message(entry) for entry in value]
    known = [message for message in messages if message is not None]
    return known if len(known) == len(value) else []


def _read_message(entry: object) -> dict[str, Any] | None:
    """Reads a message of OpenAI, LangChain or OpenInference; None for another form."""
    if not isinstance(entry, Mapping):
        return None
    inner = entry.get("message")
    if isinstance(inner, Mapping):  # OpenInference
        entry = inner
    if any(str(name).startswith("message.") for name in entry):
        entry = {str(name).removeprefix("message."): part for name, part in entry.items()}
    kwargs = entry.get("kwargs")
    if isinstance(kwargs, Mapping):  # LangChain's serialised messages
        name = entry.get("id")
        kind = name[-1] if isinstance(name, list) and name else ""
        entry = {"type": kind, **kwargs}
    role = str(entry.get("role") or entry.get("type") or "").lower()
    role = _ROLES.get(role, role)
    if role not in ("system", "developer", "user", "assistant", "tool"):
        return None
    message: dict[str, Any] = {"role": role, "content": entry.get("content")}
    for name in ("tool_calls", "tool_call_id", "name"):
        if entry.get(name) not in _EMPTY:
            message[name] = entry[name]
    return message


def _list_tools(value: object) -> Iterator[Mapping[str, Any]]:
    """Yields tools in the form of a chat's request."""
    value = _parse_json(value)
    for entry in value if isinstance(value, list) else ():
        tool = _parse_json(entry)
        if not isinstance(tool, Mapping):
            continue
        schema = _parse_json(tool.get("tool.json_schema"))
        inner = tool.get("tool")
        if isinstance(inner, Mapping):
            schema = _parse_json(inner.get("json_schema"))
        yield schema if isinstance(schema, Mapping) else tool


def _build_answer(value: object) -> dict[str, Any]:
    """Builds a chat's answer; empty if the record has none in a known form."""
    value = _parse_json(value)
    if isinstance(value, Mapping):
        choices = value.get("choices")
        if isinstance(choices, list) and choices:
            return {"choices": choices}
        generations = value.get("generations")
        if isinstance(generations, list) and generations:
            value = generations
        else:
            value = value.get("message") or value.get("messages") or value
    while isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, Mapping) and isinstance(value.get("message"), Mapping):
        message = _read_message(value["message"])
        finish = value.get("finish_reason")
    else:
        message = _read_spoken(value)
        finish = None
    if isinstance(value, str) and value:
        message = {"role": "assistant", "content": value}
    if message is None:
        return {}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"choices": [choice]}


def _read_spoken(value: object) -> dict[str, Any] | None:
    """Reads a message without a role as the assistant's; None for another value."""
    if not isinstance(value, Mapping) or not any(
        name in value for name in ("content", "tool_calls", "message.content", "kwargs")
    ):
        return None
    fields: dict[str, Any] = {"role": "assistant"}
    fields.update(value)
    return _read_message(fields)


def read_captures(source: SourceFile) -> RequestLog:
    """Reads lines of `capture export`. Raises InputError as `file:line: …` at the first
    fault.
    """
    requests = []
    for record in source.records:
        fields = record.fields
        provenance = fields.get("provenance")
        facts: Fields = provenance if isinstance(provenance, Mapping) else {}
        answer = fields.get("answer")
        model = str(fields.get("model") or "")
        body = {name: fields[name] for name in ("messages", "tools") if fields.get(name)}
        request = LoggedRequest(
            place=record.place,
            id=str(fields.get("id") or ""),
            at=parse_time(facts.get("at"), record.place, "provenance.at"),
            endpoint=Endpoint.CHAT.value,
            model=model,
            source=str(facts.get("route") or ""),
            body=body,
            answer=_build_answer(answer),
            outcome=str(facts.get("outcome") or OK),
            caller=str(facts.get("caller") or ""),
            conversation=str(facts.get("conversation") or ""),
            provider=model.partition("/")[0] if "/" in model else "",
            served_model=model.partition("/")[2] or model,
            data_class=str(facts.get("data_class") or ""),
        )
        requests.append(request)
    keys = Counter(name for record in source.records for name in record.fields)
    taken = ("id", "messages", "tools", "answer", "model", "provenance")
    return RequestLog(
        requests,
        {
            name: (name in taken, format_quantity(number, "line"))
            for name, number in keys.items()
        },
    )
