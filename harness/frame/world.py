"""`World` holds the parts of a process that alerts and idempotent requests need, such as its
store and its clock.

`harness.frame.ports` is in the client's wheel, which must not import the store.
"""

from dataclasses import dataclass, field

from harness.frame.ports import AlertSinks, Chance, Clock
from harness.frame.records.database import Database
from harness.frame.runtime.clock import ClockWatch


@dataclass(frozen=True)
class World:
    """Holds a process's store, clock, random ids and alert sinks."""

    store: Database
    clock: Clock
    chance: Chance
    sinks: AlertSinks | None = field(default=None, kw_only=True)  # None: no alert is sent
    # The dashboard's address, for the links in alerts.
    dashboard_url: str = field(default="", kw_only=True)
    clock_watch: ClockWatch = field(default_factory=ClockWatch, kw_only=True)
