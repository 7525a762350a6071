"""Receives callers' feedback at `POST /v1/feedback`, for metrics and the canary's statistics.

A caller may reach any worker. The worker forwards the feedback to the worker that the request's
id names. Feedback of flags' outcomes comes through `otlp_outcomes`. The body's format is in
`router.recording.port`. Only the key that sent a request may give feedback about it.
"""

import json
from collections import deque
from typing import ClassVar, Final

from harness.frame.errors import InputError
from harness.frame.failures import ArmFailure
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.outcome import (
    ANSWERED,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.routing.table import Arm
from router.frame.body import FieldError
from router.frame.limits import BoundedMap
from router.frame.replies import JSON, Reply, error_reply
from router.recording.internal_errors import RouterPart
from router.recording.metrics import RouterMetrics
from router.recording.port import (
    FeedbackBody,
    FeedbackOutcome,
    FeedbackVerdict,
    Recording,
    ScoredExposure,
    Ticket,
    read_feedback,
)
from router.request.request_observers import RequestObserver
from router.request.request_state import RoutedRequest

FEEDBACK_PATH: Final = "/v1/feedback"
# About 4 MB: the last 3 minutes of a worker with 100 requests/s.
MAX_REQUESTS: Final = 20_000
# Callers choose the labels, and more series would overload a metrics store.
MAX_LABELS: Final = 50
OTHER: Final = "other"
MESSAGES_BY_OUTCOME: Final = {
    FeedbackOutcome.COUNTED: "counted for its canary's guardrail `feedback`",
    FeedbackOutcome.LATE: "too late for its canary, in both arms; it is in the metrics",
    FeedbackOutcome.NOT_SCORED: "in the metrics; the request does not count for a canary",
}


# The outcome of a flag's exposure with bad feedback.
_BAD_FEEDBACK: Final = ExposureOutcome(
    OutcomeKind.FAILED, OutcomeReason.FEEDBACK, ArmFailure.BAD_FEEDBACK.value
)


# Id, route, arm, id of the caller's key, ticket. A plain tuple, because every request creates
# one, and few requests get feedback.
ServedRequest = tuple[str, str, str, str, Ticket | None]


class FeedbackIntake(RequestObserver):
    """Remembers this worker's latest requests, and receives feedback about them.

    It remembers at most REMEMBERED requests. Feedback about an older request gets a 404.
    """

    part: ClassVar[RouterPart] = RouterPart.FEEDBACK

    def __init__(self, recorder: Recording, metrics: RouterMetrics) -> None:
        self._recorder = recorder
        self._metrics = metrics
        # This worker's requests by id, and the latest requests. Only feedback moves the latest
        # requests into the map.
        self._requests_by_id: BoundedMap[str, ServedRequest] = BoundedMap(MAX_REQUESTS)
        self._latest: deque[ServedRequest] = deque(maxlen=MAX_REQUESTS)
        self._flag_tickets: BoundedMap[str, Ticket] = BoundedMap(MAX_REQUESTS)
        # A caller's exposure by key id, flag and targeting key.
        self._exposure_by_subject: BoundedMap[tuple[str, str, str], str] = BoundedMap(
            MAX_REQUESTS
        )
        self._labels: set[str] = set()
        recorder.on_feedback(self.enter)

    def before_attempt(self, observed: RoutedRequest) -> None:
        canary = observed.experiment
        ticket = observed.ticket
        if ticket is not None and (
            canary is None or Guardrail.FEEDBACK not in canary.unit_rule.guardrails
        ):
            ticket = None
        route = observed.route.route.name
        arm = observed.arm._value_
        self._latest.append((observed.request_id, route, arm, observed.key_id, ticket))

    def remember_exposure(
        self,
        request_id: str,
        route: str,
        arm: Arm,
        ticket: Ticket | None,
        subject: tuple[str, str, str],
    ) -> None:
        """Remembers an exposure without an answer; its feedback is its outcome.

        Args:
            subject: key id, flag and targeting key.
        """
        self._latest.append((request_id, route, arm.value, subject[0], ticket))
        if ticket is not None:
            self._flag_tickets.put(request_id, ticket)
        # Keep a caller's first exposure of a day: later exposures have no ticket.
        if ticket is not None or self._exposure_by_subject.get(subject) is None:
            self._exposure_by_subject.put(subject, request_id)

    def find_exposure(
        self,
        key: str,
        flag: str,
        caller: str,
    ) -> str:
        """Returns the request id of a caller's exposure in this worker; else `caller`."""
        return self._exposure_by_subject.get((key, flag, caller)) or caller

    async def take(self, body: bytes, key: str) -> Reply:
        """Answers a request with feedback.

        Args:
            key: the id of its API key.

        200 if the feedback counts for a canary, 202 if it is only in the metrics.
        """
        try:
            opinion = read_feedback(body)
        except InputError as error:
            param = error.param if isinstance(error, FieldError) else None
            return error_reply(
                400,
                f"the feedback: {error}",
                "invalid_feedback",
                param=param,
            )
        try:
            outcome = await self.settle(opinion, key)
        except TimeoutError:
            message = "the worker that served it does not answer; try again in a second"
            return error_reply(503, message, "feedback_unavailable")
        return _build_reply(opinion, outcome)

    async def settle(self, opinion: FeedbackBody, key: str) -> FeedbackOutcome | None:
        """Enters feedback at the worker that served the request. Raises TimeoutError."""
        if opinion.worker == self._recorder.worker:
            return await self.enter(opinion, key)
        return await self._recorder.forward_feedback(opinion, key)

    async def enter(self, opinion: FeedbackBody, key: str) -> FeedbackOutcome | None:
        """Enters feedback about a request of this worker.

        Returns None if the worker does not know the request, or if another key sent it.
        """
        while self._latest:
            latest_request = self._latest.popleft()
            self._requests_by_id.put(latest_request[0], latest_request)
        served_request = self._requests_by_id.get(opinion.request_id)
        if served_request is None:
            return None
        _, route, arm, owner, ticket = served_request
        if owner != key:
            return None
        self._metrics.feedback(
            route, arm, opinion.verdict.value, self._limit_label(opinion.label)
        )
        is_later = isinstance(ticket, ScoredExposure) and ticket.first is None
        if ticket is None or is_later or opinion.verdict is FeedbackVerdict.NONE:
            return FeedbackOutcome.NOT_SCORED
        is_bad = opinion.verdict is FeedbackVerdict.BAD
        is_in_time = await self._recorder.note_feedback(ticket, bad=is_bad)
        if is_in_time and self._flag_tickets.get(opinion.request_id) is not None:
            self._recorder.settle(ticket, _BAD_FEEDBACK if is_bad else ANSWERED)
        return FeedbackOutcome.COUNTED if is_in_time else FeedbackOutcome.LATE

    def _limit_label(self, label: str) -> str:
        """Returns the label for the metrics: OTHER for a new label beyond MAX_LABELS."""
        if len(self._labels) < MAX_LABELS:
            self._labels.add(label)
        return label if label in self._labels else OTHER


def _build_reply(opinion: FeedbackBody, outcome: FeedbackOutcome | None) -> Reply:
    if outcome is None:
        message = (
            f"this key has no remembered request {opinion.request_id!r}; each worker knows "
            f"its latest {MAX_REQUESTS}, until it ends. Behind a balancer another router may "
            "have served it: send this again"
        )
        return error_reply(404, message, "request_not_found", param="request_id")
    entry = {
        "object": "feedback",
        "request_id": opinion.request_id,
        "counted": outcome is FeedbackOutcome.COUNTED,
        "outcome": outcome.value,
        "message": MESSAGES_BY_OUTCOME[outcome],
    }
    status = 200 if outcome is FeedbackOutcome.COUNTED else 202
    return Reply(status, (JSON,), json.dumps(entry).encode())
