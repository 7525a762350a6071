"""The tracing observer opens a span for each request and closes it when the request is over. A
tracer that fails is counted and alerted, and changes nothing of the request.
"""

from typing import Final

from harness.domain.reliability.failures import FailureClass
from router.observers.capture import is_copy_refused
from router.observers.request_observers import ObservedRequest, RequestObserver
from router.observers.tracing_port import RequestSpan, Settle, SpanInput, SpanResult, Tracing
from router.request.client_directives import client_headers
from router.request.routed_response import RoutedResponse
from router.server.headers import Header
from router.server.internal_errors import InternalErrors, RouterPart
from router.snapshot.compiled import CompiledTarget

TRACE: Final = {b"traceparent": b"", b"tracestate": b""}


class RequestTracing(RequestObserver):
    """Begins and ends the span of each request; is among the observers only where the
    installation traces.
    """

    part = RouterPart.TRACING

    def __init__(self, tracing: Tracing, errors: InternalErrors) -> None:
        self._tracing = tracing
        self._errors = errors

    def before_attempt(self, observed: ObservedRequest) -> None:
        traced = SpanInput(
            observed.request,
            observed.route,
            observed.arm,
            observed.revision,
            observed.request_id,
            client_headers(observed.scope, TRACE),
            is_copy_refused(observed),
        )
        observed.span = _SafeSpan(self._tracing.begin(traced), traced, self._errors)

    def at_end(self, observed: ObservedRequest, response: RoutedResponse) -> None:
        if observed.span is not None:
            observed.span.end(response.served())


class _SafeSpan:
    """A span whose faults are counted and alerted, and change nothing of the request."""

    def __init__(self, span: RequestSpan, traced: SpanInput, errors: InternalErrors) -> None:
        self._span = span
        self._traced = traced
        self._errors = errors

    @property
    def passed_up(self) -> tuple[Header, ...]:
        try:
            return self._span.passed_up
        except Exception as error:
            self._note(error)
            return ()

    def attempt(self, upstream: CompiledTarget, number: int, settle: Settle) -> Settle:
        try:
            end_attempt = self._span.attempt(upstream, number, _ignore_outcome)
        except Exception as error:
            self._note(error)
            return settle

        def settle_and_end(outcome: FailureClass | None) -> None:
            settle(outcome)
            try:
                end_attempt(outcome)
            except Exception as error:
                self._note(error)

        return settle_and_end

    def end(self, served: SpanResult) -> None:
        self._span.end(served)

    def _note(self, error: Exception) -> None:
        self._errors.note(RouterPart.TRACING, error, self._traced.route, self._traced.arm)


def _ignore_outcome(outcome: FailureClass | None) -> None:
    """An attempt's end is settled beside its span."""
