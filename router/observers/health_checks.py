"""Sends a cheap real request to each target without recent user requests.

`router.health.target_health` decides when a check is due. A check passes `Dispatcher.check`, so
it uses the same connections, keys and breakers as users' requests. It is never an exposure, and
no client sees it.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

import structlog

from harness.frame.failures import CLIENT_FAILURES, FailureClass
from harness.frame.ports import Clock
from harness.providers.models.capabilities import Endpoint
from harness.routing.reliability.breaker import BreakerState
from harness.routing.table import Arm
from router.frame.body import ClientRequest, read_request
from router.health.account_watch import AccountWatch
from router.health.target_health import (
    HealthCheckState,
    TargetHealth,
    due_targets,
    next_check_in_s,
)
from router.protocols.endpoints import DIALECTS
from router.recording.metrics import RouterMetrics, TargetCheck
from router.request.dispatch import Dispatcher
from router.request.request_state import (
    RequestProgress,
    RoutedRequest,
    UpstreamAnswer,
)
from router.snapshot.compiled import CompiledRoute, CompiledTarget
from router.snapshot.holder import SnapshotHolder

log = logging.getLogger(__name__)
events = structlog.get_logger("swapproof.router")

_F = FailureClass
# A slower target fails the check. Meanwhile the check is the only probe of an open circuit.
CHECK_TIMEOUT_S: Final = 10.0
MAX_RUNNING_CHECKS: Final = 4
SHORTEST_SLEEP_S: Final = 0.1
# Failures of the provider. The check itself cannot cause them.
FAULTS: Final = (_F.OVERLOADED, _F.SERVER, _F.CONNECT, _F.TIMEOUT)
# The smallest limit that every provider accepts.
ANSWER_TOKENS: Final = 16
_PING: Final = [{"role": "user", "content": "ping"}]
_CHEAPEST_BODIES: Final[Mapping[Endpoint, Mapping[str, object]]] = {
    Endpoint.CHAT: {"messages": _PING, "max_tokens": ANSWER_TOKENS},
    Endpoint.MESSAGES: {"messages": _PING, "max_tokens": ANSWER_TOKENS},
    Endpoint.RESPONSES: {
        "input": "ping",
        "max_output_tokens": ANSWER_TOKENS,
    },
    Endpoint.EMBEDDINGS: {"input": "ping"},
}
REQUESTS: Final[Mapping[Endpoint, ClientRequest]] = {
    endpoint: read_request(json.dumps({"model": "health", **body}).encode(), endpoint)
    for endpoint, body in _CHEAPEST_BODIES.items()
}


class HealthCheckResult(NamedTuple):
    """The end of a target's latest check, as a worker remembers it."""

    at: float  # when it began, in monotonic seconds
    up: bool  # the provider answered in some way
    outcome: FailureClass | None  # None for a good answer
    seconds: float


