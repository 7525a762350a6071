"""Makes the error reply of a request that has no answer.

Replies are in OpenAI's shape; `routed_response` rewrites them for other protocols. A reply
names each attempt, but shows no fact about our account or the provider's internals.
Refusals before the first attempt are made where they are found: `model_endpoint`,
`router.access`.
"""

import json
import math
from contextlib import suppress
from typing import Final, NamedTuple

from harness.frame.errors import InputError
from harness.frame.failures import (
    CLIENT_FAILURES,
    PASSED_ON,
    PASSING,
    FailureClass,
)
from harness.providers.models.capabilities import Endpoint
from harness.routing.plan import (
    Excluded,
    ExclusionReason,
    SendHold,
    TargetAvailability,
    order_targets,
)
from harness.routing.reliability.rate_headers import is_used_up
from router.conversation.kept_history import list_references
from router.frame.failure import SEND_ALL, UpstreamFailed, error_object
from router.frame.json_spans import ParsedObject, parse_object
from router.frame.replies import (
    DO_NOT_RETRY,
    JSON,
    RETRY,
    Header,
    Reply,
    error_body,
    error_reply,
)
from router.protocols.endpoints import ENDPOINTS
from router.protocols.provider_failures import LATER_STATUSES, later_status
from router.protocols.provider_refusals import REPEATED_STATUSES
from router.request.request_state import Attempt, RequestProgress, RoutedRequest
from router.snapshot.compiled import CompiledRoute

# The longest Retry-After that the official clients obey.
LONGEST_OBEYED_S: Final = 60.0
# OpenAI's code, on which its clients shorten the conversation and continue.
TOO_LONG: Final = "context_length_exceeded"
_RATE_LIMITED: Final = FailureClass.RATE_LIMITED
_RATE_LIMITED_STATUS: Final = LATER_STATUSES[_RATE_LIMITED][0]


def build_refusal_reply(failed: UpstreamFailed) -> Reply:
    """Repeats the provider's message, and its status if the client must change the request.

    A status of 500 or more, and 405, become 422 if the request is the cause: client
    libraries would retry the former. The reply forbids a retry. A message about the context
    window gets OpenAI's code, on which clients shorten the conversation.
    """
    status = failed.status or 400
    if failed.failure in CLIENT_FAILURES and status in REPEATED_STATUSES:
        status = 422
    if failed.failure is FailureClass.BLOCKED:
        words = failed.message or f"status {status}"
        reason = f"a system in front of the provider refused this request: {words}"
        return error_reply(status, reason, failed.failure.value)
    members: ParsedObject | None = None
    with suppress(InputError):
        members = parse_object(failed.body)
    error = None if members is None else members.get("error")
    if failed.failure is FailureClass.ENDPOINT_MISSING:
        words = f": {failed.message}" if failed.message else ""
        reason = f"the target does not serve this endpoint{words}"
        return error_reply(status, reason, failed.failure.value)
    details = error_object(failed.body)
    if details is None:
        text = failed.body[:500].decode("utf-8", "replace")
        return error_reply(status, text or failed.detail, failed.failure.value)
    is_too_long = failed.failure is FailureClass.CONTEXT_WINDOW
    body = failed.body
    if members is None or not isinstance(error, dict):
        code = TOO_LONG if is_too_long else str(details.get("code") or failed.failure.value)
        words = str(details.get("message"))
        place = details.get("param")
        body = error_body(words, "invalid_request_error", code, param=place)
    elif is_too_long and members.get("type") != "error":
        window = {
            "type": "invalid_request_error",
            "param": None,
            "code": TOO_LONG,
        }
        body = json.dumps({"error": {**error, **window}}).encode()
    return Reply(status, (JSON, DO_NOT_RETRY), body)


class PassingFailure(NamedTuple):
    """A failure that passes by itself. wait_s: until the provider may answer; None if it did
    not say.
    """

    failure: FailureClass
    status: int
    wait_s: float | None
    # The pause is kept: no request goes to the provider before.
    keeps: bool = False


