"""Reports of the processes that serve callers: routers, and `swapproof serve drive`.

Each process renews its row every few seconds, also without traffic. So the control plane knows
whether a router answers, and since when one has looked for the causes of its alerts.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.frame.records.record import record
from harness.frame.records.repository import Records

REPORT_EVERY_S: Final = 5.0
# Longer than a writer waits for the database.
PRESENT_FOR: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class RouterReport:
    """One process's report that it serves."""

    worker: str  # the process's name
    began_at: datetime  # when it began to serve
    at: datetime  # its last report
    # All exposures that it admitted before this time are in the database; None if unknown.
    complete_until: datetime | None = None


ROUTER_REPORT: Final = record(RouterReport, "router_report", key="worker")

router_report = ROUTER_REPORT.table


class RouterReports(Records[RouterReport]):
    record = ROUTER_REPORT
    order = (router_report.c.began_at, router_report.c.worker)

    def keep(self, report: RouterReport) -> None:
        """Replaces the process's earlier report."""
        self._tx.upsert(router_report, self.record.write(report), put=("at", "complete_until"))

    def forget(self, worker: str) -> None:
        """Deletes the report of a process that ends."""
        self._delete(router_report.c.worker == worker)

    def forget_ended(self, now: datetime) -> None:
        """Deletes the reports of processes that ended without a word. Only the control plane
        calls this: two routers that delete each other's rows could wait for each other.
        """
        self._delete(router_report.c.at <= now - PRESENT_FOR)

    def oldest(self, now: datetime) -> RouterReport | None:
        """Returns the report of the router that has served longest; None if no router
        answers.
        """
        return self._first(self._select(router_report.c.at > now - PRESENT_FOR))
