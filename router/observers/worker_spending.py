"""Keeps judges and shadows within the monthly cap: what a call can cost is taken from what this
worker holds, at once or not at all. `WorkerSpending` is called by the thread that follows the
store, which holds more and writes down what was spent; nothing here holds a user up.
"""

import contextlib
from itertools import count
from typing import Final

from harness.control.operations.spending_allowance import Allowance, TakenAmount
from harness.domain.errors import StoreUnavailable
from harness.domain.operations.spending import (
    OUTPUT_LIMITS,
    SpendingPurpose,
    estimate_most_usd,
)
from harness.domain.routing.target import Price
from harness.ports import Clock
from harness.store.store import Store
from router.protocols.usage import TokenUsage
from router.request.body import ClientRequest

OVER_CAP: Final = "over_monthly_cap"


class WorkerSpending:
    """What this worker may spend on one purpose. worker: a name that is new for every
    process.
    """

    def __init__(self, purpose: SpendingPurpose, worker: str, clock: Clock) -> None:
        self._purpose = purpose
        self._worker = worker
        self._clock = clock
        self._numbers = count(1)
        self._allowance: Allowance | None = None  # None before the store is followed

    def __call__(self, store: Store) -> None:
        """Raises StoreUnavailable: then what is held stays, and what was spent is written
        later.
        """
        if self._allowance is None:
            self._allowance = Allowance(
                store,
                self._clock,
                self._new_id,
                self._purpose,
                f"router {self._worker}",
                holds_always=False,
            )
        self._allowance.refresh()

    def take(
        self, price: Price | None, model: str, request_bytes: int, **limits: object
    ) -> TakenAmount | None:
        """Takes the most that a call can cost; None where it is not at hand. limits: of the
        output, as the request names them.
        """
        if self._allowance is None:
            return None
        most = None if price is None else estimate_most_usd(price, request_bytes, limits)
        return self._allowance.try_take(most, model)

    def take_for(
        self, price: Price | None, model: str, request: ClientRequest
    ) -> TakenAmount | None:
        """Takes the most that a client's request can cost with a model."""
        limits = {name: request.value(name) for name in OUTPUT_LIMITS}
        return self.take(price, model, len(request.text), **limits)

    def settle(self, taken: TakenAmount, price: Price | None, usage: TokenUsage | None) -> None:
        """Pays a call; one without usage brought nothing and costs nothing."""
        if self._allowance is None:
            return
        if usage is None:
            self._allowance.give_back(taken)
        else:
            self._allowance.settle(taken, None if price is None else price.cost_usd(*usage))

    def close(self) -> None:
        """Gives up what is held; what is not written lapses, and counts as spent."""
        if self._allowance is not None:
            with contextlib.suppress(StoreUnavailable):
                self._allowance.close()

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}{self._purpose}_{self._worker}_{next(self._numbers)}"
