"""The part of the database that a canary's ledgers use: callers that have counted, and callers'
failures. `harness.app.store.router_store` implements it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from harness.gate.online.late_outcomes import FailedTurn, FailedTurns
from harness.gate.online.observation import KeyClaim, KeyHistory


class CallerRows(Protocol):
    """The callers of canaries. All routers share these rows."""

    def claim_keys(self, claim: KeyClaim) -> Sequence[KeyHistory]:
        """Enters a block's keys. Returns each key's earlier history, in the claim's order."""
        ...

    def exchange_failures(
        self,
        rollout: str,
        failed: Sequence[FailedTurn],
        *,
        after: int,
        since: float,
    ) -> FailedTurns:
        """Stores failures of a rollout's callers, and returns those of all routers.

        after: the last number that the router has read. since: seconds since 1970; the result
        omits older failures.
        """
        ...


class CallerTransaction(Protocol):
    """The records of one transaction."""

    @property
    def observations(self) -> CallerRows: ...


class CallerDatabase(Protocol):
    """Opens transactions. Raises StoreUnavailable."""

    def write(self) -> AbstractContextManager[CallerTransaction]:
        """Opens a transaction that commits at the block's end."""
        ...
