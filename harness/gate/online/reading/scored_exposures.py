"""The values and faults of a request for the guardrails, as processes exchange them.

The router measures them. A block keeps them until it is complete, and `observation_builder`
counts them. The values are only numbers and flags, without any
text of a request or an answer.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import IntFlag
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple, Self

from harness.gate.online.exposures import SEGMENTS_FROM
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.observation import SEGMENTS, KeyHistory, Segment
from harness.gate.online.outcome import (
    MISSING,
    ExposureOutcome,
    JudgeOutcome,
    Reading,
    WaitLimits,
    read,
    settle_departure,
)
from harness.gate.online.prompt_cache import NO_CACHE_USE, CacheUse


class RequestTraits(IntFlag):
    """The facts of a request before its answer. They decide for which guardrails it counts."""

    WORDS = 1  # the answer has text: not an embedding
    STREAMS = 2
    JSON = 4
    TOOLS = 8
    PRICED = 16  # the targets of both arms have a price
    JUDGED = 32  # the request is in the judge's sample
    SERVED = 64  # the router served the request itself, so it notices if the caller leaves


class AnswerFault(IntFlag):
    """The guardrails that an answer breaks, as flags."""

    TRUNCATED = 1
    REFUSED = 2
    JSON = 4
    TOOLS = 8
    FEEDBACK = 16
    JUDGED = 32  # the judge found it bad, or gave no verdict
    REPEATED = 64  # the arm's most repeated text, as the answer to unlike questions


# Plain numbers, because arithmetic with flags takes longer than all other work here.
NEEDS: Final[Mapping[Guardrail, int]] = {
    Guardrail.LATENCY: 0,
    Guardrail.TIME_TO_FIRST_TOKEN: RequestTraits.STREAMS.value,
    Guardrail.INTER_TOKEN_LATENCY: RequestTraits.STREAMS.value,
    Guardrail.OUTPUT_TOKENS: RequestTraits.WORDS.value,
    Guardrail.TRUNCATION: RequestTraits.WORDS.value,
    Guardrail.REFUSALS: RequestTraits.WORDS.value,
    Guardrail.JSON_VALIDITY: RequestTraits.JSON.value,
    Guardrail.TOOL_VALIDITY: RequestTraits.TOOLS.value,
    Guardrail.COST_PER_SUCCESS: RequestTraits.PRICED.value,
    Guardrail.FEEDBACK: 0,
    Guardrail.JUDGE: RequestTraits.JUDGED.value,
    Guardrail.LEAVING: RequestTraits.SERVED.value,
    Guardrail.LIMITS: RequestTraits.SERVED.value,
    Guardrail.REPEATS: RequestTraits.WORDS.value,
}
# Guardrails with faults in the answer or in the caller's opinion. For the other guardrails, the
# outcome alone decides.
FAULTS: Final[Mapping[Guardrail, int]] = {
    Guardrail.TRUNCATION: AnswerFault.TRUNCATED.value,
    Guardrail.REFUSALS: AnswerFault.REFUSED.value,
    Guardrail.JSON_VALIDITY: AnswerFault.JSON.value,
    Guardrail.TOOL_VALIDITY: AnswerFault.TOOLS.value,
    Guardrail.FEEDBACK: AnswerFault.FEEDBACK.value,
    Guardrail.JUDGE: AnswerFault.JUDGED.value,
    Guardrail.REPEATS: AnswerFault.REPEATED.value,
}


# The values that a prompt cache or an open connection shortens.
CACHED_TIMES: Final = frozenset({Guardrail.LATENCY, Guardrail.TIME_TO_FIRST_TOKEN})


class SampleValues(NamedTuple):
    """One request's values in seconds, tokens and US dollars; None if it failed."""

    latency: float | None = None
    time_to_first_token: float | None = None
    inter_token_latency: float | None = None
    output_tokens: float | None = None
    cost_per_success: float | None = None
    cache: CacheUse = NO_CACHE_USE
    opening_s: float = 0.0  # the part of the times for opening the provider's connection
    # The tokens and the cost are lower bounds, because a provider's count is missing.
    bounded: bool = False

    def value_for(self, guardrail: Guardrail) -> float | None:
        """Returns the value of a guardrail that measures; None if the request failed."""
        value: float | None = getattr(self, guardrail.value)
        return value

    def compared_value(self, guardrail: Guardrail, cached_share: float) -> float | None:
        """Returns the cost at `cached_share`, or the time without cache and connecting."""
        value = self.value_for(guardrail)
        if value is None:
            return None
        if guardrail is Guardrail.COST_PER_SUCCESS:
            return self.cache.cost_at(cached_share, value)
        if guardrail not in CACHED_TIMES:
            return value
        return max(0.0, value + self.cache.saved_s - self.opening_s)


