"""The facts of a canary: its exposures, and the events that follow them.

Routers write these rows and never change them; every sum is made when the rows are read. They
hold no text of a request or of an answer. A value is None if the router does not know it.

Several processes may admit one caller in one period. Each of them writes an `Exposure`, and the
reader takes the earliest. All events of a process refer to its own exposure of the caller.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple

from harness.gate.online.outcome import JudgeOutcome, OutcomeKind, OutcomeReason

# The lowest bit of a request's segments in `Exposure.traits`.
SEGMENTS_FROM: Final = 8


@dataclass(frozen=True, slots=True)
class Exposure:
    """A caller's first request of a period in one process of a router.

    number: the order of arrival in the database, within the rollout and together with the
    events; 0 before.
    worker, ticket: the process, and the number that it gave the request.
    caller, sample: see `CallerHash`.
    weight_bps: the candidate's share of the callers.
    admitted_at: in the time of the database.
    traits: flags of `RequestTraits`, and from bit SEGMENTS_FROM on one bit for each of
    `SEGMENTS`.
    client: the id of the client's key; empty if unknown.
    """

    rollout: str
    number: int
    worker: str
    ticket: int
    period: int
    caller: int
    sample: int
    canary: bool
    weight_bps: int
    admitted_at: datetime
    traits: int
    client: str = ""


class EventKind(StrEnum):
    ENDED = "ended"  # the exposure's own request ended
    TURN = "turn"  # a later request of its caller ended
    FEEDBACK = "feedback"  # a user gave an opinion about the exposure's answer
    JUDGED = "judged"  # the judge answered, or a call of the judge cost something


@dataclass(frozen=True, slots=True)
class ExposureEvent:
    """Something that became known about an exposure.

    number, worker, ticket: see `Exposure`. The ticket is 0 for the cost of a judge's call that
    belongs to no exposure.
    at: in the time of the database. began_at: when a TURN's request came; for an event of
    another kind, `at`.
    outcome, reason, failure, waited_s, sent, first_output_s, longest_gap_s: see
    `ExposureOutcome`; of ENDED and TURN.
    served: the model that the answer names; empty if unknown.
    latency_s to bounded: see `SampleValues`; of answers that were measured.
    faults: flags of `AnswerFault`.
    text_hash, text_length, question_hash: see `GuardrailSample`.
    bad: of FEEDBACK. verdict, judge_usd: of JUDGED.
    """

    rollout: str
    number: int
    worker: str
    ticket: int
    kind: EventKind
    at: datetime
    began_at: datetime
    outcome: OutcomeKind | None = None
    reason: OutcomeReason | None = None
    failure: str = ""
    waited_s: float | None = None
    sent: bool | None = None
    first_output_s: float | None = None
    longest_gap_s: float | None = None
    served: str = ""
    latency_s: float | None = None
    time_to_first_token_s: float | None = None
    inter_token_latency_s: float | None = None
    output_tokens: float | None = None
    cost_usd: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_worth_usd: float | None = None
    cache_saved_s: float | None = None
    opening_s: float | None = None
    bounded: bool | None = None
    faults: int | None = None
    text_hash: int | None = None
    text_length: int | None = None
    question_hash: int | None = None
    bad: bool | None = None
    verdict: JudgeOutcome | None = None
    judge_usd: float | None = None


# Of `ExposureCount.reason`, beside `UncountedReason` and the keys of unsent outcomes.
KEPT: Final = ""  # the caller has an exposure among the rows
THINNED: Final = "thinned"  # the caller is not in the sample of rows
LOST: Final = "lost"  # the router could not write the caller's exposure


@dataclass(frozen=True, slots=True)
class ExposureCount:
    """Counts a minute's assigned requests of one arm at one share, by one process.

    Callers' first requests of a period count by KEPT, THINNED or LOST; requests that become no
    exposure count by the reason (`ObservationBlock.uncounted`).
    """

    rollout: str
    minute: datetime
    worker: str
    weight_bps: int
    canary: bool
    reason: str
    requests: int


# The most exposures of the larger arm for one of the smaller arm.
MOST_CONTROLS: Final = 19
BUCKETS: Final = 10_000


class CallerHash(NamedTuple):
    """A caller in one rollout, without its sticky key.

    caller: a fingerprint, from 0 to 2**63 - 1.
    sample: a number from 0 to BUCKETS - 1, independent of the caller's arm. The exposures of
    the callers below `kept_bps` become rows.
    """

    caller: int
    sample: int


def hash_caller(salt: str, key: str) -> CallerHash:
    """Hashes a sticky key, alike at every router.

    Args:
        salt: the rollout's secret salt (`ExposureRule.ledger_salt`).
    """
    digest = blake2b(
        key.encode("utf-8", "surrogatepass"), digest_size=16, key=salt.encode()[:64]
    ).digest()
    return CallerHash(
        int.from_bytes(digest[:8]) >> 1, int.from_bytes(digest[8:]) * BUCKETS >> 64
    )


def kept_bps(weight_bps: int, *, canary: bool) -> int:
    """Returns how many of an arm's callers have exposures among the rows, from 0 to BUCKETS.

    The smaller arm keeps all its callers. The larger arm keeps so many that MOST_CONTROLS of
    them stand beside one of the smaller arm. An arm without another keeps all.

    Args:
        weight_bps: the candidate's share of the callers.
    """
    own = weight_bps if canary else BUCKETS - weight_bps
    other = BUCKETS - own
    if not (own and other):
        return BUCKETS
    return min(BUCKETS, MOST_CONTROLS * other * BUCKETS // own)


def canary_share(weight_bps: int, most_bps: int = BUCKETS) -> float:
    """Returns the canary's share of the exposures among the rows, from 0 to 1.

    Args:
        most_bps: only the callers count whose sample is below it.
    """
    canary = weight_bps * min(most_bps, kept_bps(weight_bps, canary=True))
    control = (BUCKETS - weight_bps) * min(most_bps, kept_bps(weight_bps, canary=False))
    return canary / (canary + control)
