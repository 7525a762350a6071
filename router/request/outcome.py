"""Decides how a request's exposure ended (`harness.gate.online.outcome`).

`decide_outcome` asks the rules in the order of `_RULES`; the first rule that applies decides.
The order matters. The router's own fault excuses the arm. A real failure of the arm's own
target counts even if the caller left afterwards. The caller's own deadline comes before the
timeout that it caused.

Requests outside a rollout use the same function, to find the failures of their arm
(`CHARGED_KINDS`). A plain success needs no rule.
"""

from collections.abc import Callable, Mapping
from typing import Final

from harness.frame.failures import (
    FAILURE_RULES,
    UNCHARGED,
    ArmFailure,
    FailureClass,
)
from harness.gate.online.outcome import (
    ROUTER_FAULT,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.routing.plan import Excluded, ExclusionReason
from router.frame.body import ClientRequest
from router.request.planner import HELD_REASONS, is_under_way
from router.request.request_state import (
    FAILING,
    Attempt,
    RequestProgress,
    RoutedRequest,
    UpstreamAnswer,
)
from router.request.routed_response import RoutedResponse
from router.request.stream_relay import CommittedStream
from router.snapshot.route_plans import is_arm_charged

# The kinds whose name charges the arm in the sums of traffic.
CHARGED_KINDS: Final = frozenset(
    {
        OutcomeKind.FAILED,
        OutcomeKind.CUT,
        OutcomeKind.LIMITED,
        OutcomeKind.NOT_SENT,
    }
)
_LIMIT_REASONS: Final = {
    FailureClass.RATE_LIMITED: OutcomeReason.RATE,
    FailureClass.QUOTA: OutcomeReason.QUOTA,
}
# Up to Python 3.11, to find a member in its class takes ten times as long.
_ANSWERED: Final = OutcomeKind.ANSWERED
# Parts of field names that may hold the id of a provider's object.
_STATE_MARKS: Final = ("_id", '"id"', '"conversation"', '"container"')
_CIRCUIT_OPEN: Final = ArmFailure.CIRCUIT_OPEN.value


def charged_failure(outcome: ExposureOutcome) -> str:
    """Returns the name of the failure that charges the arm; empty if it is not charged."""
    return outcome.name if outcome.kind in CHARGED_KINDS else ""


def decide_outcome(response: RoutedResponse) -> ExposureOutcome:
    """Decides the outcome of a request that has ended, or was never served.

    A caller's departure keeps its raw reason: the ledger knows the time limits, and settles it
    (`settle_departure`). A request to which no rule applies was not measured.
    """
    for rule in _RULES:
        outcome = rule(response)
        if outcome is not None:
            return outcome
    return ROUTER_FAULT


def _check_router_fault(response: RoutedResponse) -> ExposureOutcome | None:
    """The router's own fault changed the plan, so that the arm was not measured."""
    return ROUTER_FAULT if response.router_failed else None


def _check_own_deadline(response: RoutedResponse) -> ExposureOutcome | None:
    """The caller's own deadline ended the attempts at the arm's target, or its stream.

    A failure before the deadline counts, although the deadline ended its retry.
    """
    own_attempts = _list_own_attempts(response)
    last = own_attempts[-1] if own_attempts else None
    if last is None:
        return None
    if last.failure is not None:
        if not (_is_cut_by_deadline(last) and all(map(_shows_nothing, own_attempts))):
            return None
        waited_s = sum(attempt.ms for attempt in own_attempts) / 1000
        return ExposureOutcome(
            OutcomeKind.LEFT, OutcomeReason.DEADLINE_EARLY, waited_s=waited_s
        )
    stream = response.progress.result
    if isinstance(stream, CommittedStream) and stream.is_clients_end:
        return _build_departure(response, stream, OutcomeReason.DEADLINE_EARLY)
    return None


def _check_own_failure(response: RoutedResponse) -> ExposureOutcome | None:
    """The last attempt at the arm's own target failed, even if another target answered.

    An attempt that shows nothing (`_shows_nothing`) is left out: the failure before it counts.
    """
    last = _find_last_attempts(response)
    own_attempt = last.get(response.job.arm_target)
    if own_attempt is None or own_attempt.failure is None:
        return None
    failure = own_attempt.failure.failure
    name = own_attempt.failure.named
    if failure in UNCHARGED and may_name_state(response.job.request):
        return ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.FOREIGN_STATE, name)
    if reason := _LIMIT_REASONS.get(failure):
        return ExposureOutcome(OutcomeKind.LIMITED, reason, name)
    has_no_form = own_attempt.failure.local or own_attempt.failure.unable
    if has_no_form and any(other.failure is None for other in last.values()):
        # The router's translation, or the target, has no form for the request.
        is_foreign = own_attempt.failure.names_foreign_item
        reason = OutcomeReason.FOREIGN_STATE if is_foreign else OutcomeReason.UNSUPPORTED
        return ExposureOutcome(OutcomeKind.NOT_MEASURED, reason, name)
    other_failures = [
        attempt.failure for attempt in last.values() if attempt is not own_attempt
    ]
    classes = [
        # A request that names no state was refused for itself.
        FailureClass.BAD_REQUEST if failure in UNCHARGED else failure,
        *(other.failure if other else None for other in other_failures),
    ]
    charged = is_arm_charged(response.job.arm, classes)
    kind = OutcomeKind.FAILED if charged else OutcomeKind.REFUSED
    return ExposureOutcome(kind, _find_fault(failure), name)


