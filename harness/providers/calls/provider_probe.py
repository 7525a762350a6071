"""Asks a provider one small question over HTTP, bounded in time and size; keys are taken out of
errors. For provider checks.
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
    """Probes providers over HTTP. allowed: as `api_base_rules.check_api_base` reads it."""

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
        """Sends one question. whole: also a stream is read to its end, for its content."""
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
            said = f"{provider.api_base} does not answer: {_reason(failed, hidden)}"
            return ProbeReply(None, seconds, error=said)


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
            # The stream's end is the end of its last event, too.
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
    """Against the middle of the time that it took; a date has whole seconds."""
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
    """A refusal in words. Secrets are hidden before it is cut: half a key is one, too."""
    said = hide_secrets(body, hidden).decode("utf-8", "replace")
    try:
        return str(json.loads(said)["error"]["message"])[:MAX_TEXT]
    except (ValueError, LookupError, TypeError):
        return " ".join(said.split())[:MAX_TEXT] or "no text"


def _reason(failed: Exception, hidden: Sequence[str]) -> str:
    """Some errors quote what could not be sent, or the odd line that came."""
    inner = failed if isinstance(failed, OSError) else getattr(failed, "reason", failed)
    said = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    clean = hide_secrets(said.encode("utf-8", "surrogatepass"), hidden)
    return clean.decode("utf-8", "replace")[:MAX_TEXT]
