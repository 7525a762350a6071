"""Parses a router's answers and errors, in which any field may be missing. Pure.

The parsers ignore unknown fields, and read a wrong field as empty. Only an answer without its
main part raises AnswerUnreadable. The router has translated every provider's answer to OpenAI's
form. `stream` joins the chunks of a stream.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from harness.client.types import (
    CompletionResponse,
    EmbeddingResponse,
    Served,
    StreamChunk,
    TokenLogprob,
    ToolDelta,
    ToolRequest,
    Usage,
)
from harness.frame.errors import (
    AnswerUnreadable,
    CallFailed,
    CallLimited,
    CallRefused,
    KeyRefused,
    NobodyAnswered,
    StreamBroken,
)
from harness.frame.plain_data import read_object
from harness.routing.reliability.retry import retry_after_s

# Reasoning that goes back to the provider with the conversation.
REASONING_FIELDS: Final = ("thinking_blocks", "reasoning_details")
MOST_DIGITS: Final = 18  # Python refuses to parse a number with thousands of digits
_CALL_FIELDS: Final = frozenset({"id", "type", "index", "function"})


def parse_served(headers: Mapping[str, str]) -> Served:
    """Reads the target and route from an answer's headers.

    Args:
        headers: names in lower case.
    """

    def header(name: str) -> str:
        return headers.get(f"x-swapproof-{name}", "")

    return Served(
        request_id=header("request-id"),
        route=header("route"),
        arm=header("arm"),
        target=header("target"),
        revision=_parse_count(header("revision")),
        attempts=_parse_count(header("attempts")) or 0,
        degraded=tuple(part.strip() for part in header("degraded").split(",") if part.strip()),
        switch=header("switch"),
        kind=header("kind"),
    )


def _parse_count(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


def parse_completion(body: bytes, served: Served) -> CompletionResponse:
    """Parses the body of a whole completion. Raises AnswerUnreadable."""
    raw = _parse_object(body, served)
    choice = next(iter(_list_objects(raw.get("choices"))), None)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise _build_unreadable_error("an answer without a message", served)
    chunk = _read_chunk(raw, choice, message)
    return CompletionResponse(
        text=chunk.text,
        finish_reason=chunk.finish_reason,
        served=served,
        tool_requests=tuple(
            ToolRequest(call.id, call.name, call.arguments_text or "{}", call.extra)
            for call in chunk.tool_deltas
        ),
        usage=chunk.usage,
        model=chunk.model,
        reasoning=chunk.reasoning,
        refusal=chunk.refusal,
        logprobs=chunk.logprobs,
        message_extra=chunk.message_extra,
        raw=raw,
    )


def parse_chunk(raw: Mapping[str, object]) -> StreamChunk:
    """Parses the first choice of a stream's event. Returns an empty chunk without a choice."""
    choices = [row for row in _list_objects(raw.get("choices")) if not row.get("index")]
    choice: Mapping[str, object] = choices[0] if choices else {}
    delta = choice.get("delta")
    return _read_chunk(raw, choice, delta if isinstance(delta, dict) else {})


def _read_chunk(
    raw: Mapping[str, object],
    choice: Mapping[str, object],
    message: Mapping[str, object],
) -> StreamChunk:
    """Reads the fields that whole answers and events share.

    Args:
        message: `message` or `delta`.
    """
    return StreamChunk(
        text=_read_text(message.get("content")),
        reasoning=_read_text(message.get("reasoning_content"))
        or _read_text(message.get("reasoning")),
        refusal=_read_text(message.get("refusal")),
        tool_deltas=tuple(
            _read_delta(call) for call in _list_objects(message.get("tool_calls"))
        ),
        finish_reason=_read_text(choice.get("finish_reason")),
        usage=_read_usage(raw.get("usage")),
        model=_read_text(raw.get("model")),
        logprobs=_read_logprobs(choice),
        message_extra={name: message[name] for name in REASONING_FIELDS if message.get(name)},
    )


def parse_embeddings(body: bytes, served: Served) -> EmbeddingResponse:
    """Parses vectors in the order of the inputs. Raises AnswerUnreadable.

    If each vector has an `index`, the indexes set the order.
    """
    raw = _parse_object(body, served)
    rows = _list_objects(raw.get("data"))
    indexes = [row.get("index") for row in rows]
    if all(isinstance(place, int) for place in indexes):
        rows = sorted(rows, key=lambda row: int(str(row["index"])))
    vectors = tuple(_read_vector(row.get("embedding"), served) for row in rows)
    if not vectors:
        raise _build_unreadable_error("an answer without vectors", served)
    return EmbeddingResponse(
        vectors, served, _read_usage(raw.get("usage")), _read_text(raw.get("model"))
    )


