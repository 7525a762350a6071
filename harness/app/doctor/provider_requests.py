"""Sends one short real question to a target, so that a person sees whether it works, and to a
local server's own endpoints; a target without chats is asked for an embedding:
`swapgate model probe`.

As the router does, it uses no proxy and follows no redirect: a key goes to its provider alone.
"""

import asyncio
import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from evals.runner.chat_completions import MalformedReply, parse_reply, request_body
from harness.app.eval_workers import provider_calls
from harness.domain.errors import InputError, NoAnswer
from harness.domain.providers.api_base_rules import check_api_base
from harness.domain.providers.credentials import ProviderKey
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.providers.native_probe import (
    count_numbers,
    declare_no_chat,
    find_gap,
    native_requests,
    proposed_line,
)
from harness.domain.providers.probe import KEY_REFUSED_STATUSES, PROBE_QUESTION, ProbeReply
from harness.domain.routing.capabilities import NATIVE, Endpoint
from harness.domain.routing.target import Provider, Target
from harness.ports import Posted
from harness.runtime.clock import SystemClock
from harness.runtime.outbound.provider_probe import MAX_TEXT, HttpProviderProbe, error_message

CHAT_PATH: Final = "/chat/completions"
EMBEDDINGS_PATH: Final = "/embeddings"
# How servers refuse a chat of a model that makes embeddings.
_NO_CHAT: Final = (404, 405, 501)
_SAYS_NO_CHAT: Final = re.compile(r"\bchat|\bllm\b|\bcompletion|\bgenerat", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Probe:
    """Says how one short question to a target went."""

    target: str
    ok: bool
    status: int | None
    latency_ms: float  # until the whole answer was there
    served_model: str = ""
    answer: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""
    # Of a local server, what its own Responses and Messages lack; empty for a whole one.
    native: Mapping[str, str] = field(default_factory=dict)
    declare: str = ""  # the line for its provider that has them asked


def chat(
    provider: Provider,
    target: Target,
    *,
    key: ProviderKey | None = None,
    timeout_s: float = 60.0,
    allowed: Collection[str] = (),
) -> Probe:
    """Asks a target a short question, with its parameters and its request patch.

    allowed: as `check_api_base` reads it.
    """
    messages = [{"role": "user", "content": PROBE_QUESTION}]
    body = request_body(provider.as_sent(target), messages, {})
    door = HttpProviderProbe(SystemClock(), allowed)
    kind, started = PROVIDER_KINDS.get(provider.kind), time.perf_counter()
    # By the router's own way, which alone has words for them.
    if kind is not None and Endpoint.CHAT in kind.adapted:
        sent = json.dumps(body).encode()
        found = _translated(provider, _secret(key), sent, timeout_s, allowed)
    else:
        found = door.ask(provider, _secret(key), CHAT_PATH, body, timeout_s)
        found = replace(found, seconds=time.perf_counter() - started)
    reply, error = None, _error_text(provider, key, found)
    if not error:
        try:
            reply = parse_reply(found.content)
        except MalformedReply as malformed:
            error = str(malformed)
    if found.status in _NO_CHAT or (found.status == 400 and _SAYS_NO_CHAT.search(error)):
        embedded = _embedded(door, provider, target, key, timeout_s, error)
        if embedded is not None:
            return embedded
    failed = _probe(target, found, error=error)
    if reply is None:
        return failed
    # What a local server's own endpoints lack: each is asked once.
    gaps = {}
    for endpoint, path, question in native_requests(provider, target.model):
        own = door.ask(provider, _secret(key), path, question, timeout_s, whole=True)
        gaps[endpoint] = _error_text(provider, key, own) or find_gap(endpoint, own.content)
    whole = {endpoint: NATIVE for endpoint, gap in gaps.items() if not gap}
    return replace(
        failed,
        ok=True,
        served_model=reply.served.label,
        answer=reply.text[:MAX_TEXT],
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        native={endpoint.value: gap for endpoint, gap in gaps.items()},
        declare=proposed_line(target.model, whole),
    )


def _probe(target: Target, found: ProbeReply, *, error: str) -> Probe:
    latency_ms = round(found.seconds * 1000, 1)
    return Probe(target.name, False, found.status, latency_ms, error=error)  # noqa: FBT003


def _secret(key: ProviderKey | None) -> str:
    return key.secret if key else ""


def _embedded(
    door: HttpProviderProbe,
    provider: Provider,
    target: Target,
    key: ProviderKey | None,
    timeout_s: float,
    refusal: str,
) -> Probe | None:
    """The probe of a target without chats; None for one that makes no embeddings either.
    refusal: the provider's words about the chat.
    """
    kind = PROVIDER_KINDS.get(provider.kind)
    if kind is None or Endpoint.EMBEDDINGS not in kind.speaks:
        return None
    body = {"model": target.model, "input": PROBE_QUESTION}
    found = door.ask(provider, _secret(key), EMBEDDINGS_PATH, body, timeout_s)
    numbers = count_numbers(found.content)
    if not numbers:
        return None
    ways = declare_no_chat(provider.kind) if provider.can(target.model).chat else {}
    return replace(
        _probe(target, found, error=""),
        ok=True,
        answer=f"a vector of {numbers:,} numbers, but no chat ({refusal})",
        declare=proposed_line(target.model, ways),
    )


def _error_text(provider: Provider, key: ProviderKey | None, found: ProbeReply) -> str:
    if found.status not in KEY_REFUSED_STATUSES:
        return found.error
    place = key.name if key else f"none: `swapgate provider key set {provider.name}`"
    return f"{found.status}: the provider refuses our key (from {place})"


def _translated(
    provider: Provider, secret: str, body: bytes, timeout_s: float, allowed: Collection[str]
) -> ProbeReply:
    """Raises ConfigError where the code that translates is not installed."""
    try:
        check_api_base(provider.api_base, allowed)
    except InputError as refused:
        return ProbeReply(None, 0.0, error=str(refused))
    calls = provider_calls(
        provider, secret or None, connections=1, timeout_s=timeout_s, allowed=allowed
    )

    async def posted() -> Posted:
        try:
            return await calls.post(CHAT_PATH, body)
        finally:
            await calls.close()

    started = time.perf_counter()
    try:
        found = asyncio.run(posted())
    except NoAnswer as failed:
        why = f"{provider.api_base} does not answer: {failed}"
        return ProbeReply(None, time.perf_counter() - started, error=why)
    seconds = time.perf_counter() - started
    if found.status == 200:
        return ProbeReply(found.status, seconds, found.body)
    said = error_message(found.body, (secret, *provider.extra_headers.values()))
    return ProbeReply(found.status, seconds, error=f"{found.status}: {said}")
