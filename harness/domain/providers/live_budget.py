"""The live budget caps what a conformance run with a user's own key may cost: a call is made
only where its most expensive outcome still fits. Pure.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

from harness.domain.routing.target import Price

# What providers add to a request by themselves: templates, a system prompt for tools.
ADDED_INPUT_TOKENS: Final = 1_000
# Ordinary text has more tokens than that: an answer that reports fewer is not believed.
BYTES_PER_TOKEN: Final = 10


@dataclass(frozen=True, slots=True)
class CallTokens:
    """The tokens of one call."""

    input: int
    output: int

    @property
    def total(self) -> int:
        return self.input + self.output


def most_tokens(body_bytes: int, output_limit: int) -> CallTokens:
    """The most that a call can take: no tokenizer makes two tokens of one byte."""
    return CallTokens(body_bytes + ADDED_INPUT_TOKENS, output_limit)


def settled_tokens(
    most: CallTokens, reported: CallTokens | None, answer_bytes: int
) -> CallTokens:
    """What a call is charged with, once its answer is there: what the provider reports, but no
    less than its answer is long; the most where it reports nothing, or 0.
    """
    least = answer_bytes // BYTES_PER_TOKEN
    if reported is None or reported.input <= 0 or reported.output <= 0:
        return CallTokens(most.input, max(most.output, least))
    return CallTokens(reported.input, max(reported.output, least))


@dataclass(frozen=True, slots=True)
class LiveBudget:
    """The caps of a live run, and what was spent of them."""

    max_usd: float
    max_tokens: int | None = None  # of input and output together; None for no such cap
    spent_usd: float = 0.0
    spent_tokens: int = 0
    calls: int = 0
    limit_kept: bool = True  # no answer was longer than it was allowed to be

    def refusal(self, call: CallTokens, price: Price | None) -> str:
        """Says why a call may not be made; empty where it may."""
        if not self.limit_kept:
            return "an earlier answer exceeded its token limit, so that no cap holds"
        if price is None and self.max_tokens is None:
            return "the model's price is unknown: give --max-tokens-in-all"
        after = self.charge(call, price)
        if after.spent_usd > self.max_usd:
            return "would pass the cap of --max-usd"
        if self.max_tokens is not None and after.spent_tokens > self.max_tokens:
            return "would pass the cap of --max-tokens-in-all"
        return ""

    def settle(self, most: CallTokens, used: CallTokens, price: Price | None) -> Self:
        """Charges a call whose answer is there. most: as `most_tokens` has it."""
        kept = self.limit_kept and used.output <= most.output
        return replace(self.charge(used, price), limit_kept=kept)

    def charge(self, call: CallTokens, price: Price | None) -> Self:
        """Adds a call. price: None adds tokens alone."""
        usd = price.cost_usd(call.input, call.output) if price is not None else 0.0
        return replace(
            self,
            spent_usd=self.spent_usd + usd,
            spent_tokens=self.spent_tokens + call.total,
            calls=self.calls + 1,
        )
