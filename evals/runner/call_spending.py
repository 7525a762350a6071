"""Keeps the calls of a run within the monthly cap: asks before each call, notes its cost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from evals.runner.chat_completions import ChatReply
from harness.domain.errors import SpendingPaused, StoreUnavailable
from harness.domain.operations.spending import estimate_most_usd
from harness.domain.routing.target import Price
from harness.ports import CallSpending

# A database that is away for a moment does not end a run.
ATTEMPTS: Final = 30
PAUSE_S: Final = 1.0


class ModelSpending:
    """Pays the calls of one model. price: None where it is not known."""

    def __init__(self, spending: CallSpending, price: Price | None, model: str) -> None:
        self._spending = spending
        self._price = price
        self._model = model

    @asynccontextmanager
    async def paying(
        self, request_bytes: int, body: Mapping[str, Any]
    ) -> AsyncIterator[Callable[[object], None]]:
        """Makes room for one call in its block, which gives the reply to what is yielded. A
        call without a reply costs nothing. Raises SpendingPaused.
        """
        price = self._price
        most = None if price is None else estimate_most_usd(price, request_bytes, body)
        taken = await self._take(most)
        paid = False

        def pay(reply: object) -> None:
            nonlocal paid
            paid = True
            self._spending.settle(taken, self._cost_usd(reply))

        try:
            yield pay
        finally:
            if not paid:
                self._spending.give_back(taken)

    async def _take(self, most_usd: float | None) -> object:
        for _ in range(ATTEMPTS):
            try:
                taken = await self._spending.take(most_usd, self._model)
            except StoreUnavailable:
                await asyncio.sleep(PAUSE_S)
                continue
            if taken is None:
                raise SpendingPaused(self._spending.refusal)
            return taken
        raise SpendingPaused("the database is away: nobody knows what the monthly cap leaves")

    def _cost_usd(self, reply: object) -> float | None:
        if self._price is None:
            return None
        if isinstance(reply, ChatReply):
            cached = reply.cached_tokens
            return self._price.cost_usd(reply.input_tokens, reply.output_tokens, cached)
        return self._price.cost_usd(getattr(reply, "tokens", 0), 0)
