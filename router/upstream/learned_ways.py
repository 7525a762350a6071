"""Remembers which models refuse tools beside reasoning by chat, and which lack Responses.

Facts of one worker, each with an end: then a request goes out as it is, and tests the fact.
`tool_ways` learns them from replies and reads them before requests.
"""

from collections.abc import Callable
from typing import Final

from harness.routing.reliability.repair_memory import FIRST_WAIT_S, KEPT_S
from router.frame.limits import BoundedMap

# The most models in memory.
KEPT: Final = 2048
# The provider's name, and the maker or the model.
ModelPlace = tuple[str, str]


class ToolWays:
    """The learned facts by model. monotonic: a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # By model, the end of the fact, in seconds.
        self._refusing: BoundedMap[ModelPlace, float] = BoundedMap(KEPT)
        self._absent: BoundedMap[ModelPlace, float] = BoundedMap(KEPT)

    def refuses_chat(self, place: ModelPlace) -> bool:
        """Returns whether the model refused tools beside reasoning by chat."""
        return self._counts(self._refusing.get(place))

    def has_responses(self, place: ModelPlace) -> bool:
        """Returns whether the model may serve Responses: unless it did not lately."""
        return not self._counts(self._absent.get(place))

    def note_refusal(self, place: ModelPlace) -> None:
        self._refusing.put(place, self._monotonic() + KEPT_S)

    def note_absence(self, place: ModelPlace) -> None:
        self._absent.put(place, self._monotonic() + FIRST_WAIT_S)

    def _counts(self, until_s: float | None) -> bool:
        return until_s is not None and self._monotonic() < until_s
