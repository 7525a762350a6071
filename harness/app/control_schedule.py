"""Builds the control process's schedule. If there are several control processes, only the
leader's jobs run.

The jobs themselves are in `harness.operations.control_jobs` and the subjects. A job must be
safe to stop at any point, and to run again, because its process may end at any time.
"""

import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from harness.app.installation import Installation
from harness.frame.runtime import telemetry
from harness.operations.context import Context
from harness.routing.control import vector_checks

if TYPE_CHECKING:
    from harness.frame.runtime.schedule import Schedule


# A process tries to become the leader at this interval, even if its other jobs run less often.
LEADER_EVERY_S = 1.0
RECONCILE_JOB = "reconcile"
OUTAGES_EVERY_S = 5.0
CRON_EVERY_S = 5.0  # a cron job begins at most this time late
# Half of a minute, the unit of candidates' schedules. Not less, because each run reads all
# routes.
CANDIDATES_EVERY_S = 30.0
RETIREMENTS_EVERY_S = 30.0
# More often than cron's minutes, because Swapproof reads a new provider's list at once.
MODEL_LISTS_EVERY_S = 5.0

log = structlog.get_logger("swapproof.schedule")


def control_schedule(installation: Installation) -> "Schedule":
    """Builds the schedule of this process, with the configured intervals.

    Only the leader runs the jobs, but every process writes its audit lines. A job that fails
    runs again at its next time and stops no other job.
    """
    from harness.app.eval_workers.run import build_paces  # noqa: PLC0415 - only the control plane needs it
    from harness.app.shadow_judge import ProviderPairJudge  # noqa: PLC0415
    from harness.canary import way_back  # noqa: PLC0415 - only the control plane needs it
    from harness.evals import drift_monitor  # noqa: PLC0415 - only the control plane needs it
    from harness.frame.runtime.schedule import Schedule, ScheduledJob  # noqa: PLC0415
    from harness.operations import (  # noqa: PLC0415 - only the control plane needs it
        alert_delivery,
        captures,
        control_jobs,
        integrity,
        shadow_judging,
    )
    from harness.operations.control_jobs import MonitoredJob, RestingJob  # noqa: PLC0415
    from harness.operations.cron_jobs import CronJob, DueJob  # noqa: PLC0415
    from harness.operations.integrity import AuditLines  # noqa: PLC0415
    from harness.proposals import fallback_chain  # noqa: PLC0415 - only the control plane needs it
    from harness.proposals.candidates import (  # noqa: PLC0415
        candidate_rounds,
        leaderboard,
        retirements,
        spares,
    )
    from harness.providers.registry import sign_in  # noqa: PLC0415
    from harness.routing.control import (  # noqa: PLC0415 - only the control plane needs it
        deprecations,
        end_sources,
        outages,
        provider_watch,
    )

    telemetry.configure()
    settings = installation.settings
    control = settings.control
    owner = f"control-{socket.gethostname()}-{os.getpid()}"
    leads = partial(installation.store.try_lead, owner)
    pair_judge = ProviderPairJudge(
        installation.context,
        partial(build_paces, installation, owner),
        allowed=settings.router.allow_addresses,
    )

    def lead_job(
        name: str,
        job: Callable[[Context], object],
        *,
        every_s: float,
    ) -> ScheduledJob:
        run = partial(MonitoredJob(name, job, leads), installation.context)
        return ScheduledJob(name, run, every_s)

    def cron_job(name: str, job: DueJob, cron: str) -> ScheduledJob:
        run = partial(CronJob(name, job, cron, leads), installation.context)
        return ScheduledJob(name, run, CRON_EVERY_S)

    texts_kept = {
        suite.name: timedelta(days=suite.texts_keep_days)
        for suite in settings.suites.values()
        if suite.texts_keep_days is not None
    }

    scheduled_suites = frozenset(
        suite.name for suite in settings.suites.values() if suite.every
    )

    def delete_expired(ctx: Context) -> None:
        fallback_chain.update_waiver_alerts(ctx)
        vector_checks.update_vector_alerts(ctx)
        end_sources.publish_statements(ctx)
        deprecations.update_deprecation_alerts(
            ctx, partial(leaderboard.describe_shortlist, ctx)
        )
        control_jobs.forget_removed_jobs(ctx, scheduled_suites)
        control_jobs.purge_expired(
            ctx,
            alerts_days=settings.alerts.keep_days,
            exposures_days=control.exposures_keep_days,
            failovers_days=control.failovers_keep_days,
            traffic_days=control.traffic_keep_days,
        )

    def apply_retention(ctx: Context) -> None:
        captures.purge_idle(ctx, timedelta(days=settings.agents.keep_days))
        captures.revoke_stale_grants(ctx)
        control_jobs.blank_old_texts(ctx, texts_kept)

    jobs = [
        lead_job(
            RECONCILE_JOB,
            RestingJob(lambda ctx: control_jobs.run_once(ctx).is_idle),
            every_s=control.reconcile_interval_s,
        ),
        lead_job(
            "signatures",
            RestingJob(integrity.check_snapshot),
            every_s=control.reconcile_interval_s,
        ),
        lead_job("ways back", way_back.WayBackWatch(), every_s=way_back.WATCH_S),
        lead_job(
            "provider checks",
            provider_watch.ProviderWatch(control.provider_check_interval_s),
            every_s=provider_watch.WATCH_S,
        ),
        lead_job("outages", outages.OutageWatch(), every_s=OUTAGES_EVERY_S),
        lead_job(
            "alerts",
            alert_delivery.run_once,
            every_s=settings.alerts.deliver_interval_s,
        ),
        lead_job(
            "drift watch",
            drift_monitor.run_once,
            every_s=control.drift_interval_s,
        ),
        lead_job(
            "shadow judges",
            shadow_judging.ShadowJudging(pair_judge, leads),
            every_s=shadow_judging.EVERY_S,
        ),
        lead_job("candidates", candidate_rounds.run_once, every_s=CANDIDATES_EVERY_S),
        lead_job("spares", spares.run_once, every_s=CANDIDATES_EVERY_S),
        lead_job("retirements", retirements.run_once, every_s=RETIREMENTS_EVERY_S),
        lead_job(
            "model lists",
            candidate_rounds.ListRefresh(),
            every_s=MODEL_LISTS_EVERY_S,
        ),
        lead_job("renewals", RestingJob(sign_in.keep_renewed), every_s=LEADER_EVERY_S),
        lead_job("housekeeping", delete_expired, every_s=control.housekeeping_interval_s),
        # A separate job, so that a fault of the housekeeping does not prevent the deletion.
        lead_job("retention", apply_retention, every_s=control.housekeeping_interval_s),
    ]
    for suite in settings.suites.values():
        if suite.every:
            evaluate = partial(control_jobs.evaluate_incumbents, suite=suite.name)
            name = f"{control_jobs.SUITE_JOB}{suite.name}"
            jobs.append(cron_job(name, evaluate, suite.every))
    # Every control process, not only the leader, writes its audit events to its log.
    lines = RestingJob(
        AuditLines(installation.signatures, _print_line, for_people=sys.stdout.isatty())
    )
    jobs.append(
        ScheduledJob(
            "audit lines",
            lambda: lines(installation.context),
            every_s=control.reconcile_interval_s,
        )
    )
    return Schedule(jobs, clock=installation.clock, on_error=_log_failed_job)


def _print_line(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - stdout belongs to data


def _log_failed_job(job: str, error: BaseException) -> None:
    log.error("job_failed", job=job, error=str(error))
