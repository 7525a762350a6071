"""Hands a shadow's pairs to the capture writer, on routes that keep captures.

A caller's first mirrored request that may be stored makes a pair. The worker enters the pair
before it asks the candidate, and sends both answers after the candidate's end, whatever that
is. So no answer decides whether its pair counts. The capture writer redacts and stores.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final, NamedTuple

from harness.frame.ports import Clock
from harness.routing.capture import CapturedRequest
from harness.routing.shadow import Shadow
from harness.routing.shadow_pair import (
    STORING_TIME,
    CandidateAnswer,
    CandidateOutcome,
    pair_id,
)
from router.observers.capture_head import OK, build_capture_head, is_copy_refused
from router.protocols.answers import TokenUsage
from router.recording.port import CaptureDraft, Recording
from router.recording.shared_files import SharedMarks
from router.request.request_state import RoutedRequest

# Why a mirrored request is no pair, by the key of the reason's count.
NOT_ON_ROUTE: Final = "unstored_route"
NOT_BY_CLIENT: Final = "unstored_client"


class SideAnswer(NamedTuple):
    """The answer of one side, of the incumbent or of the candidate.

    ms: the time from the attempt's start to the answer, or to a stream's first output.
    outcome, failure: see `CandidateAnswer`; the incumbent answers or fails.
    """

    answer: str | None  # its body or events; None without an answer
    ms: float
    usage: TokenUsage
    outcome: CandidateOutcome = CandidateOutcome.ANSWERED
    failure: str = ""


class EnteredPair(NamedTuple):
    """A pair whose candidate is asked. incumbent_answer: empty without an answer."""

    head: CapturedRequest
    pending: CandidateAnswer
    client_body: str
    incumbent_answer: str


class ShadowPairs:
    """Enters pairs, and stores their answers. Belongs to the worker's event loop.

    marks: of all workers' callers. secret: the key for hashes of users.
    """

    def __init__(
        self, secret: bytes, clock: Clock, recorder: Recording, marks: SharedMarks
    ) -> None:
        self._secret = secret
        self._clock = clock
        self._recorder = recorder
        self._marks = marks

    def enter(
        self,
        job: RoutedRequest,
        shadow: Shadow,
        incumbent: SideAnswer,
        *,
        longest_s: float,
    ) -> EnteredPair | None:
        """Enters the pair of a request that may be stored; None if its caller has one.

        Args:
            longest_s: the candidate's time limit.
        """
        # Another series is another look, with pairs of its own.
        subject = shadow.terms.series if shadow.terms else shadow.id
        if not self._marks.first(f"pair:{subject}:{job.sticky_key}"):
            return None
        now = self._clock.now()
        body = job.request.text
        answer = incumbent.answer or ""
        pending = CandidateAnswer(
            shadow.candidate.name,
            due=now + timedelta(seconds=longest_s) + STORING_TIME,
        )
        head = replace(
            build_capture_head(job, now, self._secret),
            id=pair_id(shadow.id, job.request_id, self._secret),
            target=job.route.upstreams[job.plan.incumbent].name,
            outcome=incumbent.failure or OK,
            body_bytes=len(body) + len(answer),
            shadow=shadow.id,
            candidate=pending,
        )
        # The entry has no text, and so needs little room in the buffers.
        self._recorder.capture(CaptureDraft(head, 0, "", ""))
        return EnteredPair(head, pending, body, answer)

    def store(
        self, entered: EnteredPair, candidate: SideAnswer, cost_usd: float | None
    ) -> None:
        """Sends the pair's answers.

        Args:
            cost_usd: None if it is unknown.
        """
        head = entered.head
        answer = replace(
            entered.pending,
            outcome=candidate.outcome,
            failure=candidate.failure,
            ms=candidate.ms,
            output_tokens=candidate.usage.output_tokens,
            cost_usd=cost_usd,
        )
        text = candidate.answer or ""
        self._recorder.capture(
            CaptureDraft(
                replace(head, candidate=answer, body_bytes=head.body_bytes + len(text)),
                0,
                entered.client_body,
                entered.incumbent_answer,
                text,
            )
        )


def find_storing_obstacle(job: RoutedRequest) -> str:
    """Names the reason why no pair of this request may be stored; empty without one."""
    if not job.route.route.settings.capture_bps:
        return NOT_ON_ROUTE
    return NOT_BY_CLIENT if is_copy_refused(job) else ""
