"""Overrides send one kind of request, such as vision, to another route (D6). Pure."""

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Final

from harness.frame.errors import InputError, NotAllowed, NotFound, SwapgateError
from harness.providers.target import DataClasses, is_at_least_as_strict


class RequestKind(StrEnum):
    """The router recognises each kind but SUBAGENT, which the client must declare."""

    SUBAGENT = "subagent"
    VISION = "vision"
    IMAGE = "image"
    VIDEO = "video"
    EMBEDDING = "embedding"


Overrides = Mapping[RequestKind, str]
NO_OVERRIDES: Final[Overrides] = {}
# A request of several kinds takes the first one here that has an override. Fewer models take
# the earlier kinds: a model that takes video also takes pictures, but not the reverse.
KIND_PRECEDENCE: Final = (
    RequestKind.EMBEDDING,
    RequestKind.IMAGE,
    RequestKind.VIDEO,
    RequestKind.VISION,
)


def choose_kind(
    overrides: Overrides, declared: RequestKind | None, kinds: Collection[RequestKind]
) -> RequestKind | None:
    """Chooses the kind whose override answers. The caller's declaration takes precedence."""
    if declared is not None:
        return declared if declared in overrides else None
    found = (kind for kind in KIND_PRECEDENCE if kind in kinds and kind in overrides)
    return next(found, None)


def format_overrides(overrides: Overrides) -> str:
    return ", ".join(
        f"{kind.value}={overrides[kind]}" for kind in RequestKind if kind in overrides
    )


def override_errors(
    route: str, overrides: Overrides, carried: Mapping[str, str], classes: DataClasses
) -> Iterator[tuple[RequestKind, SwapgateError]]:
    """Yields the errors of overrides, by kind. carried: route to its data class."""
    for kind, other in overrides.items():
        about = f"route {route!r}: the override for {kind.value}"
        if other == route:
            yield kind, InputError(f"{about} names the route itself: leave it out")
        elif other not in carried:
            words = f"{about} names {other!r}, which does not exist: create that route first"
            yield kind, NotFound(words)
        elif not is_at_least_as_strict(classes, carried[other], than=carried[route]):
            own = f"carries {carried[other]} data" if carried[other] else "has no data class"
            words = (
                f"{about} names {other!r}, which {own}. {route!r} carries {carried[route]} "
                f"data, and some providers that may serve {other!r} may not see it: give "
                f"{other!r} a data class as strict, or remove the override"
            )
            yield kind, NotAllowed(words)