def _find_last_attempts(response: RoutedResponse) -> Mapping[str, Attempt]:
    """Returns the last attempt at each target that shows something about it."""
    return {
        attempt.upstream.id: attempt
        for attempt in response.progress.attempts
        if not _shows_nothing(attempt)
    }


def find_own_status(response: RoutedResponse) -> int | None:
    """Returns the HTTP status with which the arm's own target failed; None without a reply."""
    own_attempt = _find_last_attempts(response).get(response.job.arm_target)
    return own_attempt.failure.status if own_attempt and own_attempt.failure else None


def _check_exclusion(response: RoutedResponse) -> ExposureOutcome | None:
    """The plan left the arm's own target out, or its circuit opened before its turn."""
    job = response.job
    progress = response.progress
    excluded_target = next(
        (excluded for excluded in job.plan.left_out if excluded.target == job.arm_target),
        None,
    )
    if excluded_target is not None:
        return _decide_exclusion(response, excluded_target)
    if job.arm_target in progress.shut_out:
        return ExposureOutcome(OutcomeKind.NOT_SENT, OutcomeReason.CIRCUIT_RACE, _CIRCUIT_OPEN)
    return None


def _decide_exclusion(response: RoutedResponse, excluded: Excluded) -> ExposureOutcome | None:
    plan = response.job.plan
    if excluded.held is not None:
        return ExposureOutcome(OutcomeKind.NOT_SENT, HELD_REASONS[excluded.held], _CIRCUIT_OPEN)
    if failure := FAILING.get(excluded.because):
        is_open = excluded.because is ExclusionReason.OPEN
        reason = OutcomeReason.PROVIDER if is_open else OutcomeReason.OURS
        return ExposureOutcome(OutcomeKind.FAILED, reason, failure.value)
    if excluded.because is ExclusionReason.CAPABILITY and plan.targets:
        return ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.UNSUPPORTED)
    if plan.unable:
        return ExposureOutcome(OutcomeKind.REFUSED, OutcomeReason.CLIENT)
    return ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.OTHER_TARGET)


def _check_gateway_fallback(response: RoutedResponse) -> ExposureOutcome | None:
    """A gateway marks the own target's answer as its fallback's: another model answered."""
    result = response.progress.result
    if not isinstance(result, (UpstreamAnswer, CommittedStream)) or not result.is_fallback:
        return None
    if response.progress.attempts[-1].upstream.id != response.job.arm_target:
        return None
    return ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.GATEWAY_FALLBACK)


def _check_broken_stream(response: RoutedResponse) -> ExposureOutcome | None:
    """The stream of the arm's own target broke off after output, or reports a failure."""
    stream = response.progress.result
    if not isinstance(stream, CommittedStream) or stream.failure is None:
        return None
    if not _list_own_attempts(response):
        return None
    return ExposureOutcome(
        OutcomeKind.FAILED if stream.events.finished else OutcomeKind.CUT,
        _find_fault(stream.failure),
        stream.failure.value,
        sent=True,
        first_s=response.progress.first_token_s,
        gap_s=stream.longest_gap_s,
    )


def _check_departure(response: RoutedResponse) -> ExposureOutcome | None:
    """The caller left before the end of the answer."""
    stream = response.progress.result
    if not response.caller_gone:
        return None
    if isinstance(stream, CommittedStream):
        if stream.events.finished:
            return None
        return _build_departure(response, stream, OutcomeReason.EARLY)
    waited_s = max(0.0, response.ended_at - response.job.begun)
    return ExposureOutcome(OutcomeKind.LEFT, OutcomeReason.EARLY, waited_s=waited_s)