def _read_vector(value: object, served: Served) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(_is_number(item) for item in value):
        raise _build_unreadable_error("a vector that is not a list of numbers", served)
    try:
        return tuple(float(item) for item in value)
    except OverflowError:
        raise _build_unreadable_error(
            "a vector with a number that is too large", served
        ) from None


def _parse_object(body: bytes, served: Served) -> dict[str, object]:
    """Parses a body as a JSON object. Raises AnswerUnreadable."""
    value = read_object(body)
    if value is None:
        raise _build_unreadable_error("an answer that is not a JSON object", served)
    return value


def _build_unreadable_error(fault: str, served: Served) -> AnswerUnreadable:
    return AnswerUnreadable(
        f"the router sent {fault} (request {served.request_id or 'without an id'}); check that "
        "the address is a Swapproof router's",
        request_id=served.request_id,
    )


def _list_objects(value: object) -> Sequence[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _read_text(value: object) -> str:
    """Reads a text, or joins the texts of a list of parts; empty for another value."""
    if isinstance(value, list):
        return "".join(_read_text(item.get("text")) for item in _list_objects(value))
    return value if isinstance(value, str) else ""


def _read_delta(call: Mapping[str, object]) -> ToolDelta:
    value = call.get("function")
    index = call.get("index")
    function = value if isinstance(value, dict) else {}
    return ToolDelta(
        index if isinstance(index, int) else 0,
        _read_text(call.get("id")),
        _read_text(function.get("name")),
        _read_text(function.get("arguments")),
        {name: value for name, value in call.items() if name not in _CALL_FIELDS},
    )


def _read_usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None

    def count(container: object, name: str) -> int:
        number = container.get(name) if isinstance(container, dict) else None
        return number if isinstance(number, int) else 0

    return Usage(
        count(value, "prompt_tokens"),
        count(value, "completion_tokens"),
        count(value.get("prompt_tokens_details"), "cached_tokens"),
        count(value.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _read_logprobs(choice: Mapping[str, object]) -> tuple[TokenLogprob, ...]:
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return tuple(
        TokenLogprob(
            _read_text(entry.get("token")),
            _read_number(entry.get("logprob")),
            tuple(
                (_read_text(top.get("token")), _read_number(top.get("logprob")))
                for top in _list_objects(entry.get("top_logprobs"))
            ),
        )
        for entry in _list_objects(content)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0


_NEXT_STEPS: Final[Mapping[type[CallFailed], str]] = {
    CallRefused: "change the request",
    KeyRefused: "check the key, and its routes with `swapproof key list`",
    CallLimited: "send requests less often",
    NobodyAnswered: "try again later, and see `swapproof doctor`",
    AnswerUnreadable: "check that the address is a Swapproof router's",
}
_MAX_QUOTED_BYTES: Final = 300


def error_from_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    route: str,
    now: datetime,
) -> CallFailed:
    """Builds the error of an answer without status 200.

    Args:
        headers: names in lower case.
        route: for the message.
        now: to read a date in Retry-After.
    """
    error = (read_object(body) or {}).get("error")
    details = error if isinstance(error, dict) else {}
    kind = _choose_error(status)
    wait_s = retry_after_s(headers, now)
    request_id = parse_served(headers).request_id
    message = (
        _read_text(details.get("message"))
        or body[:_MAX_QUOTED_BYTES].decode("utf-8", "replace")
        or "no reason"
    )
    wait = "" if wait_s is None else f", not before {wait_s:g} s"
    quote = f", request {request_id}" if request_id else ""
    retry = headers.get("x-should-retry", "").lower()
    return kind(
        f"route {route!r}: {message} (status {status}{quote}); {_NEXT_STEPS[kind]}{wait}",
        status=status,
        code=_read_text(details.get("code")),
        request_id=request_id,
        retry_after_s=wait_s,
        should_retry={"true": True, "false": False}.get(retry),
        details=details,
    )


def error_from_stream(
    error: Mapping[str, object],
    route: str,
    request_id: str,
) -> StreamBroken:
    """Builds the error of a stream that broke off.

    Args:
        error: the event's error object; may be empty.
    """
    message = _read_text(error.get("message")) or "the stream broke off"
    return StreamBroken(
        f"route {route!r}: {message} (request {request_id}); the answer is incomplete: send "
        "the request again",
        code=_read_text(error.get("code")),
        request_id=request_id,
        details=error,
    )


def _choose_error(status: int) -> type[CallFailed]:
    """Chooses the error of a status other than 200. A router's errors have at least 400."""
    if status in (401, 403):
        return KeyRefused
    if status == 429:
        return CallLimited
    if 400 <= status < 500:
        return CallRefused
    return NobodyAnswered if status >= 500 else AnswerUnreadable
