"""Short deadlines are clients' time limits that prove nothing against a model: those below
three times the latency that is usual for the rollout's control. Requests with one are not
scored.

A deadline is the client's own choice (`x-swapgate-timeout`). One that the control itself could
hardly keep would let who holds a data key fail a canary on purpose. So such a request is scored
in neither arm: it is decided by the deadline and by what the control did before, never by the
arm. A longer one counts, so that a candidate that hangs is found.
"""

import math
from collections import deque
from typing import ClassVar, Final

from harness.domain.routing.table import Route
from router.observers.request_observers import ObservedRequest, RequestObserver
from router.request.routed_response import RoutedResponse
from router.server.internal_errors import RouterPart
from router.snapshot.compiled import CompiledRoute

# Times the control's usual latency: what is shorter is too short to prove anything.
TIMES: Final = 3.0
USUAL: Final = 0.95
KEPT: Final = 100
# Of fewer answers nobody knows what is usual, and every deadline of a client's is too short.
LEAST: Final = 20


class ShortDeadlines(RequestObserver):
    """Keeps the latencies of the latest answers, by route and target id; for one event loop."""

    part: ClassVar[RouterPart] = RouterPart.RECORDING

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], deque[float]] = {}

    def watches(self, route: CompiledRoute) -> bool:
        """Whether the route has a rollout, whose control is timed."""
        return route.experiment is not None

    def at_end(self, observed: ObservedRequest, response: RoutedResponse) -> None:
        attempts, record = response.progress.attempts, observed.record
        if observed.outcome != "ok" or record is None or len(attempts) != 1:
            return
        route, trial = observed.route.route, observed.route.experiment
        target = attempts[0].upstream.id
        # As `_control` has it; most requests are the control's.
        if trial is not None and target == (trial.target if trial.control else route.incumbent):
            self._note(route.name, target, record.latency_ms / 1000)

    def answered(self, route: Route, target: str, seconds: float) -> None:
        """Notes how long the control took to answer a request at its first attempt."""
        if route.experiment is not None and target == _control(route):
            self._note(route.name, target, seconds)

    def _note(self, route: str, target: str, seconds: float) -> None:
        kept = self._latest.get((route, target))
        if kept is None:
            kept = self._latest[route, target] = deque(maxlen=KEPT)
        kept.append(seconds)

    def is_too_short(self, route: Route, limit_s: float) -> bool:
        """Tells whether a client gives less time than answers of the route usually need, or too
        few answers are known. limit_s: all that the client gives.
        """
        latest = sorted(self._latest.get((route.name, _control(route)), ()))
        if len(latest) < LEAST:
            return True
        return limit_s < TIMES * latest[math.ceil(USUAL * len(latest)) - 1]


def _control(route: Route) -> str:
    """The target id that the rollout's candidate is compared with."""
    trial = route.experiment
    return trial.target if trial is not None and trial.control else route.incumbent
