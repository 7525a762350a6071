"""`AgentsContext` holds everything outside a use case that a use case of agents may use."""

from dataclasses import dataclass, field

from harness.agents.caller import ApprovalLinks
from harness.proposals.context import ProposalsContext
from harness.routing.settings import AgentSettings


@dataclass(frozen=True, kw_only=True)
class AgentsContext(ProposalsContext):
    """Adds the settings of agents, and the links by which people approve a switch."""

    agents: AgentSettings = field(default_factory=AgentSettings)
    approval_links: ApprovalLinks | None = None  # None if Swapproof sends no approval links
