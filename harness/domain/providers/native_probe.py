"""A native probe asks a local server's own Responses or Messages endpoint for a short streamed
answer, and proposes the line for the registry where that is whole. Pure.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness.domain.plain_data import read_object
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.domain.providers.probe import PROBE_QUESTION
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Provider
from harness.domain.sse import EventPayloads

# Enough for a model that thinks first.
_MOST_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class NativeProbe:
    """One endpoint's question, and what a whole answer has. events: the members of each type,
    which must come.
    """

    path: str
    body: Mapping[str, object]
    events: Mapping[str, tuple[str, ...]]


NATIVE_PROBES: Final[Mapping[Endpoint, NativeProbe]] = {
    Endpoint.RESPONSES: NativeProbe(
        "/responses",
        {"input": PROBE_QUESTION, "max_output_tokens": _MOST_TOKENS},
        {
            "response.created": ("response.id",),
            "response.output_item.added": ("output_index", "item.type"),
            "response.output_text.delta": ("output_index", "content_index", "item_id", "delta"),
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
            "max_tokens": _MOST_TOKENS,
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


def native_requests(
    provider: Provider, model: str
) -> Iterator[tuple[Endpoint, str, dict[str, Any]]]:
    """Yields endpoint, path and body of each question; none for a kind that is not local."""
    kind = PROVIDER_KINDS.get(provider.kind)
    if kind is None or kind.group is not ProviderGroup.LOCAL:
        return
    for endpoint, probe in NATIVE_PROBES.items():
        yield endpoint, probe.path, {**probe.body, "model": model, "stream": True}


def find_gap(endpoint: Endpoint, stream: bytes) -> str:
    """Says what a streamed answer lacks; empty for a whole one."""
    rules, came = NATIVE_PROBES[endpoint].events, set[str]()
    payloads = EventPayloads()
    for payload in (*payloads.read(stream), *payloads.rest()):
        event = read_object(payload) or {}
        kind = str(event.get("type"))
        came.add(kind)
        for path in rules.get(kind, ()):
            if not _has(event, path):
                return f"its `{kind}` has no `{path}`"
    return next((f"it sends no `{kind}`" for kind in rules if kind not in came), "")


def count_numbers(answer: bytes) -> int:
    """Counts the numbers of the first vector in an answer with embeddings; 0 without one."""
    data = (read_object(answer) or {}).get("data")
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    return len(vector) if isinstance(vector, list) else 0


def declare_no_chat(kind: str) -> Mapping[Endpoint, str]:
    """What to say of a model that makes embeddings alone."""
    spoken = PROVIDER_KINDS[kind].speaks
    return {e: "false" for e in Endpoint if e in spoken and e is not Endpoint.EMBEDDINGS}


def proposed_line(model: str, ways: Mapping[Endpoint, str]) -> str:
    """The line for a provider in `swapgate.yaml`; empty where there is nothing to say."""
    said = ", ".join(f"{endpoint.value}: {way}" for endpoint, way in ways.items())
    return f"models: {{{json.dumps(model)}: {{{said}}}}}" if said else ""


def _has(event: Mapping[str, Any], path: str) -> bool:
    place: Any = event
    for name in path.split("."):
        place = place.get(name) if isinstance(place, dict) else None
    return place is not None