class HealthChecks:
    """Runs a worker's checks in its event loop. interval_s: 0 for no checks.

    At most MAX_RUNNING_CHECKS checks run at a time; the longest unchecked targets come first. A
    target with a closed circuit gets no check while its account leaves its limit to users.
    """

    def __init__(
        self,
        holder: SnapshotHolder,
        dispatcher: Dispatcher,
        health: TargetHealth,
        metrics: RouterMetrics,
        clock: Clock,
        interval_s: float,
        accounts: AccountWatch,
    ) -> None:
        self._accounts = accounts
        self._holder = holder
        self._dispatcher = dispatcher
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._interval_s = interval_s
        self._began_s = clock.monotonic()
        self._results: dict[str, HealthCheckResult] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Runs the due checks until cancelled, and then ends the running checks."""
        try:
            while True:
                self.run_due()
                states = self._states(self._routes())
                wait_s = next_check_in_s(states, self._clock.monotonic(), self._interval_s)
                await asyncio.sleep(max(SHORTEST_SLEEP_S, wait_s))
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def run_due(self) -> None:
        """Starts the checks that are due, up to MAX_RUNNING_CHECKS."""
        routes = self._routes()
        now_s = self._clock.monotonic()
        for target in due_targets(self._states(routes), now_s, self._interval_s):
            if len(self._running) >= MAX_RUNNING_CHECKS:
                return
            if target not in self._running and self._may_check(routes[target], target):
                task = asyncio.ensure_future(self._check(routes[target], target))
                self._running[target] = task
                task.add_done_callback(partial(self._handle_end, target))

    def _may_check(self, route: CompiledRoute, target: str) -> bool:
        """Returns whether the account's users leave room for a check.

        An open circuit always gets checks, because users wait for it to close.
        """
        if self._health.state(target) is not BreakerState.CLOSED:
            return True
        return self._accounts.permit(route.upstreams[target]).calls > 0

    def results(self) -> dict[str, TargetCheck]:
        """Returns the results by target, for the metrics."""
        results = {route: self._results.get(route) for route in self._routes()}
        return {
            # A failed check is out of date once the target answers a user.
            target: TargetCheck(
                result.up or self._find_answered_at(target) > result.at,
                result.seconds,
            )
            for target, result in results.items()
            if result is not None
        }

    def _routes(self) -> dict[str, CompiledRoute]:
        serving = self._holder.current
        if serving is None:
            return {}
        return {
            target: route
            for route in serving.routes.values()
            for target in route.upstreams.keys() - route.keyless
        }

    def _states(self, targets: Mapping[str, CompiledRoute]) -> dict[str, HealthCheckState]:
        health = self._health.readiness(targets)
        no_result = HealthCheckResult(
            self._began_s,
            up=True,
            outcome=None,
            seconds=0.0,
        )
        last_results = {target: self._results.get(target, no_result) for target in targets}
        return {
            target: HealthCheckState(
                self._health.state(target),
                health[target].retry_in_s,
                self._find_answered_at(target),
                last_results[target].at,
                last_results[target].outcome is None,
                last_results[target].outcome in FAULTS,
            )
            for target in targets
        }

    def _find_answered_at(self, target: str) -> float:
        return self._health.answered_at.get(target, self._began_s)

    async def _check(self, route: CompiledRoute, target: str) -> None:
        """Checks one target and keeps the result, unless the breaker refused the check."""
        upstream = route.upstreams[target]
        began_s = self._clock.monotonic()
        endpoint = self._health.spoken.get(target) or first_native_endpoint(upstream)
        if self._health.state(target) is not BreakerState.CLOSED:
            # Check the endpoint where users' requests failed: another endpoint may work.
            endpoint = self._health.failed_at.get(target, endpoint)
        if endpoint is None:
            return
        progress = RequestProgress()
        failure = await self._dispatcher.check(
            _build_request(route, endpoint), upstream, progress
        )
        if not progress.attempts:
            return
        self._accounts.note_check(upstream)
        if isinstance(progress.result, UpstreamAnswer) and progress.result.usage is not None:
            self._metrics.spent(upstream.name, progress.result.usage, upstream.price)
        outcome = failure.failure if failure else None
        duration_s = self._clock.monotonic() - began_s
        # A provider that refuses the check itself is up.
        is_up = (
            outcome is None
            or outcome in CLIENT_FAILURES
            or outcome is FailureClass.RATE_LIMITED
        )
        self._log_change(upstream, outcome, is_up=is_up)
        self._results[target] = HealthCheckResult(began_s, is_up, outcome, duration_s)

    def _log_change(
        self,
        upstream: CompiledTarget,
        outcome: FailureClass | None,
        *,
        is_up: bool,
    ) -> None:
        """Logs that a target does not answer checks, or answers them again."""
        last_result = self._results.get(upstream.id)
        if (last_result is None or last_result.up) is is_up:
            return
        failure = outcome.value if outcome else None
        event = "health_check_recovered" if is_up else "health_check_failed"
        events.warning(event, target=upstream.name, failure_class=failure)

    def _handle_end(self, target: str, task: asyncio.Task[None]) -> None:
        self._running.pop(target, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the health check of %s failed", target, exc_info=error)


def first_native_endpoint(upstream: CompiledTarget) -> Endpoint | None:
    """Returns the target's first endpoint without translation, else its first endpoint."""
    supported = [request for request in REQUESTS if getattr(upstream.can, request.value)]
    native = (name for name in supported if name not in upstream.adapted)
    return next(native, supported[0] if supported else None)


def _build_request(route: CompiledRoute, endpoint: Endpoint) -> RoutedRequest:
    """Builds the check's request. It has no client, so it has no revision, key or id."""
    now_s = asyncio.get_running_loop().time()
    plan = route.plans[endpoint][Arm.INCUMBENT]
    header_items = DIALECTS[endpoint].passed_up.items()
    forwarded = tuple((name, value) for name, value in header_items if value)
    return RoutedRequest(
        REQUESTS[endpoint],
        route,
        Arm.KEEP_WARM,
        plan,
        now_s,
        now_s + CHECK_TIMEOUT_S,
        forwarded,
    )
