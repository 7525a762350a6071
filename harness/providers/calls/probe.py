"""Checks a provider by two HTTP requests, bounded in time and size: its list of models, and a
small streamed chat. Errors contain no keys.

`HttpProviderProbe` sends single requests; the other functions are pure and turn replies into
findings. A finding tells whether something works, never how well a model answers.
`harness.providers.registry.registered_providers` chooses the providers to check.
"""

import http.client
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from harness.frame.formatting import format_milliseconds, format_span
from harness.frame.ports import Clock
from harness.frame.sse import EventPayloads
from harness.providers.api_base_rules import check_api_base
from harness.providers.calls.guarded_http import (
    GuardedHttpClient,
    check_request_headers,
)
from harness.providers.credential import hide_secrets
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.capabilities import Endpoint
from harness.providers.models.end_dates import parse_end_headers
from harness.providers.models.listed_ends import (
    describe_unknown_fields,
    find_unknown_fields,
)
from harness.providers.models.model_ends import EndDates
from harness.providers.oauth import OAUTH_ENDPOINTS, key_command
from harness.providers.target import (
    ANTHROPIC_KIND,
    ANTHROPIC_VERSION,
    Provider,
    Target,
)

PROBE_QUESTION: Final = "Reply with the one word: ready"
KEY_REFUSED_STATUSES: Final = (401, 403)
# Without these queries, the providers list only a few models per page.
_WHOLE_LIST: Final = {"anthropic": "?limit=1000", "gemini": "?pageSize=1000"}
# Providers refuse signed requests and tokens if the clocks differ by minutes. Swapproof warns
# earlier.
MAX_SKEW_S: Final = 30.0
MAX_REPLY_BYTES: Final = 4 * 1024 * 1024  # the probe ignores the rest of an answer
_MESSAGES_TOKENS: Final = 64
_RETIRED: Final = (
    "check its spelling; if it is retired, propose another with `swapproof proposal create`"
)
_UNREAD: Final = (
    "they may state the ends of models: compare them with the provider's page of deprecations, "
    "and write `end_date` under `catalogue:` in the file"
)


