"""Counts the needs of a sample of requests, so that people see which part of a route's requests
a candidate cannot take.

A request only puts itself into the sample. `take` looks at it later, off the request's path,
and keeps no content. `harness.routing.reports.untaken` reads the counts.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from harness.frame.ports import Clock
from harness.gate.online.observation import NEED, AskedName
from harness.providers.models.capabilities import Endpoint
from router.frame.body import ClientRequest
from router.recording.sums import CompletedRequest
from router.request.needs import detect_needs, need_names
from router.snapshot.compiled import CompiledRoute

log = logging.getLogger(__name__)

# At most so many requests are looked at each time, so that the work stays small.
SAMPLE_SIZE: Final = 4
# Reports may come more often. Below a second, so that a recorder looks at each of its batches.
LOOK_EVERY_S: Final = 0.9
# Longer bodies are not looked at: the sample keeps them in memory until the next look.
MAX_CHARACTERS: Final = 4 * 1024 * 1024
EVERY_S: Final = 10.0
SampledRequest = tuple[CompletedRequest, ClientRequest, CompiledRoute]


class NeedsSample:
    """Counts needs by route.

    waiting: the first SAMPLE_SIZE requests since the last look, with their records and routes.
    """

    def __init__(self, clock: Clock) -> None:
        self.waiting: list[SampledRequest] = []
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()
        self._looked_at = -math.inf
        self._told_at = -math.inf

    def take(self) -> Sequence[AskedName]:
        """Looks at the sample every LOOK_EVERY_S. Returns new counts every EVERY_S, else
        nothing.

        Each request looked at counts under NEED alone, and under NEED and the name of each of
        its needs.
        """
        now = self._clock.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return ()
        self._looked_at = now
        while self.waiting:
            try:
                self._count(*self.waiting.pop())
            except Exception as error:  # noqa: BLE001 - its text may contain content
                # A strange body must not cost the report, which also has a canary's evidence.
                log.warning("a request's needs are unknown: %s", type(error).__name__)
        if not self._counts or now - self._told_at < EVERY_S:
            return ()
        self._told_at = now
        counts = self._counts
        self._counts = Counter()
        day = self._clock.now().date()
        return [AskedName(name, day, route, number) for (route, name), number in counts.items()]

    def _count(
        self,
        record: CompletedRequest,
        request: ClientRequest,
        route: CompiledRoute,
    ) -> None:
        if request.endpoint is Endpoint.EMBEDDINGS and record.outcome != "ok":
            return  # a refused call does not show that the route serves embeddings
        self._counts[record.route, NEED] += 1
        for name in need_names(detect_needs(request, route.incumbent_prefill)):
            self._counts[record.route, f"{NEED}{name}"] += 1
