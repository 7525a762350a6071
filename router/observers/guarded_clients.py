"""Prevents that a single client key makes a worker's guard stop a canary by later requests.

A client knows a caller's arm after the first turn, so it could make later turns of the canary
fail. So the evidence of windows must also reach the level without the canary's failures of each
single client key. The control plane does the same (`harness.gate.online.one_key`,
statistics.md §2.18).
"""

import math
from collections import Counter
from dataclasses import replace
from typing import Final

from harness.gate.online.one_key import SOLE_PART
from harness.gate.online.worker_guard import WorkerGuard

# The guard tests the removal of at most this many client keys: the keys with most failures.
MAX_CLIENTS: Final = 32


class GuardedClients:
    """The evidence of windows without a client key's failures of the canary, for each key.

    It compares both arms at the same time. A key with nearly all windows decides alone, because
    few windows would be left without it.
    """

    def __init__(self) -> None:
        self._windows: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()  # of the canary
        self._evidence_without: dict[str, WorkerGuard] = {}

    @property
    def log_e(self) -> float:
        """Returns the minimum of log e without one key; inf if no key needs the test."""
        sole_windows = SOLE_PART * self._windows.total()
        return min(
            (
                evidence.log_e
                for client, evidence in self._evidence_without.items()
                if self._windows[client] < sole_windows
            ),
            default=math.inf,
        )

    def add(self, client: str) -> None:
        """Adds a window.

        Args:
            client: the id of the client's key; empty if unknown.
        """
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
        """Adds a failed window.

        Args:
            before: the evidence with all keys before this failure.
        """
        for name, evidence in self._evidence_without.items():
            if not (canary and name == client):
                self._evidence_without[name] = evidence.after(
                    canary=canary, share=share, incident=incident
                )
        if canary and client:
            self._failures[client] += 1
            if client not in self._evidence_without and self._make_place(client):
                # The key had no failure of the canary before, or only few.
                self._evidence_without[client] = replace(before, usual_sums=())

    def _make_place(self, client: str) -> bool:
        """Makes place for a key. Returns False if all tested keys have more failures."""
        if len(self._evidence_without) < MAX_CLIENTS:
            return True
        least_failing = min(self._evidence_without, key=lambda name: self._failures[name])
        if self._failures[least_failing] > self._failures[client]:
            return False
        del self._evidence_without[least_failing]
        return True
