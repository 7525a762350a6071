"""The candidate's side of a shadow pair, as it is stored with the caller's request. Pure.

A shadow pair is a captured request with the incumbent's answer, and the candidate's beside it
(`CapturedRequest.candidate`). So captures' redaction, data class, age and deletion hold for it.

The router enters a pair before it asks the candidate. So no outcome decides which pairs there
are, nor in which order they come: a slow, failed or lost answer keeps its place.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from harness.frame.people.access import key_hash

# The time that a pair may wait in the router's buffers after its answer is due.
STORING_TIME: Final = timedelta(seconds=60)
# The member of a pair's content that has the candidate's answer, in the form of `answer`.
CANDIDATE: Final = "candidate"


class CandidateOutcome(StrEnum):
    """How the candidate answered a mirrored request.

    Only ANSWERED comes with an answer. TIMED_OUT and FAILED are the candidate's.
    INTERRUPTED: the router stopped meanwhile. LOST: the answer's storage failed, or the router
    ended without a stop; a row keeps PENDING then, and `CandidateAnswer.settle` tells.
    """

    PENDING = "pending"
    ANSWERED = "answered"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    INTERRUPTED = "interrupted"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class CandidateAnswer:
    """The candidate's answer to a mirrored request, without its text."""

    target: str  # the candidate's name
    due: datetime  # no answer is stored after this moment
    outcome: CandidateOutcome = CandidateOutcome.PENDING
    failure: str = ""  # the class of a failure; empty without one
    ms: float = 0.0  # time to the whole answer; for a stream, to its first output
    output_tokens: int = 0
    cost_usd: float | None = None  # None if the price or the use of tokens is unknown

    def settle(self, now: datetime) -> Self | None:
        """Returns the final answer, LOST if it is overdue; None while it may still come."""
        if self.outcome is not CandidateOutcome.PENDING:
            return self
        return replace(self, outcome=CandidateOutcome.LOST) if now >= self.due else None


def pair_id(shadow: str, request: str, secret: bytes) -> str:
    """Computes a pair's id from its shadow and its request's id. It tells nothing about the
    caller, so a judgement may keep it.
    """
    return "pair_" + key_hash(f"pair:{shadow}:{request}", secret)[:24]
