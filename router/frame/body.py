"""Reads the fields of a client's JSON body that routing needs; the body stays unchanged.

It edits the text, so that all other bytes reach the provider as the client sent them.
`json_spans` finds the places. `router.protocols` knows the meaning of each protocol's fields.
"""

import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from harness.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import RequestTarget
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import (
    JsonSpan,
    ParsedObject,
    TextEdit,
    apply_edits,
    parse_object,
)

# Paths below a provider's `api_base`, which ends in `/v1`.
CHAT_PATH: Final = "/chat/completions"
MESSAGES_PATH: Final = "/messages"
RESPONSES_PATH: Final = "/responses"
# Up to Python 3.11, the lookup of an enum's member takes ten times as long.
_CHAT: Final = Endpoint.CHAT
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS


@dataclass(slots=True)
class ClientRequest:
    """A parsed body, as all parts of the router read it.

    text: the body as text. model: the name that the client asks for, usually a route's.
    """

    text: str
    members: ParsedObject
    model: str
    stream: bool
    wants_usage: bool  # a chat's client asked for usage in its stream
    endpoint: Endpoint = _CHAT

    def value(self, name: str) -> object:
        """Returns a member of the body; None if it is null or absent."""
        return self.members.get(name)

    def with_kinds_limit(self, kind: str) -> "ClientRequest":
        """Renames a chat's output limit to the field that the provider kind reads.

        Returns the request unchanged if the body has that field.
        """
        limit = PROVIDER_KINDS[kind].answer_limit
        if limit is None or self.endpoint is not _CHAT or limit.value in self.members:
            return self
        for name in AnswerLimit:
            if name.value in self.members:
                members = self.members.renamed(name.value, limit.value)
                return replace(self, text=members.text, members=members)
        return self

    @property
    def serial_tools(self) -> bool:
        """Whether the client itself forbids parallel tool calls, in any of the protocols."""
        choice = self.value("tool_choice")
        return self.value("parallel_tool_calls") is False or (
            isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True
        )


