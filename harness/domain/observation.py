"""What requests did, counted: blocks for the canary's statistics, minutes for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from harness.domain.policy import CanaryPolicy, Unit


@dataclass(frozen=True, slots=True)
class UnitRule:
    """What the router counts as one unit, and how many make a block (statistics.md 2.1).

    block_size: admitted units. session_requests, session_s: when a session's outcome is fixed,
    if no failure fixed it before. missing_s: after a block closed, outcomes still out count as
    failures. period_s: then every sticky key counts once more.
    """

    block_size: int = 100
    unit: Unit = Unit.SESSION
    session_requests: int = 3
    session_s: float = 60.0
    missing_s: float = 600.0
    period_s: float = 86_400.0

    @classmethod
    def of(cls, policy: CanaryPolicy) -> Self:
        return cls(
            block_size=policy.block_size,
            unit=policy.unit,
            session_requests=policy.session_requests,
            session_s=policy.session_s,
            missing_s=policy.missing_s,
        )


DEFAULT_UNIT_RULE = UnitRule()


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
