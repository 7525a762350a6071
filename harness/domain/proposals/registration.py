"""A candidate's run is named after the registration that it measures.

Every answer is signed together with its run's id. The id holds a hash of the registered plans.
So the answers show that the plans, with margin and alpha, were fixed before the first of them.
"""

from typing import Final

from harness.domain.content_hash import digest
from harness.domain.proposals.proposal import Proposal

PREFIX: Final = "run_"
NONCE_CHARACTERS: Final = 8
HASH_CHARACTERS: Final = 32  # 128 bits


def name_candidate_run(proposal: Proposal, nonce: str) -> str:
    """Names a run of the proposal's candidate. nonce: tells one attempt from another."""
    registered = digest([nonce, proposal.id, [plan.as_json() for plan in proposal.plans]])
    return f"{PREFIX}{nonce}{registered[:HASH_CHARACTERS]}"


def was_registered_before(proposal: Proposal, run: str) -> bool:
    """Tells whether the run's id holds the hash of the plans that the proposal has now."""
    nonce = run.removeprefix(PREFIX)[:-HASH_CHARACTERS]
    return name_candidate_run(proposal, nonce) == run
