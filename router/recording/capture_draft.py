"""A request that is to be kept, on its way to the desk that redacts it."""

from typing import NamedTuple


class CaptureDraft(NamedTuple):
    """A request and its answer as they were: for the desk, never for disk, logs or SQL.

    at: ISO 8601. asked: the client's body. answer: the body that it got, or the events.
    """

    route: str
    request: str
    endpoint: str
    stream: bool
    arm: str
    target: str
    revision: int
    data_class: str
    user_hash: str
    share_bps: int
    per_day: int
    keep_days: float
    at: str
    asked: str
    answer: str

    def __repr__(self) -> str:
        return f"Draft({self.route!r}, {self.request!r})"

    @property
    def size(self) -> int:
        """In characters."""
        return len(self.asked) + len(self.answer)
