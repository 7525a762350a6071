"""Checks a policy's judge of canaries before a proposal is made: its settings, that its
provider may see the route's class of data (D8), and that its price is known. Later the router
asks the judge by itself.
"""

from harness.control.context import Context
from harness.control.routing import data_class_checks
from harness.domain.canary import judge as canary_judge
from harness.domain.errors import InputError
from harness.domain.formatting import format_usd
from harness.domain.proposals.policy import Policy
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target
from harness.ports import Transaction


def check_judge(ctx: Context, tx: Transaction, route: Route, policy: Policy) -> None:
    """Check a policy's judge before anything is paid for; one without a judge passes.

    Raises InputError for a judge that could not be asked, NotAllowed for one whose provider may
    not see the route's class of data (D8).
    """
    canary_judge.check_judge(policy.canary)
    judge = policy.canary.judge
    if judge is None:
        return
    target = Target.from_name(judge.model)
    data_class_checks.check_targets(ctx, route.settings, [target], route=route.name)
    provider = tx.providers.all().get(target.provider)
    if provider is None or target.model not in provider.prices:
        raise InputError(
            f"policy {policy.name!r} has its canaries judged by {target.name}, within "
            f"{format_usd(judge.max_usd)}, and its price is not known: set "
            f"providers.{target.provider}.prices"
        )
