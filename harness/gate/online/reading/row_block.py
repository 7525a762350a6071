"""A block that was read from rows: it knows the shares of the rows, and the requests without
one.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

from harness.gate.online.guardrails import NO_SPLIT, ArmSplit
from harness.gate.online.observation import ObservationBlock


@dataclass(frozen=True, slots=True)
class RowBlock(ObservationBlock):
    """A block of exposures among the rows, or of their late outcomes.

    The rows of the larger arm are a sample. So the canary's share of the rows is not its share
    of the callers, and the callers' first requests come from counts.

    kept_share: the canary's share of the rows. new_share: among the rows of callers that were
    never seen. counted_requests: see `first_requests`.
    """

    kept_share: float = 0.0
    new_share: float = 0.0
    counted_requests: ArmSplit = NO_SPLIT

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
        return self.counted_requests
