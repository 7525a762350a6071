"""Sends one short question to a target, for `swapproof model probe`. Like the router, it uses
no proxy and follows no redirect, so that a key reaches only its provider.

It asks the provider directly, without a route, a record or a budget.
"""

import asyncio
import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from evals.runner.chat_completions import (
    MalformedReply,
    parse_reply,
    request_body,
)
from harness.frame.errors import InputError, NoAnswer
from harness.frame.plain_data import read_object
from harness.frame.runtime.clock import SystemClock
from harness.frame.sse import EventPayloads
from harness.providers.api_base_rules import check_api_base
from harness.providers.calls.probe import (
    KEY_REFUSED_STATUSES,
    MAX_TEXT,
    PROBE_QUESTION,
    HttpProviderProbe,
    ProbeReply,
    error_message,
)
from harness.providers.credential import ProviderKey
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.capabilities import NATIVE, Endpoint
from harness.providers.ports import Posted
from harness.providers.target import Provider, Target

# Enough tokens for a model that thinks before it answers.
_MAX_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class NativeProbe:
    """A question for one endpoint. events: by event type, the members that it must have."""

    path: str
    body: Mapping[str, object]
    events: Mapping[str, tuple[str, ...]]


NATIVE_PROBES: Final[Mapping[Endpoint, NativeProbe]] = {
    Endpoint.RESPONSES: NativeProbe(
        "/responses",
        {"input": PROBE_QUESTION, "max_output_tokens": _MAX_TOKENS},
        {
            "response.created": ("response.id",),
            "response.output_item.added": ("output_index", "item.type"),
            "response.output_text.delta": (
                "output_index",
                "content_index",
                "item_id",
                "delta",
            ),
            "response.output_item.done": ("output_index", "item.type"),
            "response.completed": (
                "response.id",
                "response.output",
                "response.usage.input_tokens",
                "response.usage.output_tokens",
            ),
        },
    ),
    Endpoint.MESSAGES: NativeProbe(
        "/messages",
        {
            "messages": [{"role": "user", "content": PROBE_QUESTION}],
            "max_tokens": _MAX_TOKENS,
        },
        {
            "message_start": ("message.id", "message.usage.input_tokens"),
            "content_block_start": ("index", "content_block.type"),
            "content_block_delta": ("index", "delta.type"),
            "content_block_stop": ("index",),
            "message_delta": ("delta.stop_reason", "usage.output_tokens"),
            "message_stop": (),
        },
    ),
}


def find_gap(endpoint: Endpoint, stream: bytes) -> str:
    """Returns the first event or member that a stream of this endpoint lacks; empty if it is
    complete.
    """
    rules = NATIVE_PROBES[endpoint].events
    seen_kinds = set[str]()
    payloads = EventPayloads()
    for payload in (*payloads.read(stream), *payloads.rest()):
        event = read_object(payload) or {}
        kind = str(event.get("type"))
        seen_kinds.add(kind)
        for path in rules.get(kind, ()):
            if not _has_member(event, path):
                return f"its `{kind}` has no `{path}`"
    return next((f"it sends no `{kind}`" for kind in rules if kind not in seen_kinds), "")


def count_numbers(answer: bytes) -> int:
    """Returns the length of the first vector of an embeddings answer; 0 without a vector."""
    data = (read_object(answer) or {}).get("data")
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    return len(vector) if isinstance(vector, list) else 0


def format_model_line(model: str, form_by_endpoint: Mapping[Endpoint, str]) -> str:
    """Returns the line that `swapproof.yaml` needs for a model; empty if it needs no line."""
    forms_text = ", ".join(
        f"{endpoint.value}: {form}" for endpoint, form in form_by_endpoint.items()
    )
    return f"models: {{{json.dumps(model)}: {{{forms_text}}}}}" if forms_text else ""


def _has_member(event: Mapping[str, Any], path: str) -> bool:
    place: Any = event
    for name in path.split("."):
        place = place.get(name) if isinstance(place, dict) else None
    return place is not None


