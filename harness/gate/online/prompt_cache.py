"""A canary has few requests, so its prompt cache is colder than the incumbent's. A cold cache
is not harm. So the guardrails compare costs and times at an equal share of cached tokens
(statistics.md §2.14). Pure; each function is the same for both arms.

All other code uses billed costs and measured times without this adjustment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from harness.frame.formatting import format_number, format_percent

# A prompt cache saves at most this part of the time to the first token ("Prompt caching" in
# OpenAI's documentation: "up to 80%"), and at most 1 ms for each cached token, because a hosted
# model reads at least 1,000 tokens a second.
MAX_SAVED_SHARE: Final = 0.8
MAX_SAVED_S_PER_TOKEN: Final = 0.001


class CacheUse(NamedTuple):
    """The effect of the prompt cache on one request.

    worth_usd: how much less the request would cost if all its input came from the cache.
    saved_s: the most seconds that the cache can have saved.
    """

    input_tokens: int = 0
    cached_tokens: int = 0  # input tokens read from the cache
    worth_usd: float = 0.0
    saved_s: float = 0.0

    @property
    def share(self) -> float:
        return self.cached_tokens / self.input_tokens if self.input_tokens else 0.0

    def cost_at(self, share: float, cost_usd: float) -> float:
        """Returns the cost in US dollars if `share` of the input had come from the cache."""
        # Rounded, so that equal costs stay equal.
        return max(0.0, round(cost_usd + (self.share - share) * self.worth_usd, 12))


NO_CACHE_USE: Final = CacheUse()


def saved_seconds(
    input_tokens: int,
    cached_tokens: int,
    first_token_s: float,
) -> float:
    """Computes the most seconds that the cache can have saved.

    Args:
        first_token_s: measured.
    """
    if not cached_tokens or not input_tokens:
        return 0.0
    share = MAX_SAVED_SHARE * cached_tokens / input_tokens
    by_share = first_token_s * share / (1.0 - share)
    return min(by_share, MAX_SAVED_S_PER_TOKEN * cached_tokens)


class ArmCacheUse:
    """Adds up each arm's input tokens and cached input tokens."""

    def __init__(self) -> None:
        self._input = {True: 0, False: 0}
        self._cached = {True: 0, False: 0}

    def add(self, uses: Iterable[tuple[bool, CacheUse]]) -> None:
        """Adds requests.

        Args:
            uses: whether the canary served it, and its cache use.
        """
        for canary, use in uses:
            self._input[canary] += use.input_tokens
            self._cached[canary] += use.cached_tokens

    def share(self, *, canary: bool) -> float:
        """Returns the cached share of an arm's input tokens; 0 without any."""
        return self._cached[canary] / self._input[canary] if self._input[canary] else 0.0

    @property
    def larger(self) -> float | None:
        """Returns the larger of both arms' shares; None until both have input tokens."""
        if not (self._input[True] and self._input[False]):
            return None
        return max(self.share(canary=True), self.share(canary=False))

    @property
    def pooled(self) -> float:
        total = sum(self._input.values())
        return sum(self._cached.values()) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class CacheLevels:
    """Each arm's cached share of input tokens, and its geometric mean cost or time, adjusted
    to an equal share and open connections.

    canary_opened, control_opened: the share of answers that needed a new connection.
    """

    canary_share: float
    control_share: float
    canary: float
    control: float
    canary_opened: float = 0.0
    control_opened: float = 0.0

    @classmethod
    def averaged(
        cls,
        known: Sequence[tuple[int, "CacheLevels"]],
        canary: float,
        control: float,
    ) -> Self:
        """Averages shares over blocks, weighted by ranked values.

        Args:
            canary: its mean levels.
            control: its mean levels.
        """
        total = sum(n for n, _ in known)

        def mean(name: str) -> float:
            return sum(n * float(getattr(cache, name)) for n, cache in known) / total

        return cls(
            mean("canary_share"),
            mean("control_share"),
            canary,
            control,
            mean("canary_opened"),
            mean("control_opened"),
        )

    @property
    def ratio(self) -> float:
        """The canary's adjusted level as a multiple of the incumbent's."""
        return self.canary / self.control

    @property
    def is_colder(self) -> bool:
        """Tells whether the canary had less of its input cached, or opened more connections."""
        colder = self.canary_share < self.control_share
        return colder or self.canary_opened > self.control_opened

    @property
    def is_cached(self) -> bool:
        return bool(self.canary_share or self.control_share)

    @property
    def basis(self) -> str:
        return "at an equal share of cached tokens" if self.is_cached else "once connected"

    def describe(self, observed: float, pair: str) -> str:
        """Explains how much of a difference comes from the cold cache and new connections.

        Args:
            observed: a ratio.
            pair: both values as text.
        """
        causes = []
        if self.is_cached:
            causes.append(
                f"the prompt cache had {_percent(self.canary_share)} of the candidate's input "
                f"tokens and {_percent(self.control_share)} of the incumbent's"
            )
        if self.canary_opened or self.control_opened:
            causes.append(
                f"{_percent(self.canary_opened)} of the candidate's answers and "
                f"{_percent(self.control_opened)} of the incumbent's needed a new connection"
            )
        times, equal_times, cold_times = (
            f"{format_number(ratio, 2)} ×"
            for ratio in (observed, self.ratio, observed / self.ratio)
        )
        where = "at an equal share"
        cold = "the cold cache"
        if not self.is_cached:
            where = self.basis
            cold = "new connections"
        elif self.canary_opened or self.control_opened:
            where = "at an equal share and once connected"
            cold = "the cold cache and new connections"
        return (
            f"{', and '.join(causes)}: as observed {times} ({pair}), {where} {equal_times}; "
            f"the remaining {cold_times} come from {cold}"
        )


def _percent(share: float) -> str:
    return format_percent(share, significant=2)
