"""What requests did, counted: blocks for the canary's statistics, minutes for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Block:
    """n consecutive assigned units of one rollout at one weight, all outcomes in.

    Analysis is by assigned arm, whatever answered. sequence: the worker's own count, so that
    the same block sent twice is stored once. number: given by the store, in order of arrival.
    failures count both arms; missing: outcomes that never came, counted as failures in both.
    """

    rollout: str
    worker: str
    sequence: int
    weight_bps: int
    units: int
    canary_units: int
    failures: int
    canary_failures: int
    missing: int
    opened_at: datetime
    closed_at: datetime
    number: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """One minute of one route, by assigned arm and by the target that answered.

    failed: requests whose user got an error. charged: requests whose assigned arm failed,
    though another target answered. latency_ms: histogram, upper bound in ms (-1: no bound) to
    count.
    """

    route: str
    minute: datetime
    worker: str
    arm: str
    target: str
    revision: int
    requests: int
    failed: int
    charged: int
    streams: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_ms: Mapping[int, int] = field(default_factory=dict)
