"""What the client is told when nobody answered: who was asked, who was not, and why."""

import math

from harness.domain.errors import InputError
from harness.domain.plan import LeftOut
from router.course import Course, Job
from router.dialects.table import ENDPOINTS
from router.jsonspan import read
from router.ports import UpstreamFailed
from router.replies import DO_NOT_RETRY, JSON, Reply, error_reply
from router.serving import Header, ServedRoute


def refusal(failed: UpstreamFailed) -> Reply:
    """The provider's own words, with its status."""
    status = failed.status or 400
    if not _is_object(failed.body):
        text = failed.body[:500].decode("utf-8", "replace")
        return error_reply(status, text or failed.detail, failed.failure.value)
    return Reply(status, (JSON,), failed.body)


def _is_object(body: bytes) -> bool:
    """Whether any client can read it: in UTF-8, and without NaN."""
    try:
        read(body)
    except InputError:
        return False
    return True


def nobody(job: Job, course: Course) -> Reply:
    """503 when nobody could be asked, 502 when all that were asked failed.

    422 when nobody is able to do what the request needs.
    """
    if course.attempts:
        return _all_failed(job, course)
    name = job.route.route.name
    left_out = [_left_out(job.route, each) for each in job.plan.left_out]
    if job.plan.unable:
        return error_reply(
            422,
            f"no target of route {name!r} can do what this request needs ({_listed(left_out)})"
            f"{_elsewhere(job)}",
            "not_supported_by_route",
            targets=left_out,
        )
    if not (job.plan.all_open or job.plan.targets):
        return error_reply(
            503,
            f"no target of route {name!r} may answer this ({_listed(left_out)})",
            "no_target_left",
            headers=(DO_NOT_RETRY,),
            targets=left_out,
        )
    wait_s = job.plan.retry_after_s or 1
    headers: list[Header] = [(b"retry-after", str(wait_s).encode())]
    # Who waited longer than a request may take has no use for this answer.
    if wait_s > job.route.route.settings.total_timeout_s:
        headers.append(DO_NOT_RETRY)
    others = f"; {_listed(left_out)}" if job.plan.held_by_stakes else ""
    return error_reply(
        503,
        f"every target of route {name!r} failed lately and is left alone for {wait_s} s"
        f"{others}",
        "all_circuits_open",
        headers=headers,
        targets=left_out,
    )


def _elsewhere(job: Job) -> str:
    """Where the route does answer, if it never does at the endpoint that was asked."""
    speaks = [
        path for path, each in ENDPOINTS.items() if job.route.plans[each][job.arm].targets
    ]
    asked = job.route.plans[job.request.endpoint][job.arm].targets
    return "" if asked or not speaks else f"; it answers at {', '.join(speaks)}"


def _all_failed(job: Job, course: Course) -> Reply:
    tried = [
        {
            "target": attempt.upstream.name,
            "failure": attempt.failure.failure.value,
            "status": attempt.failure.status,
            "ms": round(attempt.ms),
        }
        for attempt in course.attempts
        if attempt.failure
    ]
    listed = "; ".join(f"{each['target']}: {each['failure']}" for each in tried)
    left_out = [_left_out(job.route, each) for each in job.plan.left_out]
    others = f"; not asked: {_listed(left_out)}" if left_out else ""
    return error_reply(
        502,
        f"no target of route {job.route.route.name!r} answered ({listed}{others})",
        "all_targets_failed",
        headers=(DO_NOT_RETRY,),
        attempts=tried,
        left_out=left_out,
    )


def _left_out(route: ServedRoute, out: LeftOut) -> dict[str, object]:
    """retry_in_s: 0 when time alone will not help."""
    return {
        "target": route.upstreams[out.target].name,
        "left_out": out.because.value,
        "reason": out.reason,
        "retry_in_s": math.ceil(out.retry_in_s),
    }


def _listed(left_out: list[dict[str, object]]) -> str:
    return "; ".join(f"{each['target']}: {each['reason']}" for each in left_out)
