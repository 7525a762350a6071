"""Degradation takes the optional fields that a target does not know (seed, reasoning, cache
marks and others) out of a request, and names in `x-swapgate-degraded` what the request lost on
its way (B7).
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from harness.domain.routing.capabilities import Endpoint, OptionalFeature
from harness.domain.routing.plan import RoutePlan
from harness.domain.routing.target import Target
from router.request.body import ClientRequest
from router.request.body_patch import to_json
from router.server.headers import Header
from router.snapshot.compiled import CACHE_MARK, CompiledTarget

_EVERYWHERE: Final[Mapping[OptionalFeature, tuple[str, ...]]] = {
    OptionalFeature.SEED: ("seed",),
    OptionalFeature.LOGPROBS: ("logprobs", "top_logprobs"),
    OptionalFeature.REASONING: ("reasoning_effort", "reasoning"),
    OptionalFeature.CACHING: ("prompt_cache_key", "prompt_cache_retention"),
    OptionalFeature.SERVICE_TIER: ("service_tier",),
    OptionalFeature.TOP_K: ("top_k",),
}
_FIELDS: Final[Mapping[Endpoint, Mapping[OptionalFeature, tuple[str, ...]]]] = {
    Endpoint.CHAT: _EVERYWHERE,
    Endpoint.RESPONSES: _EVERYWHERE,
    Endpoint.MESSAGES: {
        **_EVERYWHERE,
        OptionalFeature.REASONING: ("thinking", "reasoning_effort"),
    },
    Endpoint.EMBEDDINGS: {},
}
# Of a response's `include`, what no model without it has.
_INCLUDED: Final = {
    OptionalFeature.REASONING: "reasoning.",
    OptionalFeature.LOGPROBS: "logprobs",
}


def given_fields(
    request: ClientRequest, among: Collection[OptionalFeature]
) -> tuple[OptionalFeature, ...]:
    """Lists which of these fields the client gives, in a fixed order."""
    fields = _FIELDS[request.endpoint]
    return tuple([hint for hint in fields if hint in among and _gives(request, hint, fields)])


def feature_fields(endpoint: Endpoint, among: Collection[OptionalFeature]) -> frozenset[str]:
    """Lists the members of a request without which it gives none of these fields, but for
    cache marks.
    """
    names = {name for hint in among for name in _FIELDS[endpoint].get(hint, ())}
    if endpoint is Endpoint.MESSAGES and OptionalFeature.REASONING in among:
        names.add("output_config")
    return frozenset(names)


def without_fields(
    body: bytes, endpoint: Endpoint, hints: Collection[OptionalFeature], target: Target
) -> bytes:
    """Removes optional fields from a body. body: as the target would see it. What the target
    itself sets stays.
    """
    own = {*target.parameters, *target.request_patch.parameters}
    asked: dict[str, Any] = json.loads(body)
    for hint in hints:
        for name in _FIELDS[endpoint][hint]:
            if name not in own:
                asked.pop(name, None)
        if hint in _INCLUDED and isinstance(asked.get("include"), list):
            word = _INCLUDED[hint]
            asked["include"] = [
                option for option in asked["include"] if word not in str(option)
            ]
    if OptionalFeature.REASONING in hints and isinstance(asked.get("output_config"), dict):
        asked["output_config"].pop("effort", None)
        if not asked["output_config"]:
            del asked["output_config"]
    if OptionalFeature.CACHING in hints:
        _unmark(asked)
    return to_json(asked).encode()


def _gives(
    request: ClientRequest,
    hint: OptionalFeature,
    fields: Mapping[OptionalFeature, tuple[str, ...]],
) -> bool:
    if hint is OptionalFeature.CACHING and CACHE_MARK in request.text:
        return True
    if hint is OptionalFeature.REASONING and request.endpoint is Endpoint.MESSAGES:
        thinking, config = request.value("thinking"), request.value("output_config")
        if isinstance(thinking, dict) and thinking.get("type") == "disabled":
            return False
        if isinstance(config, dict) and config.get("effort"):
            return True
    get = request.members.get
    for name in fields[hint]:  # noqa: SIM110 - a generator takes a call for each
        if get(name) is not None:
            return True
    return False


def _unmark(value: object) -> None:
    """Take the marks out of the places that they may stand in; a tool's schema is none."""
    if isinstance(value, list):
        for item in value:
            _unmark(item)
    elif isinstance(value, dict):
        value.pop("cache_control", None)
        for name in ("system", "messages", "tools", "content", "input", "function"):
            if isinstance(value.get(name), list | dict) and not _is_data(value, name):
                _unmark(value[name])


def _is_data(value: Mapping[str, object], name: str) -> bool:
    """A call's arguments are the client's own."""
    return name == "input" and value.get("type") == "tool_use"


NAME: Final = b"x-swapgate-degraded"
SERIALIZED: Final = "parallel_tool_calls"
MOST_FIELDS: Final = 20
_FIELD: Final = re.compile(r"[A-Za-z0-9_.-]{1,96}")


def dropped_fields(
    request: ClientRequest, upstream: CompiledTarget
) -> tuple[OptionalFeature, ...]:
    """The hints that the target does not get, of those that the client gives."""
    lacks = upstream.lacks[request.endpoint]
    return given_fields(request, lacks) if lacks else ()


def degradation_header(
    plan: RoutePlan,
    request: ClientRequest,
    upstream: CompiledTarget | None,
    dropped: Sequence[str] = (),
) -> tuple[Header, ...]:
    """Names, in one header, what the request lost on its way; returns none where it lost
    nothing. upstream: who answered, None while nobody did. dropped: fields that a translation
    left behind.
    """
    names: list[str] = []
    if is_serializing_tools(plan, request):
        names.append(SERIALIZED)
    if upstream is not None and (hints := dropped_fields(request, upstream)):
        names += (hint.value for hint in hints)
    if dropped:
        # A client may have named them: not every name can stand in a header.
        names += islice((name for name in dropped if _FIELD.fullmatch(name)), MOST_FIELDS)
    return ((NAME, ", ".join(dict.fromkeys(names)).encode()),) if names else ()


def is_serializing_tools(plan: RoutePlan, request: ClientRequest) -> bool:
    """Tools are called one at a time, since a target cannot do otherwise."""
    return plan.serialize_tools and not request.serial_tools
