"""Opens and closes a span for each request. A failing tracer does not change the request.

This module knows only the protocols below; `tracing` implements them with OpenTelemetry. A
router without tracing does not import `tracing`.
"""

from typing import Protocol

from harness.frame.failures import FailureClass
from router.frame.replies import Header
from router.recording.internal_errors import InternalErrors, RouterPart
from router.request.request_observers import RequestObserver
from router.request.request_state import RequestSpan, RoutedRequest
from router.request.routed_response import RoutedResponse
from router.request.stream_relay import OnEnd
from router.snapshot.compiled import CompiledTarget


class TracedRequest(RequestSpan, Protocol):
    """A request's span, open until the request ends."""

    def end(self, response: RoutedResponse) -> None:
        """Ends the request's span with the outcome of the response."""


class Tracing(Protocol):
    """Begins spans of requests, and sends the waiting spans when it closes."""

    def begin(self, observed: RoutedRequest) -> TracedRequest: ...

    def close(self) -> None: ...


class RequestTracing(RequestObserver):
    """Traces requests; used only if tracing is configured."""

    part = RouterPart.TRACING

    def __init__(self, tracing: Tracing, errors: InternalErrors) -> None:
        self._tracing = tracing
        self._errors = errors
        self._open: dict[str, TracedRequest] = {}  # by request id

    def before_attempt(self, observed: RoutedRequest) -> None:
        span = self._open[observed.request_id] = self._tracing.begin(observed)
        observed.span = _SafeSpan(span, observed, self._errors)

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        span = self._open.pop(observed.request_id, None)
        if span is not None:
            span.end(response)


class _SafeSpan:
    """A span that counts and alerts its tracer's faults, and keeps them from the request."""

    def __init__(
        self,
        span: RequestSpan,
        observed: RoutedRequest,
        errors: InternalErrors,
    ) -> None:
        self._span = span
        self._observed = observed
        self._errors = errors

    @property
    def passed_up(self) -> tuple[Header, ...]:
        try:
            return self._span.passed_up
        except Exception as error:
            self._note(error)
            return ()

    def attempt(
        self,
        upstream: CompiledTarget,
        number: int,
        settle: OnEnd,
    ) -> OnEnd:
        try:
            end_attempt = self._span.attempt(upstream, number, lambda _: None)
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

    def _note(self, error: Exception) -> None:
        self._errors.note(
            RouterPart.TRACING,
            error,
            self._observed.route,
            self._observed.arm,
        )
