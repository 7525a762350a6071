"""Request accounting makes the record of each finished request (target, outcome, tokens, cost,
whether its arm is charged with a failure), and gives it to the recorder for the statistics of
its minute, its key and its rollout.
"""

from collections import Counter

from harness.ports import Clock
from router.observers.request_observers import ObservedRequest, RequestObserver
from router.recording.port import Recording
from router.recording.traffic_minutes import CompletedRequest
from router.request.routed_response import FAILED, NO_USAGE, RoutedResponse
from router.server.internal_errors import InternalErrors, RouterPart


class RequestAccounting(RequestObserver):
    """Enters every request in the statistics of its minute, its key and its rollout."""

    part = RouterPart.RECORDING

    def __init__(self, recorder: Recording, clock: Clock, errors: InternalErrors) -> None:
        self._recorder = recorder
        self._counters: Counter[str] = recorder.counters
        self._clock = clock
        self._errors = errors

    def after_answer(self, observed: ObservedRequest, response: RoutedResponse) -> None:
        response.note_faults()
        observed.outcome = response.outcome
        progress, usage = response.progress, response.usage
        target = progress.upstream
        cost_usd, priced = 0.0, True
        if target is not None and target.price is not None:
            cost_usd = target.price.cost_usd(*usage)
        elif usage != NO_USAGE:
            priced = False
            self._counters["requests_without_price"] += 1
        charge = response.charge
        observed.record = CompletedRequest(
            route=observed.route.route.name,
            arm=observed.arm._value_,
            target=target.id if target else "",
            revision=observed.revision,
            stream=observed.request.stream,
            failed=observed.outcome == FAILED,
            charged=charge is not None,
            latency_ms=(self._clock.monotonic() - observed.started) * 1000,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=cost_usd,
            key=observed.key_id,
            priced=priced,
            cached_tokens=usage.cached_tokens,
            charge=charge,
        )

    def at_end(self, observed: ObservedRequest, response: RoutedResponse) -> None:
        record = observed.record or _minimal_record(observed)
        faults = self._errors.taken()
        if faults:
            record = record._replace(internal_errors=faults)
        observed.record = record
        self._recorder.finish(observed.ticket, record, observed.sample)
        self._recorder.served_names.note(record.target, response.model)


def _minimal_record(observed: ObservedRequest) -> CompletedRequest:
    """That there was a request, where the rest could not be worked out."""
    return CompletedRequest(
        route=observed.route.route.name,
        arm=observed.arm.value,
        target="",
        revision=observed.revision,
        stream=observed.request.stream,
        failed=False,
        charged=False,
        latency_ms=0.0,
        input_tokens=0,
        output_tokens=0,
        cost_usd=0.0,
        key=observed.key_id,
        priced=False,
    )
