"""What a request lost on its way to the target that answered: `x-swapgate-degraded` (B7)."""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

from harness.domain.routing.degradation import OptionalFeature
from harness.domain.routing.plan import RoutePlan
from router.request.body import ClientRequest
from router.request.optional_fields import given_fields
from router.snapshot.compiled import CompiledTarget, Header

NAME: Final = b"x-swapgate-degraded"
SERIALIZED: Final = "parallel_tool_calls"
MOST_FIELDS: Final = 20
_FIELD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


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
    dropped: Iterable[str] = (),
) -> tuple[Header, ...]:
    """One header, or none. upstream: who answered, None while nobody did. dropped: fields that
    a translation left behind.
    """
    names: list[str] = []
    if is_serializing_tools(plan, request):
        names.append(SERIALIZED)
    if upstream is not None:
        names += (hint.value for hint in dropped_fields(request, upstream))
    # A client may have named them: not every name can stand in a header.
    names += islice((each for each in dropped if _FIELD.fullmatch(each)), MOST_FIELDS)
    return ((NAME, ", ".join(dict.fromkeys(names)).encode()),) if names else ()


def is_serializing_tools(plan: RoutePlan, request: ClientRequest) -> bool:
    """Tools are called one at a time, since a target cannot do otherwise."""
    return plan.serialize_tools and not request.serial_tools
