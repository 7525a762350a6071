"""An approver accepts that a candidate costs more than the guardrail of its route's policy lets
it: as they propose it, or before somebody else does.
"""

from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from harness.control.context import Context
from harness.control.proposals import cost_ratio
from harness.control.proposals.suite_registration import plan_suites
from harness.control.providers import named_models
from harness.control.routing import routes
from harness.domain.errors import InputError
from harness.domain.formatting import format_number
from harness.domain.operations.access import Actor, Role
from harness.domain.proposals.policy import CostAcceptance
from harness.domain.routing.target import Target
from harness.store.transaction import Transaction

MOST_ACCEPTED: Final = 1_000.0
ACCEPT_COST: Final = "proposal.accept_cost"  # an action of the audit log
LASTS: Final = timedelta(days=30)
MOST_READ: Final = 200  # of the acceptances on a route


def accept_cost(actor: Actor, ratio: float, because: str) -> CostAcceptance:
    """Says what an approver accepts. Raises NotAllowed for other roles, InputError without a
    reason or for an impossible ratio.
    """
    actor.require(Role.APPROVER)
    if not 1.0 <= ratio <= MOST_ACCEPTED:
        most = format_number(MOST_ACCEPTED)
        raise InputError(f"an accepted cost lies between 1 and {most} times, not {ratio}")
    if not because.strip():
        raise InputError("an accepted cost needs its reason, which everybody sees")
    return CostAcceptance(ratio, because.strip(), actor.name)


def accept_cost_of(
    ctx: Context, actor: Actor, route: str, candidate: str, *, ratio: float, because: str
) -> CostAcceptance:
    """Accept up to `ratio` times the incumbent's cost for the next proposal of a candidate.

    It ends with that proposal, or after 30 days. Needs an approver. Raises NotFound, InputError
    also where the canary would end for the cost all the same, ConfigError and NotAllowed.
    """
    accepted = accept_cost(actor, ratio, because)
    with ctx.store.read() as tx:
        settings = routes.require_route(tx, route).settings
    policy = ctx.policy(settings.policy)
    plans = [plan for _, plan in plan_suites(ctx, settings, policy.gate)]
    with ctx.store.write() as tx:
        target = named_models.register_model(ctx, tx, actor, candidate)
        arms = (tx.routing.targets()[routes.require_route(tx, route).incumbent], target)
        cost = cost_ratio.find_ratio(ctx, tx, plans, policy.canary, arms)
        if not cost.is_covered_by(ratio):
            cost.require_acceptance("Accept at least `--up-to {}`, or propose another model")
        details = {"candidate": target.id, "name": target.name, "accepted": asdict(accepted)}
        tx.audit.append(actor, ACCEPT_COST, f"route {route}", details)
    return accepted


def find_accepted_cost(
    ctx: Context, tx: Transaction, route: str, candidate: Target
) -> CostAcceptance | None:
    """Finds what an approver accepted for the candidate's next proposal; None for nothing."""
    since = ctx.clock.now() - LASTS
    events = tx.audit.for_subject(
        f"route {route}", since=since, limit=MOST_READ, actions=[ACCEPT_COST]
    )
    newest = next((one for one in events if one.details["candidate"] == candidate.id), None)
    if newest is None or any(
        one.candidate == candidate.id and one.created_at >= newest.at
        for one in tx.proposals.list(route=route)
    ):
        return None
    accepted: Any = newest.details["accepted"]
    return CostAcceptance(**accepted)