class ProbeStatus(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class ProbeSubject(StrEnum):
    """The subjects of a probe, in the order in which they depend on one another."""

    KEY = "key"
    REACHABLE = "reachable"
    SERVER = "server"  # the health of a server of your own
    LIST = "list of models"
    MODEL = "model"
    CONTEXT = "context"
    FIRST_TOKEN = "first token"  # noqa: S105 - no secret
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class ProbeFinding:
    """The result for one subject, with the next step for people."""

    subject: ProbeSubject
    status: ProbeStatus
    found: str
    next_step: str = ""  # empty without a step


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """A provider's reply to one request. Times are seconds."""

    status: int | None  # None without an answer
    seconds: float  # until the head of the answer
    content: bytes = b""
    error: str = ""  # for people, without secrets
    first_s: float | None = None  # until a stream's first content
    skew_s: float | None = None  # the provider's clock minus ours; None if it sends no date
    # The class of an error answer, also inside status 200; None without an error, or if this
    # process cannot classify errors.
    failure: FailureClass | None = None
    # The end of the model, by the headers of a good answer of the model; None if the request
    # asked no model, or a header is malformed.
    ends: EndDates | None = None


# Returns the class of a whole answer, by status and body; None for an answer without an error.
FailureClassifier = Callable[[int, bytes], FailureClass | None]


@dataclass(frozen=True)
class ProviderCheck:
    """All findings about a provider. ok: no finding failed."""

    provider: str
    kind: str
    target: str | None  # the called target; None if no target was called
    ok: bool
    findings: tuple[ProbeFinding, ...]
    at: datetime  # when the check ended


def streamed_probe_request(
    provider: Provider, target: Target
) -> tuple[str, dict[str, Any]] | None:
    """Builds path and body of a small request to a target; None if only the router speaks its
    protocol.

    The body has the target's own parameters, so that a refused parameter shows. A model without
    chat gets a request for an embedding, which cannot be streamed.
    """
    kind = PROVIDER_KINDS.get(provider.kind)
    native_endpoints = kind.speaks if kind is not None else frozenset()
    adapted_target = provider.as_sent(target)
    fields = {**adapted_target.parameters, **adapted_target.request_patch.parameters}
    body = {
        **{name: value for name, value in fields.items() if value is not None},
        "model": target.model,
        "messages": [{"role": "user", "content": PROBE_QUESTION}],
        "stream": True,
    }
    if not provider.can(target.model).chat and Endpoint.EMBEDDINGS in native_endpoints:
        return "/embeddings", {
            "model": target.model,
            "input": PROBE_QUESTION,
        }
    if Endpoint.CHAT in native_endpoints:
        return "/chat/completions", body
    if Endpoint.MESSAGES in native_endpoints:
        return "/messages", {"max_tokens": _MESSAGES_TOKENS, **body}
    return None


def list_serving_requests(
    provider: Provider, target: Target
) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Lists small requests, as pairs of a path and a body, that show whether a provider still
    serves a target.

    The first request is to the endpoint that the target most likely has. Empty for a kind
    whose protocol only the router speaks.
    """
    kind = PROVIDER_KINDS.get(provider.kind)
    native_endpoints = kind.speaks if kind is not None else frozenset()
    chat_request = streamed_probe_request(provider, target)
    embedding_request = {"model": target.model, "input": PROBE_QUESTION}
    requests: dict[str, Mapping[str, Any]] = dict(
        [chat_request] if chat_request is not None else []
    )
    if Endpoint.RESPONSES in native_endpoints:
        requests.setdefault(
            "/responses",
            {
                **embedding_request,
                "stream": True,
                "store": False,
            },
        )
    if Endpoint.EMBEDDINGS in native_endpoints:
        requests.setdefault("/embeddings", embedding_request)
    return list(requests.items())


def is_content_event(data: bytes) -> bool:
    """Tells whether a stream's event has content of an answer, not only a role or a ping."""
    try:
        event = json.loads(data)
        event_type = str(event.get("type") or "")
        if event_type == "content_block_delta":
            return True
        if event_type.startswith("response.") and event_type.endswith(".delta"):
            return True
        delta = event["choices"][0]["delta"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return any(value for name, value in delta.items() if name != "role")


def probe_findings(
    provider: Provider,
    target: Target | None,
    models: ProbeReply,
    chat: ProbeReply | None,
    routed_models: Collection[str] = (),
) -> Iterator[ProbeFinding]:
    """Yields a probe's findings.

    Args:
        routed_models: the provider's models that routes use.
    """
    yield _reachable(provider, models)
    if models.status is None:
        return
    yield _key(provider, models, chat)
    if fields := find_unknown_fields(_parse_entries(models.content)):
        found = f"it has fields that Swapproof cannot read: {describe_unknown_fields(fields)}"
        yield ProbeFinding(ProbeSubject.LIST, ProbeStatus.WARN, found, _UNREAD)
    if target is not None:
        yield _model(target, models, chat)
        listed = parse_model_list(models.content)
        others = {*routed_models} - {target.model}
        unlisted = sorted(model for model in others if not is_listed(model, listed))
        if listed and unlisted:
            found = f"it does not list {', '.join(unlisted)}, which routes use"
            yield ProbeFinding(ProbeSubject.MODEL, ProbeStatus.WARN, found, _RETIRED)
    yield _first_token(target, chat)
    yield _clock(models, chat)


def missing_key_finding(provider: Provider) -> ProbeFinding:
    """Builds the finding of a provider that needs a key and has none."""
    found = "it has no key"
    step = f"`{key_command(provider.name, provider.kind)}`"
    if provider.key_envs:
        found = f"{found}: {', '.join(provider.key_envs)} not set"
        step = f"{step}, or set {provider.key_envs[0]}, e.g. in .env"
    found = f"{found}; its targets get no requests"
    return ProbeFinding(ProbeSubject.KEY, ProbeStatus.FAIL, found, step)


def _reachable(provider: Provider, models: ProbeReply) -> ProbeFinding:
    if models.status is None:
        advice = "check whether it runs"
        kind = PROVIDER_KINDS.get(provider.kind)
        if kind is not None and kind.group is ProviderGroup.SIMULATED:
            advice = f"`swapproof sim --port {urlsplit(provider.api_base).port}` starts it"
        step = f"{advice}, or `swapproof provider set {provider.name} --api-base URL`"
        return ProbeFinding(ProbeSubject.REACHABLE, ProbeStatus.FAIL, models.error, step)
    found = f"answers after {format_milliseconds(models.seconds * 1000)}"
    return ProbeFinding(ProbeSubject.REACHABLE, ProbeStatus.OK, found)


def _key(
    provider: Provider,
    models: ProbeReply,
    chat: ProbeReply | None,
) -> ProbeFinding:
    """Judges whether the provider accepts the key, by the statuses of both replies."""
    statuses = [reply.status for reply in (models, chat) if reply is not None]
    if refused_statuses := [status for status in statuses if status in KEY_REFUSED_STATUSES]:
        signs_in = provider.kind in OAUTH_ENDPOINTS
        advice = "signs in again" if signs_in else "with a valid key"
        step = f"`{key_command(provider.name, provider.kind)}` {advice}"
        found = f"{refused_statuses[0]}: it refuses our key"
        return ProbeFinding(ProbeSubject.KEY, ProbeStatus.FAIL, found, step)
    if any(status is not None and 200 <= status < 300 for status in statuses):
        return ProbeFinding(ProbeSubject.KEY, ProbeStatus.OK, "accepted")
    found = f"status {statuses[0]} does not show whether the key is accepted"
    return ProbeFinding(ProbeSubject.KEY, ProbeStatus.UNKNOWN, found)


def _model(
    target: Target,
    models: ProbeReply,
    chat: ProbeReply | None,
) -> ProbeFinding:
    """Judges whether the provider knows the target's model. An answer proves more than
    a list.
    """
    if chat is not None and chat.status == 200:
        return ProbeFinding(ProbeSubject.MODEL, ProbeStatus.OK, f"{target.model} answers")
    if chat is not None and chat.status == 404:
        found = f"it does not know {target.model}: {chat.error}"
        return ProbeFinding(ProbeSubject.MODEL, ProbeStatus.FAIL, found, _RETIRED)
    listed = parse_model_list(models.content)
    if listed and not is_listed(target.model, listed):
        found = f"it does not list {target.model} among {len(listed)} models"
        return ProbeFinding(ProbeSubject.MODEL, ProbeStatus.WARN, found, _RETIRED)
    if listed:
        return ProbeFinding(ProbeSubject.MODEL, ProbeStatus.OK, f"{target.model} is listed")
    return ProbeFinding(ProbeSubject.MODEL, ProbeStatus.UNKNOWN, "it lists no models")


def _first_token(target: Target | None, chat: ProbeReply | None) -> ProbeFinding:
    """Judges the small chat.

    Args:
        chat: None if it was not sent.
    """
    subject = ProbeSubject.FIRST_TOKEN
    if target is None:
        step = "`swapproof model add PROVIDER/MODEL` adds a target"
        return ProbeFinding(subject, ProbeStatus.UNKNOWN, "it has no target", step)
    if chat is None:
        found = "only the router speaks its protocol"
        return ProbeFinding(subject, ProbeStatus.UNKNOWN, found, "send a request to its route")
    if chat.first_s is not None:
        found = f"after {format_milliseconds(chat.first_s * 1000)}"
        return ProbeFinding(subject, ProbeStatus.OK, found)
    if chat.status == 200:
        step = (
            f"`swapproof model probe {target.provider}/{target.model}` shows the whole answer"
        )
        return ProbeFinding(subject, ProbeStatus.WARN, f"no content came: {chat.error}", step)
    return ProbeFinding(subject, ProbeStatus.FAIL, chat.error, _step(chat.status))


def _step(status: int | None) -> str:
    """Returns the next step after a chat failed with a status."""
    match status:
        case 429:
            return "your rate limit or quota is used up: wait, or ask the provider for more"
        case 402:
            return "top up the account with the provider"
        case None:
            return "it did not answer in time: check the provider's status page"
        case _ if status >= 500:
            return "the provider fails: check its status page"
        case _:
            return (
                "fix the target's parameters or the provider's `extra_body`; declare "
                "`chat: false` for a model that only makes embeddings"
            )


def _clock(models: ProbeReply, chat: ProbeReply | None) -> ProbeFinding:
    """Compares our clock with the provider's: some signatures and tokens depend on both."""
    skews_s = [reply.skew_s for reply in (models, chat) if reply is not None]
    skew_s = next((value for value in skews_s if value is not None), None)
    if skew_s is None:
        return ProbeFinding(ProbeSubject.CLOCK, ProbeStatus.UNKNOWN, "it sends no date")
    if abs(skew_s) > MAX_SKEW_S:
        found = f"ours is {format_span(abs(skew_s))} {'behind' if skew_s > 0 else 'ahead'}"
        step = "set this machine's clock (NTP): signatures and expiries depend on it"
        return ProbeFinding(ProbeSubject.CLOCK, ProbeStatus.WARN, found, step)
    return ProbeFinding(
        ProbeSubject.CLOCK,
        ProbeStatus.OK,
        f"within {MAX_SKEW_S:g} s of ours",
    )


def models_path(kind: str) -> str:
    """Returns the path of a kind's whole list of models."""
    return f"/models{_WHOLE_LIST.get(kind, '')}"


def parse_model_list(content: bytes) -> set[str]:
    """Reads the names in a list of models; empty for another content."""
    names = map(listed_name, _parse_entries(content))
    return {name for name in names if isinstance(name, str)}


def _parse_entries(content: bytes) -> Sequence[object]:
    """Returns the entries of a list of models; empty for another content."""
    try:
        document = json.loads(content)
        entries = document.get("data") or document["models"]
    except (ValueError, LookupError, AttributeError, RecursionError):
        return ()
    return entries if isinstance(entries, list) else ()


def listed_name(entry: object) -> object:
    """Returns a listed model's name. Google's names lose their prefix `models/`. In other lists
    this prefix is part of a file's path.
    """
    if not isinstance(entry, Mapping):
        return None
    name = entry.get("id", entry.get("name"))
    is_googles = "id" not in entry or entry.get("owned_by") == "google"
    return name.removeprefix("models/") if is_googles and isinstance(name, str) else name


def is_listed(model: str, names: Collection[object]) -> bool:
    """Tells whether a list has a model. Ollama lists `NAME:latest`, and also accepts `NAME`."""
    return model in names or f"{model}:latest" in names


MAX_TEXT: Final = 200
MAX_LINES: Final = 2000
ProbeRequest = tuple[str, str]  # provider's name, path


class HttpProviderProbe:
    """Probes providers over HTTP. allowed: entries of `router.allow_addresses`. classify:
    without it, `ProbeReply.failure` of error answers stays None.
    """

    def __init__(
        self,
        clock: Clock,
        allowed: Collection[str] = (),
        classify: FailureClassifier | None = None,
    ) -> None:
        self._clock = clock
        self._classify = classify
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
        head_only: bool = False,
    ) -> ProbeReply:
        """Sends one request. Never raises: the reply has the error, without secrets.

        Args:
            body: None for a GET.
            whole: reads a stream to its end, for its content, instead of only up to its first
                content.
            head_only: reads no body of a good answer.
        """
        try:
            check_api_base(provider.api_base, self._allowed)
            check_request_headers(provider, key)
        except InputError as refusal_error:
            return ProbeReply(None, 0.0, error=str(refusal_error))
        request_body = None if body is None else json.dumps(body).encode()
        secrets = (key, *provider.extra_headers.values())
        started = time.perf_counter()
        sent_at = self._clock.now()
        try:
            with self._client.send(
                provider.url(path),
                _headers(provider, key),
                request_body,
                timeout_s=timeout_s,
            ) as answer:
                seconds = time.perf_counter() - started
                skew = _skew_s(answer.headers.get("date"), sent_at, self._clock.now())
                ends = _read_ends(answer) if body is not None else None
                reply = partial(ProbeReply, answer.status, seconds, skew_s=skew, ends=ends)
                if not 200 <= answer.status < 300:
                    refusal = _read_refusal(answer)
                    text = f"{answer.status}: {error_message(refusal, secrets)}"
                    return reply(
                        error=text,
                        failure=self._classify_answer(answer.status, refusal),
                    )
                if whole or body is None:
                    return reply(b"" if head_only else answer.read(MAX_REPLY_BYTES))
                if not body.get("stream"):
                    request_body = answer.read(MAX_REPLY_BYTES)
                    return reply(
                        request_body,
                        failure=self._classify_answer(answer.status, request_body),
                    )
                first = _read_first_content(answer, started)
                failure = first.failure or self._classify_answer(answer.status, first.answer)
                reason = first.why
                if failure is not None and first.answer is not None:
                    reason = error_message(first.answer, secrets)
                return reply(error=reason, first_s=first.seconds, failure=failure)
        except (OSError, http.client.HTTPException, ValueError) as failed:
            seconds = time.perf_counter() - started
            text = f"{provider.api_base} does not answer: {_reason(failed, secrets)}"
            return ProbeReply(None, seconds, error=text)

    def reach(
        self,
        provider: Provider,
        key: str,
        timeout_s: float,
    ) -> ProbeReply:
        """Asks for the list of models, and reads only the head of the answer, because some
        lists have megabytes.
        """
        return self.ask(provider, key, "/models", None, timeout_s, head_only=True)

    def _classify_answer(self, status: int, body: bytes | None) -> FailureClass | None:
        """Classifies an answer.

        Args:
            body: None for the beginning of a stream.
        """
        if self._classify is None or body is None:
            return None
        return self._classify(status, body)


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


@dataclass(frozen=True, slots=True)
class _FirstContent:
    """The beginning of an answer to a request for a stream."""

    seconds: float | None = None  # until its first content; None if no content came
    why: str = ""  # why no content came
    failure: FailureClass | None = None
    # A whole answer or an error in place of the stream's content; None for a stream.
    answer: bytes | None = None


def _read_first_content(answer: http.client.HTTPResponse, started: float) -> _FirstContent:
    """Reads a stream up to its first content, or the whole answer that comes in its place."""
    if answer.headers.get_content_type() == "application/json":
        return _FirstContent(why="it ignored `stream`", answer=answer.read(MAX_REPLY_BYTES))
    has_line = False
    events = EventPayloads()
    try:
        for _ in range(MAX_LINES):
            line = answer.readline(MAX_REPLY_BYTES)
            # The end of the stream also ends its last event.
            for event in events.read(line) if line else events.rest():
                if is_content_event(event):
                    return _FirstContent(time.perf_counter() - started)
                if error := _error_event(event):
                    return _FirstContent(why="an error came", answer=error)
            if not line:
                return _FirstContent(why="the stream ended", failure=FailureClass.EMPTY)
            has_line = True
    except TimeoutError:
        if not has_line:
            raise
        return _FirstContent(why="it took too long", failure=FailureClass.TIMEOUT)
    return _FirstContent(why="too many lines", failure=FailureClass.MALFORMED)


def _error_event(data: bytes) -> bytes:
    """Returns an error event's error, as an error answer's body; empty without one."""
    try:
        event = json.loads(data)
        error = event.get("error") or (event.get("response") or {}).get("error")
    except (ValueError, AttributeError, RecursionError):
        return b""
    return json.dumps({"error": error}).encode() if error else b""


def _skew_s(
    date_header: str | None,
    sent_at: datetime,
    answered_at: datetime,
) -> float | None:
    """Returns the provider's clock minus ours, in seconds; None without a valid date header.
    Assumes that the provider wrote the date halfway between `sent_at` and `answered_at`.
    """
    try:
        provider_time = parsedate_to_datetime(date_header or "").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return (provider_time - (sent_at + (answered_at - sent_at) / 2)).total_seconds()


def _read_ends(answer: http.client.HTTPResponse) -> EndDates | None:
    """Reads the end of a model from the headers of its answer; None for an error answer, and if
    a header is malformed.
    """
    if not 200 <= answer.status < 300:
        return None
    headers = [
        (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in answer.headers.items()
    ]
    dates, malformed = parse_end_headers(headers)
    return None if malformed else dates


def _read_refusal(answer: http.client.HTTPResponse) -> bytes:
    """Reads the body of a refusal; empty if it does not arrive."""
    try:
        return answer.read(MAX_REPLY_BYTES)
    except (OSError, http.client.HTTPException):
        return b""


def error_message(body: bytes, secrets: Sequence[str]) -> str:
    """Extracts a refusal's message. Hides secrets before it shortens the text, so that no part
    of a secret remains.
    """
    text = hide_secrets(body, secrets).decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        message = str(error["message"]) if isinstance(error, dict) else error
        return message[:MAX_TEXT] or "no text"
    except (ValueError, LookupError, TypeError, RecursionError):
        return " ".join(text.split())[:MAX_TEXT] or "no text"


def _reason(error: Exception, secrets: Sequence[str]) -> str:
    """Describes an error without secrets: some errors quote the request or the answer."""
    cause = error if isinstance(error, OSError) else getattr(error, "reason", error)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    clean = hide_secrets(text.encode("utf-8", "surrogatepass"), secrets)
    return clean.decode("utf-8", "replace")[:MAX_TEXT]
