"""Meters a conformance run: `MeteredChannel` asks a provider only where a call's
most expensive outcome fits the budget, and charges what came of it.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from harness.client.channel import Channel
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
from harness.domain.sse import EventPayloads, EventTooLarge


class CapReached(CallFailed):
    """Raised for a call that was not made, with the cap that it could have passed."""


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

    def settle(self, most: CallTokens, answer: LiveAnswer | None) -> None:
        """Charges a call. answer: None where none came whole."""
        heard = answer if answer is not None and not answer.failure else LiveAnswer(None)
        length = len(heard.text.encode("utf-8", "replace"))
        used = settled_tokens(most, heard.tokens, length)
        self.budget = self.budget.settle(most, used, self.price)


@dataclass(frozen=True, slots=True)
class MeteredAnswer:
    """An answer that came whole, and was charged."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    def read(self) -> LiveAnswer:
        """What a judgement needs of it. Raises CallFailed for a stream that cannot be read."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            attempts = self.headers.get("x-swapgate-attempts", "")
            return read_whole(self.status, attempts, self.content)
        events = EventPayloads()
        try:
            return read_events([*events.read(self.content), *events.rest()])
        except EventTooLarge as why:
            raise CallFailed(f"the stream cannot be read: {why}") from None

    async def body(self) -> bytes:
        return self.content

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        yield self.content

    async def aclose(self) -> None:
        """Nothing is open any more."""


class MeteredChannel:
    """A channel whose calls are metered."""

    def __init__(self, channel: Channel, meter: LiveMeter) -> None:
        self._channel = channel
        self._meter = meter

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> MeteredAnswer:
        """Sends a request that fits the budget. Raises CapReached before anything is sent."""
        most = self._meter.reserve(body)
        read = None
        try:
            answer = await self._channel.post(path, body, headers)
            try:
                whole = MeteredAnswer(answer.status, answer.headers, await answer.body())
            finally:
                await answer.aclose()
            read = whole.read()
            return whole
        finally:
            self._meter.settle(most, read)

    async def aclose(self) -> None:
        await self._channel.aclose()
