"""A turn of an agent's recorded run, as an item of a suite of traffic. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Coverage(StrEnum):
    """Whether a log has all turns of a run.

    UNKNOWN: the histories do not show it, such as those of sub-agents, or of an agent that
    shortens its history.
    """

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """The place of a request in an agent's run.

    number: from 1. of: the run's turns in the log. is_logged: whether the log has its answer.
    """

    run: str
    number: int
    of: int
    coverage: Coverage
    is_logged: bool
