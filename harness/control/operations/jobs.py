"""The control process's jobs: a failure is an alert until the job has gone well again."""

from collections.abc import Callable
from contextlib import suppress

from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.errors import StoreUnavailable
from harness.domain.operations.alerts import AlertKind


class MonitoredJob:
    """A job under a name. Calling it raises what the job raises."""

    def __init__(self, ctx: Context, name: str, job: Callable[[Context], object]) -> None:
        self._ctx = ctx
        self._name = name
        self._job = job
        # A process before this one may have left its alert open.
        self._is_well = False

    def __call__(self) -> None:
        try:
            self._job(self._ctx)
        except Exception as error:
            self._is_well = False
            # Without a database there is nowhere to write it; the log has it.
            with suppress(StoreUnavailable):
                self._tell(error)
            raise
        if not self._is_well:
            with self._ctx.store.write() as tx:
                alerts.resolve_alert(self._ctx, tx, AlertKind.JOB_FAILED, self._name)
            self._is_well = True

    def _tell(self, error: Exception) -> None:
        with self._ctx.store.write() as tx:
            alerts.raise_alert(
                self._ctx,
                tx,
                AlertKind.JOB_FAILED,
                self._name,
                subject=f"job {self._name}",
                title=f"the control process's job {self._name!r} failed",
                text=f"{type(error).__name__}: {error}",
            )