def _key_hash(hash_: int, salt: str) -> int:
    """Hashes a hash of 48 bits with a key; 0 stays 0."""
    if not hash_:
        return 0
    digest = blake2b(hash_.to_bytes(8), digest_size=6, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest)


class GuardrailSample(NamedTuple):
    """One request's values, and hashes that only show whether two texts are equal.

    bad: flags of `AnswerFault`; 0 for a failed request. text, text_length: the hash and the
    length of the answer's text, 0 without text. question: a hash of the request's last user
    message, 0 without one.
    """

    values: SampleValues
    bad: int = 0
    text: int = 0
    text_length: int = 0
    question: int = 0

    def hide_texts(self, salt: str) -> Self:
        """Returns the sample with keyed hashes of both texts. A reader who has a list of likely
        texts, but not the key, cannot find out which ones they are.

        Args:
            salt: the rollout's secret salt.
        """
        text = _key_hash(self.text, salt)
        return self._replace(text=text, question=_key_hash(self.question, salt))

    @property
    def plain(self) -> tuple[str | int, ...]:
        """The sample for a worker's report; `from_plain` reads it.

        The values are in binary form as hexadecimal digits, because writing and reading decimal
        fractions takes ten times as long.
        """
        *values, cache, opening_s, bounded = self.values
        if None in values:
            values = [math.nan if value is None else value for value in values]
        return (_VALUES.pack(*values, *cache, opening_s, bounded).hex(), *self[1:])

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Self:
        """Reads the values of `plain`. Raises ValueError or struct.error for other data."""
        packed, *flags_and_hashes = plain
        *values, total_input, cached, worth_usd, saved_s, opening_s, bounded = _VALUES.unpack(
            bytes.fromhex(packed)
        )
        total, first, between, tokens, cost = (
            None if math.isnan(value) else value for value in values
        )
        cache = CacheUse(int(total_input), int(cached), worth_usd, saved_s)
        sample_values = SampleValues(
            total, first, between, tokens, cost, cache, opening_s, bounded
        )
        return cls(sample_values, *flags_and_hashes)


# The five values, NaN if unknown; the four of `CacheUse`; `opening_s` and `bounded`.
_VALUES: Final = Struct("<10d?")
_JUDGED_TRAIT: Final = NEEDS[Guardrail.JUDGE]
_STREAM_SEGMENT: Final = 1 << SEGMENTS_FROM + SEGMENTS.index(Segment.STREAM)


class OpenBlock:
    """A block that admits exposures, or waits for outcomes.

    out: the number of exposures without an outcome. unjudged: the number of exposures that wait
    for the judge. claimed: the database has answered the claim of the block's keys. uncounted:
    the requests without an exposure in both arms and in the canary, by reason
    (`ObservationBlock.uncounted`). share: the canary's share of the exposures, 0 to 1;
    new_share: among the callers that were never seen.
    """

    __slots__ = (
        "claimed",
        "closed_at",
        "closed_s",
        "ended_at",
        "ended_s",
        "new_share",
        "opened_at",
        "opened_s",
        "out",
        "period",
        "share",
        "uncounted",
        "units",
        "unjudged",
        "weight_bps",
    )

    def __init__(
        self,
        weight_bps: int,
        now: float,
        at: datetime,
        period: int,
    ) -> None:
        self.weight_bps = weight_bps
        self.period = period
        self.share = self.new_share = weight_bps / 10_000
        self.opened_s = now
        self.opened_at = at
        self.closed_s: float | None = None
        self.closed_at = at
        # The time of an event that ended the callers' windows early.
        self.ended_s = self.ended_at = float("inf")
        self.units: list[LedgerExposure] = []  # in the order of admission
        self.out = self.unjudged = 0
        self.claimed = False
        self.uncounted: dict[str, list[int]] = {}

    def note_uncounted(self, key: str, *, canary: bool) -> None:
        """Counts a request without an exposure.

        Args:
            key: see `ObservationBlock.uncounted`.
        """
        count = self.uncounted.setdefault(key, [0, 0])
        count[0] += 1
        count[1] += canary

    def release(self) -> list["LedgerExposure"]:
        """Returns the exposures that count. An exposure without an outcome counts as failed."""
        exposures = self.units
        self.units = []
        for exposure in exposures:
            exposure.block = None
            if exposure.lost:
                exposure.heard_until_s = -float("inf")
            if exposure.judging:
                exposure.judge(JudgeOutcome.NO_VERDICT)
        return [
            exposure for exposure in exposures if exposure.history is not KeyHistory.COUNTED
        ]


