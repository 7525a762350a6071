"""How many rows of each kind a database of a given size holds; size 1 is the goal."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """A part of the goal: 0.01 is a hundredth of it."""

    part: float

    def count(self, goal: int) -> int:
        return max(1, round(goal * self.part))

    @property
    def routes(self) -> int:
        return self.count(1_000)

    @property
    def keys(self) -> int:
        return self.count(10_000)

    @property
    def traffic_rows(self) -> int:
        """50 requests in a row, of a route and minute: 100 M observations."""
        return self.count(2_000_000)

    @property
    def failovers(self) -> int:
        return self.count(1_000_000)

    @property
    def captures(self) -> int:
        return self.count(100_000)


OBSERVATIONS_OF_ROW = 50
DAYS_OF_TRAFFIC = 30
DAYS_OF_SPEND = 31
