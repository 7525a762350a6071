"""Looks at a suite count over all routes that use it."""

from dataclasses import replace

import pytest

from harness.control.proposals import alpha_spending, submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import routes
from harness.domain.operations.access import SYSTEM
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import RouteSettings, RouteSuite
from tests.support.control.control_plane import ANN, SmallInstallation

pytestmark = pytest.mark.req("F2")


def test_looks_of_other_routes_count_and_are_named(world: SmallInstallation) -> None:
    ctx = world.context()

    def propose(route: str) -> Proposal:
        settings = RouteSettings(suites=(RouteSuite("colours"),))
        routes.create_route(ctx, SYSTEM, route, "sim/base", settings=settings)
        request = ProposalRequest(route, "sim/worse", "a test")
        return world.until_decided(submission.create_proposal(ctx, ANN, request).id)

    first, second, third = (propose(route) for route in ("search", "mail", "help"))
    assert [proposal.plans[0].look for proposal in (first, second, third)] == [1, 2, 3]

    charged_too_little = replace(third, plans=(replace(third.plans[0], look=1),))
    with ctx.store.read() as tx:
        refusal = alpha_spending.find_uncharged(tx, charged_too_little)
    assert "before it were 2" in refusal
    assert first.id in refusal
    assert second.id in refusal
