"""Finds what a logged request needs of a model, from its body. Pure.

The router reads a client's request itself (`router.request.needs`). A log's body may be cut, so
a need that it does not show is unknown, and a count of needs is a lower bound.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from evals.suites.request_log import LoggedRequest
from harness.providers.models.capabilities import Endpoint, Needs
from harness.routing.provider_side import find_provider_file, find_provider_state

# Types of content parts, by protocol: chat, messages, responses; and Gemini's fields.
_IMAGES: Final = frozenset({"image_url", "image", "input_image"})
_DOCUMENTS: Final = frozenset({"file", "document", "input_file"})
_AUDIO: Final = frozenset({"input_audio", "audio"})
_SCHEMAS: Final = frozenset({"json_schema"})


def find_needs(request: LoggedRequest) -> Needs:
    """Returns a request's needs. The tokens are those that the log counted; 0 if unknown."""
    body = request.body
    kinds = set(_iter_part_types(body.get("messages") or body.get("input")))
    choices = body.get("n")
    return Needs(
        endpoint=_read_endpoint(request.endpoint),
        tools=bool(body.get("tools") or body.get("functions")),
        parallel_tools=body.get("parallel_tool_calls") is True,
        json_schema=_asks_for_schema(body),
        vision=not kinds.isdisjoint(_IMAGES),
        documents=not kinds.isdisjoint(_DOCUMENTS),
        audio=not kinds.isdisjoint(_AUDIO),
        several_choices=isinstance(choices, int) and choices > 1,
        approx_input_tokens=request.input_tokens or 0,
        max_output_tokens=request.output_tokens or 0,
    )


def find_bond(body: Mapping[str, Any]) -> str:
    """Returns why Swapproof asks no copy of a request, as a phrase; empty if it may."""
    return find_provider_state(body.get) or find_provider_file(body)


def _read_endpoint(name: str) -> Endpoint:
    try:
        return Endpoint(name)
    except ValueError:
        return Endpoint.CHAT


def _asks_for_schema(body: Mapping[str, Any]) -> bool:
    text = body.get("text")
    own_format = body.get("response_format")
    formats = (own_format, text.get("format") if isinstance(text, Mapping) else None)
    return any(isinstance(form, Mapping) and form.get("type") in _SCHEMAS for form in formats)


def _iter_part_types(messages: object) -> Iterator[str]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping):
                yield str(part.get("type"))
