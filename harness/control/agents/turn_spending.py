"""Keeps what turns ask within the monthly cap. Who answers a route is known once it did: so the
most that any of its targets can cost must fit before, and what the answer did cost is paid.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from harness.control.agents.models_in_force import ModelsInForce
from harness.control.context import Context
from harness.control.operations.spending_meter import SpendingMeter, TakenAmount
from harness.domain.agents.agent import LITERAL_MARK
from harness.domain.agents.message import MessageUsage
from harness.domain.agents.model_call import AnswerPiece, ModelCallAnswer, ModelCallRequest
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
from harness.ports.agents import ModelCalls
from harness.store.transaction import Transaction

# A turn waits so long at the most for what other turns have taken and may not need.
WAIT_S: Final = 10.0
# No answer came of it that anybody is charged for. What else ends a call, such as a stream that
# broke, or a client that left, leaves open how much the provider did.
_FREE: Final = (CallRefused, InputError, KeyRefused, NobodyAnswered)

Pay = Callable[[MessageUsage, float | None], None]


class PaidCalls:
    """The calls of one turn, within the monthly cap. Raises SpendingPaused and StoreUnavailable
    beside what `calls` raises.
    """

    def __init__(
        self, calls: ModelCalls, models: ModelsInForce, spending: "TurnSpending"
    ) -> None:
        self._calls, self._models, self._spending = calls, models, spending

    async def ask(
        self,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,
    ) -> ModelCallAnswer:
        async with self._spending.paying(request) as pay:
            answer = await self._calls.ask(request, on_piece)
            pay(answer.usage, self._models.cost_usd(answer.served.target, answer.usage))
        return answer

    async def aclose(self) -> None:
        await self._calls.aclose()


@dataclass(frozen=True, slots=True)
class _Estimate:
    """The most that a call can cost. usd: None where the price of `model` is not known."""

    usd: float | None
    model: str


class TurnSpending:
    """What the turns of this process may spend. Belongs to one event loop."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._meter = SpendingMeter(ctx.store, ctx.clock, SpendingPurpose.AGENTS)

    @asynccontextmanager
    async def paying(self, request: ModelCallRequest) -> AsyncIterator[Pay]:
        """Makes room for one call in its block, which gives the answer's usage and cost to what
        is yielded. Raises SpendingPaused where the cap leaves too little, StoreUnavailable.
        """
        taken = await self._take(request)
        is_open = True

        def pay(usage: MessageUsage, cost_usd: float | None) -> None:
            nonlocal is_open
            is_open = False
            # Of an answer without any count nobody knows the cost.
            counted = usage.input_tokens + usage.output_tokens > 0
            self._meter.settle(taken, cost_usd if counted else taken.usd)

        try:
            yield pay
        except _FREE:
            self._meter.give_back(taken)
            is_open = False
            raise
        finally:
            if is_open:
                self._meter.settle(taken, taken.usd)

    def refresh(self) -> None:
        """Writes what was spent, and reads the cap. Raises StoreUnavailable."""
        self._meter.refresh()

    def close(self) -> None:
        """Stores the last costs."""
        with suppress(StoreUnavailable):
            self._meter.refresh()

    async def _take(self, request: ModelCallRequest) -> TakenAmount:
        found = await asyncio.to_thread(self._estimate, request)
        wait_s = min(WAIT_S, request.timeout_s)
        taken = await self._meter.take(found.usd, found.model, wait_s)
        if taken is None:
            raise SpendingPaused(self._meter.refusal)
        return taken

    def _estimate(self, request: ModelCallRequest) -> _Estimate:
        self._meter.read()
        if self._meter.cap_usd is None:
            return _Estimate(0.0, request.model)
        with self._ctx.store.read() as tx:
            providers = tx.providers.all()
            targets = _find_targets(tx, request)
        size = _request_bytes(request)
        if not targets:
            return _Estimate(None, request.model)
        most = 0.0
        for target in targets:
            price = find_price(providers, target.name)
            if price is None:
                return _Estimate(None, target.name)
            patch = target.request_patch
            limits: dict[str, Any] = {**target.parameters, **patch.parameters}
            added = 0 if patch.empty else len(json.dumps(patch.as_json()))
            most = max(most, estimate_most_usd(price, size + added, limits))
        return _Estimate(most, request.model)


def _find_targets(tx: Transaction, request: ModelCallRequest) -> Sequence[Target]:
    """Finds all that may answer: the route's incumbent, candidate and fallbacks, or a literal
    model alone.
    """
    known = tx.routing.targets()
    route = tx.routing.table().routes.get(request.model)
    if route is not None:
        return [known[id_] for id_ in sorted(route.targets)]
    name = request.model.removeprefix(LITERAL_MARK)
    return [target for target in known.values() if target.name == name]


def _request_bytes(request: ModelCallRequest) -> int:
    """About what is sent: no less than that."""
    said = [asdict(message) for message in request.messages]
    tools = [asdict(tool) for tool in request.tools]
    return len(
        json.dumps([said, tools], default=str, ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    )
