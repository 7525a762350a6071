"""Remembers which models refuse tools beside reasoning by chat, and which lack Responses.

A worker keeps these facts for a limited time. After it, the worker sends a request unchanged,
which tests the fact. `tool_ways` learns the facts from replies and reads them before requests.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from harness.routing.reliability.repair_memory import FIRST_WAIT_S, KEPT_S
from router.frame.limits import BoundedMap

# The most models in memory.
MOST_MODELS: Final = 2048
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
        self._chat_refusal_ends: BoundedMap[ModelPlace, float] = BoundedMap(MOST_MODELS)
        self._absent_endpoints: BoundedMap[ModelPlace, AbsentEndpoint] = BoundedMap(MOST_MODELS)

    def refuses_chat(self, place: ModelPlace) -> bool:
        """Returns whether the model refused tools beside reasoning by chat."""
        until_s = self._chat_refusal_ends.get(place)
        return until_s is not None and self._monotonic() < until_s

    def has_responses(self, place: ModelPlace) -> bool:
        """Returns whether the model may serve Responses: False after a recent absence."""
        absent = self._absent_endpoints.get(place)
        return absent is None or self._monotonic() >= absent.until_s

    def without_responses(self) -> Sequence[str]:
        """Returns the targets that get chats with tools without their effort."""
        now_s = self._monotonic()
        return [
            absent.target
            for absent in self._absent_endpoints.values()
            if now_s < absent.until_s
        ]

    def note_refusal(self, place: ModelPlace) -> None:
        self._chat_refusal_ends.put(place, self._monotonic() + KEPT_S)

    def note_absence(self, place: ModelPlace, target: str) -> None:
        """Notes that a model lacks Responses.

        Args:
            target: `provider/model`.
        """
        self._absent_endpoints.put(
            place, AbsentEndpoint(target, self._monotonic() + FIRST_WAIT_S)
        )
