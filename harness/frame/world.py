"""`World` holds what alerts and idempotent requests need of a process: its store and its clock.

`harness.frame.ports` is in the client's wheel, which must not import the store.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.frame.ports import AlertSinks, Chance, Clock
from harness.frame.runtime.clock import ClockWatch

if TYPE_CHECKING:
    from harness.app.store.store import Store


@dataclass(frozen=True)
class World:
    """Holds a process's store, clock, random ids and alert sinks."""

    store: "Store"
    clock: Clock
    chance: Chance
    sinks: AlertSinks | None = field(default=None, kw_only=True)  # None: no alert is sent
    # The dashboard's address, for the links in alerts.
    dashboard_url: str = field(default="", kw_only=True)
    clock_watch: ClockWatch = field(default_factory=ClockWatch, kw_only=True)