def find_passing(job: RoutedRequest, progress: RequestProgress) -> PassingFailure | None:
    """Returns the failure for which the client should try again later; None without one.

    It is the first in the plan's order, with the shortest wait. A guest's failure does not
    count: the incumbent was asked after it. A target that its provider's pause excludes counts
    like a target that was asked and refused.
    """
    passing_failures: list[PassingFailure] = []
    last = {attempt.upstream.id: attempt for attempt in progress.attempts}
    for target in order_targets(job.route.route, job.plan.guest):
        passing = None
        if target in last:
            passing = _read_passing(last[target])
        elif (available := _find_availability(job, progress, target)) is not None:
            wait_s = available.pause_s or available.retry_in_s
            passing = PassingFailure(
                _RATE_LIMITED, _RATE_LIMITED_STATUS, wait_s, available.keeps_pause
            )
        if passing is not None and (target == job.plan.incumbent or target != job.plan.guest):
            passing_failures.append(passing)
    if not passing_failures:
        return None
    fails = {
        attempt.failure.failure
        for attempt in last.values()
        if attempt.failure and attempt.upstream.id != job.plan.guest
    }
    # A provider that is overloaded for an unknown time is a reason for a retry only instead of
    # a change of the request: the router has tried all targets.
    is_lasting = all(
        passing.wait_s is None and passing.failure is not _RATE_LIMITED
        for passing in passing_failures
    )
    if is_lasting and fails.isdisjoint(PASSED_ON):
        return None
    waits = [passing for passing in passing_failures if passing.wait_s is not None]
    soonest = min(waits, key=lambda passing: passing.wait_s or 0.0, default=passing_failures[0])
    return soonest._replace(
        failure=passing_failures[0].failure, status=passing_failures[0].status
    )


def _read_passing(attempt: Attempt) -> PassingFailure | None:
    failure = attempt.failure
    if failure is None or failure.failure not in PASSING:
        return None
    return PassingFailure(
        failure.failure,
        later_status(failure),
        attempt.retry_after_s,
        is_used_up(failure.headers),
    )


def _find_availability(
    job: RoutedRequest,
    progress: RequestProgress,
    target: str,
) -> TargetAvailability | None:
    """Returns the state of a target that got no request because of its provider's pause."""
    availability = (progress.waits or {}).get(target)
    if availability is not None and target in progress.shut_out:
        return availability if availability.held is SendHold.PAUSE else None
    excluded = next(
        (excluded for excluded in job.plan.left_out if excluded.target == target), None
    )
    if excluded is None or excluded.held is not SendHold.PAUSE:
        return None
    return availability or TargetAvailability(excluded.retry_in_s, held=excluded.held)


def build_no_answer_reply(job: RoutedRequest, progress: RequestProgress) -> Reply:
    """Replies with the provider's own status to a failure that passes by itself. For other
    failures, replies 503 if no target gets requests, 502 if all failed, 422 if unable.

    A reply for a pause has a Retry-After in whole seconds.
    """
    passing = find_passing(job, progress)
    if passing is not None:
        return _build_passing_reply(job, progress, passing)
    wait_s = _wait_s(job, progress)
    name = job.route.route.name
    if wait_s is not None:
        return _build_waiting_reply(job, progress, wait_s)
    if progress.attempts:
        attempts = _list_attempts(progress)
        left_out = _list_excluded(job, progress)
        return error_reply(
            502,
            f"no target of route {name!r} answered ({_describe_attempts(attempts, left_out)})",
            "all_targets_failed",
            headers=(DO_NOT_RETRY,),
            attempts=attempts,
            left_out=left_out,
        )
    left_out = [_describe_excluded(job.route, excluded) for excluded in job.plan.left_out]
    if job.plan.unable:
        return error_reply(
            422,
            f"no target of route {name!r} can do what this request needs "
            f"({_join_reasons(left_out)}){_name_endpoints(job)}{_advise_history(job)}",
            "not_supported_by_route",
            targets=left_out,
        )
    return error_reply(
        503,
        f"no target of route {name!r} may answer this ({_join_reasons(left_out)})",
        "no_target_left",
        headers=(DO_NOT_RETRY,),
        targets=left_out,
    )


def _build_passing_reply(
    job: RoutedRequest,
    progress: RequestProgress,
    passing: PassingFailure,
) -> Reply:
    """Tells the client to try again later. It may do so earlier, unless the pause is kept."""
    attempts = _list_attempts(progress)
    left_out = _list_excluded(job, progress)
    is_limited = passing.failure is _RATE_LIMITED
    reason = "limits requests" if is_limited else "is overloaded"
    headers: tuple[Header, ...] = (RETRY,)
    when = "later"
    if passing.wait_s is not None:
        wait_s = max(1, math.ceil(passing.wait_s))
        when = f"in {wait_s} s"
        # Official clients ignore longer times, and would retry too early.
        is_heeded = not passing.keeps or wait_s <= LONGEST_OBEYED_S
        retry_after = (b"retry-after", str(wait_s).encode())
        headers = (retry_after, RETRY if is_heeded else DO_NOT_RETRY)
    return error_reply(
        passing.status,
        f"the provider of route {job.route.route.name!r} {reason}: try again {when} "
        f"({_describe_attempts(attempts, left_out)})",
        "rate_limit_exceeded" if is_limited else "overloaded",
        headers=headers,
        attempts=attempts,
        targets=left_out,
    )


