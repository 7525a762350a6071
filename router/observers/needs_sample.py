"""Counts the needs of a sample of requests.

The counts show people which part of a route's requests a candidate cannot serve. The router
only adds a request to the sample. `take` examines it later, so that no request waits, and keeps
no content. `harness.routing.reports.untaken` reads the counts.
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

# The most requests that `take` examines at a time, so that the work stays small.
SAMPLE_SIZE: Final = 4
# Reports may come more often. It is below a second, so that a recorder examines every batch.
LOOK_EVERY_S: Final = 0.9
# The sample omits longer bodies, because it keeps bodies in memory until the next `take`.
MAX_CHARACTERS: Final = 4 * 1024 * 1024
REPORT_EVERY_S: Final = 10.0
SampledRequest = tuple[CompletedRequest, ClientRequest, CompiledRoute]


class NeedsSample:
    """Counts needs by route.

    waiting: the first SAMPLE_SIZE requests since the last `take`, with records and routes.
    """

    def __init__(self, clock: Clock) -> None:
        self.waiting: list[SampledRequest] = []
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examined_at_s = -math.inf
        self._reported_at_s = -math.inf

    def take(self) -> Sequence[AskedName]:
        """Examines the sample every LOOK_EVERY_S. Returns new counts every EVERY_S.

        Returns no counts in between. A request counts under NEED alone, and under NEED with
        the name of each of its needs.
        """
        now_s = self._clock.monotonic()
        if now_s - self._examined_at_s < LOOK_EVERY_S:
            return ()
        self._examined_at_s = now_s
        while self.waiting:
            try:
                self._count(*self.waiting.pop())
            except Exception as error:  # noqa: BLE001 - its text may contain content
                # A faulty body must not prevent the report, which also has a canary's evidence.
                log.warning("a request's needs are unknown: %s", type(error).__name__)
        if not self._counts or now_s - self._reported_at_s < REPORT_EVERY_S:
            return ()
        self._reported_at_s = now_s
        counts = self._counts
        self._counts = Counter()
        day = self._clock.now().date()
        return [AskedName(name, day, route, count) for (route, name), count in counts.items()]

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
