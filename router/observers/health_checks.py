"""Sends a cheap real request to each target without recent user requests.

When a check is due is decided in `router.health.target_health`. A check passes
`Dispatcher.check`, so it uses the same connections, keys and breakers as users' requests.
It is never an exposure, and no client sees it.
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
events = structlog.get_logger("swapgate.router")

_F = FailureClass
# A slower target fails the check. Meanwhile the check is the only probe of an open circuit.
CHECK_TIMEOUT_S: Final = 10.0
AT_ONCE: Final = 4
SHORTEST_SLEEP_S: Final = 0.1
# Failures of the provider. The check itself cannot cause them.
FAULTS: Final = (_F.OVERLOADED, _F.SERVER, _F.CONNECT, _F.TIMEOUT)
# The smallest limit that every provider accepts.
ANSWER_TOKENS: Final = 16
_WORD: Final = [{"role": "user", "content": "ping"}]
_CHEAPEST: Final[Mapping[Endpoint, Mapping[str, object]]] = {
    Endpoint.CHAT: {"messages": _WORD, "max_tokens": ANSWER_TOKENS},
    Endpoint.MESSAGES: {"messages": _WORD, "max_tokens": ANSWER_TOKENS},
    Endpoint.RESPONSES: {
        "input": "ping",
        "max_output_tokens": ANSWER_TOKENS,
    },
    Endpoint.EMBEDDINGS: {"input": "ping"},
}
REQUESTS: Final[Mapping[Endpoint, ClientRequest]] = {
    endpoint: read_request(json.dumps({"model": "health", **body}).encode(), endpoint)
    for endpoint, body in _CHEAPEST.items()
}


class HealthCheckResult(NamedTuple):
    """The end of a target's latest check, as a worker remembers it."""

    at: float  # when it began, in monotonic seconds
    up: bool  # the provider answered in some way
    outcome: FailureClass | None  # None for a good answer
    seconds: float


class HealthChecks:
    """Runs a worker's checks in its event loop. interval_s: 0 for no checks.

    At most AT_ONCE checks run at a time, those of the longest unchecked targets first. A target
    whose circuit is closed gets no check while its account's limit is left to users.
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
        self._began = clock.monotonic()
        self._results: dict[str, HealthCheckResult] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Runs the checks that are due until cancelled, and then ends the checks under way."""
        try:
            while True:
                self.run_due()
                seen = self._states(self._routes())
                wait_s = next_check_in_s(seen, self._clock.monotonic(), self._interval_s)
                await asyncio.sleep(max(SHORTEST_SLEEP_S, wait_s))
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def run_due(self) -> None:
        """Starts the checks that are due, as far as AT_ONCE allows."""
        routes = self._routes()
        now = self._clock.monotonic()
        for target in due_targets(self._states(routes), now, self._interval_s):
            if len(self._running) >= AT_ONCE:
                return
            if target not in self._running and self._may_check(routes[target], target):
                task = asyncio.ensure_future(self._check(routes[target], target))
                self._running[target] = task
                task.add_done_callback(partial(self._done, target))

    def _may_check(self, route: CompiledRoute, target: str) -> bool:
        """Returns whether the account's users leave room for a check. An open circuit gets
        checks in any case, because users wait for it to close.
        """
        if self._health.state(target) is not BreakerState.CLOSED:
            return True
        return self._accounts.permit(route.upstreams[target]).calls > 0

    def results(self) -> dict[str, TargetCheck]:
        """Returns the results by target, for the metrics."""
        found = {route: self._results.get(route) for route in self._routes()}
        return {
            # A failed check is out of date once the target answers a user.
            id_: TargetCheck(
                result.up or self._answered_at(id_) > result.at,
                result.seconds,
            )
            for id_, result in found.items()
            if result is not None
        }

    def _routes(self) -> dict[str, CompiledRoute]:
        serving = self._holder.current
        if serving is None:
            return {}
        return {
            id_: route
            for route in serving.routes.values()
            for id_ in route.upstreams.keys() - route.keyless
        }

    def _states(self, targets: Mapping[str, CompiledRoute]) -> dict[str, HealthCheckState]:
        health = self._health.readiness(targets)
        never = HealthCheckResult(
            self._began,
            up=True,
            outcome=None,
            seconds=0.0,
        )
        last = {target: self._results.get(target, never) for target in targets}
        return {
            target: HealthCheckState(
                self._health.state(target),
                health[target].retry_in_s,
                self._answered_at(target),
                last[target].at,
                last[target].outcome is None,
                last[target].outcome in FAULTS,
            )
            for target in targets
        }

    def _answered_at(self, target: str) -> float:
        return self._health.answered_at.get(target, self._began)

    async def _check(self, route: CompiledRoute, target: str) -> None:
        """Checks one target and keeps the result. No result is kept if its breaker refused
        the attempt.
        """
        upstream = route.upstreams[target]
        began = self._clock.monotonic()
        endpoint = self._health.spoken.get(target) or first_native_endpoint(upstream)
        if self._health.state(target) is not BreakerState.CLOSED:
            # Check the endpoint where users' requests failed: another may work.
            endpoint = self._health.failed_at.get(target, endpoint)
        if endpoint is None:
            return
        progress = RequestProgress()
        failure = await self._dispatcher.check(_job(route, endpoint), upstream, progress)
        if not progress.attempts:
            return
        self._accounts.note_check(upstream)
        if isinstance(progress.result, UpstreamAnswer) and progress.result.usage is not None:
            self._metrics.spent(upstream.name, progress.result.usage, upstream.price)
        outcome = failure.failure if failure else None
        seconds = self._clock.monotonic() - began
        # A provider that refuses the check itself is up.
        up = (
            outcome is None
            or outcome in CLIENT_FAILURES
            or outcome is FailureClass.RATE_LIMITED
        )
        self._log_change(upstream, outcome, up=up)
        self._results[target] = HealthCheckResult(began, up, outcome, seconds)

    def _log_change(
        self,
        upstream: CompiledTarget,
        outcome: FailureClass | None,
        *,
        up: bool,
    ) -> None:
        """Logs that a target stopped answering checks, or answers them again."""
        before = self._results.get(upstream.id)
        if (before is None or before.up) is up:
            return
        failure = outcome.value if outcome else None
        event = "health_check_recovered" if up else "health_check_failed"
        events.warning(event, target=upstream.name, failure_class=failure)

    def _done(self, target: str, task: asyncio.Task[None]) -> None:
        self._running.pop(target, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the health check of %s failed", target, exc_info=error)


def first_native_endpoint(upstream: CompiledTarget) -> Endpoint | None:
    """Returns the target's first endpoint without translation, else its first endpoint."""
    able = [request for request in REQUESTS if getattr(upstream.can, request.value)]
    own = (name for name in able if name not in upstream.adapted)
    return next(own, able[0] if able else None)


def _job(route: CompiledRoute, endpoint: Endpoint) -> RoutedRequest:
    """Builds the check's request. It has no client, so it has no revision, key or id."""
    now = asyncio.get_running_loop().time()
    plan = route.plans[endpoint][Arm.INCUMBENT]
    given = DIALECTS[endpoint].passed_up.items()
    passed_up = tuple((name, value) for name, value in given if value)
    return RoutedRequest(
        REQUESTS[endpoint],
        route,
        Arm.KEEP_WARM,
        plan,
        now,
        now + CHECK_TIMEOUT_S,
        passed_up,
    )
