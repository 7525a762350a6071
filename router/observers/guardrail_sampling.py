"""Observers that admit a request to its rollout and sample its answer.

The admission comes before the first attempt, so that no outcome decides whether a request
counts. `router.request.guardrail_probe` measures the answer. The statistics are in
`router.recording.ledger` and the gate.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from harness.gate.online.exposures import SEGMENTS_FROM
from harness.gate.online.observation import SEGMENTS, Segment
from harness.gate.online.outcome import ANSWERED
from harness.providers.models.capabilities import Endpoint
from harness.routing.table import Canary
from router.frame.body import ClientRequest
from router.observers.canary_guard import CanaryGuards
from router.recording.internal_errors import RouterPart
from router.recording.port import Recording
from router.request.guardrail_probe import RequestCost, RouteGuardrails
from router.request.outcome import limit_to_share, time_answer
from router.request.request_observers import (
    KeptByRoute,
    RequestObserver,
    keep_with_route,
)
from router.request.request_state import RoutedRequest
from router.request.routed_response import ANSWERS, RoutedResponse
from router.snapshot.compiled import CompiledRoute

_SEGMENT_BITS: Final[Mapping[Segment, int]] = {
    segment: 1 << n for n, segment in enumerate(SEGMENTS)
}
# Plain numbers, because looking up enumeration members takes longer than all other work here.
_STREAM = _SEGMENT_BITS[Segment.STREAM]
_WHOLE = _SEGMENT_BITS[Segment.WHOLE]
_TOOLS = _SEGMENT_BITS[Segment.TOOLS]
_NO_TOOLS = _SEGMENT_BITS[Segment.NO_TOOLS]
_ENDPOINT_BITS: Final = {
    endpoint: _SEGMENT_BITS[Segment(endpoint.value)] for endpoint in Endpoint
}


_SOURCE_BITS: Final = {
    "header:": _SEGMENT_BITS[Segment.HEADER],
    "key:": _SEGMENT_BITS[Segment.HEADER],  # the API key, which a header carries
    "opening:": _SEGMENT_BITS[Segment.OPENING],
    "": _SEGMENT_BITS[Segment.REQUEST],
}
_FIELD_BIT: Final = _SEGMENT_BITS[Segment.FIELD]


def detect_segments(request: ClientRequest, sticky_key: str) -> int:
    """Returns the segments of a request as bits in the order of `SEGMENTS`.

    They are known before the answer: stream, tools, endpoint, and the sticky key's source.
    """
    return (
        (_STREAM if request.stream else _WHOLE)
        | (_TOOLS if request.members.get("tools") else _NO_TOOLS)
        | _ENDPOINT_BITS[request.endpoint]
        | _SOURCE_BITS.get(sticky_key[: sticky_key.find(":") + 1], _FIELD_BIT)
    )


class RolloutAdmission(RequestObserver):
    """Admits requests to their rollout's statistics, with a probe of the answer."""

    part: ClassVar[RouterPart] = RouterPart.SCORING

    def __init__(self, recorder: Recording, guards: CanaryGuards) -> None:
        self._recorder = recorder
        self._guards = guards
        self._by_route: KeptByRoute[RouteGuardrails | None] = {}

    def before_attempt(self, observed: RoutedRequest) -> None:
        canary = observed.experiment
        if canary is None:
            return
        if self._guards.stopped(canary):
            # A stopped canary counts no exposures in either arm.
            return
        route = observed.route
        request = observed.request
        kept = self._by_route.get(id(route))
        guardrails = kept[1] if kept is not None else self._compile(route, canary)
        probe = (
            guardrails.probe(request, is_judged=observed.is_judged)
            if guardrails is not None
            else None
        )
        traits = probe.traits if probe is not None else 0
        traits |= detect_segments(request, observed.sticky_key) << SEGMENTS_FROM
        observed.ticket = self._recorder.admit(
            canary,
            observed.arm,
            observed.sticky_key,
            traits,
            observed.key_id,
        )
        observed.probe = probe if observed.ticket is not None else None

    def _compile(self, route: CompiledRoute, canary: Canary) -> RouteGuardrails | None:
        guardrails = RouteGuardrails.from_route(route, canary.unit_rule)
        keep_with_route(self._by_route, route, guardrails)
        return guardrails


class GuardrailSampling(RequestObserver):
    """Measures the answers of admitted requests. Needs the record of `RequestAccounting`."""

    part: ClassVar[RouterPart] = RouterPart.GUARDRAILS

    def after_answer(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        """Samples the answer of an exposure, with its times."""
        probe = observed.probe
        record = observed.record
        progress = response.progress
        if probe is None or record is None:
            return
        if observed.outcome is ANSWERED:
            # The accounting omits the times of a plain answer.
            observed.outcome = time_answer(progress, record.latency_ms / 1000)
        if observed.hurried and observed.outcome is not None:
            observed.outcome = limit_to_share(observed, observed.outcome)
        usage = response.usage
        price = None
        if progress.result is not None and (full_price := progress.attempts[-1].upstream.price):
            price = full_price.for_answer(record.input_tokens, usage.tier)
        cost = RequestCost(
            record.latency_ms / 1000,
            progress.first_token_s,
            progress.last_token_s,
            record.output_tokens,
            record.cost_usd if record.priced else None,
            usage,
            price,
            getattr(progress.result, "opening_s", 0.0),
            record.bounded,
        )
        # A broken stream has values, too. The outcome decides their meaning.
        has_failed = not (response.caller_gone or isinstance(progress.result, ANSWERS))
        observed.sample = probe.sample(response.signals(), cost, failed=has_failed)
