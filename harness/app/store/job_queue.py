"""Connects procrastinate, the job queue in PostgreSQL. A job contains only a run's id, so the
queue has neither keys nor content.

The queue decides only which run comes next. The run's rows show whether it is still wanted, so
a lost or repeated job is harmless. The control jobs fill the queue, and the host in
`harness.app.eval_workers` consumes it.
"""

import asyncio
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Sequence,
)
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any, Final

import procrastinate
import sqlalchemy as sa
from procrastinate import exceptions
from procrastinate.sql import queries

from harness.app.store import database_roles
from harness.evals.ports import QueuedJob
from harness.frame.database import engine
from harness.frame.errors import ConfigError, StoreUnavailable
from harness.frame.records.transaction import translated

log = logging.getLogger(__name__)

SCHEMA: Final = database_roles.QUEUE_SCHEMA
TASK: Final = "eval_run"
HEARTBEAT_S: Final = 2.0
DEAD_AFTER_S: Final = 10.0
PAUSE_S: Final = 1.0
_LOCK: Final = 0x53774A51
_VERSION: Final = f"CREATE TABLE IF NOT EXISTS {SCHEMA}.applied (migration text PRIMARY KEY)"
_JOBS: Final = (
    "SELECT id, status::text AS status, priority, lock AS run FROM procrastinate_jobs"
    " WHERE task_name = %(task)s AND status IN ('todo', 'doing')"
)
_PRIORITY: Final = (
    "UPDATE procrastinate_jobs SET priority = %(priority)s"
    " WHERE id = %(id)s AND status = 'todo'"
)
_CANCEL: Final = "DELETE FROM procrastinate_jobs WHERE id = %(id)s AND status = 'todo'"


def install(url: str) -> None:
    """Creates the queue's tables, or upgrades them to the installed procrastinate. Raises
    ConfigError for SQLite.
    """
    parsed = _require_postgres(url)
    with (
        engine.temporary(parsed) as temporary_engine,
        translated(),
        temporary_engine.begin() as db,
    ):
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        db.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        db.exec_driver_sql(_VERSION)
        _apply_migrations(db)
        database_roles.grant_new_tables(db)


def _apply_migrations(db: sa.Connection) -> None:
    """Applies the whole schema to a new queue, or the missing migrations to an older queue."""
    folder = resources.files("procrastinate.sql")
    names = sorted(
        file.name for file in (folder / "migrations").iterdir() if file.name.endswith(".sql")
    )
    applied = set(db.exec_driver_sql(f"SELECT migration FROM {SCHEMA}.applied").scalars())  # noqa: S608 - a constant
    files = [folder / "migrations" / name for name in names if name not in applied]
    if not applied:
        files = [folder / "schema.sql"]
    db.exec_driver_sql(f"SET LOCAL search_path TO {SCHEMA}")
    for file in files:
        # Through the driver, because a file has many statements and no parameters.
        db.connection.driver_connection.execute(file.read_text("utf-8"))  # type: ignore[union-attr]
    for name in names:
        if name not in applied:
            db.exec_driver_sql("INSERT INTO applied VALUES (%(name)s)", {"name": name})
    db.exec_driver_sql("RESET search_path")


def _require_postgres(url: str) -> sa.URL:
    parsed = engine.parse(url)
    if parsed.get_backend_name() != "postgresql":
        raise ConfigError(
            "control.queue: procrastinate needs PostgreSQL: set `database_url` to "
            "postgresql://…, or set control.queue to `embedded`"
        )
    return parsed


def _build_pool_arguments(url: str) -> dict[str, Any]:
    """Returns the arguments of procrastinate's connection pools: our usual arguments, and the
    queue's schema.
    """
    arguments = engine.driver_arguments(_require_postgres(url))
    options = f"{arguments.get('options', '')} -c search_path={SCHEMA}"
    return {"kwargs": {**arguments, "options": options}}


