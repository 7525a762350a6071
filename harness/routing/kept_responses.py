"""The items of a route's Responses answers, which Swapproof keeps so that later requests can
refer to them. Pure.

A route keeps them if its setting `responses_state` is on. `router.conversation.kept_history`
cuts a history into pieces and joins them again; ADR 47 gives the reasons.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from harness.frame.errors import InputError

# Limits of the time for which Swapproof keeps a history: 1 minute to 30 days, like OpenAI.
LEAST_STATE_H: Final = 1 / 60
MOST_STATE_H: Final = 720.0
OFF: Final = "off"
_HOURS: Final = {"m": 1 / 60, "h": 1.0, "d": 24.0}
_TIME: Final = re.compile(r"(\d{1,5})([mhd])")


@dataclass(frozen=True, slots=True)
class KeptPiece:
    """An item of a conversation's history, or an answer's list of such items.

    caller: a keyed hash of the API key, the data class and the user that the request names; a
    request finds only pieces of its own caller. id: of an item, computed from its content; of a
    name, the answer's or the output item's id, as the client knows it.
    content: `item`, with its `maker` (`router.conversation.intake`); or an item's `piece`; or
    an answer's `history`, which lists the ids of its pieces.
    """

    caller: str
    id: str
    at: datetime
    expires_at: datetime
    route: str
    data_class: str
    user_hash: str  # HMACs of the users that the request names, separated by spaces
    size: int  # bytes of the content
    content: Mapping[str, Any] = field(repr=False)


def parse_state_time(text: str) -> float:
    """Parses `24h`, `90m`, `7d` or `off` into hours; 0 for off. Raises InputError."""
    if text in ("", OFF):
        return 0.0
    match = _TIME.fullmatch(text)
    if match is None:
        raise InputError(f"responses_state: {text!r} is not a time: write 90m, 24h, 7d or off")
    return int(match[1]) * _HOURS[match[2]]


def format_state_time(hours: float) -> str:
    """Writes the time for people; `off` for 0."""
    return f"{hours:g} h" if hours else OFF
