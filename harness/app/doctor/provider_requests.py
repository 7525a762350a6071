"""Sends one small real request to a provider, so that a person sees whether it works: its list
of models (`models`), or a short question to a target (`chat`). Used by `doctor` and `model
probe`.

As the router does, it uses no proxy and follows no redirect: a key goes to its provider alone.
"""

import asyncio
import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from evals.runner.chat_completions import MalformedReply, parse_reply, request_body
from harness.domain.errors import InputError, NoAnswer
from harness.domain.providers.api_base_rules import check_api_base
from harness.domain.providers.credentials import ProviderKey, hide_provider_secrets
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.providers.native_probe import find_gap, native_requests, proposed_line
from harness.domain.providers.probe import models_path
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Provider, Target
from harness.ports import Posted
from harness.runtime.clock import SystemClock
from harness.runtime.outbound.provider_probe import HttpProviderProbe

QUESTION = "Reply with the one word: ready"
MAX_TEXT = 200
CHAT_PATH: Final = "/chat/completions"
_NO_KEY: Final = (401, 403)


@dataclass(frozen=True, slots=True)
class Call:
    """Holds what came back from one request to a provider."""

    status: int | None  # None when nothing did
    seconds: float
    content: bytes
    error: str  # empty for a success


@dataclass(frozen=True, slots=True)
class Probe:
    """Says how one short question to a target went."""

    target: str
    ok: bool
    status: int | None
    latency_ms: float  # until the whole answer was there
    served_model: str
    answer: str
    input_tokens: int | None
    output_tokens: int | None
    error: str
    # Of a local server, what its own Responses and Messages lack; empty for a whole one.
    native: Mapping[str, str] = field(default_factory=dict)
    declare: str = ""  # the line for its provider that has them asked


def unset_keys(provider: Provider) -> list[str]:
    """Lists the environment variables that a provider names and that are empty or not there."""
    return [name for name in provider.key_envs if not os.environ.get(name)]


def models(
    provider: Provider,
    *,
    key: ProviderKey | None = None,
    timeout_s: float = 5.0,
    allowed: Collection[str] = (),
) -> Call:
    """Asks for the provider's list of models, which tells whether it is reachable and takes the
    key.

    allowed: as `check_api_base` reads it.
    """
    return _call(provider, key, models_path(provider.kind), None, timeout_s, allowed)


def chat(
    provider: Provider,
    target: Target,
    *,
    key: ProviderKey | None = None,
    timeout_s: float = 60.0,
    allowed: Collection[str] = (),
) -> Probe:
    """Asks a target a short question, with its parameters and its request patch."""
    sent = request_body(provider.as_sent(target), [{"role": "user", "content": QUESTION}], {})
    kind = PROVIDER_KINDS.get(provider.kind)
    # By the router's own way, which alone has words for them.
    adapted = kind is not None and Endpoint.CHAT in kind.adapted
    ask = _translated if adapted else _call
    call = ask(provider, key, CHAT_PATH, sent, timeout_s, allowed)
    reply, error = None, call.error
    if not error:
        try:
            reply = parse_reply(call.content)
        except MalformedReply as malformed:
            error = str(malformed)
    return Probe(
        target=target.name,
        ok=reply is not None,
        status=call.status,
        latency_ms=round(call.seconds * 1000, 1),
        served_model=reply.served.label if reply else "",
        answer=reply.text[:MAX_TEXT] if reply else "",
        input_tokens=reply.input_tokens if reply else None,
        output_tokens=reply.output_tokens if reply else None,
        error=error,
    )


def with_native(
    found: Probe,
    provider: Provider,
    target: Target,
    *,
    key: ProviderKey | None = None,
    timeout_s: float = 60.0,
    allowed: Collection[str] = (),
) -> Probe:
    """A probe that was answered, with what a local server's own endpoints answer: each is asked
    once.
    """
    gaps: dict[Endpoint, str] = {}
    for endpoint, path, sent in native_requests(provider, target.model) if found.ok else ():
        call = _call(provider, key, path, sent, timeout_s, allowed, whole=True)
        gaps[endpoint] = call.error or find_gap(endpoint, call.content)
    whole = [endpoint for endpoint, gap in gaps.items() if not gap]
    return replace(
        found,
        native={endpoint.value: gap for endpoint, gap in gaps.items()},
        declare=proposed_line(target.model, whole),
    )


def _translated(
    provider: Provider,
    key: ProviderKey | None,
    path: str,
    sent: Mapping[str, Any] | None,
    timeout_s: float,
    allowed: Collection[str],
) -> Call:
    """As `_call`. Raises ConfigError where what translates is not installed."""
    from harness.app.eval_workers import provider_calls  # noqa: PLC0415 - the doctor needs none

    try:
        check_api_base(provider.api_base, allowed)
    except InputError as refused:
        return Call(None, 0.0, b"", str(refused))
    calls = provider_calls(
        provider,
        key.secret if key else None,
        connections=1,
        timeout_s=timeout_s,
        allowed=allowed,
    )

    async def posted() -> Posted:
        try:
            return await calls.post(path, json.dumps(sent).encode())
        finally:
            await calls.close()

    started = time.perf_counter()
    try:
        found = asyncio.run(posted())
    except NoAnswer as failed:
        why = f"{provider.api_base} does not answer: {failed}"
        return Call(None, time.perf_counter() - started, b"", why)
    seconds = time.perf_counter() - started
    if found.status == 200:
        return Call(found.status, seconds, found.body, "")
    said = found.body.decode("utf-8", "replace")
    return Call(found.status, seconds, b"", _status_text(provider, key, found.status, said))


def _call(
    provider: Provider,
    key: ProviderKey | None,
    path: str,
    sent: Mapping[str, Any] | None,
    timeout_s: float,
    allowed: Collection[str],
    *,
    whole: bool = False,
) -> Call:
    started = time.perf_counter()
    heard = HttpProviderProbe(SystemClock(), allowed).ask(
        provider, key.secret if key else "", path, sent, timeout_s, whole=whole
    )
    seconds = time.perf_counter() - started
    refused = heard.status in _NO_KEY
    error = _no_key(provider, key, heard.status) if refused else heard.error
    return Call(heard.status, seconds, heard.content, error)


def _status_text(provider: Provider, key: ProviderKey | None, status: int, text: str) -> str:
    if status in _NO_KEY:
        return _no_key(provider, key, status)
    # Some repeat what they were sent. Before it is cut: half a key is one, too.
    hidden = hide_provider_secrets(text.encode(), provider, key).decode()
    return f"{status}: {_message(hidden)}"


def _no_key(provider: Provider, key: ProviderKey | None, status: int | None) -> str:
    place = key.name if key else f"none: `swapgate provider key set {provider.name}`"
    return f"{status}: the provider refuses our key (from {place})"


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])[:MAX_TEXT]
    except (ValueError, LookupError, TypeError):
        return " ".join(text.split())[:MAX_TEXT] or "no text"