class FieldError(InputError):
    """The body is JSON, but a field has an impossible value. param: the field."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


def read_request(body: bytes, endpoint: Endpoint) -> ClientRequest:
    """Reads a body. Raises InputError for bad JSON, a missing model or a bad `stream`.

    The error is a FieldError if one field is at fault. Embeddings never stream.
    """
    members = parse_object(body)
    get = members.get
    model = get("model")
    if not isinstance(model, str) or not model:
        raise FieldError("model", "`model` must name a route; GET /v1/models lists yours")
    if endpoint is _EMBEDDINGS:
        return ClientRequest(members.text, members, model, False, False, endpoint)  # noqa: FBT003
    streams = get("stream")
    options = get("stream_options")
    if not isinstance(streams, bool | None):
        raise FieldError("stream", "`stream` must be true or false")
    usage = isinstance(options, dict) and options.get("include_usage") is True
    return ClientRequest(members.text, members, model, bool(streams), usage, endpoint)


NO_NAMES: Final[Mapping[str, str]] = {}


def model_alone(request: ClientRequest, target: RequestTarget) -> bytes | None:
    """Replaces only the model. Returns None if its place is not obvious."""
    return request.members.with_text("model", _quote_model(target.model))


def model_edit(request: ClientRequest, target: RequestTarget) -> TextEdit:
    """Returns the edit that writes the target's model. Raises ValueError if the body has no
    model.
    """
    model = request.members.text_place("model")
    if model is None:
        raise ValueError("the request has no `model`")
    return TextEdit(model.start, model.end, _quote_model(target.model))


@lru_cache(maxsize=1024)
def _quote_model(model: str) -> str:
    return to_json(model)


def setting_edits(
    request: ClientRequest,
    target: RequestTarget,
    reserved: Collection[str],
    names: Mapping[str, str] = NO_NAMES,
) -> dict[str, object]:
    """Returns the top-level fields to set: the target's defaults, then its patch.

    Args:
        reserved: fields of the routing, which a target's parameters cannot change.
        names: the endpoint's name of a parameter, if it differs.
    """
    if not target.parameters and not target.request_patch.parameters:
        return {}
    values = request.members.values
    defaults = {names.get(name, name): value for name, value in target.parameters.items()}
    patch = {names.get(k, k): v for k, v in target.request_patch.parameters.items()}
    changes = {name: value for name, value in defaults.items() if name not in values}
    changes.update(patch)
    # A null has no effect unless it replaces a value.
    return {
        name: value
        for name, value in changes.items()
        if name not in reserved and (value is not None or name in values)
    }


def field_edits(request: ClientRequest, new_fields: Mapping[str, object]) -> list[TextEdit]:
    """Returns the edits that set top-level fields: replaced in place, or added at the end."""
    if not new_fields:
        return []
    members = request.members
    close = members.close
    edits = [
        TextEdit(
            members.values[name].start,
            members.values[name].end,
            to_json(value),
        )
        for name, value in new_fields.items()
        if name in members
    ]
    additions = "".join(
        f",{to_json(name)}:{to_json(value)}"
        for name, value in new_fields.items()
        if name not in members
    )
    return [*edits, TextEdit(close, close, additions)]


def append_members(content: JsonSpan, addendum: str) -> list[TextEdit]:
    """Returns the edits that add a text to a system prompt: a text, a list of parts, or
    null.
    """
    last = content.end - 1  # before the closing quote or bracket
    if isinstance(content.value, str):
        return [TextEdit(last, last, to_json(f"\n\n{addendum}")[1:-1])]
    if isinstance(content.value, list):
        part = to_json({"type": "text", "text": addendum})
        return [TextEdit(last, last, ("," if content.value else "") + part)]
    return [TextEdit(content.start, content.end, to_json(addendum))]


def patched_body(
    request: ClientRequest,
    target: RequestTarget,
    new_fields: dict[str, object],
    rules: str,
) -> bytes:
    """Writes the patched body.

    Args:
        rules: the system prompt's field, which gets the addendum.
    """
    addendum = target.request_patch.prompt_addendum
    addendum_edits = []
    rules_span = request.members.values.get(rules) if addendum else None
    if addendum and rules_span is None:
        new_fields[rules] = addendum
    elif rules_span is not None and rules not in new_fields:
        addendum_edits = append_members(rules_span, addendum)
    edits = [
        model_edit(request, target),
        *field_edits(request, new_fields),
        *addendum_edits,
    ]
    return apply_edits(request.text, edits)


def to_json(value: object) -> str:
    """Writes a value as compact JSON in ASCII. Infinity becomes the largest finite number."""
    # ASCII only: JSON may contain a lone surrogate as an escape, which UTF-8 cannot encode.
    try:
        return _dumps(value)
    except ValueError:
        return _dumps(_replace_infinity(value))


def _dumps(value: object) -> str:
    return json.dumps(
        value,
        separators=(",", ":"),
        allow_nan=False,
        default=_to_plain_dict,
    )


def _replace_infinity(value: object) -> object:
    """Replaces infinity by the largest finite number. Python reads JSON's 1e999 as infinity,
    which JSON does not allow.
    """
    if isinstance(value, float) and math.isinf(value):
        return math.copysign(sys.float_info.max, value)
    if isinstance(value, Mapping):
        return {name: _replace_infinity(item) for name, item in value.items()}
    return (
        [_replace_infinity(item) for item in value]
        if isinstance(value, list | tuple)
        else value
    )


def _to_plain_dict(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def first_object(members: ParsedObject, name: str) -> Mapping[object, object]:
    """Returns the first object of a list. Raises UpstreamFailed for a list without objects."""
    member = members.get(name)
    if not isinstance(member, list) or not member or not isinstance(member[0], dict):
        problem = "an error" if "error" in members else f"no {name}"
        raise UpstreamFailed(FailureClass.MALFORMED, f"status 200 with {problem}")
    return member[0]


def empty_answer_error(reason: str) -> UpstreamFailed:
    """Builds the failure for an answer without content.

    Args:
        reason: the protocol's field that would explain it.
    """
    return UpstreamFailed(
        FailureClass.MALFORMED,
        f"status 200 without content and without a {reason}",
    )


def iter_objects(value: object) -> Iterator[Mapping[str, object]]:
    """Yields a list's objects; yields nothing for any other value."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def list_objects(value: object) -> list[dict[str, Any]]:
    """Returns a list's objects, which the caller may change. Empty for other values."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
