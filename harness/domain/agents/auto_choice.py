"""`auto` answers with the cheapest target that may serve a route and is known to be good enough
for it: with evidence that holds, and a score on the floor's suite whose lower 95 % bound
reaches the floor. What is not known, no number, or barred never beats the incumbent. Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.domain.formatting import format_number, format_thousand_price


@dataclass(frozen=True, slots=True)
class AutoCandidate:
    """A target that a route names, with what is known of it at this moment."""

    target: str  # id
    name: str  # `provider/model`
    has_evidence: bool = False  # that lets it serve now
    low: float | None = None  # lower 95 % bound of its score, from 0 to 1; None without one
    usd: float | None = None  # of 1,000 answers like those that were scored; None if unknown
    can_answer: bool = True  # this message

    def reaches(self, floor: float) -> bool:
        """Whether it may answer, and is known to be good enough."""
        return self.has_evidence and self.can_answer and _number(self.low) >= floor

    @property
    def has_price(self) -> bool:
        return _number(self.usd) >= 0.0

    @property
    def measured_text(self) -> str:
        return (
            f"{format_number(_number(self.low))} with 95 percent confidence, "
            f"{format_thousand_price(self.usd)} for 1,000 answers"
        )


@dataclass(frozen=True, slots=True)
class AutoChoice:
    """Who answers, and why."""

    chosen: AutoCandidate
    reason: str  # one sentence, without the target's name
    is_incumbent: bool = True


def choose_target(
    incumbent: AutoCandidate, others: Sequence[AutoCandidate], floor: float, suite: str
) -> AutoChoice:
    """The cheapest of those that reach the floor; of equal ones the incumbent, then the first
    by name. One that reaches it without a price stays: no other is known to be cheaper.
    """
    if incumbent.reaches(floor) and not incumbent.has_price:
        return keep_incumbent(
            incumbent, f"it reaches {floor:g} on {suite}; its price is unknown"
        )
    fits = [
        candidate
        for candidate in (incumbent, *others)
        if candidate.reaches(floor) and candidate.has_price
    ]
    if not fits:
        return keep_incumbent(incumbent, f"nothing is known to reach {floor:g} on {suite}")
    best = min(fits, key=lambda fit: (_number(fit.usd), fit is not incumbent, fit.name))
    among = f"the cheapest of {len(fits)}" if len(fits) > 1 else "the only one"
    reason = f"{among} known to reach {floor:g} on {suite}: {best.measured_text}"
    return AutoChoice(best, reason, is_incumbent=best is incumbent)


def keep_incumbent(incumbent: AutoCandidate, reason: str) -> AutoChoice:
    """Chooses the incumbent. reason: why nothing else is chosen."""
    return AutoChoice(incumbent, f"the incumbent: {reason}")


def _number(value: float | None) -> float:
    """Below everything for what is missing, no number, or without bounds."""
    return value if value is not None and math.isfinite(value) else -math.inf
