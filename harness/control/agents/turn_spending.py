"""Keeps what turns ask within the monthly cap. Who answers a route is known once it did: so the
most that any of its targets can cost must fit before, and what the answer did cost is paid.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

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
    SpendingPaused,
    StoreUnavailable,
)
from harness.domain.operations.spending import SpendingPurpose, estimate_most_usd
from harness.domain.routing.target import Target
from harness.store.transaction import Transaction

# A turn waits so long at the most for what other turns have taken and may not need.
WAIT_S: Final = 10.0
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
        """Asks as `ModelCalls` does. Raises SpendingPaused where the cap leaves too little, and
        StoreUnavailable. models: with their prices.
        """
        usd, model = await asyncio.to_thread(self._estimate, request)
        taken = await self.meter.take(usd, model, min(WAIT_S, request.timeout_s))
        if taken is None:
            raise SpendingPaused(self.meter.refusal)
        try:
            answer = await self._calls.ask(request, on_piece)
        except _FREE:
            self.meter.give_back(taken)
            raise
        except BaseException:
            self.meter.settle(taken, taken.usd)
            raise
        # The cost of an answer without any count is unknown.
        paid = models.cost_usd(answer.served.target, answer.usage)
        self.meter.settle(taken, paid if answer.usage.tokens else taken.usd)
        return answer

    def close(self) -> None:
        with suppress(StoreUnavailable):
            self.meter.refresh()

    def _estimate(self, request: ModelCallRequest) -> tuple[float | None, str]:
        """The most that a call can cost, and the model; None where its price is not known."""
        self.meter.read()
        if self.meter.cap_usd is None:
            return 0.0, request.model
        with self._ctx.store.read() as tx:
            providers = tx.providers.all()
            targets = _find_targets(tx, request)
        size = _request_bytes(request)
        if not targets:
            return None, request.model
        most = 0.0
        for target in targets:
            price = find_price(providers, target.name)
            if price is None:
                return None, target.name
            patch = target.request_patch
            limits: dict[str, Any] = {**target.parameters, **patch.parameters}
            added = 0 if patch.empty else len(json.dumps(patch.as_json()))
            most = max(most, estimate_most_usd(price, size + added, limits))
        return most, request.model


def _find_targets(tx: Transaction, request: ModelCallRequest) -> Sequence[Target]:
    known = tx.routing.targets()
    route = tx.routing.table().routes.get(request.model)
    if route is not None:
        return [known[id_] for id_ in sorted(route.targets)]
    name = request.model.removeprefix(LITERAL_MARK)
    return [target for target in known.values() if target.name == name]


def _request_bytes(request: ModelCallRequest) -> int:
    said = [asdict(message) for message in request.messages]
    tools = [asdict(tool) for tool in request.tools]
    return len(
        json.dumps([said, tools], default=str, ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    )
