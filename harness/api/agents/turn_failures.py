"""Answers a turn that failed: what the router said of the model, the bound that was reached, or
that the process ended. Also says which answers an idempotency key gets again.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from harness.api.agents.answers import turn_answer
from harness.api.agents.errors import RETRY_AFTER_S, ErrorAnswer
from harness.control.agents.conversation import TurnOutcome
from harness.domain.agents.turn import LIMIT_REACHED
from harness.domain.errors import (
    AnswerUnreadable,
    CallFailed,
    CallLimited,
    CallRefused,
    KeyRefused,
    NobodyAnswered,
    RouterUnreachable,
    StreamBroken,
)

# Where the router's own status says nothing to the client.
_STATUS: Final[Mapping[type[CallFailed], HTTPStatus]] = {
    CallLimited: HTTPStatus.TOO_MANY_REQUESTS,
    CallRefused: HTTPStatus.BAD_REQUEST,
    RouterUnreachable: HTTPStatus.SERVICE_UNAVAILABLE,
    StreamBroken: HTTPStatus.BAD_GATEWAY,
    AnswerUnreadable: HTTPStatus.BAD_GATEWAY,
}


def failure_answer(outcome: TurnOutcome) -> ErrorAnswer:
    """The error that a failed turn is answered with."""
    failure, error = outcome.failure, outcome.error
    assert failure is not None  # noqa: S101 - asked of failed turns alone
    if error is None:
        status = (
            HTTPStatus.UNPROCESSABLE_ENTITY
            if failure.code == LIMIT_REACHED
            else HTTPStatus.SERVICE_UNAVAILABLE
        )
        headers = {"retry-after": str(RETRY_AFTER_S)} if failure.retryable else {}
        return ErrorAnswer(status, failure.reason, failure.code, headers=headers)
    wait_s = error.retry_after_s
    if wait_s is None and is_temporary(outcome):
        wait_s = RETRY_AFTER_S
    return ErrorAnswer(
        _status(error),
        str(error),
        failure.code,
        param="model" if failure.code == "model_not_found" else None,
        headers={} if wait_s is None else {"retry-after": f"{max(1.0, wait_s):.0f}"},
    )


def _status(error: CallFailed) -> int:
    if isinstance(error, KeyRefused):
        # 401 is the agents process's own: nothing that the client can change.
        is_ours = error.status == HTTPStatus.UNAUTHORIZED
        return HTTPStatus.BAD_GATEWAY if is_ours else HTTPStatus.FORBIDDEN
    if isinstance(error, NobodyAnswered):
        return error.status or HTTPStatus.BAD_GATEWAY
    if isinstance(error, CallRefused) and error.status in (
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    ):
        return error.status
    return _STATUS.get(type(error), HTTPStatus.BAD_GATEWAY)


def is_temporary(outcome: TurnOutcome) -> bool:
    """Whether the same message may be answered another time."""
    if outcome.error is not None:
        return outcome.error.retryable
    return outcome.failure is not None and outcome.failure.retryable


def kept_answer(outcome: TurnOutcome) -> tuple[int, str] | None:
    """What the same idempotency key gets again; None for what may be tried again."""
    if outcome.failure is None:
        return HTTPStatus.OK, turn_answer(outcome).model_dump_json(by_alias=True)
    if is_temporary(outcome):
        return None
    answer = failure_answer(outcome)
    return answer.status_code, bytes(answer.body).decode()
