"""Reads logged requests from exports of LiteLLM's table `LiteLLM_SpendLogs`: JSON, JSON lines,
or CSV with JSON in cells.

Rows without whole content give no request, and the report says why. The requests have no
labels: `harness.app.capture_import` writes them as a file to label.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from evals.suites.items import parse_cell
from evals.suites.request_log import FAILED, NO_ANSWER, OK, LoggedRequest, RequestLog
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
)
# LiteLLM writes these marks where it cut or removed a text.
_CUT: Final = "litellm_truncated"
_REMOVED: Final = "redacted-by-litellm"
_EMPTY: Final[tuple[object, ...]] = (None, "", "{}", {}, [], "[]")


def read_spend_logs(source: SourceFile) -> RequestLog:
    """Raises InputError as `file:line: …` at the first fault."""
    requests: list[LoggedRequest] = []
    lost: Counter[str] = Counter()
    fields = Counter(name for record in source.records for name in record.fields)
    for record in source.records:
        request = _build_request(record)
        if isinstance(request, str):
            lost[request] += 1
        else:
            requests.append(request)
    keys = {
        name: (
            name in _TAKEN,
            format_quantity(number, "row") if name in _TAKEN else "not used in a request",
        )
        for name, number in fields.items()
    }
    return RequestLog(requests, keys, lost)


def _build_request(record: SourceRecord) -> LoggedRequest | str:
    """Returns a request, or the reason why the row has none."""
    row = {name: parse_cell(value) for name, value in record.fields.items()}
    call = str(row.get("call_type") or "")
    endpoint = _ENDPOINTS.get(call.removeprefix("a") if call != "anthropic_messages" else call)
    if endpoint is None:
        return f"rows of `{call}`, which has no answer in text"
    body = row.get("proxy_server_request")
    response = {} if row.get("response") in _EMPTY else row.get("response")
    messages = row.get("messages")
    if body in _EMPTY and messages not in _EMPTY:
        body = {"messages": messages}
    if body in _EMPTY:
        return "without content: set `store_prompts_in_spend_logs: true` in LiteLLM"
    if not isinstance(body, Mapping) or not isinstance(response, Mapping):
        raise InputError(
            f"{record.place}: fields 'proxy_server_request', 'response': must be JSON objects"
        )
    text = canonical_json(body)
    if _CUT in text:
        return "that LiteLLM cut: raise MAX_STRING_LENGTH_PROMPT_IN_DB"
    if _REMOVED in text:
        return "whose content LiteLLM redacted (`turn_off_message_logging`)"
    # Requests with long or failed answers stay in the sample, because the draw must ignore
    # answers.
    failed = str(row.get("status") or "success") != "success"
    answer = canonical_json(response)
    has_no_answer = failed or not response or _CUT in answer or _REMOVED in answer
    return LoggedRequest(
        place=record.place,
        id=str(row.get("request_id") or ""),
        at=_parse_time(row.get("startTime"), record.place),
        endpoint=endpoint,
        model=str(row.get("model_group") or row.get("model") or ""),
        source="",
        body=body,
        answer={} if has_no_answer else response,
        outcome=FAILED if failed else NO_ANSWER if has_no_answer else OK,
        caller=str(row.get("end_user") or ""),
        conversation=str(row.get("session_id") or ""),
    )


def _parse_time(value: Any, place: str) -> datetime:
    """Reads a time; without a zone it is UTC. Raises InputError."""
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        raise InputError(
            f"{place}: field 'startTime': {str(value)[:40]!r} is not a time, such as "
            "2026-11-20T14:00:00Z"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
