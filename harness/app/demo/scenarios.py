"""Defines the demo's stories: three proposals, each with its route, candidate and the phase in
which it ought to end, and the route whose provider is lost under traffic (`OUTAGE_ROUTE`).

The expectation follows from the skills that the simulator was given, never from what happened:
with the roles of two models exchanged, two stories exchange their ends.
"""

from dataclasses import dataclass
from typing import Final

from harness.domain.proposals.proposal import ProposalPhase

SUITE: Final = "tickets"
INCUMBENT: Final = "sim/aurora-1"
BETTER: Final = "sim/aurora-2"
WORSE: Final = "sim/aurora-lite"
FRAGILE: Final = "sim/nimbus-1"
FAULT_RATE: Final = 0.5

# The lost provider's route: its traffic must reach the backup.
OUTAGE_ROUTE: Final = "search"
OUTAGE_PRIMARY: Final = "primary/aurora-1"
OUTAGE_BACKUP: Final = "backup/backup-1"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Describes a proposal that the demo makes on a route, and how it ought to end."""

    route: str
    candidate: str
    ends: ProposalPhase
    breaks_online: bool = False  # its candidate starts to fail in the canary


def build_scenarios(*, swap: bool) -> tuple[Scenario, ...]:
    promoted, stopped = ProposalPhase.PROMOTED, ProposalPhase.REJECTED
    return (
        Scenario("chat-web", BETTER, stopped if swap else promoted),
        Scenario("chat-mobile", WORSE, promoted if swap else stopped),
        # It scores well, then fails online.
        Scenario("chat-email", FRAGILE, ProposalPhase.ROLLED_BACK, breaks_online=True),
    )
