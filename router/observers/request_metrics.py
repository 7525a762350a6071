"""Request metrics count every finished request in the worker's Prometheus metrics, by route,
arm, target and outcome, what was irregular in its answer, and what its provider refused of a
conversation before.
"""

from typing import ClassVar

from router.observers.request_observers import ObservedRequest, RequestObserver
from router.recording.metrics import RouterMetrics
from router.request.attempt import UpstreamAnswer
from router.request.routed_response import RoutedResponse
from router.request.stream_relay import CommittedStream
from router.server.internal_errors import RouterPart


class RequestMetrics(RequestObserver):
    """Counts a request once it is over."""

    part: ClassVar[RouterPart] = RouterPart.RECORDING

    def __init__(self, metrics: RouterMetrics) -> None:
        self._metrics = metrics

    def at_end(self, observed: ObservedRequest, response: RoutedResponse) -> None:
        record, result = observed.record, response.progress.result
        if record is None:
            return
        if not (isinstance(result, UpstreamAnswer) and result.irregularity is None):
            for irregularity in response.irregularities:
                self._metrics.irregular(record.target_name, irregularity)
        if isinstance(result, UpstreamAnswer | CommittedStream):
            for piece in result.refused:
                self._metrics.refused_piece(record.target_name, piece)
        self._metrics.finished(record)
