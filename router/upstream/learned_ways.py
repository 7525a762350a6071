"""Remembers which models refuse tools beside reasoning by chat, and which lack Responses.

Facts of one worker, each with an end: then a request goes out as it is, and tests the fact.
`tool_ways` learns them from replies and reads them before requests.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from harness.routing.reliability.repair_memory import FIRST_WAIT_S, KEPT_S
from router.frame.limits import BoundedMap

# The most models in memory.
KEPT: Final = 2048
# The provider's name, and the maker or the model.
ModelPlace = tuple[str, str]


class AbsentEndpoint(NamedTuple):
    """A model without Responses. target: `provider/model`. until_s: the fact's end."""

    target: str
    until_s: float


class ToolWays:
    """The learned facts by model. monotonic: a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # By model, the end of the fact, in seconds.
        self._refusing: BoundedMap[ModelPlace, float] = BoundedMap(KEPT)
        self._absent: BoundedMap[ModelPlace, AbsentEndpoint] = BoundedMap(KEPT)

    def refuses_chat(self, place: ModelPlace) -> bool:
        """Returns whether the model refused tools beside reasoning by chat."""
        until_s = self._refusing.get(place)
        return until_s is not None and self._monotonic() < until_s

    def has_responses(self, place: ModelPlace) -> bool:
        """Returns whether the model may serve Responses: unless it did not lately."""
        absent = self._absent.get(place)
        return absent is None or self._monotonic() >= absent.until_s

    def without_responses(self) -> Sequence[str]:
        """Returns the targets that get chats with tools without their effort."""
        now_s = self._monotonic()
        return [absent.target for absent in self._absent.values() if now_s < absent.until_s]

    def note_refusal(self, place: ModelPlace) -> None:
        self._refusing.put(place, self._monotonic() + KEPT_S)

    def note_absence(self, place: ModelPlace, target: str) -> None:
        """Notes that a model lacks Responses. target: `provider/model`."""
        self._absent.put(place, AbsentEndpoint(target, self._monotonic() + FIRST_WAIT_S))