def _build_departure(
    response: RoutedResponse,
    stream: CommittedStream,
    reason: OutcomeReason,
) -> ExposureOutcome:
    """Returns a caller's end of a stream, with the time since its last output.

    A caller who still has bytes to read waits for nothing.
    """
    waited_s = max(0.0, response.ended_at - stream.last_output_at)
    return ExposureOutcome(
        OutcomeKind.LEFT,
        reason,
        waited_s=0.0 if stream.has_unread else waited_s,
        sent=True,
        first_s=response.progress.first_token_s,
        gap_s=stream.longest_gap_s,
    )


def _check_answer(response: RoutedResponse) -> ExposureOutcome | None:
    """A target answered: the arm's own, or another target although the own one did not fail.

    If a stream has no end and no failure, and its caller stayed, the router ended it.
    """
    result = response.progress.result
    progress = response.progress
    if not isinstance(result, (UpstreamAnswer, CommittedStream)):
        return None
    if isinstance(result, CommittedStream) and not result.events.finished:
        return None
    if progress.attempts[-1].upstream.id != response.job.arm_target:
        return ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.OTHER_TARGET)
    return time_answer(progress, max(0.0, response.ended_at - response.job.begun))


def time_answer(progress: RequestProgress, elapsed_s: float) -> ExposureOutcome:
    """Returns an answer with the times of its output.

    Args:
        elapsed_s: since the request came.
    """
    stream = progress.result
    if not isinstance(stream, CommittedStream):
        return ExposureOutcome(_ANSWERED, None, "", 0.0, True, elapsed_s)  # noqa: FBT003 - sent
    first_s = progress.first_token_s
    gap_s = stream.longest_gap_s
    return ExposureOutcome(_ANSWERED, None, "", 0.0, True, first_s, gap_s)  # noqa: FBT003 - sent


def limit_to_share(job: RoutedRequest, outcome: ExposureOutcome) -> ExposureOutcome:
    """Turns an outcome into a departure at the deadline, if its first output came after the
    arm's share of the caller's own deadline.

    The router divides a deadline equally among the targets of a plan, and the candidate's plan
    has one target more than the incumbent's. So without this rule, equal targets would miss the
    deadline at different times. The share is the same in both arms: the deadline divided by the
    number of targets of the longer plan.
    """
    if job.experiment is None:
        return outcome
    targets = {*job.plan.targets, job.experiment.target}
    share_s = (min(job.deadline, job.answer_by) - job.begun) / len(targets)
    began_s = outcome.first_s if outcome.first_s is not None else outcome.waited_s
    if began_s <= share_s:
        return outcome
    return ExposureOutcome(
        OutcomeKind.LEFT,
        OutcomeReason.DEADLINE_EARLY,
        waited_s=share_s,
        sent=False,
    )


def _list_own_attempts(response: RoutedResponse) -> list[Attempt]:
    """Returns the attempts at the arm's own target that have ended, in their order."""
    target = response.job.arm_target
    return [attempt for attempt in response.progress.attempts if attempt.upstream.id == target]


def may_name_state(request: ClientRequest) -> bool:
    """Returns whether a request may refer to a provider's state: an earlier turn or an id.

    Without such a part, a 404 about a missing object is the target's own failure.
    """
    text = request.text
    return any(mark in text for mark in _STATE_MARKS) or is_under_way(request)


def _shows_nothing(attempt: Attempt) -> bool:
    """Returns whether an attempt shows nothing about its target: the caller's deadline cut it
    off, or the provider had closed its idle connection.

    The connections of an arm with few requests are idle for longer. So closed connections would
    count against a candidate with a small share.
    """
    failure = attempt.failure
    return _is_cut_by_deadline(attempt) or (failure is not None and failure.stale)


def _is_cut_by_deadline(attempt: Attempt) -> bool:
    """Returns whether the caller's own deadline, or a share of it, ended the attempt."""
    failure = attempt.failure
    return attempt.hasty and failure is not None and failure.failure is FailureClass.TIMEOUT


def _find_fault(failure: FailureClass) -> OutcomeReason:
    return OutcomeReason(FAILURE_RULES[failure].fault.value)


_Rule = Callable[[RoutedResponse], ExposureOutcome | None]
_RULES: Final[tuple[_Rule, ...]] = (
    _check_router_fault,
    _check_own_deadline,
    _check_own_failure,
    _check_exclusion,
    _check_gateway_fallback,
    _check_broken_stream,
    _check_departure,
    _check_answer,
)