class LedgerExposure:
    """One scored exposure: a sticky key's first request of a period.

    traits, values, bad: the traits, values and faults of its request.
    outcome: None before the outcome arrives. `settle` replaces a departure's raw outcome.
    served: the model that the answer names; empty if unknown.
    text, text_length, question: see `GuardrailSample`.
    client: the id of the client's key; empty if unknown.
    heard: a user gave feedback; after heard_until_s feedback is too late.
    judging: the judge has not answered yet. unjudged: the judge gave no verdict.
    key: the sticky key, or its hash. history: the key's history, after the claim.
    arrived_s, arrived_at: the request's arrival, in monotonic seconds and seconds since 1970.
    requests: the number of requests in the caller's window so far. pending: the number of later
    requests without an outcome. caller_failed: a request of the window failed.
    """

    __slots__ = (
        "arrived_at",
        "arrived_s",
        "bad",
        "block",
        "caller_failed",
        "canary",
        "client",
        "heard",
        "heard_until_s",
        "history",
        "judging",
        "key",
        "outcome",
        "pending",
        "question",
        "requests",
        "served",
        "text",
        "text_length",
        "traits",
        "unjudged",
        "values",
    )

    def __init__(
        self,
        block: OpenBlock,
        *,
        key: str | int,
        canary: bool,
        traits: int,
        client: str = "",
        arrived_s: float = 0.0,
        arrived_at: float = 0.0,
    ) -> None:
        self.block: OpenBlock | None = block  # None after the ledger hands it out
        self.arrived_s = arrived_s
        self.arrived_at = arrived_at
        self.requests = 1
        self.pending = 0
        self.caller_failed = False
        self.key = key
        self.history: KeyHistory | None = None
        self.canary = canary
        self.traits = traits
        self.bad = 0
        self.heard_until_s = float("inf")
        self.values: SampleValues | None = None
        self.client = client
        self.outcome: ExposureOutcome | None = None
        self.served = ""
        self.text = self.text_length = self.question = 0
        self.heard = False
        self.judging = bool(traits & _JUDGED_TRAIT)
        self.unjudged = False

    @property
    def lost(self) -> bool:
        """Whether no outcome arrived."""
        return self.outcome is None

    @property
    def failed(self) -> bool:
        """Whether an outcome arrived and is a failure for the guardrail on errors."""
        return self.outcome is not None and self.reading(Guardrail.ERRORS) is Reading.BAD

    @property
    def has_window(self) -> bool:
        """Whether later requests of the caller count: the router served the first request."""
        return bool(self.traits)

    @property
    def why(self) -> str:
        """The name of the failure; empty without one."""
        return self.outcome.name if self.outcome is not None and self.failed else ""

    @property
    def is_stream(self) -> bool:
        return bool(self.traits & _STREAM_SEGMENT)

    def reading(self, guardrail: Guardrail) -> Reading:
        """Reads the outcome for a guardrail."""
        return read(guardrail, self.outcome or MISSING)

    def settle(self, limits: WaitLimits) -> None:
        """Replaces the outcome of a departure by its final reading (`settle_departure`)."""
        if self.outcome is not None:
            self.outcome = settle_departure(self.outcome, limits, streamed=self.is_stream)

    def note_feedback(self, *, bad: bool, now: float) -> bool:
        """Enters feedback. Returns False if it is too late."""
        if now >= self.heard_until_s:
            return False
        self.heard = True
        if bad:
            self.bad |= FAULTS[Guardrail.FEEDBACK]
        return True

    def judge(self, judged: JudgeOutcome) -> None:
        """Enters a judgement; an exposure without a verdict counts as bad."""
        self.judging = False
        if judged is not JudgeOutcome.GOOD:
            self.bad |= FAULTS[Guardrail.JUDGE]
        self.unjudged = judged is JudgeOutcome.NO_VERDICT


class LaterTurn(NamedTuple):
    """A later request in the window of a caller. arrived_at: in seconds since 1970."""

    exposure: LedgerExposure
    arrived_at: float
