"""Observers that admit a request to its rollout and sample its answer.

The admission comes before the first attempt, so that no outcome decides whether a request
counts. What is measured is in `router.request.guardrail_probe`, the statistics are in
`router.recording.ledger` and the gate. `ShortDeadlines` tells which client limits are too
short to be evidence.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import ClassVar, Final

from harness.gate.online.observation import SEGMENTS, Segment
from harness.gate.online.outcome import ANSWERED
from harness.providers.models.capabilities import Endpoint
from harness.routing.table import Canary, Route
from router.frame.body import ClientRequest
from router.observers.canary_guard import CanaryGuards
from router.recording.internal_errors import RouterPart
from router.recording.port import Recording
from router.recording.scored_units import SEGMENTS_FROM
from router.request.guardrail_probe import RequestCost, RouteGuardrails
from router.request.outcome import time_answer
from router.request.request_observers import RequestObserver
from router.request.request_state import RoutedRequest
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import CompiledRoute

_BITS: Final[Mapping[Segment, int]] = {segment: 1 << n for n, segment in enumerate(SEGMENTS)}
# Plain numbers, because looking up enumeration members takes longer than all other work here.
_STREAM, _WHOLE = _BITS[Segment.STREAM], _BITS[Segment.WHOLE]
_TOOLS, _NO_TOOLS = _BITS[Segment.TOOLS], _BITS[Segment.NO_TOOLS]
_ENDPOINTS: Final = {endpoint: _BITS[Segment(endpoint.value)] for endpoint in Endpoint}


_SOURCES: Final = {
    "header:": _BITS[Segment.HEADER],
    "key:": _BITS[Segment.HEADER],  # the API key, which a header carries
    "opening:": _BITS[Segment.OPENING],
    "": _BITS[Segment.REQUEST],
}
_FIELD: Final = _BITS[Segment.FIELD]


def detect_segments(request: ClientRequest, sticky_key: str) -> int:
    """Returns the segments of a request as bits in the order of `SEGMENTS`.

    They are known before the answer: stream, tools, endpoint, and where the sticky key
    comes from.
    """
    return (
        (_STREAM if request.stream else _WHOLE)
        | (_TOOLS if request.members.get("tools") else _NO_TOOLS)
        | _ENDPOINTS[request.endpoint]
        | _SOURCES.get(sticky_key[: sticky_key.find(":") + 1], _FIELD)
    )


class RolloutAdmission(RequestObserver):
    """Admits requests that are evidence to their rollout's statistics, with a probe of the
    answer.
    """

    part: ClassVar[RouterPart] = RouterPart.SCORING

    def __init__(self, recorder: Recording, guards: CanaryGuards) -> None:
        self._recorder = recorder
        self._guards = guards
        # By the route's `id()`, for one revision: the next one has other routes.
        self._by_route: dict[int, tuple[CompiledRoute, RouteGuardrails | None]] = {}
        self._revision = 0

    def before_attempt(self, observed: RoutedRequest) -> None:
        canary = observed.experiment
        if canary is None:
            return
        if self._guards.stopped(canary):
            # A stopped canary counts no units in either arm.
            return
        route, request = observed.route, observed.request
        if observed.revision != self._revision:
            self._by_route.clear()
            self._revision = observed.revision
        known = self._by_route.get(id(route))
        if known is None or known[0] is not route:
            known = self._compile(route, canary)
        on = known[1]
        probe = on.probe(request, is_judged=observed.is_judged) if on is not None else None
        traits = probe.traits if probe is not None else 0
        traits |= detect_segments(request, observed.sticky_key) << SEGMENTS_FROM
        observed.ticket = self._recorder.admit(
            canary, observed.arm, observed.sticky_key, traits, observed.key_id
        )
        observed.probe = probe if observed.ticket is not None else None

    def _compile(
        self, route: CompiledRoute, canary: Canary
    ) -> tuple[CompiledRoute, RouteGuardrails | None]:
        made = route, RouteGuardrails.from_route(route, canary.unit_rule)
        self._by_route[id(route)] = made
        return made


class GuardrailSampling(RequestObserver):
    """Measures the answers of admitted requests. Needs the record of `RequestAccounting`."""

    part: ClassVar[RouterPart] = RouterPart.GUARDRAILS

    def after_answer(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        """Samples the answer of an exposure, with its times."""
        probe, record, progress = observed.probe, observed.record, response.progress
        if probe is None or record is None:
            return
        if observed.outcome is ANSWERED:
            # The accounting leaves the times of a plain answer out.
            observed.outcome = time_answer(progress, record.latency_ms / 1000)
        cost = RequestCost(
            record.latency_ms / 1000,
            progress.first_token_s,
            progress.last_token_s,
            record.output_tokens,
            record.cost_usd,
            response.usage,
            progress.attempts[-1].upstream.price if progress.result is not None else None,
            getattr(progress.result, "opening_s", 0.0),
        )
        failed = record.failed or record.charged
        observed.sample = probe.sample(response.signals(), cost, failed=failed)


# A timeout below this multiple of the control's usual latency is not evidence.
TIMES: Final = 3.0
USUAL: Final = 0.95
KEPT: Final = 100
# With fewer answers, the usual time is unknown, so every client's deadline counts as too short.
LEAST: Final = 20


class ShortDeadlines(RequestObserver):
    """Keeps the latencies of the latest answers by route and target id, for one event loop."""

    part: ClassVar[RouterPart] = RouterPart.RECORDING

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], deque[float]] = {}

    def watches(self, route: CompiledRoute) -> bool:
        return route.experiment is not None

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        attempts, record = response.progress.attempts, observed.record
        if record is None or record.outcome != "ok" or len(attempts) != 1:
            return
        route, trial = observed.route.route, observed.route.experiment
        target = attempts[0].upstream.id
        # Inlines `_control`, because this runs for most requests.
        if trial is not None and target == (trial.target if trial.control else route.incumbent):
            self._note(route.name, target, record.latency_ms / 1000)

    def answered(self, route: Route, target: str, seconds: float) -> None:
        """Notes a latency in seconds, if the control of the route's live rollout gave the
        answer.
        """
        if route.experiment is not None and target == _control(route):
            self._note(route.name, target, seconds)

    def _note(self, route: str, target: str, seconds: float) -> None:
        kept = self._latest.get((route, target))
        if kept is None:
            kept = self._latest[route, target] = deque(maxlen=KEPT)
        kept.append(seconds)

    def is_too_short(self, route: Route, limit_s: float) -> bool:
        """Returns True if a client's deadline is too short for a usual answer, or if the usual
        time is not known yet.
        """
        latest = sorted(self._latest.get((route.name, _control(route)), ()))
        if len(latest) < LEAST:
            return True
        return limit_s < TIMES * latest[math.ceil(USUAL * len(latest)) - 1]


def _control(route: Route) -> str:
    trial = route.experiment
    return trial.target if trial is not None and trial.control else route.incumbent
