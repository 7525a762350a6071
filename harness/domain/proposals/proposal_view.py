"""A proposal view is a proposal with what holds of it now: whether a candidate that was
promoted serves its route still. The phase alone does not say so: it stays `promoted` after a
rollback.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.domain.routing.table import Route


@dataclass(frozen=True)
class ProposalView(Proposal):
    """A proposal as it is shown."""

    # Whether its candidate, once promoted, serves the route now; None in any other phase, and
    # where the route is not as it was signed.
    serves: bool | None = None

    @property
    def phase_text(self) -> str:
        """Says the phase in words, and of a promoted candidate that it does not serve now."""
        words = super().phase_text
        return f"{words}, does not serve now" if self.serves is False else words

    @classmethod
    def from_proposal(
        cls, proposal: Proposal, find_route: Callable[[str], Route | None]
    ) -> "ProposalView":
        """Shows a proposal. find_route: finds a route as it is now; asked only where the
        proposal is promoted.
        """
        promoted = proposal.phase is ProposalPhase.PROMOTED
        route = find_route(proposal.route) if promoted else None
        stored = {field.name: getattr(proposal, field.name) for field in fields(Proposal)}
        return cls(**stored, serves=route.incumbent == proposal.candidate if route else None)
