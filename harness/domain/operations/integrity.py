"""`IntegrityProgress` is how far a process has verified the audit log and the stored rows, part
by part, and what it found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from harness.domain.operations.audit import AuditPosition
from harness.domain.operations.row_signatures import RowFault, RowPlace

# So many rows at fault are remembered. Whoever writes around us could write millions.
MOST_FAULTS: Final = 1_000


@dataclass
class IntegrityProgress:
    """Belongs to one process. A round goes over everything, from the first row to the last."""

    event: AuditPosition = field(default_factory=AuditPosition)  # the last that was verified
    event_rounds: int = 0  # that came to the log's end
    broken: int | None = None  # the first event that does not fit the chain
    row: RowPlace | None = None  # the last one that was verified; None before the first
    row_rounds: int = 0  # that came to the last row
    # Rows at fault: each stays until it holds again or is gone.
    faults: Mapping[RowPlace, RowFault] = field(default_factory=dict)
    _forgot_in: int | None = None  # the round in which there were more than are remembered

    def note(self, faults: Mapping[RowPlace, RowFault]) -> None:
        """Remembers what is at fault now."""
        self.faults = dict(islice(faults.items(), MOST_FAULTS))
        if len(faults) > MOST_FAULTS:
            self._forgot_in = self.row_rounds

    @property
    def is_sound(self) -> bool:
        """Tells that every row was verified, and none is at fault that is not remembered."""
        first = 0 if self._forgot_in is None else self._forgot_in + 1
        return self.row_rounds > first and not self.faults
