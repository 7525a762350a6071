"""The waits that a worker has noted, and what it knows from them."""

import pytest

from harness.providers.models.capabilities import Endpoint
from harness.routing.table import Arm
from router.frame.body import read_request
from router.request.attempts import LATEST_ANSWERS, TimeLimits
from router.request.request_state import Attempt, RoutedRequest
from router.snapshot.compiler import compile_snapshot
from tests.support.router.asgi_router import ASK
from tests.support.router.live_router import QUICK, snapshot

pytestmark = pytest.mark.req("B3")


def test_health_checks_do_not_displace_the_latest_answers_to_users() -> None:
    route = compile_snapshot(snapshot("http://up")).routes["support"]
    upstream = route.upstreams[route.route.incumbent]
    request = read_request(ASK, Endpoint.CHAT)
    plan = route.plans[Endpoint.CHAT][Arm.INCUMBENT]
    job = RoutedRequest(request, route, Arm.INCUMBENT, plan, begun=0.0, deadline=1.0)
    answer, check = (
        Attempt(upstream, 1, None, until=1.0, number=1, endpoint=Endpoint.CHAT, check=is_check)
        for is_check in (False, True)
    )
    limits = TimeLimits(QUICK)

    limits.note(job, answer, seconds=0.1, at=7.0)
    for second in range(LATEST_ANSWERS):
        limits.note(job, check, seconds=0.1, at=8.0 + second)

    assert limits.last_answers(upstream.id) == (7.0, 0)
