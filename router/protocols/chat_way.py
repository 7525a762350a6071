"""`ChatWay` is what a translation into a chat must know of the target, and what it leaves
behind.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class ChatWay:
    """The way of one request into a chat. limit_field: what the provider calls the output's
    limit. maker: gets its own reasoning back; empty without one. dropped: names of what was
    left out or said otherwise.
    """

    limit_field: str = "max_tokens"
    maker: str = ""
    dropped: dict[str, None] = field(default_factory=dict)

    def without(
        self, request: Mapping[str, object], worded: Collection[str], absent: Collection[str]
    ) -> dict[str, object]:
        """Returns the fields that a chat has as they are. worded: those that it says
        otherwise. absent: those that it has no place for, which are named.
        """
        self.dropped |= {name: None for name in request if name in absent and request[name]}
        return {n: v for n, v in request.items() if n not in worded and n not in absent}
