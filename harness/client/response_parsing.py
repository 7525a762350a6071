"""Parses a router's answers and errors, in which any field may be missing. Pure.

An unknown or wrong field becomes its empty value; only an answer without its main part raises
AnswerUnreadable. The router translates every provider's answer to OpenAI's form before it comes
here. `stream` joins the chunks of a stream.
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
KEPT: Final = ("thinking_blocks", "reasoning_details")
MOST_DIGITS: Final = 18  # Python refuses to parse a number with thousands of digits
_CALL: Final = frozenset({"id", "type", "index", "function"})


def parse_served(headers: Mapping[str, str]) -> Served:
    """Reads the target and route from an answer's headers. headers: names in lower case."""

    def header(name: str) -> str:
        return headers.get(f"x-swapgate-{name}", "")

    return Served(
        request_id=header("request-id"),
        route=header("route"),
        arm=header("arm"),
        target=header("target"),
        revision=_count(header("revision")),
        attempts=_count(header("attempts")) or 0,
        degraded=tuple(part.strip() for part in header("degraded").split(",") if part.strip()),
        switch=header("switch"),
        kind=header("kind"),
    )


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


def parse_completion(body: bytes, served: Served) -> CompletionResponse:
    """Parses the body of a whole completion. Raises AnswerUnreadable."""
    raw = _object(body, served)
    choice = next(iter(_objects(raw.get("choices"))), None)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise _unreadable("an answer without a message", served)
    whole = _chunk(raw, choice, message)
    return CompletionResponse(
        text=whole.text,
        finish_reason=whole.finish_reason,
        served=served,
        tool_requests=tuple(
            ToolRequest(call.id, call.name, call.arguments_text or "{}", call.extra)
            for call in whole.tool_deltas
        ),
        usage=whole.usage,
        model=whole.model,
        reasoning=whole.reasoning,
        refusal=whole.refusal,
        logprobs=whole.logprobs,
        message_extra=whole.message_extra,
        raw=raw,
    )


def parse_chunk(raw: Mapping[str, object]) -> StreamChunk:
    """Parses the first choice of a stream's event. An event without a choice gives an empty
    chunk.
    """
    choices = [row for row in _objects(raw.get("choices")) if not row.get("index")]
    choice: Mapping[str, object] = choices[0] if choices else {}
    delta = choice.get("delta")
    return _chunk(raw, choice, delta if isinstance(delta, dict) else {})


def _chunk(
    raw: Mapping[str, object], choice: Mapping[str, object], message: Mapping[str, object]
) -> StreamChunk:
    """Reads the fields that whole answers and events share. message: `message` or `delta`."""
    return StreamChunk(
        text=_text(message.get("content")),
        reasoning=_text(message.get("reasoning_content")) or _text(message.get("reasoning")),
        refusal=_text(message.get("refusal")),
        tool_deltas=tuple(_delta(call) for call in _objects(message.get("tool_calls"))),
        finish_reason=_text(choice.get("finish_reason")),
        usage=_usage(raw.get("usage")),
        model=_text(raw.get("model")),
        logprobs=_logprobs(choice),
        message_extra={name: message[name] for name in KEPT if message.get(name)},
    )


def parse_embeddings(body: bytes, served: Served) -> EmbeddingResponse:
    """Parses vectors in the order of the inputs. Raises AnswerUnreadable.

    If each vector has an `index`, the indexes set the order.
    """
    raw = _object(body, served)
    rows = _objects(raw.get("data"))
    places = [row.get("index") for row in rows]
    if all(isinstance(place, int) for place in places):
        rows = sorted(rows, key=lambda row: int(str(row["index"])))
    vectors = tuple(_vector(row.get("embedding"), served) for row in rows)
    if not vectors:
        raise _unreadable("an answer without vectors", served)
    return EmbeddingResponse(vectors, served, _usage(raw.get("usage")), _text(raw.get("model")))


def _vector(value: object, served: Served) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(_is_number(item) for item in value):
        raise _unreadable("a vector that is not a list of numbers", served)
    try:
        return tuple(float(item) for item in value)
    except OverflowError:
        raise _unreadable("a vector with a number that is too large", served) from None


