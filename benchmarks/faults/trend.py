"""Whether something grows: a straight line through a run's samples. Pure."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from scipy import stats

# Neighbouring samples resemble one another, blocks hardly do. Of each block its least counts:
# what requests hold for a moment comes and goes, what leaks never does.
BLOCKS: Final = 12
WARM_FROM: Final = 0.25
CONFIDENCE: Final = 0.95


class Trend(NamedTuple):
    """level: the mean. low, per_hour, high: the slope per hour with its confidence bounds."""

    level: float
    low: float
    per_hour: float
    high: float

    def grows(self, more_than_per_hour: float) -> bool:
        """Whether even the lower bound is above it."""
        return self.low > more_than_per_hour


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """Of the last three quarters of the run, by least squares over the least of each block.

    Raises ValueError for fewer than four samples there: three blocks are the least.
    """
    since = times_s[0] + WARM_FROM * (times_s[-1] - times_s[0])
    kept = [(at, v) for at, v in zip(times_s, values, strict=True) if at >= since]
    count = min(BLOCKS, len(kept) - 1)
    if count < 3:
        raise ValueError(f"{len(kept)} samples are too few for a slope")
    blocks = [kept[len(kept) * n // count : len(kept) * (n + 1) // count] for n in range(count)]
    floors = [(math.fsum(at for at, _ in b) / len(b), min(v for _, v in b)) for b in blocks]
    line = stats.linregress([at / 3600 for at, _ in floors], [v for _, v in floors])
    # scipy has no error for values that are all the same.
    error = 0.0 if math.isnan(line.stderr) else float(line.stderr)
    spread = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 2)) * error
    slope, level = float(line.slope), math.fsum(v for _, v in kept) / len(kept)
    return Trend(level, slope - spread, slope, slope + spread)