def _wait_s(job: RoutedRequest, progress: RequestProgress) -> int | None:
    """Returns the seconds until a target may be asked, at least 1; None if no target must
    pause.
    """
    if not job.plan.targets:
        return job.plan.retry_after_s
    open_targets = (
        excluded.target
        for excluded in job.plan.left_out
        if excluded.because is ExclusionReason.OPEN
    )
    first_s = min(_retry_in_s(progress, id_) for id_ in (*job.plan.targets, *open_targets))
    if first_s <= 0 and progress.attempts:
        return None
    return max(1, math.ceil(first_s))


def _retry_in_s(progress: RequestProgress, target: str) -> float:
    availability = (progress.waits or {}).get(target)
    return 0.0 if availability is None else availability.retry_in_s


def _build_waiting_reply(
    job: RoutedRequest,
    progress: RequestProgress,
    wait_s: int,
) -> Reply:
    """Tells the client when to retry; the router does not wait."""
    attempts = _list_attempts(progress)
    left_out = _list_excluded(job, progress)
    # Official clients ignore longer times and would retry too early, so the reply then forbids
    # a retry. It also does if attempts have just failed.
    longest_s = min(LONGEST_OBEYED_S, job.route.route.settings.total_timeout_s)
    # A short Retry-After would contradict the forbidden retry after attempts that just failed.
    retry_headers: tuple[Header, ...] = (DO_NOT_RETRY,)
    if wait_s > longest_s or not progress.attempts:
        retry = DO_NOT_RETRY if wait_s > longest_s else RETRY
        retry_headers = ((b"retry-after", str(wait_s).encode()), retry)
    return error_reply(
        503,
        f"every target of route {job.route.route.name!r} gets no requests for now: try again "
        f"in {wait_s} s ({_describe_attempts(attempts, left_out)})",
        "all_circuits_open",
        headers=retry_headers,
        attempts=attempts,
        targets=left_out,
    )


def _name_endpoints(job: RoutedRequest) -> str:
    """Names the endpoints at which the route has targets; empty if this one has some."""
    speaks = [
        path
        for path, endpoint in ENDPOINTS.items()
        if job.route.plans[endpoint][job.arm].targets
    ]
    targets = job.route.plans[job.request.endpoint][job.arm].targets
    return "" if targets or not speaks else f"; it answers at {', '.join(speaks)}"


def _advise_history(job: RoutedRequest) -> str:
    """Says how a request without its whole history reaches another target; else empty."""
    request = job.request
    if request.endpoint is not Endpoint.RESPONSES or not list_references(request.members.found):
        return ""
    return f"; {SEND_ALL}"


def _list_attempts(progress: RequestProgress) -> list[dict[str, object]]:
    """Lists the failed attempts for the reply. `message` is None if clients may not see it."""
    return [
        {
            "target": attempt.upstream.name,
            "failure": attempt.failure.failure.value,
            "status": attempt.failure.status,
            # A client must not see facts about our account or the provider's internals.
            "message": (attempt.failure.message or None)
            if attempt.failure.failure in PASSED_ON
            else None,
            "ms": round(attempt.ms),
        }
        for attempt in progress.attempts
        if attempt.failure
    ]


def _list_excluded(job: RoutedRequest, progress: RequestProgress) -> list[dict[str, object]]:
    """Lists the targets that got no attempt: by the plan, or by a circuit that opened
    since.
    """
    shut = (
        Excluded(
            excluded,
            ExclusionReason.OPEN,
            "its circuit opened, or another request took its turn",
            _retry_in_s(progress, excluded),
        )
        for excluded in progress.shut_out
    )
    return [_describe_excluded(job.route, excluded) for excluded in (*job.plan.left_out, *shut)]


def _describe_attempts(
    attempts: list[dict[str, object]], left_out: list[dict[str, object]]
) -> str:
    failures = [
        f"{attempt['target']}: {attempt['failure']}"
        + (f" ({attempt['message']})" if attempt["message"] else "")
        for attempt in attempts
    ]
    skipped = [f"not asked: {_join_reasons(left_out)}"] if left_out else []
    return "; ".join((*failures, *skipped))


def _describe_excluded(route: CompiledRoute, excluded: Excluded) -> dict[str, object]:
    return {
        "target": route.upstreams[excluded.target].name,
        "left_out": excluded.because.value,
        "reason": excluded.reason,
        "retry_in_s": math.ceil(excluded.retry_in_s),
    }


def _join_reasons(left_out: list[dict[str, object]]) -> str:
    return "; ".join(f"{excluded['target']}: {excluded['reason']}" for excluded in left_out)
