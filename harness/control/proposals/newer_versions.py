"""Says what an older version cannot follow of a proposal, of a canary, and of their route:
fields and values that a newer version wrote. They alone are held; the other routes go on.
"""

from collections.abc import Iterable

from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.canary.rollout import Rollout
from harness.domain.newer_fields import describe_newer
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import Route
from harness.ports import Transaction


def describe_proposal_hold(tx: Transaction, proposal: Proposal) -> str:
    """Says why nothing is decided about a proposal; empty where all of it is known."""
    return (
        describe_newer(proposal.policy.newer_fields)
        or describe_newer(proposal.newer_fields, "it")
        or describe_route(tx.routing.route(proposal.route))
    )


def describe_rollout_hold(tx: Transaction, rollout: Rollout) -> str:
    """Says why a canary takes no step onward; empty where all of it is known."""
    route = tx.routing.route(rollout.route)
    rule = route.experiment.unit_rule if route and route.experiment else None
    rules: Iterable[str] = rule.newer_fields if rule else ()
    named = {*rollout.policy.newer_fields, *(f"unit_rule.{name}" for name in rules)}
    return describe_newer(named) or describe_route(route)


def describe_route(route: Route | None) -> str:
    """Says what is not known of a route's settings; empty for nothing."""
    return describe_newer(route.settings.newer_fields if route else (), "its route")


def update_hold_alert(ctx: Context, proposal: Proposal, why: str) -> None:
    """Keeps an alert open while nothing is decided about a proposal, and ends it when that
    is over. why: empty then.
    """
    kind = AlertKind.PROPOSAL_HELD
    if bool(why) == alerts.is_open(ctx, kind, proposal.id):
        return
    with ctx.store.write() as tx:
        if not why:
            alerts.resolve_alert(ctx, tx, kind, proposal.id)
            return
        alerts.raise_alert(
            ctx,
            tx,
            kind,
            proposal.id,
            subject=f"route {proposal.route}",
            title=f"proposal {proposal.id} of route {proposal.route} is on hold",
            text=f"{why[0].upper()}{why[1:]}.",
        )
