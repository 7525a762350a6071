"""Sends a provider one small request over HTTP for a check, bounded in time and size. Errors
contain no keys.
"""

import http.client
import json
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final

from harness.frame.errors import InputError
from harness.frame.ports import Clock
from harness.frame.sse import EventPayloads
from harness.providers.api_base_rules import check_api_base
from harness.providers.calls.guarded_http import GuardedHttpClient
from harness.providers.calls.headers import check_request_headers
from harness.providers.calls.probe import MAX_REPLY_BYTES, ProbeReply, is_content_event
from harness.providers.credential import hide_secrets
from harness.providers.target import ANTHROPIC_KIND, ANTHROPIC_VERSION, Provider

MAX_TEXT: Final = 200
MAX_LINES: Final = 2000
ProbeRequest = tuple[str, str]  # provider's name, path


class HttpProviderProbe:
    """Probes providers over HTTP. allowed: entries of `router.allow_addresses`."""

    def __init__(self, clock: Clock, allowed: Collection[str] = ()) -> None:
        self._clock = clock
        self._allowed = allowed
        self._client = GuardedHttpClient(allowed)

    def ask(
        self,
        provider: Provider,
        key: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout_s: float,
        *,
        whole: bool = False,
    ) -> ProbeReply:
        """Sends one request. whole: also reads a stream to its end, for its content."""
        try:
            check_api_base(provider.api_base, self._allowed)
            check_request_headers(provider, key)
        except InputError as error:
            return ProbeReply(None, 0.0, error=str(error))
        content = None if body is None else json.dumps(body).encode()
        hidden = (key, *provider.extra_headers.values())
        started, sent_at = time.perf_counter(), self._clock.now()
        try:
            with self._client.send(
                provider.url(path), _headers(provider, key), content, timeout_s=timeout_s
            ) as answer:
                seconds = time.perf_counter() - started
                skew = _skew_s(answer.headers.get("date"), sent_at, self._clock.now())
                reply = partial(ProbeReply, answer.status, seconds, skew_s=skew)
                if not 200 <= answer.status < 300:
                    return reply(error=f"{answer.status}: {_message(answer, hidden)}")
                if whole or body is None or not body.get("stream"):
                    return reply(answer.read(MAX_REPLY_BYTES))
                first_s, why = _first(answer, started)
                return reply(error=why, first_s=first_s)
        except (OSError, http.client.HTTPException, ValueError) as failed:
            seconds = time.perf_counter() - started
            text = f"{provider.api_base} does not answer: {_reason(failed, hidden)}"
            return ProbeReply(None, seconds, error=text)


def _headers(provider: Provider, key: str) -> dict[str, str]:
    version = (
        {"anthropic-version": ANTHROPIC_VERSION} if provider.kind == ANTHROPIC_KIND else {}
    )
    return {
        "Content-Type": "application/json",
        **provider.key_headers(key),
        **version,
        **provider.extra_headers,
    }


def _first(answer: http.client.HTTPResponse, started: float) -> tuple[float | None, str]:
    came = False
    events = EventPayloads()
    try:
        for _ in range(MAX_LINES):
            line = answer.readline(MAX_REPLY_BYTES)
            # The end of the stream also ends its last event.
            if any(map(is_content_event, events.read(line) if line else events.rest())):
                return time.perf_counter() - started, ""
            if not line:
                return None, "the stream ended"
            came = True
    except TimeoutError:
        if not came:
            raise
        return None, "it took too long"
    return None, "too many lines"


def _skew_s(date: str | None, sent: datetime, came: datetime) -> float | None:
    """Compares the date, in whole seconds, with the middle of the request's time."""
    try:
        theirs = parsedate_to_datetime(date or "").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return (theirs - (sent + (came - sent) / 2)).total_seconds()


def _message(answer: http.client.HTTPResponse, hidden: Sequence[str]) -> str:
    try:
        return error_message(answer.read(MAX_REPLY_BYTES), hidden)
    except (OSError, http.client.HTTPException):
        return "no text"


def error_message(body: bytes, hidden: Sequence[str]) -> str:
    """Extracts a refusal's message. Hides secrets before it cuts, so that no part remains."""
    text = hide_secrets(body, hidden).decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"]["message"])[:MAX_TEXT]
    except (ValueError, LookupError, TypeError):
        return " ".join(text.split())[:MAX_TEXT] or "no text"


def _reason(failed: Exception, hidden: Sequence[str]) -> str:
    """Describes an error without secrets: some errors quote the request or the answer."""
    inner = failed if isinstance(failed, OSError) else getattr(failed, "reason", failed)
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    clean = hide_secrets(text.encode("utf-8", "surrogatepass"), hidden)
    return clean.decode("utf-8", "replace")[:MAX_TEXT]
