"""Token settlement corrects what a request reserved of its key's token rate limit, once its
true tokens are known: what it did not use is given back.
"""

from router.access.admission import Admission, RateReservation
from router.observers.request_observers import ObservedRequest, RequestObserver
from router.protocols.usage import NO_USAGE
from router.request.attempt import UpstreamAnswer
from router.request.routed_response import RoutedResponse
from router.request.stream_relay import CommittedStream
from router.server.internal_errors import RouterPart


class TokenSettlement(RequestObserver):
    """Corrects the reservation of a request once its tokens are known."""

    part = RouterPart.LIMITS
    of_limited = True

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def after_answer(self, observed: ObservedRequest, response: RoutedResponse) -> None:
        reservation = observed.reservation
        if reservation is not None and reservation.limit.tokens_per_min is not None:
            self._admission.settle(reservation, _actual_tokens(reservation, response))


def _actual_tokens(reservation: RateReservation, response: RoutedResponse) -> int:
    """As the provider counted; of what it did not, as estimated."""
    result = response.progress.result
    # As `response.usage` has it of all results, without the call.
    usage = (result.usage or NO_USAGE) if isinstance(result, UpstreamAnswer) else response.usage
    if usage.input_tokens:
        return usage.input_tokens + usage.output_tokens
    if isinstance(result, CommittedStream) or usage.output_tokens:
        return reservation.input_tokens + usage.output_tokens
    return 0
