"""Builds the control process's schedule: the reconcile loop, signatures, alerts, drift watch,
token renewals, housekeeping, and evals of suites by cron. Several control processes may run;
one leads, and only its jobs do anything.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from harness.app.installation import Installation
from harness.control.context import Context
from harness.runtime import telemetry

if TYPE_CHECKING:
    from harness.runtime.schedule import Schedule


RENEWALS_EVERY_S = 1.0
RECONCILE_JOB = "reconcile"


def control_schedule(installation: Installation) -> "Schedule":
    """Schedules the control process's jobs, each with its interval or cron.

    Several control processes may run; one leads, and only its jobs do anything.
    """
    from harness.control import reconciler  # noqa: PLC0415 - as above
    from harness.control.agents import retention, switches  # noqa: PLC0415 - as above
    from harness.control.drift import monitor  # noqa: PLC0415 - as above
    from harness.control.operations import alerts, housekeeping  # noqa: PLC0415
    from harness.control.operations.housekeeping import MonitoredJob  # noqa: PLC0415
    from harness.control.providers import deprecations, oauth_tokens  # noqa: PLC0415
    from harness.control.routing import fallback_chain  # noqa: PLC0415 - as above
    from harness.runtime.schedule import Schedule, ScheduledJob  # noqa: PLC0415

    telemetry.configure()
    ctx, settings = installation.context, installation.settings
    control = settings.control
    owner = f"control-{os.getpid()}"

    def leading(
        name: str,
        job: Callable[[Context], object],
        *,
        every_s: float | None = None,
        cron: str | None = None,
    ) -> ScheduledJob:
        watched = MonitoredJob(ctx, name, job)
        run = lambda: watched() if ctx.store.try_lead(owner) else None  # noqa: E731
        return ScheduledJob(name, run, every_s=every_s, cron=cron)

    def tidy(ctx: Context) -> None:
        housekeeping.check_audit_chain(ctx)
        housekeeping.check_signatures(ctx)
        fallback_chain.update_waiver_alerts(ctx)
        deprecations.update_deprecation_alerts(ctx)
        housekeeping.purge_expired(
            ctx,
            alerts_days=settings.alerts.keep_days,
            failovers_days=control.failovers_keep_days,
        )

    def retain(ctx: Context) -> None:
        retention.purge_idle(ctx, timedelta(days=settings.agents.keep_days))
        retention.revoke_stale_grants(ctx)

    jobs = [
        leading(RECONCILE_JOB, reconciler.run_once, every_s=control.reconcile_interval_s),
        leading(
            "signatures",
            housekeeping.check_snapshot,
            every_s=control.reconcile_interval_s,
        ),
        leading("alerts", alerts.run_once, every_s=settings.alerts.deliver_interval_s),
        leading(
            "switch requests",
            switches.expire_switches,
            every_s=settings.alerts.deliver_interval_s,
        ),
        leading("drift watch", monitor.run_once, every_s=control.drift_interval_s),
        leading("renewals", oauth_tokens.renew_tokens, every_s=RENEWALS_EVERY_S),
        leading("housekeeping", tidy, every_s=control.housekeeping_interval_s),
        # Of its own: no fault of the others keeps what is to be deleted.
        leading("retention", retain, every_s=control.housekeeping_interval_s),
    ]
    for suite in settings.suites.values():
        if suite.every:
            again = partial(housekeeping.evaluate_incumbents, suite=suite.name)
            jobs.append(leading(f"evals of {suite.name}", again, cron=suite.every))
    return Schedule(jobs, clock=installation.clock, on_error=_log_failed_job)


def _log_failed_job(job: str, error: BaseException) -> None:
    structlog.get_logger("swapgate.schedule").error("job_failed", job=job, error=str(error))
