"""What all eval workers of a machine together may ask of one provider."""

from dataclasses import dataclass
from typing import Final

from harness.domain.reliability.rate_limits import MINUTE_S, RateLimit

BURST_S: Final = 5.0
# With a burst, a minute may hold more than its rate: so the rate is a little lower.
_SHARE: Final = MINUTE_S / (MINUTE_S + BURST_S)


@dataclass(frozen=True, slots=True)
class EvalLimits:
    """None for no limit. Judges' calls and retries count like any other.

    Requests are spread over the minute: at most five seconds' worth comes at once.
    """

    max_concurrent: int | None = None
    requests_per_min: float | None = None
    tokens_per_min: float | None = None

    @property
    def rate(self) -> RateLimit:
        """A rate that lets no minute, wherever it begins, have more requests than allowed."""
        return RateLimit(
            _paced(self.requests_per_min), _paced(self.tokens_per_min), burst_s=BURST_S
        )


def _paced(per_minute: float | None) -> float | None:
    return None if per_minute is None else max(1.0, per_minute * _SHARE)
