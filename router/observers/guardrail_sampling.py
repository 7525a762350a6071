"""Two observers score the requests of a rollout: `RolloutAdmission` enters each in the
rollout's statistics before its first attempt, with a probe for its guardrails;
`GuardrailSampling` takes the probe's sample once the answer is over.
"""

from dataclasses import replace
from typing import Final

from router.observers.canary_guard import CanaryGuards
from router.observers.guardrail_probe import GuardrailProbe, RequestCost
from router.observers.request_observers import ObservedRequest, RequestObserver
from router.observers.request_segments import detect_segments
from router.recording.guardrail_sample import SEGMENTS_FROM, RequestTraits
from router.recording.port import Recording
from router.request.routed_response import RoutedResponse
from router.server.internal_errors import RouterPart

JUDGED: Final = RequestTraits.JUDGED.value


class RolloutAdmission(RequestObserver):
    """Admits a request to its rollout's ledger, with the probe that its guardrails ask for."""

    part = RouterPart.SCORING

    def __init__(self, recorder: Recording, guards: CanaryGuards) -> None:
        self._recorder = recorder
        self._guards = guards

    def before_attempt(self, observed: ObservedRequest) -> None:
        canary = observed.experiment
        if canary is None:
            return
        probe = GuardrailProbe.from_request(observed.request, observed.route, canary.unit_rule)
        if probe is not None and observed.is_judged:
            probe = replace(probe, traits=probe.traits | JUDGED)
        if self._guards.stopped(canary):
            # Nobody is charged for what has no canary any more.
            return
        traits = probe.traits if probe else 0
        if canary.unit_rule.segments:
            segments = detect_segments(observed.request, observed.key_id)
            traits |= segments << SEGMENTS_FROM
        observed.ticket = self._recorder.admit(
            canary, observed.arm, observed.sticky_key, traits
        )
        observed.probe = probe if observed.ticket is not None else None


class GuardrailSampling(RequestObserver):
    """Takes the sample of a finished request that its rollout's guardrails judge."""

    part = RouterPart.GUARDRAILS

    def after_answer(self, observed: ObservedRequest, response: RoutedResponse) -> None:
        probe, record, progress = observed.probe, observed.record, response.progress
        if probe is None or record is None:
            return
        cost = RequestCost(
            record.latency_ms / 1000,
            progress.first_token_s,
            progress.last_token_s,
            record.output_tokens,
            record.cost_usd,
        )
        failed = record.failed or record.charged
        observed.sample = probe.sample(response.signals(), cost, failed=failed)
