"""The unit rule tells a router what it counts for a canary (statistics.md §2.1): each caller's
first request of a day; how many units make a block, which guardrails are measured, and who
judges a sample of the answers.

The router has it from the routing table. `rollout.build_unit_rule` makes it of a policy.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from harness.domain.canary.guardrails import Guardrail, by_guardrail

# For so long after its answer a unit's feedback counts, and its block waits for it, once any
# was given.
FEEDBACK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class CanaryJudge:
    """Sets who judges a sample of both arms' answers, once the users have them."""

    model: str  # PROVIDER/MODEL
    criteria: str  # what a good answer is, in words
    max_usd: float  # in all, of a rollout
    share_bps: int = 10_000  # of the units of the smaller arm
    timeout_s: float = 30.0  # for a verdict, from the user's answer on


@dataclass(frozen=True, slots=True)
class UnitRule:
    """What the router counts as one unit, and how many make a block (statistics.md §2.1)."""

    block_size: int = 100  # admitted units
    missing_s: float = 600.0  # after a block closed, outcomes still out count as failures
    period_s: float = 86_400.0  # then every sticky key counts once more
    began_s: float = 0.0  # when the rollout began, in seconds since 1970 UTC, 0 for not known
    # rho, guardrails: tolerated ratios, of errors and of what else is measured.
    rho: float = 1.0
    local_alpha: float = 0.0  # of the workers' own guards together, 0 for none
    guardrails: Mapping[Guardrail, float] = field(default_factory=dict)
    judge: CanaryJudge | None = None  # who reads a sample of the answers
    # Of the rollout's key ledger (`key_ledger`), a secret; empty for none.
    ledger_salt: str = ""

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        read = {
            "guardrails": by_guardrail(data["guardrails"]),
            "judge": CanaryJudge(**data["judge"]) if data["judge"] else None,
        }
        return cls(**{**data, **read})

    @property
    def keeps_ledger(self) -> bool:
        """Tells whether the rollout's ledger is asked which keys were counted before."""
        return bool(self.ledger_salt)

    def age_s(self, at: datetime) -> float:
        """Returns the rollout's age; 0 when its beginning is unknown."""
        return max(0.0, at.timestamp() - self.began_s) if self.began_s else 0.0


DEFAULT_UNIT_RULE = UnitRule()
