"""What requests did, counted: blocks for the canary's statistics, minutes for people."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from harness.domain.canary.guardrails import ArmLevels, FailureTally, Guardrail
from harness.domain.proposals.policy import CanaryJudge, CanaryPolicy, ExposureUnit
from harness.domain.proposals.policy_bounds import clamp_policy


@dataclass(frozen=True, slots=True)
class UnitRule:
    """What the router counts as one unit, and how many make a block (statistics.md §2.1).

    block_size: admitted units. session_requests, session_s: when a session's outcome is fixed,
    if no failure fixed it before. missing_s: after a block closed, outcomes still out count as
    failures. period_s: then every sticky key counts once more. began_s: when the rollout began,
    in seconds since 1970 UTC, 0 for not known. rho, guardrails: tolerated ratios, of errors and
    of what else is measured. local_alpha: of the workers' own guards together, 0 for none.
    judge: who reads a sample of the answers.
    """

    block_size: int = 100
    unit: ExposureUnit = ExposureUnit.SESSION
    session_requests: int = 3
    session_s: float = 60.0
    missing_s: float = 600.0
    period_s: float = 86_400.0
    began_s: float = 0.0
    rho: float = 1.0
    local_alpha: float = 0.0
    guardrails: Mapping[Guardrail, float] = field(default_factory=dict)
    judge: CanaryJudge | None = None

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
        """What a rollout was started with before a field came is written as it was then."""
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
        """Of the rollout; 0 when it is not known when it began."""
        return max(0.0, at.timestamp() - self.began_s) if self.began_s else 0.0


_LATER: Final = ("began_s", "rho", "local_alpha", "guardrails", "judge")
DEFAULT_UNIT_RULE = UnitRule()
MIN_OBSERVED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ObservationBlock:
    """n consecutive assigned units of one rollout at one weight, all outcomes in.

    Analysis is by assigned arm, whatever answered. sequence: the worker's own count, so that
    the same block sent twice is stored once. number: given by the store, in order of arrival.
    failures count both arms; missing: outcomes that never came, counted as failures in both.

    period: of the rollout, from 1 (statistics.md §2.1); a block never spans two. counts, ranks:
    what the guardrails beside errors saw, by guardrail, of the units that each applies to; one
    that is absent saw nothing. counts: a unit's missing outcome is a failure. ranks: in [0, 1],
    one for each scored unit of the smaller arm, by `domain.ranking`. levels: for words. Of
    errors, counts say which they were where there are any; older blocks do not.
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
    period: int = 1
    counts: Mapping[Guardrail, FailureTally] = field(default_factory=dict)
    ranks: Mapping[Guardrail, tuple[float, ...]] = field(default_factory=dict)
    levels: Mapping[Guardrail, ArmLevels] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrafficMinute:
    """One minute of one route, by assigned arm and by the target that answered.

    failed: requests whose user got an error. charged: requests whose assigned arm failed,
    though another target answered. latency_ms: histogram, upper bound in ms (-1: no bound) to
    count. cached_tokens: of the input, those read from a provider's cache. unpriced: requests
    whose cost nobody knows; cost_usd is of the others. internal_errors: faults of the router's
    own in them.
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
    cached_tokens: int = 0
    unpriced: int = 0
    internal_errors: int = 0


@dataclass(frozen=True, slots=True)
class TrafficTotal:
    """All minutes of one (route, arm, target) in a window; first, last: its minutes in it."""

    route: str
    arm: str
    target: str
    first: datetime
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
    """Seconds that these records tell of: from the first one's minute to now.

    Traffic is recorded by minutes, so it is one at least. Every pace is reckoned over this.
    """
    first = min((each.first for each in totals), default=now)
    return max(MIN_OBSERVED_S, (now - first).total_seconds())
