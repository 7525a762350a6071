"""Keeps the calls of a run within the monthly cap: asks before each call, notes its cost."""

import asyncio
from typing import Final

from evals.runner.chat_completions import ChatReply
from harness.domain.errors import SpendingPaused, StoreUnavailable
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

    async def require_money(self) -> None:
        """Checks that a call may be made; else raises SpendingPaused."""
        unpriced = "" if self._price is not None else self._model
        for _ in range(ATTEMPTS):
            try:
                return await asyncio.to_thread(self._spending.require_money, unpriced)
            except StoreUnavailable:
                await asyncio.sleep(PAUSE_S)
        raise SpendingPaused("the database is away: nobody knows what the monthly cap leaves")

    def pay(self, reply: object) -> None:
        """Notes what a reply cost. A call without a reply costs nothing."""
        price = self._price
        if price is None:
            self._spending.pay(None)
        elif isinstance(reply, ChatReply):
            cost_usd = price.cost_usd(
                reply.input_tokens, reply.output_tokens, reply.cached_tokens
            )
            self._spending.pay(cost_usd)
        else:
            self._spending.pay(price.cost_usd(getattr(reply, "tokens", 0), 0))
