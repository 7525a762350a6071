"""The judge budget knows what the judges of each live rollout have cost, in all routers: read
from the database in the background, and added to what this worker spent lately.

Blocks of statistics carry the cost to the database. A block may come minutes after its judge
was paid, so what this worker spent lately counts on top: sometimes twice, never not at all.
"""

import threading
from collections import deque
from typing import Final

from harness.domain.canary.guardrails import Guardrail, JudgeTally
from harness.ports import Clock
from harness.store.store import Store
from router.recording.ledger import JUDGED_WITHIN_S, MAX_BLOCK_AGE_S
from router.snapshot.compiler import canary_judge
from router.snapshot.holder import SnapshotHolder

EVERY_S: Final = 5.0
# A block is stored by then, unless the database is away: then nobody is judged.
LATELY_S: Final = MAX_BLOCK_AGE_S + JUDGED_WITHIN_S


class JudgeBudget:
    """What live rollouts' judges have cost. Called by the thread that follows the store; reads
    nothing while no rollout has a judge.
    """

    def __init__(self, holder: SnapshotHolder, clock: Clock) -> None:
        self._holder = holder
        self._clock = clock
        self._lock = threading.Lock()
        self._known_usd: dict[str, float] = {}
        self._read: dict[str, int] = {}
        self._lately: deque[tuple[float, str, float]] = deque()
        self._next = -EVERY_S

    def __call__(self, store: Store) -> None:
        """Raises StoreUnavailable: then what was known stays."""
        serving = self._holder.current
        routes = serving.snapshot.table.routes.values() if serving else ()
        judged = [
            route.experiment.rollout
            for route in routes
            if route.experiment and canary_judge(route)
        ]
        now = self._clock.monotonic()
        if now < self._next and all(id_ in self._known_usd for id_ in judged):
            return
        for rollout in judged:
            self._refresh(store, rollout)
        with self._lock:
            for gone in self._known_usd.keys() - set(judged):
                del self._known_usd[gone], self._read[gone]
        self._next = now + EVERY_S

    def _refresh(self, store: Store, rollout: str) -> None:
        with store.read() as tx:
            new = tx.observations.blocks(rollout, after=self._read.get(rollout, 0))
        tallies = (block.counts.get(Guardrail.JUDGE) for block in new)
        usd = sum(tally.cost_usd for tally in tallies if isinstance(tally, JudgeTally))
        with self._lock:
            self._known_usd[rollout] = self._known_usd.get(rollout, 0.0) + usd
            self._read[rollout] = max((block.number for block in new), default=0) or (
                self._read.get(rollout, 0)
            )

    def note(self, rollout: str, cost_usd: float) -> None:
        with self._lock:
            self._lately.append((self._clock.monotonic(), rollout, cost_usd))

    def spent(self, rollout: str) -> tuple[float, float] | None:
        """US dollars: as the database has it, and lately by this worker.

        None while the database has not said.
        """
        since = self._clock.monotonic() - LATELY_S
        with self._lock:
            while self._lately and self._lately[0][0] < since:
                self._lately.popleft()
            if rollout not in self._known_usd:
                return None
            lately = sum(usd for _, of, usd in self._lately if of == rollout)
            return self._known_usd[rollout], lately