CHAT_PATH: Final = "/chat/completions"
EMBEDDINGS_PATH: Final = "/embeddings"
# The statuses, and the texts of a status 400, by which servers refuse a chat with an embedding
# model.
_NO_CHAT: Final = (404, 405, 501)
_SAYS_NO_CHAT: Final = re.compile(r"\bchat|\bllm\b|\bcompletion|\bgenerat", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of a probe. error: empty if the target answered."""

    target: str
    ok: bool
    status: int | None
    latency_ms: float  # from the request to the answer's end
    served_model: str = ""
    answer: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""
    # Maps an endpoint of a local server (Responses, Messages) to the part that its stream
    # lacks; to an empty text if it is complete.
    native: Mapping[str, str] = field(default_factory=dict)
    declare: str = ""  # the provider's configuration line that turns these endpoints on


def probe_target(
    provider: Provider,
    target: Target,
    *,
    key: ProviderKey | None = None,
    timeout_s: float = 60.0,
    allowed: Collection[str] = (),
) -> Probe:
    """Sends a short question to a target.

    Args:
        allowed: see `check_api_base`.
    """
    messages = [{"role": "user", "content": PROBE_QUESTION}]
    body = request_body(provider.as_sent(target), messages, {})
    probe_client = HttpProviderProbe(SystemClock(), allowed)
    secret = key.secret if key else ""
    kind = PROVIDER_KINDS.get(provider.kind)
    started = time.perf_counter()
    # Uses the router's code for adapted kinds, because it can translate and describes failures.
    if kind is not None and Endpoint.CHAT in kind.adapted:
        payload = json.dumps(body).encode()
        reply = _ask_through_router_code(provider, secret, payload, timeout_s, allowed)
    else:
        reply = probe_client.ask(provider, secret, CHAT_PATH, body, timeout_s)
        reply = replace(reply, seconds=time.perf_counter() - started)
    parsed_reply = None
    error = _describe_error(provider, key, reply)
    if not error:
        try:
            parsed_reply = parse_reply(reply.content)
        except MalformedReply as malformed:
            error = str(malformed)
    if reply.status in _NO_CHAT or (reply.status == 400 and _SAYS_NO_CHAT.search(error)):
        embeddings_probe = _probe_embeddings(
            probe_client, provider, target, key, timeout_s, error
        )
        if embeddings_probe is not None:
            return embeddings_probe
    unanswered = _build_probe(target, reply, error=error)
    if parsed_reply is None:
        return unanswered
    # Asks each endpoint of a local server once, to find missing parts.
    gaps = {}
    is_local = kind is not None and kind.group is ProviderGroup.LOCAL
    for endpoint, probe in NATIVE_PROBES.items() if is_local else ():
        question = {
            **probe.body,
            "model": target.model,
            "stream": True,
        }
        endpoint_reply = probe_client.ask(
            provider, secret, probe.path, question, timeout_s, whole=True
        )
        gaps[endpoint] = _describe_error(provider, key, endpoint_reply) or find_gap(
            endpoint, endpoint_reply.content
        )
    complete_endpoints = {endpoint: NATIVE for endpoint, gap in gaps.items() if not gap}
    return replace(
        unanswered,
        ok=True,
        served_model=parsed_reply.served.label,
        answer=parsed_reply.text[:MAX_TEXT],
        input_tokens=parsed_reply.input_tokens,
        output_tokens=parsed_reply.output_tokens,
        native={endpoint.value: gap for endpoint, gap in gaps.items()},
        declare=format_model_line(target.model, complete_endpoints),
    )


def _build_probe(
    target: Target,
    reply: ProbeReply,
    *,
    error: str,
) -> Probe:
    latency_ms = round(reply.seconds * 1000, 1)
    return Probe(target.name, False, reply.status, latency_ms, error=error)  # noqa: FBT003


def _probe_embeddings(
    probe_client: HttpProviderProbe,
    provider: Provider,
    target: Target,
    key: ProviderKey | None,
    timeout_s: float,
    refusal: str,
) -> Probe | None:
    """Asks for a vector. Returns None if the target gives no vector.

    Args:
        refusal: the provider's answer to the chat.
    """
    kind = PROVIDER_KINDS.get(provider.kind)
    if kind is None or Endpoint.EMBEDDINGS not in kind.speaks:
        return None
    body = {"model": target.model, "input": PROBE_QUESTION}
    reply = probe_client.ask(
        provider, key.secret if key else "", EMBEDDINGS_PATH, body, timeout_s
    )
    numbers = count_numbers(reply.content)
    if not numbers:
        return None
    other_endpoints: list[Endpoint] = [
        e for e in Endpoint if e in kind.speaks and e is not Endpoint.EMBEDDINGS
    ]
    form_by_endpoint = (
        dict.fromkeys(other_endpoints, "false") if provider.can(target.model).chat else {}
    )
    return replace(
        _build_probe(target, reply, error=""),
        ok=True,
        answer=f"a vector of {numbers:,} numbers, but no chat ({refusal})",
        declare=format_model_line(target.model, form_by_endpoint),
    )


def _describe_error(
    provider: Provider,
    key: ProviderKey | None,
    reply: ProbeReply,
) -> str:
    """Returns the provider's error. For a refused key, names the key and the next step."""
    if reply.status not in KEY_REFUSED_STATUSES:
        return reply.error
    if key is None:
        step = f"`swapproof provider key set {provider.name}`"
        return f"{reply.status}: the provider wants a key: {step}"
    return f"{reply.status}: the provider refuses our key (from {key.name})"


def _ask_through_router_code(
    provider: Provider,
    secret: str,
    body: bytes,
    timeout_s: float,
    allowed: Collection[str],
) -> ProbeReply:
    """Asks a provider whose protocol the router translates. Raises ConfigError if the
    translation is not installed.
    """
    try:
        check_api_base(provider.api_base, allowed)
    except InputError as refused:
        return ProbeReply(None, 0.0, error=str(refused))
    from router.upstream.transports import ProviderClient  # noqa: PLC0415 - not for all

    calls = ProviderClient(
        provider,
        secret or None,
        connections=1,
        timeout_s=timeout_s,
        allowed=allowed,
    )

    async def post() -> Posted:
        try:
            return await calls.post(CHAT_PATH, body)
        finally:
            await calls.close()

    started = time.perf_counter()
    try:
        reply = asyncio.run(post())
    except NoAnswer as failed:
        reason = f"{provider.api_base} does not answer: {failed}"
        return ProbeReply(None, time.perf_counter() - started, error=reason)
    seconds = time.perf_counter() - started
    if reply.status == 200:
        return ProbeReply(reply.status, seconds, reply.body)
    message = error_message(reply.body, (secret, *provider.extra_headers.values()))
    return ProbeReply(reply.status, seconds, error=f"{reply.status}: {message}")
