"""Makes the error reply of a request that has no answer.

Replies are in OpenAI's shape; `routed_response` rewrites them for other protocols. A reply
names each attempt, but shows no fact about our account or the provider's internals.
Refusals before the first attempt are made where they are found: `model_endpoint`,
`router.access`.
"""

import json
import math
from contextlib import suppress
from typing import Final

from harness.frame.errors import InputError
from harness.frame.failures import CLIENT_FAILURES, PASSED_ON, FailureClass
from harness.routing.plan import Excluded, ExclusionReason
from router.frame.failure import UpstreamFailed, error_object
from router.frame.json_spans import ParsedObject, parse_object
from router.frame.replies import DO_NOT_RETRY, JSON, RETRY, Reply, error_body, error_reply
from router.protocols.endpoints import ENDPOINTS
from router.request.request_state import RequestProgress, RoutedRequest
from router.snapshot.compiled import CompiledRoute

# The longest Retry-After that the official clients obey.
CLIENTS_HEED_S: Final = 60.0
# OpenAI's code, on which its clients shorten the conversation and continue.
TOO_LONG: Final = "context_length_exceeded"
_NOT_ALLOWED: Final = 405


def refusal_reply(failed: UpstreamFailed) -> Reply:
    """Repeats the provider's message, and its status if the client must change the request.

    A status of 500 or more, and 405, become 422 if the request is the cause: client
    libraries would retry the former. The reply forbids a retry. A message about the context
    window gets OpenAI's code, on which clients shorten the conversation.
    """
    status = failed.status or 400
    if failed.failure in CLIENT_FAILURES and (status >= 500 or status == _NOT_ALLOWED):
        status = 422
    if failed.failure is FailureClass.BLOCKED:
        words = failed.message or f"status {status}"
        why = f"a system in front of the provider refused this request: {words}"
        return error_reply(status, why, failed.failure.value)
    members: ParsedObject | None = None
    with suppress(InputError):
        members = parse_object(failed.body)
    error = None if members is None else members.get("error")
    if failed.failure is FailureClass.ENDPOINT_MISSING and not isinstance(error, dict):
        words = f": {failed.message}" if failed.message else ""
        why = f"the target does not serve this endpoint{words}"
        return error_reply(status, why, failed.failure.value)
    found = error_object(failed.body)
    if found is None:
        text = failed.body[:500].decode("utf-8", "replace")
        return error_reply(status, text or failed.detail, failed.failure.value)
    too_long = failed.failure is FailureClass.CONTEXT_WINDOW
    body = failed.body
    if members is None or not isinstance(error, dict):
        code = TOO_LONG if too_long else str(found.get("code") or failed.failure.value)
        words, place = str(found.get("message")), found.get("param")
        body = error_body(words, "invalid_request_error", code, param=place)
    elif too_long and members.get("type") != "error":
        window = {"type": "invalid_request_error", "param": None, "code": TOO_LONG}
        body = json.dumps({"error": {**error, **window}}).encode()
    return Reply(status, (JSON, DO_NOT_RETRY), body)


def no_answer_reply(job: RoutedRequest, progress: RequestProgress) -> Reply:
    """Replies 503 if all targets pause or are excluded, 502 if all failed, 422 if unable.

    A 503 for pausing targets has a Retry-After in whole seconds.
    """
    wait_s, name = _wait_s(job, progress), job.route.route.name
    if wait_s is not None:
        return _all_waiting(job, progress, wait_s)
    if progress.attempts:
        tried, left_out = _tried(progress), _passed_over(job, progress)
        return error_reply(
            502,
            f"no target of route {name!r} answered ({_attempts_text(tried, left_out)})",
            "all_targets_failed",
            headers=(DO_NOT_RETRY,),
            attempts=tried,
            left_out=left_out,
        )
    left_out = [_left_out(job.route, excluded) for excluded in job.plan.left_out]
    if job.plan.unable:
        return error_reply(
            422,
            f"no target of route {name!r} can do what this request needs ({_listed(left_out)})"
            f"{_elsewhere(job)}",
            "not_supported_by_route",
            targets=left_out,
        )
    return error_reply(
        503,
        f"no target of route {name!r} may answer this ({_listed(left_out)})",
        "no_target_left",
        headers=(DO_NOT_RETRY,),
        targets=left_out,
    )


def _wait_s(job: RoutedRequest, progress: RequestProgress) -> int | None:
    """Returns the seconds until a target may be asked, at least 1; None if no target must
    pause.
    """
    if not job.plan.targets:
        return job.plan.retry_after_s
    opened = (
        excluded.target
        for excluded in job.plan.left_out
        if excluded.because is ExclusionReason.OPEN
    )
    waits = progress.waits or {}
    first_s = min(waits.get(id_, 0.0) for id_ in (*job.plan.targets, *opened))
    if first_s <= 0 and progress.attempts:
        return None
    return max(1, math.ceil(first_s))


def _all_waiting(job: RoutedRequest, progress: RequestProgress, wait_s: int) -> Reply:
    """Tells the client when to retry; the router does not wait."""
    tried, left_out = _tried(progress), _passed_over(job, progress)
    # Official clients ignore longer times and would retry too early, so the reply then forbids
    # a retry. It also does if attempts have just failed.
    heeded = wait_s <= min(CLIENTS_HEED_S, job.route.route.settings.total_timeout_s)
    return error_reply(
        503,
        f"every target of route {job.route.route.name!r} gets no requests for now: try again "
        f"in {wait_s} s ({_attempts_text(tried, left_out)})",
        "all_circuits_open",
        headers=(
            (b"retry-after", str(wait_s).encode()),
            RETRY if heeded and not progress.attempts else DO_NOT_RETRY,
        ),
        attempts=tried,
        targets=left_out,
    )


def _elsewhere(job: RoutedRequest) -> str:
    """Names the endpoints at which the route has targets; empty if this one has some."""
    speaks = [
        path
        for path, endpoint in ENDPOINTS.items()
        if job.route.plans[endpoint][job.arm].targets
    ]
    targets = job.route.plans[job.request.endpoint][job.arm].targets
    return "" if targets or not speaks else f"; it answers at {', '.join(speaks)}"


def _tried(progress: RequestProgress) -> list[dict[str, object]]:
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


def _passed_over(job: RoutedRequest, progress: RequestProgress) -> list[dict[str, object]]:
    """Lists the targets that got no attempt: by the plan, or by a circuit that opened
    since.
    """
    waits = progress.waits or {}
    shut = (
        Excluded(
            excluded,
            ExclusionReason.OPEN,
            "its circuit opened meanwhile",
            waits.get(excluded, 0.0),
        )
        for excluded in progress.shut_out
    )
    return [_left_out(job.route, excluded) for excluded in (*job.plan.left_out, *shut)]


def _attempts_text(tried: list[dict[str, object]], left_out: list[dict[str, object]]) -> str:
    failures = [
        f"{attempt['target']}: {attempt['failure']}"
        + (f" ({attempt['message']})" if attempt["message"] else "")
        for attempt in tried
    ]
    skipped = [f"not asked: {_listed(left_out)}"] if left_out else []
    return "; ".join((*failures, *skipped))


def _left_out(route: CompiledRoute, out: Excluded) -> dict[str, object]:
    return {
        "target": route.upstreams[out.target].name,
        "left_out": out.because.value,
        "reason": out.reason,
        "retry_in_s": math.ceil(out.retry_in_s),
    }


def _listed(left_out: list[dict[str, object]]) -> str:
    return "; ".join(f"{excluded['target']}: {excluded['reason']}" for excluded in left_out)
