"""Answers a turn that failed: what the router said of the model, the bound that was reached, or
that the process ended. Also says which answers an idempotency key gets again.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from harness.api.agents.answers import TurnAnswer
from harness.api.agents.errors import RETRY_AFTER_S, ErrorAnswer
from harness.control.agents.conversation import TurnOutcome
from harness.domain.agents.turn import CAP_REACHED, LIMIT_REACHED
from harness.domain.errors import (
    CallFailed,
    CallLimited,
    CallRefused,
    KeyRefused,
    NobodyAnswered,
    RouterUnreachable,
)

# Where the router's own status says nothing to the client.
_STATUS: Final[Mapping[type[CallFailed], HTTPStatus]] = {
    CallLimited: HTTPStatus.TOO_MANY_REQUESTS,
    CallRefused: HTTPStatus.BAD_REQUEST,
    RouterUnreachable: HTTPStatus.SERVICE_UNAVAILABLE,
}
# Of turns that a bound of ours ended.
_OWN_STATUS: Final[Mapping[str, HTTPStatus]] = {
    LIMIT_REACHED: HTTPStatus.UNPROCESSABLE_ENTITY,
    CAP_REACHED: HTTPStatus.TOO_MANY_REQUESTS,
}
# What is wrong with a request for every model, so that the client is told.
_PASSED_ON: Final = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


def failure_answer(outcome: TurnOutcome) -> ErrorAnswer:
    """The error that a failed turn is answered with."""
    failure, error = outcome.failure, outcome.error
    assert failure is not None  # noqa: S101 - asked of failed turns alone
    is_capped = error is None and failure.code == CAP_REACHED
    wait_s = error.retry_after_s if error else None
    # What the cap refuses may be tried again, but nobody knows when.
    if wait_s is None and is_temporary(outcome) and not is_capped:
        wait_s = RETRY_AFTER_S
    retry_after_s = None if wait_s is None else round(max(1.0, wait_s))
    if error is not None:
        param = "model" if failure.code == "model_not_found" else None
        status, reason = _status(error), str(error)
    else:
        status = _OWN_STATUS.get(failure.code, HTTPStatus.SERVICE_UNAVAILABLE)
        param, reason = None, failure.reason
    return ErrorAnswer(status, reason, failure.code, param=param, retry_after_s=retry_after_s)


def _status(error: CallFailed) -> int:
    if isinstance(error, KeyRefused):
        # 401 is the agents process's own: nothing that the client can change.
        is_ours = error.status == HTTPStatus.UNAUTHORIZED
        return HTTPStatus.BAD_GATEWAY if is_ours else HTTPStatus.FORBIDDEN
    if isinstance(error, NobodyAnswered):
        return error.status or HTTPStatus.BAD_GATEWAY
    if isinstance(error, CallRefused) and error.status in _PASSED_ON:
        return error.status
    return _STATUS.get(type(error), HTTPStatus.BAD_GATEWAY)


def is_temporary(outcome: TurnOutcome) -> bool:
    """Whether the same message may be answered another time."""
    failure = outcome.error or outcome.failure
    return failure is not None and failure.retryable


def kept_answer(outcome: TurnOutcome) -> tuple[int, str] | None:
    """What the same idempotency key gets again; None for what may be tried again."""
    if outcome.failure is None:
        return HTTPStatus.OK, TurnAnswer.from_outcome(outcome).model_dump_json(by_alias=True)
    if is_temporary(outcome):
        return None
    answer = failure_answer(outcome)
    return answer.status_code, bytes(answer.body).decode()
