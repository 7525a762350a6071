"""What a request lost on its way to the target that answered: `x-swapgate-degraded` (B7)."""

from typing import Final

from harness.domain.degradation import Hint
from harness.domain.plan import Plan
from router.body import ClientRequest
from router.hints import given
from router.serving import Header, Upstream

NAME: Final = b"x-swapgate-degraded"
SERIALIZED: Final = "parallel_tool_calls"


def dropped_for(request: ClientRequest, upstream: Upstream) -> tuple[Hint, ...]:
    """The hints that the target does not get, of those that the client gives."""
    lacks = upstream.lacks[request.endpoint]
    return given(request, lacks) if lacks else ()


def degraded(
    plan: Plan, request: ClientRequest, upstream: Upstream | None
) -> tuple[Header, ...]:
    """One header, or none. upstream: who answered, None while nobody did."""
    names: list[str] = []
    if serializes(plan, request):
        names.append(SERIALIZED)
    if upstream is not None:
        names += (hint.value for hint in dropped_for(request, upstream))
    return ((NAME, ", ".join(names).encode()),) if names else ()


def serializes(plan: Plan, request: ClientRequest) -> bool:
    """Tools are called one at a time, since a target cannot do otherwise."""
    return plan.serialize_tools and not request.serial_tools
