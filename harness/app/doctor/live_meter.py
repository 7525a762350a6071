"""Meters a conformance run: `MeteredChannel` asks a provider only where a call's
most expensive outcome fits the budget, and charges what came of it.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from harness.client.channel import Channel, ChannelAnswer
from harness.domain.errors import CallFailed
from harness.domain.providers.live_answer import (
    CallTokens,
    LiveAnswer,
    LiveBudget,
    most_tokens,
    read_events,
    read_whole,
    settled_tokens,
)
from harness.domain.routing.target import Price
from harness.domain.sse import EventPayloads


class CapReached(CallFailed):
    """Raised for a call that was not made, with the cap that it could have passed."""


class StreamPayloads(EventPayloads):
    def _error(self, why: str) -> Exception:
        return CallFailed(f"the stream cannot be read: {why}")


@dataclass
class LiveMeter:
    """Holds the budget of a run while it lasts."""

    budget: LiveBudget
    price: Price | None = None  # of the model that is asked now
    output_limit: int = 0  # tokens of one answer, at most

    def reserve(self, body: bytes) -> CallTokens:
        """The most that a call with this body can take. Raises CapReached."""
        most = most_tokens(len(body), self.output_limit)
        if why := self.budget.refusal(most, self.price):
            raise CapReached(why)
        return most

    def settle(self, most: CallTokens, answer: LiveAnswer | None, answer_bytes: int) -> None:
        """Charges a call. answer: None where none came whole."""
        reported = answer.tokens if answer is not None and not answer.failure else None
        length = answer_bytes if answer is not None and not answer.failure else 0
        used = settled_tokens(most, reported, length)
        self.budget = self.budget.settle(most, used, self.price)


class MeteredAnswer:
    """An answer that settles its call once, when it was read or is closed."""

    def __init__(self, answer: ChannelAnswer, meter: LiveMeter, most: CallTokens) -> None:
        self._answer = answer
        self._meter = meter
        self._most = most
        self._open = True

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    async def body(self) -> bytes:
        whole = await self._answer.body()
        attempts = self.headers.get("x-swapgate-attempts", "")
        self._settle(read_whole(self.status, attempts, whole))
        return whole

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        payloads = StreamPayloads()
        events: list[bytes] = []
        async for piece in self._answer.pieces():
            events += payloads.read(piece)
            yield piece
        self._settle(read_events([*events, *payloads.rest()]))

    async def aclose(self) -> None:
        self._settle(None)
        await self._answer.aclose()

    def _settle(self, answer: LiveAnswer | None) -> None:
        if self._open:
            self._open = False
            length = len(answer.text.encode("utf-8", "replace")) if answer is not None else 0
            self._meter.settle(self._most, answer, length)


class MeteredChannel:
    """A channel whose calls are metered."""

    def __init__(self, channel: Channel, meter: LiveMeter) -> None:
        self._channel = channel
        self._meter = meter

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> ChannelAnswer:
        """Sends a request that fits the budget. Raises CapReached before anything is sent."""
        most = self._meter.reserve(body)
        try:
            answer = await self._channel.post(path, body, headers)
        except BaseException:
            self._meter.settle(most, None, 0)
            raise
        return MeteredAnswer(answer, self._meter, most)

    async def aclose(self) -> None:
        await self._channel.aclose()
