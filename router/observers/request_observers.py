"""What watches a request: statistics, judge, feedback, tracing, captures, shadow.

None of them may cost a user an answer. Each is asked within its own `try`: what raises is told
of (`internal_errors`) and is out of this request, the others go on.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.table import Arm
from router.access.admission import Admission, RateReservation
from router.observers.canary_guard import CanaryExposure
from router.observers.capture import CaptureSampler
from router.observers.feedback import FeedbackIntake
from router.observers.guardrail_probe import GuardrailProbe
from router.observers.judge import JudgeSample, SampleJudge
from router.observers.request_accounting import RequestAccounting, RequestEntry
from router.observers.shadow import MirroredRequest, ShadowMirror, join_copies
from router.observers.tracing_port import RequestSpan, Settle, SpanInput, SpanResult, Tracing
from router.recording.port import Ticket
from router.request.body import ClientRequest
from router.request.request_state import RoutedRequest
from router.request.routed_response import AnswerCopy, RoutedResponse
from router.server.asgi import Scope
from router.server.internal_errors import InternalErrors, RouterPart
from router.snapshot.compiled import CompiledRoute, CompiledTarget, Header


class RequestScoring(NamedTuple):
    """A request's place in the statistics, what its guardrails watch, and its place in this
    worker's own guard. drawn: its answer is to be judged.
    """

    ticket: Ticket | None = None
    watch: GuardrailProbe | None = None
    counted: CanaryExposure | None = None
    drawn: JudgeSample | None = None


class RequestCopies(NamedTuple):
    """Where an answer is put as well as to the user."""

    captured: AnswerCopy | None
    mirror: MirroredRequest | None
    all: Sequence[AnswerCopy]


UNSCORED: Final = RequestScoring()
NO_COPIES: Final = RequestCopies(None, None, ())


class RequestObservers:
    def __init__(  # noqa: PLR0913, PLR0917 - the parts, one by one
        self,
        books: RequestAccounting,
        feedback: FeedbackIntake,
        admission: Admission,
        sampler: CaptureSampler,
        shadows: ShadowMirror,
        judges: SampleJudge,
        tracing: Tracing | None,
        errors: InternalErrors,
    ) -> None:
        self._books = books
        self._feedback = feedback
        self._admission = admission
        self._sampler = sampler
        self._shadows = shadows
        self._judges = judges
        self._tracing = tracing
        self._errors = errors

    @property
    def traces(self) -> bool:
        return self._tracing is not None

    def scored(
        self,
        scope: Scope,
        route: CompiledRoute,
        request: ClientRequest,
        arm: Arm,
        key: str,
        own: str,
    ) -> RequestScoring:
        """Of a request that is evidence. key: the sticky one. own: the request's id."""
        drawn = ticket = counted = watch = None
        try:
            canary = route.trial
            if canary is None:
                return UNSCORED
        except Exception as error:
            self._errors.note(RouterPart.SCORING, error, route, arm)
            return UNSCORED
        try:
            if route.judge is not None:
                drawn = self._judges.drawn(scope, route, request, arm, key, own)
        except Exception as error:
            self._errors.note(RouterPart.JUDGE, error, route, arm)
        try:
            watch = GuardrailProbe.of(request, route, canary.unit_rule)
            if drawn is not None and watch is not None:
                watch = drawn.told(watch)
            ticket = self._books.admit(canary, arm, key, watch)
            counted = self._books.guard(route.route.canary, arm, key)
        except Exception as error:
            self._errors.note(RouterPart.SCORING, error, route, arm)
        return RequestScoring(ticket, watch if ticket is not None else None, counted, drawn)

    def remember(
        self, own: str, route: CompiledRoute, arm: Arm, key: str, ticket: Ticket | None
    ) -> None:
        """For feedback about the answer. own: the request's id. key: the id of the caller's."""
        try:
            self._feedback.remember(own, route.route.name, arm, key, route.trial, ticket)
        except Exception as error:
            self._errors.note(RouterPart.FEEDBACK, error, route, arm)

    def span(self, asked: SpanInput) -> RequestSpan | None:
        """None without tracing."""
        if self._tracing is None:
            return None
        try:
            return _SafeSpan(self._tracing.begin(asked), asked, self._errors)
        except Exception as error:
            self._errors.note(RouterPart.TRACING, error, asked.route, asked.arm)
            return None

    def copies(
        self,
        scope: Scope,
        job: RoutedRequest,
        scoring: RequestScoring,
        own: str,
        key: str,
        apart: str,
    ) -> RequestCopies:
        """own: the request's id. key, apart: as `Shadows.drawn` has them."""
        captured = mirror = None
        try:
            captured = self._sampler.copied(scope, job.route, job.request, own)
        except Exception as error:
            self._errors.note(RouterPart.CAPTURE, error, job.route, job.arm)
        try:
            mirror = self._shadows.drawn(scope, job, key, apart)
        except Exception as error:
            self._errors.note(RouterPart.SHADOW, error, job.route, job.arm)
        judged = scoring.drawn.copied if scoring.drawn else None
        if captured is None and mirror is None and judged is None:
            return NO_COPIES
        try:
            return RequestCopies(captured, mirror, join_copies(captured, mirror, judged))
        except Exception as error:
            self._errors.note(RouterPart.CAPTURE, error, job.route, job.arm)
            return NO_COPIES

    def ended(
        self,
        exchange: RoutedResponse,
        entry: RequestEntry,
        scoring: RequestScoring,
        copied: RequestCopies,
        toll: RateReservation | None,
    ) -> None:
        """The answer is sent, or there is none."""
        job, errors = exchange.job, self._errors
        if toll is not None:
            try:
                self._admission.settle(toll, exchange)
            except Exception as error:
                errors.note(RouterPart.LIMITS, error, job.route, job.arm)
        try:
            self._books.enter(exchange, entry)
        except Exception as error:
            errors.note(RouterPart.RECORDING, error, job.route, job.arm)
        try:
            self._sampler.take(exchange, copied.captured, entry)
        except Exception as error:
            errors.note(RouterPart.CAPTURE, error, job.route, job.arm)
        try:
            self._shadows.mirror(copied.mirror, exchange)
        except Exception as error:
            errors.note(RouterPart.SHADOW, error, job.route, job.arm)
        try:
            self._judges.judge(scoring.drawn, entry.ticket, exchange)
        except Exception as error:
            errors.note(RouterPart.JUDGE, error, job.route, job.arm)

    def close(self, span: RequestSpan | None, exchange: RoutedResponse) -> None:
        if span is None:
            return
        try:
            span.end(exchange.served())
        except Exception as error:
            self._errors.note(RouterPart.TRACING, error, exchange.job.route, exchange.job.arm)


class _SafeSpan:
    """Another's span, whose faults are told of and change nothing of the request."""

    def __init__(self, span: RequestSpan, asked: SpanInput, errors: InternalErrors) -> None:
        self._span = span
        self._asked = asked
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
            ended = self._span.attempt(upstream, number, _nothing)
        except Exception as error:
            self._note(error)
            return settle

        def both(outcome: FailureClass | None) -> None:
            settle(outcome)
            try:
                ended(outcome)
            except Exception as error:
                self._note(error)

        return both

    def end(self, served: SpanResult) -> None:
        self._span.end(served)

    def _note(self, error: Exception) -> None:
        self._errors.note(RouterPart.TRACING, error, self._asked.route, self._asked.arm)


def _nothing(outcome: FailureClass | None) -> None:
    """What an attempt's end means is settled beside its span."""