def _object(body: bytes, served: Served) -> dict[str, object]:
    """Parses a body as a JSON object. Raises AnswerUnreadable."""
    found = read_object(body)
    if found is None:
        raise _unreadable("an answer that is not a JSON object", served)
    return found


def _unreadable(fault: str, served: Served) -> AnswerUnreadable:
    return AnswerUnreadable(
        f"the router sent {fault} (request {served.request_id or 'without an id'}); check that "
        "the address is a Swapgate router's",
        request_id=served.request_id,
    )


def _objects(value: object) -> Sequence[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """Reads a text, or joins the texts of a list of parts; empty for another value."""
    if isinstance(value, list):
        return "".join(_text(item.get("text")) for item in _objects(value))
    return value if isinstance(value, str) else ""


def _delta(call: Mapping[str, object]) -> ToolDelta:
    found, index = call.get("function"), call.get("index")
    function = found if isinstance(found, dict) else {}
    return ToolDelta(
        index if isinstance(index, int) else 0,
        _text(call.get("id")),
        _text(function.get("name")),
        _text(function.get("arguments")),
        {name: value for name, value in call.items() if name not in _CALL},
    )


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None

    def count(of: object, name: str) -> int:
        found = of.get(name) if isinstance(of, dict) else None
        return found if isinstance(found, int) else 0

    return Usage(
        count(value, "prompt_tokens"),
        count(value, "completion_tokens"),
        count(value.get("prompt_tokens_details"), "cached_tokens"),
        count(value.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _logprobs(choice: Mapping[str, object]) -> tuple[TokenLogprob, ...]:
    found = choice.get("logprobs")
    content = found.get("content") if isinstance(found, dict) else None
    return tuple(
        TokenLogprob(
            _text(entry.get("token")),
            _number(entry.get("logprob")),
            tuple(
                (_text(top.get("token")), _number(top.get("logprob")))
                for top in _objects(entry.get("top_logprobs"))
            ),
        )
        for entry in _objects(content)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0


_NEXT: Final[Mapping[type[CallFailed], str]] = {
    CallRefused: "change the request",
    KeyRefused: "check the key, and its routes with `swapgate key list`",
    CallLimited: "send requests less often",
    NobodyAnswered: "try again later, and see `swapgate doctor`",
    AnswerUnreadable: "check that the address is a Swapgate router's",
}
_SHOWN: Final = 300


def error_from_answer(
    status: int, headers: Mapping[str, str], body: bytes, route: str, now: datetime
) -> CallFailed:
    """Builds the error of an answer without status 200.

    headers: names in lower case. route: for the message. now: to read a date in Retry-After.
    """
    found = (read_object(body) or {}).get("error")
    details = found if isinstance(found, dict) else {}
    kind = _kind(status)
    wait_s = retry_after_s(headers, now)
    request_id = parse_served(headers).request_id
    message = (
        _text(details.get("message")) or body[:_SHOWN].decode("utf-8", "replace") or "no reason"
    )
    wait = "" if wait_s is None else f", not before {wait_s:g} s"
    quote = f", request {request_id}" if request_id else ""
    retry = headers.get("x-should-retry", "").lower()
    return kind(
        f"route {route!r}: {message} (status {status}{quote}); {_NEXT[kind]}{wait}",
        status=status,
        code=_text(details.get("code")),
        request_id=request_id,
        retry_after_s=wait_s,
        should_retry={"true": True, "false": False}.get(retry),
        details=details,
    )


def error_from_stream(error: Mapping[str, object], route: str, request_id: str) -> StreamBroken:
    """Builds the error of a stream that broke off. error: the event's error object; may be
    empty.
    """
    message = _text(error.get("message")) or "the stream broke off"
    return StreamBroken(
        f"route {route!r}: {message} (request {request_id}); the answer is incomplete: send "
        "the request again",
        code=_text(error.get("code")),
        request_id=request_id,
        details=error,
    )


def _kind(status: int) -> type[CallFailed]:
    """Chooses the error of a status. A status below 400 comes from no router."""
    if status in (401, 403):
        return KeyRefused
    if status == 429:
        return CallLimited
    if 400 <= status < 500:
        return CallRefused
    return NobodyAnswered if status >= 500 else AnswerUnreadable
