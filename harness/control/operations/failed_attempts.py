"""Limits failed attempts to sign in, by address: `FailedAttempts`, for the management API, the
agents' API and the dashboard.
"""

from collections import OrderedDict
from dataclasses import dataclass

from harness.ports import Clock

MOST_ADDRESSES = 10_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class FailedAttempts:
    """Limits the failed attempts of each address by a token bucket. burst: failures at once;
    per_s: how fast they come back.

    Used from the event loop alone, so it takes no lock. Bounded: the address that failed
    longest ago is forgotten first.
    """

    def __init__(self, clock: Clock, *, burst: int = 10, per_s: float = 1.0) -> None:
        self._clock, self._burst, self._per_s = clock, burst, per_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        bucket = self._buckets.get(address)
        if bucket is None:
            return 0.0
        self._refill(bucket)
        return max(0.0, (1.0 - bucket.tokens) / self._per_s)

    def failed(self, address: str) -> None:
        """Takes a token for a failed attempt. Two attempts in flight may take the last one
        twice: no harm.
        """
        bucket = self._buckets.pop(address, None)
        if bucket is None:
            bucket = _Bucket(float(self._burst), self._clock.monotonic())
        self._refill(bucket)
        bucket.tokens = max(0.0, bucket.tokens - 1.0)
        self._buckets[address] = bucket
        while len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)

    def _refill(self, bucket: _Bucket) -> None:
        now = self._clock.monotonic()
        bucket.tokens = min(float(self._burst), bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
