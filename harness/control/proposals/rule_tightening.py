"""What a route asks for now, held against what its open proposal was registered under.

Rules are changed while a proposal is open, and whoever registers one by the command line does
so with a configuration of his own: the control plane's is the one that counts.
"""

from collections.abc import Iterator
from typing import Final

from harness.control.context import Context
from harness.control.proposals import route_rules
from harness.control.routing import routes
from harness.domain.errors import ProofRefused
from harness.domain.evals.run import SuiteRole
from harness.domain.operations.access import Actor, Role
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import Route
from harness.ports import Transaction

OTHER_RULES: Final = "registered under other rules than the route has"


def list_rule_differences(ctx: Context, tx: Transaction, proposal: Proposal) -> list[str]:
    """Where it asks for less than the route does, in words; without what it was registered as
    widened by, since another person approves that.

    Raises NotFound when the route's policy is not in the configuration.
    """
    route = routes.require_route(tx, proposal.route)
    known = tx.routing.targets()
    pins = [tx.suites.get(plan.suite_digest) for plan in proposal.plans]
    found = {
        **route_rules.widened_policy(ctx, route, proposal.policy),
        **route_rules.widened_suites(ctx, tx, route, pins, _proposer(proposal)),
        **route_rules.widened_addendum(known[proposal.incumbent], known[proposal.candidate]),
    }
    new = {name: each for name, each in found.items() if proposal.widened.get(name) != each}
    return [*route_rules.describe_widening(new), *_suites(route, proposal)]


def require_current_rules(ctx: Context, tx: Transaction, proposal: Proposal) -> None:
    """Raises ProofRefused unless it asks for all that the route does."""
    if found := list_rule_differences(ctx, tx, proposal):
        raise ProofRefused(f"{proposal.id}: {OTHER_RULES} ({'; '.join(found)}): propose again")


def _proposer(proposal: Proposal) -> Actor:
    whose = proposal.proposer_principal
    return Actor(proposal.proposer, Role.PROPOSER, whose, proposal.proposer_key)


def _suites(route: Route, proposal: Proposal) -> Iterator[str]:
    plans = {plan.suite: plan for plan in proposal.plans}
    for each in route.settings.suites:
        plan = plans.pop(each.suite, None)
        if plan is None:
            yield f"suite {each.suite}: {each.role.value} on the route, and not proposed"
        elif plan.role is not each.role:
            yield f"suite {each.suite}: {each.role.value} on the route, not {plan.role.value}"
        elif plan.combine and plan.weight != each.weight:
            weights = f"{each.weight:g} on the route, not {plan.weight:g}"
            yield f"suite {each.suite}: weighs {weights}"
    for plan in plans.values():
        if plan.role is SuiteRole.PRIMARY:
            yield f"suite {plan.suite}: not of the route any more, and primary in the proposal"