class JobQueue:
    """Implements ports.RunQueue. Connects when it is first used."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._app: procrastinate.App | None = None

    def replace(self, jobs: Sequence[QueuedJob]) -> Sequence[str]:
        """Replaces the waiting jobs by `jobs`, and returns the added runs. Running jobs stay.

        Raises StoreUnavailable.
        """
        with _translate_queue_errors():
            app = self._open_app()
            jobs_by_run = {
                row["run"]: row for row in app.connector.execute_query_all(_JOBS, task=TASK)
            }
            wanted_runs = {job.run for job in jobs}
            for run, row in jobs_by_run.items():
                if run not in wanted_runs and row["status"] == "todo":
                    app.connector.execute_query(_CANCEL, id=row["id"])
            return [
                job.run for job in jobs if self._queue_job(app, job, jobs_by_run.get(job.run))
            ]

    def _queue_job(
        self,
        app: procrastinate.App,
        job: QueuedJob,
        stored_job: dict[str, Any] | None,
    ) -> bool:
        """Adds a job, or changes its priority. Returns whether it added the job."""
        if stored_job is not None:
            if stored_job["status"] == "todo" and stored_job["priority"] != job.priority:
                app.connector.execute_query(
                    _PRIORITY, id=stored_job["id"], priority=job.priority
                )
            return False
        task = app.configure_task(
            TASK,
            queue=job.provider,
            lock=job.run,
            queueing_lock=job.run,
            priority=job.priority,
        )
        try:
            task.defer(run=job.run)
        except exceptions.AlreadyEnqueued:
            return False
        return True

    def remove_dead_jobs(self) -> Sequence[str]:
        """Removes the jobs of workers without a heartbeat for `DEAD_AFTER_S`, and returns their
        runs.

        Raises StoreUnavailable.
        """
        with _translate_queue_errors():
            app = self._open_app()
            dead_jobs = app.connector.execute_query_all(
                queries["select_stalled_jobs_by_heartbeat"],
                queue=None,
                task_name=TASK,
                seconds_since_heartbeat=DEAD_AFTER_S,
            )
            for row in dead_jobs:
                app.connector.execute_query(
                    queries["finish_job"],
                    job_id=row["id"],
                    status="failed",
                    delete_job=True,
                )
            return [row["lock"] for row in dead_jobs]

    def _open_app(self) -> procrastinate.App:
        if self._app is None:
            connector = procrastinate.SyncPsycopgConnector(
                **_build_pool_arguments(self._url), min_size=0, max_size=1
            )
            app = procrastinate.App(connector=connector)
            app.open()
            self._app = app
        return self._app

    def close(self) -> None:
        if self._app is not None:
            self._app.close()
            self._app = None


async def consume(
    url: str,
    *,
    providers: Collection[str],
    slots: int,
    work: Callable[[str], Awaitable[None]],
    ended: asyncio.Event,
) -> None:
    """Takes jobs until `ended`, `slots` at a time, and passes each run to `work`.
    Waits while the database is unavailable.

    Args:
        providers: the providers whose runs it takes; empty for all.

    Raises ConfigError for SQLite.
    """
    arguments = _build_pool_arguments(url)
    while not ended.is_set():
        connector = procrastinate.PsycopgConnector(**arguments, min_size=1, max_size=slots + 2)
        app = procrastinate.App(connector=connector)

        @app.task(name=TASK)
        async def take(run: str) -> None:
            await work(run)

        try:
            async with app.open_async():
                await _work_until(ended, app, providers, slots)
        except exceptions.ConnectorException as error:
            log.warning("queue_unreachable: %s", error.__cause__ or error)
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PAUSE_S)


async def _work_until(
    ended: asyncio.Event,
    app: procrastinate.App,
    providers: Collection[str],
    slots: int,
) -> None:
    """Runs a worker until `ended`, and waits for its running jobs."""
    if providers:
        app.worker_defaults["queues"] = sorted(providers)
    worker = asyncio.create_task(
        app.run_worker_async(
            concurrency=slots,
            install_signal_handlers=False,
            delete_jobs="always",
            fetch_job_polling_interval=PAUSE_S,
            update_heartbeat_interval=HEARTBEAT_S,
            stalled_worker_timeout=DEAD_AFTER_S,
        )
    )
    stop = asyncio.create_task(ended.wait())
    await asyncio.wait({worker, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not worker.done():
        # The worker takes no more jobs, and returns after its running jobs end.
        worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker


@contextmanager
def _translate_queue_errors() -> Iterator[None]:
    try:
        yield
    except exceptions.ConnectorException as error:
        raise StoreUnavailable(
            f"the job queue does not work ({error.__cause__ or error}): if its tables are "
            "missing, run `swapproof db upgrade`"
        ) from error
