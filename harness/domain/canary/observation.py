"""Observations count what requests did: by blocks for the canary's statistics, by minutes for
people.

`UnitRule` says what the router counts as one unit and how many make a block. An
`ObservationBlock` has both arms' units, failures and ranks (statistics.md §2.1);
`TrafficMinute` and `TrafficTotal` have requests, tokens, cost and latency by route, arm and
target.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from harness.domain.canary.guardrails import ArmLevels, FailureTally, Guardrail
from harness.domain.canary.unit_rule import CanaryJudge, ExposureUnit
from harness.domain.proposals.policy import CanaryPolicy
from harness.domain.proposals.policy_bounds import clamp_policy


@dataclass(frozen=True, slots=True)
class UnitRule:
    """What the router counts as one unit, and how many make a block (statistics.md §2.1)."""

    block_size: int = 100  # admitted units
    unit: ExposureUnit = ExposureUnit.SESSION
    # session_requests, session_s: when a session's outcome is fixed, if no failure fixed it
    # before.
    session_requests: int = 3
    session_s: float = 60.0
    missing_s: float = 600.0  # after a block closed, outcomes still out count as failures
    period_s: float = 86_400.0  # then every sticky key counts once more
    began_s: float = 0.0  # when the rollout began, in seconds since 1970 UTC, 0 for not known
    # rho, guardrails: tolerated ratios, of errors and of what else is measured.
    rho: float = 1.0
    local_alpha: float = 0.0  # of the workers' own guards together, 0 for none
    guardrails: Mapping[Guardrail, float] = field(default_factory=dict)
    judge: CanaryJudge | None = None  # who reads a sample of the answers

    @classmethod
    def of(cls, policy: CanaryPolicy, began_at: datetime) -> Self:
        policy = clamp_policy(policy)
        return cls(
            block_size=policy.block_size,
            unit=policy.unit,
            session_requests=policy.session_requests,
            session_s=policy.session_s,
            missing_s=policy.missing_s,
            began_s=began_at.timestamp(),
            rho=policy.rho,
            local_alpha=policy.local_alpha,
            guardrails=policy.guardrails.tolerated(),
            judge=policy.judge,
        )

    def as_json(self) -> dict[str, object]:
        """Leaves out newer fields at their default: older rollouts' rules keep their bytes."""
        written = asdict(self)
        for name in _LATER:
            if written[name] == getattr(DEFAULT_UNIT_RULE, name):
                del written[name]
        return written

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        ratios = {Guardrail(name): r for name, r in data.get("guardrails", {}).items()}
        judge = CanaryJudge(**data["judge"]) if data.get("judge") else None
        known = {"unit": ExposureUnit(data["unit"]), "guardrails": ratios, "judge": judge}
        return cls(**{**data, **known})

    def age_s(self, at: datetime) -> float:
        """Returns the rollout's age; 0 when its beginning is unknown."""
        return max(0.0, at.timestamp() - self.began_s) if self.began_s else 0.0


_LATER: Final = ("began_s", "rho", "local_alpha", "guardrails", "judge")
DEFAULT_UNIT_RULE = UnitRule()
MIN_OBSERVED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ObservationBlock:
    """n consecutive assigned units of one rollout at one weight, all outcomes in.

    Analysis is by assigned arm, whatever answered.
    """

    rollout: str
    worker: str
    sequence: int  # the worker's own count, so that the same block sent twice is stored once
    weight_bps: int
    units: int
    canary_units: int
    failures: int
    canary_failures: int
    missing: int  # outcomes that never came, counted as failures in both
    opened_at: datetime
    closed_at: datetime
    number: int = 0  # given by the store, in order of arrival. failures count both arms
    period: int = 1  # of the rollout, from 1 (statistics.md §2.1); a block never spans two
    # A unit's missing outcome is a failure.
    counts: Mapping[Guardrail, FailureTally] = field(default_factory=dict)
    # In [0, 1], one for each scored unit of the smaller arm, by `domain.canary.ranking`.
    ranks: Mapping[Guardrail, tuple[float, ...]] = field(default_factory=dict)
    # For words. Of errors, counts say which they were where there are any; older blocks do not.
    levels: Mapping[Guardrail, ArmLevels] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrafficMinute:
    """One minute of one route, by assigned arm and by the target that answered."""

    route: str
    minute: datetime
    worker: str
    arm: str
    target: str
    revision: int
    requests: int
    failed: int  # requests whose user got an error
    charged: int  # requests whose assigned arm failed, though another target answered
    streams: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    # Histogram, upper bound in ms (-1: no bound) to count.
    latency_ms: Mapping[int, int] = field(default_factory=dict)
    cached_tokens: int = 0  # of the input, those read from a provider's cache
    unpriced: int = 0  # requests whose cost nobody knows; cost_usd is of the others
    internal_errors: int = 0  # faults of the router's own in them


@dataclass(frozen=True, slots=True)
class TrafficTotal:
    """The sum of all minutes of one (route, arm, target) in a window."""

    route: str
    arm: str
    target: str
    first: datetime  # first, last: its minutes in it
    last: datetime
    requests: int
    failed: int
    charged: int
    streams: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float
    unpriced: int
    internal_errors: int = 0


def observed_seconds(totals: Iterable[TrafficTotal], now: datetime) -> float:
    """Seconds that these records cover: from the first one's minute to now.

    Traffic is recorded by minutes, so it is one at least. Every pace is reckoned over this.
    """
    first = min((total.first for total in totals), default=now)
    return max(MIN_OBSERVED_S, (now - first).total_seconds())
