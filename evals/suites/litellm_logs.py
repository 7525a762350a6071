"""Reads logged requests from exports of LiteLLM's table `LiteLLM_SpendLogs`: JSON, JSON lines,
or CSV with JSON in cells.

Rows without whole content give no request, and the report says why. The requests have no
labels: `harness.app.capture_import` writes them as a file to label.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from evals.suites.items import parse_cell
from evals.suites.request_log import (
    FAILED,
    NO_ANSWER,
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
from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.frame.plain_data import canonical_json
from harness.providers.models.capabilities import Endpoint

_ENDPOINTS: Final[Mapping[str, str]] = {
    "completion": Endpoint.CHAT.value,
    "responses": Endpoint.RESPONSES.value,
    "anthropic_messages": Endpoint.MESSAGES.value,
}
_TAKEN: Final = (
    "request_id",
    "call_type",
    "startTime",
    "model",
    "model_group",
    "messages",
    "response",
    "proxy_server_request",
    "status",
    "end_user",
    "session_id",
    "custom_llm_provider",
    "prompt_tokens",
    "completion_tokens",
    "spend",
    "cache_hit",
    "request_duration_ms",
    "endTime",
)
# LiteLLM writes these marks where it cut or removed a text.
_CUT: Final = "litellm_truncated"
_REMOVED: Final = "redacted-by-litellm"
_LONGEST_CODE: Final = 40  # of an error, for people
_EMPTY: Final[tuple[object, ...]] = (None, "", "{}", {}, [], "[]")


def read_spend_logs(source: SourceFile) -> RequestLog:
    """Raises InputError as `file:line: …` at the first fault."""
    requests: list[LoggedRequest] = []
    without_content: list[LoggedRequest] = []
    lost: Counter[str] = Counter()
    fields = Counter(name for record in source.records for name in record.fields)
    for record in source.records:
        request, reason = _build_request(record)
        if reason:
            lost[reason] += 1
        if request is not None:
            (without_content if reason else requests).append(request)
    keys = {
        name: (
            name in _TAKEN,
            format_quantity(number, "row") if name in _TAKEN else "not used in a request",
        )
        for name, number in fields.items()
    }
    return RequestLog(requests, keys, lost, without_content)


def _build_request(record: SourceRecord) -> tuple[LoggedRequest | None, str]:
    """Returns a row's request, and the reason why it has no content.

    A row of another call than for text has no request.
    """
    row = {name: parse_cell(value) for name, value in record.fields.items()}
    call = str(row.get("call_type") or "")
    endpoint = _ENDPOINTS.get(call.removeprefix("a") if call != "anthropic_messages" else call)
    if endpoint is None:
        return None, f"rows of `{call}`, which has no answer in text"
    body, response, reason = _find_content(row, record)
    failed = _has_failed(row)
    has_no_answer = failed or not response or bool(_find_mark(record, "response"))
    started_at = parse_time(row.get("startTime"), record.place, "startTime")
    request = LoggedRequest(
        place=record.place,
        id=str(row.get("request_id") or ""),
        at=started_at,
        endpoint=endpoint,
        model=str(row.get("model_group") or row.get("model") or ""),
        source="",
        body={} if reason else body,
        answer={} if reason or has_no_answer else response,
        outcome=FAILED if failed else NO_ANSWER if has_no_answer else OK,
        caller=str(row.get("end_user") or ""),
        conversation=str(row.get("session_id") or ""),
        provider=str(row.get("custom_llm_provider") or ""),
        served_model=str(row.get("model") or ""),
        input_tokens=count_tokens(row.get("prompt_tokens")),
        output_tokens=count_tokens(row.get("completion_tokens")),
        cost_usd=_find_cost(row, failed=failed),
        duration_s=_find_duration(row, started_at, record.place),
        error=_find_error(row) if failed else "",
    )
    return request, reason


def _has_failed(row: Mapping[str, Any]) -> bool:
    metadata = row.get("metadata")
    own_status = metadata.get("status") if isinstance(metadata, Mapping) else None
    return str(row.get("status") or own_status or "success") != "success"


def _find_mark(record: SourceRecord, *names: str) -> str:
    """Returns LiteLLM's mark of a cut or a removed text in these fields; empty without one."""
    for name in names:
        value = record.fields.get(name)
        text = value if isinstance(value, str) else canonical_json(value)
        for mark in (_CUT, _REMOVED):
            if mark in text:
                return mark
    return ""


def _find_content(
    row: Mapping[str, Any], record: SourceRecord
) -> tuple[Mapping[str, Any], Mapping[str, Any], str]:
    """Returns a row's body and response, and the reason why the body is not the request's."""
    body = row.get("proxy_server_request")
    response = {} if row.get("response") in _EMPTY else row.get("response")
    messages = row.get("messages")
    if isinstance(body, Mapping) and isinstance(body.get("body"), Mapping):
        body = body["body"]  # with the request's headers beside it
    body = {} if body in _EMPTY else body
    has_question = isinstance(body, Mapping) and {"messages", "input"} & body.keys()
    if messages not in _EMPTY and isinstance(body, Mapping) and not has_question:
        body = {**body, "messages": messages}
    if not isinstance(body, Mapping) or not isinstance(response, Mapping):
        raise InputError(
            f"{record.place}: fields 'proxy_server_request', 'response': must be JSON objects"
        )
    # Requests with long or failed answers stay in the sample, because the draw must ignore
    # answers.
    mark = _find_mark(record, "proxy_server_request", "messages")
    reason = ""
    if not body:
        reason = "without content: set `store_prompts_in_spend_logs: true` in LiteLLM"
    elif mark == _CUT:
        reason = "that LiteLLM cut: raise MAX_STRING_LENGTH_PROMPT_IN_DB"
    elif mark == _REMOVED:
        reason = "whose content LiteLLM redacted (`turn_off_message_logging`)"
    return body, response, reason


def _find_cost(row: Mapping[str, Any], *, failed: bool) -> float | None:
    """Returns a row's cost in US dollars; None if LiteLLM does not know the model's price.

    LiteLLM writes 0 for an unknown price, for an answer from its cache and for a failure.
    """
    spend = read_number(row.get("spend"))
    is_free = failed or str(row.get("cache_hit")) == "True"
    return spend if spend or is_free else None


def _find_duration(row: Mapping[str, Any], started_at: datetime, place: str) -> float | None:
    """Returns a row's duration in seconds; None if it is unknown."""
    if (milliseconds := read_number(row.get("request_duration_ms"))) is not None:
        return milliseconds / 1000
    return seconds_between(started_at, parse_time(row.get("endTime"), place, "endTime"))


def _find_error(row: Mapping[str, Any]) -> str:
    """Returns the HTTP status or the class of a failure, if the row names it."""
    metadata = row.get("metadata")
    details = metadata.get("error_information") if isinstance(metadata, Mapping) else None
    if not isinstance(details, Mapping):
        return FAILED
    code = details.get("error_code") or details.get("error_class")
    text = str(details.get("error") or details.get("error_message"))
    return str(code)[:_LONGEST_CODE] if code else name_error(text)
