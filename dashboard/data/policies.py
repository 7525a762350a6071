"""Loads what the Policies page shows: each policy with the routes that use it, and the open
proposals that follow an older version of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.app.installation import Installation, load_settings, read_file_version
from harness.control.context import Context
from harness.control.operations import queries
from harness.domain.errors import ConfigError
from harness.domain.pagination import MOST_LISTED, PageRequest
from harness.domain.proposals.policy import Policy
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import Route


@dataclass(frozen=True)
class PolicyUse:
    """Says where a policy is used."""

    policy: Policy
    routes: Sequence[Route]
    # Open proposals that were registered with another version of it, which holds for them.
    former: Sequence[Proposal]


def list_policy_uses(ctx: Context) -> Sequence[PolicyUse]:
    """Lists the policies, those that most routes use first."""
    known = queries.list_routes(ctx)
    opened = queries.list_proposals(ctx, PageRequest(MOST_LISTED), open_only=True)
    uses = [
        PolicyUse(
            policy,
            [route for route in known if route.settings.policy == name],
            [proposal for proposal in opened if _has_former(proposal, policy)],
        )
        for name, policy in ctx.policies.items()
    ]
    return sorted(uses, key=lambda use: (-len(use.routes), use.policy.name))


def _has_former(proposal: Proposal, policy: Policy) -> bool:
    """Whether a proposal was registered with another version of the policy."""
    own = proposal.policy
    # Of most it is the same one, which takes less time to say than two digests.
    return own.name == policy.name and own != policy and own.digest != policy.digest


def list_changed_policies(installed: Installation) -> Sequence[str]:
    """Names the policies that the file has with other rules than this process; none of a file
    of no use, of which Settings says what is wrong.
    """
    source, known = installed.settings.source, installed.context.policies
    if source is None or read_file_version(source) == installed.file_version:
        return ()
    try:
        in_file = load_settings(source).policies
    except ConfigError:
        return ()
    return sorted(
        name
        for name, policy in in_file.items()
        if name in known and known[name].digest != policy.digest
    )
