"""How one request went, for the guardrails: values and faults, as they go between processes."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import IntFlag
from typing import Final, NamedTuple, Self

from harness.gate.online.guardrails import Guardrail
from harness.gate.online.key_ledger import KeyHistory
from harness.gate.online.prompt_cache import NO_CACHE_USE, CacheUse
from harness.proposals.judge import JudgeOutcome


class RequestTraits(IntFlag):
    WORDS = 1  # it is to be answered in words: no embedding
    STREAMS = 2
    JSON = 4
    TOOLS = 8
    PRICED = 16  # both arms' targets have a price
    JUDGED = 32  # drawn for the judge


# A unit's segments stand above its traits: a bit for each of `SEGMENTS`.
SEGMENTS_FROM: Final = 8


class AnswerFault(IntFlag):
    TRUNCATED = 1
    REFUSED = 2
    JSON = 4
    TOOLS = 8
    FEEDBACK = 16
    JUDGED = 32  # found bad by the judge, or without a verdict


# As plain numbers: the flags' own arithmetic would cost more than all the rest.
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
}
FAULTS: Final[Mapping[Guardrail, int]] = {
    Guardrail.TRUNCATION: AnswerFault.TRUNCATED.value,
    Guardrail.REFUSALS: AnswerFault.REFUSED.value,
    Guardrail.JSON_VALIDITY: AnswerFault.JSON.value,
    Guardrail.TOOL_VALIDITY: AnswerFault.TOOLS.value,
    Guardrail.FEEDBACK: AnswerFault.FEEDBACK.value,
    Guardrail.JUDGE: AnswerFault.JUDGED.value,
}


# Of values, those that a prompt cache and an open connection shorten.
CACHED_TIMES: Final = frozenset({Guardrail.LATENCY, Guardrail.TIME_TO_FIRST_TOKEN})


class SampleValues(NamedTuple):
    """Holds one request's values in seconds, tokens and US dollars. None: it failed."""

    latency: float | None = None
    time_to_first_token: float | None = None
    inter_token_latency: float | None = None
    output_tokens: float | None = None
    cost_per_success: float | None = None
    cache: CacheUse = NO_CACHE_USE
    opening_s: float = 0.0  # of the times, what the provider's connection took to open

    def value_for(self, guardrail: Guardrail) -> float | None:
        value: float | None = getattr(self, guardrail.value)
        return value

    def compared_value(self, guardrail: Guardrail, cached_share: float) -> float | None:
        """The cost as at that share of cached input; times as without cache or opening."""
        value = self.value_for(guardrail)
        if value is None:
            return None
        if guardrail is Guardrail.COST_PER_SUCCESS:
            return self.cache.cost_at(cached_share, value)
        if guardrail not in CACHED_TIMES:
            return value
        return max(0.0, value + self.cache.saved_s - self.opening_s)


class GuardrailSample(NamedTuple):
    values: SampleValues
    bad: int = 0  # of `AnswerFault`; 0 for a request that failed

    @property
    def plain(self) -> tuple[float | int | None, ...]:
        *values, cache, opening_s = self.values
        return (*values, *cache, opening_s, self.bad)

    @classmethod
    def from_plain(cls, plain: Sequence[float | None]) -> Self:
        total, first, between, tokens, cost, *numbers = plain
        given, cached, worth_usd, saved_s, opening_s, bad = (number or 0 for number in numbers)
        cache = CacheUse(int(given), int(cached), worth_usd, saved_s)
        values = SampleValues(total, first, between, tokens, cost, cache, opening_s)
        return cls(values, int(bad))


_JUDGED_TRAIT: Final = NEEDS[Guardrail.JUDGE]


class OpenBlock:
    """Holds a block that still admits units, or waits for outcomes. out: units without one yet.

    unjudged: units whose judge has not spoken yet. claimed: the rollout's ledger was asked for
    its keys.
    """

    __slots__ = (
        "claimed",
        "closed_at",
        "closed_s",
        "opened_at",
        "opened_s",
        "out",
        "period",
        "units",
        "unjudged",
        "weight_bps",
    )

    def __init__(self, weight_bps: int, now: float, at: datetime, period: int) -> None:
        self.weight_bps = weight_bps
        self.period = period
        self.opened_s, self.opened_at = now, at
        self.closed_s: float | None = None
        self.closed_at = at
        self.units: list[LedgerUnit] = []  # in the order of admission
        self.out = self.unjudged = 0
        self.claimed = False

    @property
    def share(self) -> float:
        return self.weight_bps / 10_000

    def release(self) -> list["LedgerUnit"]:
        """Returns the units that count. What is still out is a failure from now on."""
        units, self.units = self.units, []
        for unit in units:
            unit.block = None
            if unit.judging:
                unit.judge(JudgeOutcome.NO_VERDICT)
        return [unit for unit in units if unit.history is not KeyHistory.COUNTED]


class LedgerUnit:
    """Holds one scored unit: a sticky key's first request of a period.

    traits, values, bad: of its request. fixed: the outcome is in. heard: a user said something
    of it; heard_until_s: then it is too late. why: it failed, where that is known. judging: the
    judge has not answered yet. unjudged: it gave no verdict. key: its sticky key, or a hash of
    it. history: of the key, once the block is claimed.
    """

    __slots__ = (
        "bad",
        "block",
        "canary",
        "failed",
        "fixed",
        "heard",
        "heard_until_s",
        "history",
        "judging",
        "key",
        "traits",
        "unjudged",
        "values",
        "why",
    )

    def __init__(
        self,
        block: OpenBlock,
        *,
        key: str | int,
        canary: bool,
        traits: int,
    ) -> None:
        self.block: OpenBlock | None = block  # None once it is handed out
        self.key = key
        self.history: KeyHistory | None = None
        self.canary = canary
        self.traits = traits
        self.bad = 0
        self.heard_until_s = float("inf")
        self.values: SampleValues | None = None
        self.why = ""
        self.failed = self.fixed = self.heard = False
        self.judging, self.unjudged = bool(traits & _JUDGED_TRAIT), False

    @property
    def lost(self) -> bool:
        return not (self.fixed or self.failed)

    def note_feedback(self, *, bad: bool, now: float) -> bool:
        if self.block is None or now >= self.heard_until_s:
            return False
        self.heard = True
        if bad:
            self.bad |= FAULTS[Guardrail.FEEDBACK]
        return True

    def judge(self, judged: JudgeOutcome) -> None:
        """Enters a judgement; a unit without a verdict is as bad as one found bad."""
        self.judging = False
        if judged is not JudgeOutcome.GOOD:
            self.bad |= FAULTS[Guardrail.JUDGE]
        self.unjudged = judged is JudgeOutcome.NO_VERDICT
