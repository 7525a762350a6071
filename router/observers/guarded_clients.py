"""No single client key can make a worker's guard stop a canary by what its callers do later.

A client knows a caller's arm after the first turn, so it could make later turns of the canary
fail. The evidence of windows must reach the level also without the canary's failures of any one
client key, as in the control plane (`harness.gate.online.one_key`, statistics.md §2.18).
"""

import math
from collections import Counter
from dataclasses import replace
from typing import Final

from harness.gate.online.one_key import SOLE_PART
from harness.gate.online.worker_guard import WorkerGuard

# How many client keys are tried: those with the most failures of the canary.
MAX_CLIENTS: Final = 32


class GuardedClients:
    """The evidence of windows without the canary's failures of one client key, for each key.

    It compares both arms at the same time. A key with nearly all windows decides alone, because
    hardly anything would be left without it.
    """

    def __init__(self) -> None:
        self._windows: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()  # of the canary
        self._without: dict[str, WorkerGuard] = {}

    @property
    def log_e(self) -> float:
        """Returns the least log e without one key; inf if no key must be tried."""
        enough = SOLE_PART * self._windows.total()
        return min(
            (
                evidence.log_e
                for client, evidence in self._without.items()
                if self._windows[client] < enough
            ),
            default=math.inf,
        )

    def add(self, client: str) -> None:
        """Adds a window. client: the id of the client's key; empty if unknown."""
        self._windows[client] += 1

    def add_failure(
        self,
        client: str,
        before: WorkerGuard,
        *,
        canary: bool,
        share: float,
        incident: bool,
    ) -> None:
        """Adds that the window failed. before: the evidence with all keys before it."""
        for name, evidence in self._without.items():
            if not (canary and name == client):
                self._without[name] = evidence.after(
                    canary=canary, share=share, incident=incident
                )
        if canary and client:
            self._failures[client] += 1
            if client not in self._without and self._has_place(client):
                # The key had no failure of the canary before, or few.
                self._without[client] = replace(before, usual_sums=())

    def _has_place(self, client: str) -> bool:
        """Makes place for a key; returns False if all tried keys have more failures."""
        if len(self._without) < MAX_CLIENTS:
            return True
        fewest = min(self._without, key=lambda name: self._failures[name])
        if self._failures[fewest] > self._failures[client]:
            return False
        del self._without[fewest]
        return True
