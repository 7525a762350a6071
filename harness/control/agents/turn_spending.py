"""Keeps what turns ask within the monthly cap: once it is reached, no answer is asked for. The
cost of each answer is paid. The target that answers a route is known only afterwards, so each
of its targets must have a price.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from harness.control.agents.models_in_force import ModelsInForce
from harness.control.context import Context
from harness.control.operations.spending_meter import SpendingMeter
from harness.domain.agents.agent import LITERAL_MARK
from harness.domain.agents.model_call import (
    AnswerPiece,
    ModelCallAnswer,
    ModelCallRequest,
    ModelCalls,
)
from harness.domain.agents.model_figures import find_price
from harness.domain.errors import (
    CallRefused,
    InputError,
    KeyRefused,
    NobodyAnswered,
    StoreUnavailable,
)
from harness.domain.operations.spending import SpendingPurpose
from harness.store.transaction import Transaction

# No answer came of it that anybody is charged for. What else ends a call, such as a stream that
# broke, or a client that left, leaves open how much the provider did.
_FREE: Final = (CallRefused, InputError, KeyRefused, NobodyAnswered)


class PaidCalls:
    """The calls of this process's turns, within the monthly cap. Belongs to one event loop."""

    def __init__(self, ctx: Context, calls: ModelCalls) -> None:
        self._ctx, self._calls = ctx, calls
        self.meter = SpendingMeter(ctx.store, ctx.clock, SpendingPurpose.AGENTS)

    async def ask(
        self,
        models: ModelsInForce,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,
    ) -> ModelCallAnswer:
        """Asks as `ModelCalls` does. Raises SpendingPaused where the cap is reached, and
        StoreUnavailable. models: with their prices.
        """
        await asyncio.to_thread(self._require_money, request)
        try:
            answer = await self._calls.ask(request, on_piece)
        except _FREE:
            raise
        except BaseException:
            self.meter.pay(None)
            raise
        # The cost of an answer without any count is unknown.
        paid = models.cost_usd(answer.served.target, answer.usage)
        self.meter.pay(paid if answer.usage.tokens else None)
        return answer

    def close(self) -> None:
        with suppress(StoreUnavailable):
            self.meter.refresh()

    def _require_money(self, request: ModelCallRequest) -> None:
        # A cap that was set a moment ago counts.
        self.meter.refresh(at_once=True)
        unpriced = ""
        if self.meter.cap_usd is not None:
            with self._ctx.store.read() as tx:
                unpriced = _find_unpriced(tx, request)
        self.meter.require_money(unpriced)


def _find_unpriced(tx: Transaction, request: ModelCallRequest) -> str:
    """Names a target that may answer and has no price; empty where each has one."""
    providers, names = tx.providers.all(), _target_names(tx, request)
    unpriced = (name for name in names if find_price(providers, name) is None)
    return next(unpriced, "" if names else request.model)


def _target_names(tx: Transaction, request: ModelCallRequest) -> Sequence[str]:
    known = tx.routing.targets()
    route = tx.routing.table().routes.get(request.model)
    if route is not None:
        return [known[id_].name for id_ in sorted(route.targets)]
    name = request.model.removeprefix(LITERAL_MARK)
    return [target.name for target in known.values() if target.name == name]
