"""`ChatWay` is what a translation into a chat must know of the target, and what it leaves
behind.
"""

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
