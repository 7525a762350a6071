"""A block that was read from rows. The rows of the larger arm are a sample of its callers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from harness.gate.online.exposures import BUCKETS, kept_bps
from harness.gate.online.guardrails import ArmSplit
from harness.gate.online.observation import ObservationBlock


@dataclass(frozen=True, slots=True)
class RowBlock(ObservationBlock):
    """A block of exposures among the rows, or of their late outcomes.

    The block's counts are about the rows. `first_requests` and `first_outcomes` estimate the
    same of all callers, because `uncounted` is about all callers too.

    kept_share: the canary's share of the rows. new_share: among the rows of callers that were
    never seen.
    """

    kept_share: float = 0.0
    new_share: float = 0.0

    @classmethod
    def from_block(cls, block: ObservationBlock, **others: Any) -> Self:
        """Adds what only blocks of rows know to a block."""
        values = {item.name: getattr(block, item.name) for item in fields(ObservationBlock)}
        return cls(**values | others)

    @property
    def share(self) -> float:
        return self.new_share if self.is_never_seen else self.kept_share

    @property
    def first_requests(self) -> ArmSplit:
        return self._scale(ArmSplit(self.units, self.canary_units))

    @property
    def first_outcomes(self) -> Mapping[str, ArmSplit]:
        return {key: self._scale(split) for key, split in self.outcomes.items()}

    def _scale(self, rows: ArmSplit) -> ArmSplit:
        """Estimates the callers in both arms of whom a sample has these rows."""
        canary = self._scale_arm(rows.canary, canary=True)
        return ArmSplit(
            canary + self._scale_arm(rows.failures - rows.canary, canary=False), canary
        )

    def _scale_arm(self, number: int, *, canary: bool) -> int:
        return round(number * BUCKETS / kept_bps(self.weight_bps, canary=canary))
