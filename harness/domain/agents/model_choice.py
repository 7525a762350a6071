"""A model choice is what an agent or a session is told to answer with: a route, `auto` for a
route, or a literal target, which needs a person's grant. Pure.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.domain.errors import InputError

AUTO: Final = "auto"
# No route's name begins with it: what the router calls a literal target.
LITERAL_MARK: Final = "@"


class ModelKind(StrEnum):
    """AUTO: the cheapest target with valid proof for the route. LITERAL: one target, which has
    no proof for any route.
    """

    ROUTE = "route"
    AUTO = "auto"
    LITERAL = "literal"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model as it was asked for, and what that means."""

    text: str  # as the client wrote it, such as `openai:gpt-4o-mini`
    kind: ModelKind
    route: str = ""  # of ROUTE and AUTO
    target: str = ""  # of LITERAL, `provider/model`

    @property
    def is_literal(self) -> bool:
        return self.kind is ModelKind.LITERAL

    def means(self, other: "ModelChoice") -> bool:
        """Whether both are the same, whatever they were called."""
        own = (self.kind, self.route, self.target)
        return own == (other.kind, other.route, other.target)


def parse_routed_choice(
    text: str, routes: Collection[str], *, default_route: str = ""
) -> ModelChoice | None:
    """The choice of a route or of `auto`; None where the name is neither: it may be a literal
    target. Raises InputError for an empty text, and for an `auto` without a route or with one
    that there is not. default_route: of a plain `auto`.
    """
    wanted = text.strip()
    if not wanted:
        raise InputError("model: it is empty; name a route, auto:ROUTE or PROVIDER:MODEL")
    if wanted in routes:
        return ModelChoice(wanted, ModelKind.ROUTE, route=wanted)
    head, colon, rest = wanted.partition(":")
    if head != AUTO:
        return None
    route = rest if colon else default_route
    if not route:
        raise InputError("model: auto needs a route to choose for; write auto:ROUTE")
    if route not in routes:
        raise InputError(f"model: {wanted!r} names the route {route!r}, which there is not")
    return ModelChoice(wanted, ModelKind.AUTO, route=route)


def literal_choice(text: str, target: str) -> ModelChoice:
    """The choice of one target. target: `provider/model`, as the name was resolved."""
    return ModelChoice(text.strip(), ModelKind.LITERAL, target=target)


def literal_route_name(target: str) -> str:
    """What the router calls the route that has this target alone."""
    return f"{LITERAL_MARK}{target}"
