"""Protocols of what people operate, as it is stored: the audit log, requests that came twice,
alerts with their deliveries and sinks, failovers, spending, and the installation's
place in its history.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Protocol

from harness.domain.operations.access import Actor
from harness.domain.operations.alert_record import AlertRecord
from harness.domain.operations.alerts import Alert, AlertKind
from harness.domain.operations.audit import AuditEvent, AuditPosition
from harness.domain.operations.delivery import AlertMessage, Delivery
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.domain.operations.spending import MonthSpending, SpendingHold
from harness.domain.reliability.failover import Failover
from harness.domain.routing.snapshot_lineage import Lineage


class AuditLog(Protocol):
    def append(
        self,
        *,
        at: datetime,
        actor: Actor,
        action: str,
        subject: str,
        details: Mapping[str, object],
    ) -> AuditEvent: ...

    def tail(self, limit: int = 50) -> Sequence[AuditEvent]:
        """Lists the latest events, newest first."""
        ...

    def all(self) -> Iterable[AuditEvent]:
        """Yields all events, oldest first, read a page at a time."""
        ...

    def get(self, number: int) -> AuditEvent | None: ...

    def for_subject(
        self, subject: str, *, since: datetime, limit: int, actions: Collection[str] = ()
    ) -> Sequence[AuditEvent]:
        """Lists the events about a subject, newest first. actions: empty for all."""
        ...

    def after(self, number: int, limit: int = 500) -> Sequence[AuditEvent]:
        """Lists at most `limit` events behind a number, oldest first."""
        ...

    def break_after(self, mark: AuditPosition, events: Sequence[AuditEvent]) -> int | None:
        """Finds the first of the events that follow `mark` at which the chain breaks; None when
        it holds.
        """
        ...

    def first_break(self) -> int | None:
        """The number of the first event that does not fit the chain; None when it is whole."""
        ...


class IdempotentRequests(Protocol):
    """Stores requests to the management API that came with an `Idempotency-Key`. What changes
    one names its owner, and says whether that is the owner still.
    """

    def get(self, scope: str, key: str) -> IdempotentRequest | None: ...

    def add(self, new: IdempotentRequest) -> bool:
        """Claims a key; False where it is taken."""
        ...

    def take_over(self, known: IdempotentRequest, new: IdempotentRequest) -> bool:
        """Claims for another owner what has had no effect."""
        ...

    def note_effect(self, request: IdempotentRequest) -> bool:
        """Notes that the request takes effect in this unit of work."""
        ...

    def answer(self, request: IdempotentRequest) -> bool:
        """Saves what it was answered."""
        ...

    def release(self, request: IdempotentRequest, *, with_effect: bool) -> None:
        """Deletes it, so that it may be sent again. with_effect: also where it took effect."""
        ...

    def forget(self, before: datetime) -> int:
        """Deletes those that are older; how many."""
        ...


class Alerts(Protocol):
    def fold(self, alerts: Iterable[Alert]) -> None:
        """Folds alerts into the records of their keys, in their order
        (`alert_record.apply_alert`).
        """
        ...

    def get(self, alert: str) -> AlertRecord:
        """Loads an alert by id. Raises NotFound."""
        ...

    def newest(self, key: str) -> AlertRecord | None:
        """Finds the newest alert with this key. In a `write()`, nobody else changes it until
        the end of the unit of work.
        """
        ...

    def save(self, record: AlertRecord) -> None:
        """Saves a changed alert. Raises NotFound."""
        ...

    def list(
        self, *, open_only: bool = False, kind: AlertKind | None = None, limit: int = 100
    ) -> Sequence[AlertRecord]:
        """Lists the alerts, the one heard of last first. kind: None for all."""
        ...

    def unsettled(self) -> Sequence[AlertRecord]:
        """Lists the alerts that are open, or of which a message may still be due."""
        ...

    def forget(self, before: datetime) -> int:
        """Deletes the alerts that ended before a time, and returns how many. Their deliveries
        go with them.
        """
        ...


class Deliveries(Protocol):
    """Holds the outbox of alerts: one row per message and sink."""

    def add(self, delivery: Delivery) -> None:
        """Adds a message; one that another process added stays as it is."""
        ...

    def due(self, now: datetime, *, limit: int = 100) -> Sequence[Delivery]:
        """Lists the messages to send now, oldest first; none before an earlier one of the same
        alert and sink is over.
        """
        ...

    def replace(self, before: Delivery, after: Delivery) -> bool:
        """Stores `after` where the message is as `before` says; returns whether it was."""
        ...

    def for_alert(self, alert: str) -> Sequence[Delivery]:
        """Lists the messages of an alert, oldest first."""
        ...


class AlertSinks(Protocol):
    """Where alerts are sent, by name."""

    def names(self) -> Sequence[str]: ...

    def send(self, sink: str, message: AlertMessage) -> None:
        """Sends a message to a sink, and blocks for a bounded time. Raises DeliveryFailed,
        without any secret in its words.
        """
        ...


class Failovers(Protocol):
    def append(self, rows: Iterable[Failover]) -> None:
        """One already stored (worker, number) is left as it is."""
        ...

    def forget(self, before: datetime) -> int:
        """Deletes the failovers before a time, and returns how many."""
        ...

    def blank_users(self, hashes: Sequence[str]) -> int:
        """Takes the mark of these users from their failovers, and returns from how many."""
        ...


class Installations(Protocol):
    """Records the database's own place in the history of its installation."""

    def lineage(self) -> Lineage: ...

    def highest_served(self) -> int:
        """The highest revision that traffic was recorded of; 0 without any."""
        ...

    def open_epoch(self, *, above: int) -> Lineage:
        """Begins an epoch in which revisions go on above `above`; see `snapshot_lineage`."""
        ...


class Spending(Protocol):
    """What Swapgate itself spends on models, in each month (UTC), and the cap on it.

    A hold is one process's. A hold that was not renewed for HOLD_LASTS lapses: its process is
    gone, and all of it counts as spent, since nobody knows what of it was.
    """

    def cap_usd(self) -> float | None: ...

    def set_cap(self, usd: float | None, now: datetime) -> bool:
        """Sets the cap, None for no cap; whether it changed."""
        ...

    def month(self, month: date) -> MonthSpending:
        """Sums what was spent in a month, and what is held of it now."""
        ...

    def hold(self, hold: SpendingHold, usd: float, now: datetime) -> bool:
        """Adds an amount to a hold, and renews it; False, and the refusal is noted, where the
        cap leaves too little.
        """
        ...

    def settle(
        self,
        hold: SpendingHold,
        *,
        left_usd: float,
        spent_usd: float,
        now: datetime,
        calls: int = 0,
        unpriced: int = 0,
    ) -> bool:
        """Turns a part of a hold into what was spent, leaves the rest held, and renews it.

        False, and nothing is added, where the hold has lapsed: all of it counts already.
        """
        ...

    def end(self, hold: SpendingHold) -> None:
        """Gives up what a hold has left."""
        ...

    def add(self, hold: SpendingHold, spent_usd: float, *, calls: int, unpriced: int) -> None:
        """Adds what was spent without a hold, as there was no cap."""
        ...

    def has_lapsed(self, now: datetime) -> bool:
        """Tells whether a process died with a hold that does not count as spent yet."""
        ...

    def lapse(self, now: datetime) -> int:
        """Counts what dead processes held as spent; how many holds that were."""
        ...
