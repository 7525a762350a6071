"""The only place that picks adapters and joins them. No rules."""

import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from harness import config, package_data
from harness.control.context import Context
from harness.domain.errors import (
    ConfigError,
    DatabaseUnusable,
    InputError,
    NotFound,
    SnapshotInvalid,
    StoreUnavailable,
)
from harness.domain.operations.row_signatures import KeyPurpose
from harness.domain.providers.credentials import ProviderKeySets
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.kill_switch import (
    ENVIRONMENT_VARIABLE,
    KillSwitch,
    parse_environment_switches,
    parse_file_switches,
)
from harness.domain.routing.table import Snapshot
from harness.domain.routing.target import Provider
from harness.domain.settings import Settings, TracingSettings
from harness.ports import (
    Cipher,
    Clock,
    EvalWorkers,
    ProviderCalls,
    ProviderDoor,
    Signatures,
    Store,
)
from harness.runtime import encryption, secret_files, signing_keys, telemetry
from harness.runtime.audit_checkpoint import NAME as CHECKPOINT
from harness.runtime.audit_checkpoint import AuditCheckpointFile
from harness.runtime.clock import SystemClock
from harness.runtime.model_catalogue import LitellmTable
from harness.runtime.outbound.alert_sinks import ConfiguredSinks
from harness.runtime.outbound.oauth_http import HttpOAuthServer
from harness.runtime.random_ids import SystemRandomIds

if TYPE_CHECKING:
    from harness.runtime.schedule import Schedule
    from harness.store.migrate import SchemaState
    from harness.store.sql import SqlStore
    from router.observers.tracing_port import Tracing
    from router.recording.port import Exposition, Recording
    from router.server.app import Router
    from router.snapshot.holder import SnapshotHolder
    from router.upstream.transports import Transports

CONFIG_VARIABLE = "SWAPGATE_CONFIG"
OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
RENEWALS_EVERY_S = 1.0


def config_file(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file given, else SWAPGATE_CONFIG, else ./swapgate.yaml, else None: defaults alone."""
    if given is not None:
        return given
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    here = Path.cwd() / config.FILE_NAME
    return here if here.is_file() else None


def read_dotenv(folder: Path) -> None:
    """Put `.env` into the environment; what is set already wins."""
    from dotenv import load_dotenv  # noqa: PLC0415 - only where a command needs it

    with suppress(OSError):
        load_dotenv(folder / ".env", override=False)


def load_settings(given: Path | None = None) -> Settings:
    """Raises ConfigError with the place of the fault."""
    file = config_file(given, os.environ)
    read_dotenv(file.resolve().parent if file else Path.cwd())
    return config.load_settings(
        file, os.environ, defaults=package_data.path("config/default.yaml")
    )


@dataclass(frozen=True)
class Installation:
    """Everything joined: what the doors (CLI, REST, dashboard, processes) start from.

    signs_as: whose private key this process signs rows with; None where it only verifies.
    """

    settings: Settings
    secret: bytes
    clock: Clock
    workers: EvalWorkers | None = None
    signs_as: KeyPurpose | None = KeyPurpose.CONTROL

    @cached_property
    def store(self) -> Store:
        from harness.store.sql import SqlStore  # noqa: PLC0415 - SQLAlchemy takes its time

        return SqlStore(
            self.settings.database_url,
            secret=self.secret,
            clock=self.clock,
            signatures=self.signatures,
        )

    @cached_property
    def signatures(self) -> Signatures:
        """Reads its keys when they are first used: a router never reads a private one."""
        return signing_keys.signatures(self.settings, self.signs_as)

    @cached_property
    def cipher(self) -> Cipher:
        """Reads its keys when it is first used: most installations store nothing with it."""
        return encryption.FernetCipher(partial(secret_files.encryption_keys, self.settings))

    @property
    def _door(self) -> ProviderDoor:
        from harness.runtime.outbound.provider_probe import HttpProviderProbe  # noqa: PLC0415 - urllib takes time

        return HttpProviderProbe(self.clock, self.settings.router.allow_addresses)

    @cached_property
    def standing_switches(self) -> tuple[KillSwitch, ...]:
        """Of SWAPGATE_FORCE and the file, as they were when this process first looked.

        Raises ConfigError for a SWAPGATE_FORCE that cannot be read.
        """
        now = self.clock.now()
        try:
            of_environment = parse_environment_switches(
                os.environ.get(ENVIRONMENT_VARIABLE, ""), now
            )
        except InputError as error:
            raise ConfigError(f"environment variable {error}") from None
        return (*of_environment, *parse_file_switches(self.settings.switches, now))

    @cached_property
    def context(self) -> Context:
        from evals.suites.suite import ConfiguredSuites  # noqa: PLC0415

        return Context(
            store=self.store,
            clock=self.clock,
            chance=SystemRandomIds(),
            suites=ConfiguredSuites(self.settings.suites),
            policies=self.settings.policies,
            workers=self.workers,
            eval_workers=self.settings.control.eval_workers,
            sinks=ConfiguredSinks(self.settings.alerts, os.environ),
            eval_connections=self.settings.control.eval_connections,
            allow_addresses=self.settings.router.allow_addresses,
            cipher=self.cipher,
            environ=dict(os.environ),
            door=self._door,
            anchor=AuditCheckpointFile(self.settings.home / CHECKPOINT, self.signatures),
            oauth=HttpOAuthServer(self.clock, self.settings.router.allow_addresses),
            oauth_changes=self.settings.oauth,
            data_classes=self.settings.data_classes,
            drift={
                name: suite.drift
                for name, suite in self.settings.suites.items()
                if suite.drift is not None
            },
            models=LitellmTable(self.settings.catalogue),
            judges={
                name: suite.judge.target
                for name, suite in self.settings.suites.items()
                if suite.judge is not None
            },
        )

    def close(self) -> None:
        if self.workers is not None:
            self.workers.stop_all()
        if "store" in self.__dict__:
            self.store.close()


def open_installation(
    given: Path | None = None,
    *,
    with_workers: bool = False,
    create_secret: bool = False,
    signs_as: KeyPurpose | None = KeyPurpose.CONTROL,
) -> Installation:
    """Read the configuration and join the adapters; touches no database yet.

    with_workers: this process may start eval workers (the control process). create_secret:
    and the signing keys. signs_as: see Installation. Raises ConfigError.
    """
    settings = load_settings(given)
    if not create_secret:
        _require_some_state(settings)
    secret = secret_files.installation_secret(settings, create=create_secret)
    if create_secret:
        signing_keys.create_keys(settings)
    installation = Installation(settings, secret, SystemClock(), signs_as=signs_as)
    if not with_workers:
        return installation
    return replace(installation, workers=_workers(installation))


def _require_some_state(settings: Settings) -> None:
    """Raises DatabaseUnusable where there is neither a database nor a secret."""
    file = Path(settings.database_url.removeprefix("sqlite:///"))
    on_sqlite = settings.database_url.startswith("sqlite:///")
    if on_sqlite and not file.exists() and not secret_files.has_secret(settings):
        raise DatabaseUnusable(
            f"there is no installation here, neither the database {file} nor its secret: run "
            "`swapgate init`, or mend `database_url` and `home`"
        )


def _workers(installation: Installation) -> EvalWorkers:
    from harness.control.providers import header_encryption as sealing  # noqa: PLC0415 - only where workers start
    from harness.control.providers import provider_secrets as unlock  # noqa: PLC0415 - as above
    from harness.runtime.processes.eval_worker import JUDGE, TARGET  # noqa: PLC0415
    from harness.runtime.processes.eval_workers import SubprocessWorkers, worker_command  # noqa: PLC0415

    source = installation.settings.source
    command = worker_command()
    if source is not None:
        command += ["--config", str(source.resolve())]
    ours = [name for name in os.environ if name.startswith(config.environment.PREFIX)]

    def needed_by(run: str) -> dict[str, str]:
        """Our own settings, and the keys and headers of the providers that the run calls: its
        target's, and its judge's.
        """
        with installation.store.read() as tx:
            found = tx.runs.get(run)
            target = tx.routing.targets()[found.target]
            known = tx.providers.all()
        provider = known.get(target.provider)
        if provider is None:
            raise NotFound(f"run {run}: there is no provider {target.provider!r} any more")
        judge = known.get(judge_providers(installation.settings).get(found.suite, ""))
        names = (
            *ours,
            secret_files.SECRET_VARIABLE,
            CONFIG_VARIABLE,
            *signing_keys.WORKER_VARIABLES,
        )
        given = {name: os.environ[name] for name in names if name in os.environ}
        for passed, each in ((TARGET, provider), (JUDGE, judge)):
            if each is None:
                continue
            keys = unlock.keys_of_provider(installation.context, each)
            if keys:
                given[passed.key] = keys[0].secret
            headers = sealing.decrypt_headers(each, installation.cipher).extra_headers
            if headers:
                given[passed.headers] = json.dumps(dict(headers))
        return given

    return SubprocessWorkers(command, needed_by=needed_by, cwd=Path.cwd())


def judge_providers(settings: Settings) -> dict[str, str]:
    """Suite → the provider of its judge, for the suites that have one."""
    return {
        name: suite.judge.target.provider
        for name, suite in settings.suites.items()
        if suite.judge is not None
    }


def sql_store(installation: Installation) -> "SqlStore":
    """The database itself, for what no port has: signing and taking out rows as its owner."""
    from harness.store.sql import SqlStore  # noqa: PLC0415 - SQLAlchemy takes its time

    store = installation.store
    if not isinstance(store, SqlStore):
        raise ConfigError("this installation has no database whose rows could be signed")
    return store


def require_database(settings: Settings) -> None:
    """For who serves: a new, empty one would hide that the old one is away.

    Raises DatabaseUnusable where SQLite's file is missing.
    """
    from harness.store import migrate  # noqa: PLC0415 - alembic takes its time

    migrate.require_file(settings.database_url)


def require_table(installation: Installation) -> None:
    """For a router's first moment: that it could serve one, be it from its disk.

    Its workers find out as well, seconds later. Raises DatabaseUnusable.
    """
    if _snapshot_file(installation.settings).exists():
        return
    try:
        installation.store.etag()
    except DatabaseUnusable as error:
        raise DatabaseUnusable(f"the router cannot start: {error}") from error
    except StoreUnavailable:
        pass  # by the time they ask, it may answer


def upgrade_database(settings: Settings) -> None:
    """Bring the schema to the newest revision; makes the SQLite file where there is none."""
    from harness.store import migrate  # noqa: PLC0415 - alembic takes its time

    if settings.database_url.startswith("sqlite"):
        secret_files.writable_home(settings)
    migrate.upgrade(settings.database_url)
    with suppress(ConfigError):  # without a secret, nothing was ever written here
        _take_over_rows(settings, secret_files.installation_secret(settings))


def _take_over_rows(settings: Settings, secret: bytes) -> None:
    """Of a database from before the audit log recorded rows: as they are now."""
    installation = Installation(settings, secret, SystemClock())
    try:
        with installation.store.write() as tx:
            tx.audited.take_over(installation.clock.now())
    finally:
        installation.close()


def grant_runtime(settings: Settings, role: str, *, only_show: bool) -> Sequence[str]:
    """Give a role of PostgreSQL what running Swapgate needs; the statements.

    only_show: change nothing. Raises InputError, NotFound, DatabaseUnusable.
    """
    from harness.store import postgres_roles as roles  # noqa: PLC0415

    return roles.grant(settings.database_url, role, only_show=only_show)


def role_that_does_both(settings: Settings) -> str | None:
    """The database's role in use where it owns the tables, too; None elsewhere."""
    from harness.store import postgres_roles as roles  # noqa: PLC0415

    return roles.does_both(settings.database_url)


def schema_state(settings: Settings) -> "SchemaState":
    """The revision that this version needs, the database's, and what differs.

    Raises DatabaseUnusable for a database that is missing or damaged, StoreUnavailable.
    """
    from harness.store import migrate  # noqa: PLC0415

    return migrate.state(settings.database_url)


def run_worker(given: Path | None, run: str, *, owner: str, parent: int) -> None:
    """The eval worker's process, from its configuration to its last sample."""
    from evals.runner.inspect_runner import InspectRunner  # noqa: PLC0415 - Inspect takes seconds
    from evals.runner.judge_calibration import CalibrationCache  # noqa: PLC0415
    from evals.runner.rate_gate import RateGates  # noqa: PLC0415
    from harness.runtime.processes.eval_worker import JUDGE, TARGET, EvalWorker  # noqa: PLC0415
    from router.access.rate_limits import SharedRates  # noqa: PLC0415

    installation = open_installation(given, signs_as=KeyPurpose.WORKER)
    secrets = dict(os.environ)
    # What a run starts, such as a model's code, is not to inherit them.
    for variable in (TARGET.key, TARGET.headers, JUDGE.key, JUDGE.headers):
        os.environ.pop(variable, None)
    shared = secret_files.writable_home(installation.settings) / "evals"
    try:
        EvalWorker(
            store=installation.store,
            clock=installation.clock,
            runner=InspectRunner(
                installation.settings.suites,
                checks=CalibrationCache(
                    secret_files.writable_home(installation.settings) / "judges",
                    installation.clock,
                ),
                paces=RateGates(
                    installation.settings.eval_limits, SharedRates(shared / "rates"), shared
                ),
                allowed=installation.settings.router.allow_addresses,
                calls=provider_calls,
            ),
            owner=owner,
            parent=parent,
            secrets=secrets,
            connections=installation.settings.control.eval_connections,
            judges=judge_providers(installation.settings),
        ).work(run)
    finally:
        installation.close()


def provider_calls(
    provider: Provider,
    api_key: str | None,
    *,
    connections: int,
    timeout_s: float,
    allowed: Collection[str],
) -> ProviderCalls:
    """What evals and probes ask a provider with: the router's way where it translates.

    So what is measured is what serves. Raises ConfigError where that cannot be loaded.
    """
    kind = PROVIDER_KINDS.get(provider.kind)
    if kind is not None and Endpoint.CHAT in kind.adapted:
        from router.upstream.provider_client import ProviderClient  # noqa: PLC0415 - not for all

        return ProviderClient(
            provider, api_key, connections=connections, timeout_s=timeout_s, allowed=allowed
        )
    from evals.runner.http_transport import HttpTransport  # noqa: PLC0415 - aiohttp takes a while

    return HttpTransport(
        provider, api_key, connections=connections, timeout_s=timeout_s, allowed=allowed
    )


def control_schedule(installation: Installation) -> "Schedule":
    """The control process's jobs: the reconcile loop, alerts, housekeeping, eval schedules.

    Several control processes may run; one leads, and only its jobs do anything.
    """
    from harness.control import reconciler as reconcile  # noqa: PLC0415 - as above
    from harness.control.drift import monitor as drift  # noqa: PLC0415 - as above
    from harness.control.operations import alerts, housekeeping  # noqa: PLC0415
    from harness.control.operations.jobs import MonitoredJob  # noqa: PLC0415
    from harness.control.providers import deprecations as endings  # noqa: PLC0415 - as above
    from harness.control.providers import oauth_tokens as renewals  # noqa: PLC0415 - as above
    from harness.control.routing import waivers  # noqa: PLC0415 - as above
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
        waivers.update_waiver_alerts(ctx)
        endings.update_deprecation_alerts(ctx)
        housekeeping.purge_expired(
            ctx,
            alerts_days=settings.alerts.keep_days,
            failovers_days=control.failovers_keep_days,
        )

    jobs = [
        leading("reconcile", reconcile.run_once, every_s=control.reconcile_interval_s),
        leading(
            "signatures",
            housekeeping.check_snapshot,
            every_s=control.reconcile_interval_s,
        ),
        leading("alerts", alerts.run_once, every_s=settings.alerts.deliver_interval_s),
        leading("drift watch", drift.run_once, every_s=control.drift_interval_s),
        leading("renewals", renewals.renew_tokens, every_s=RENEWALS_EVERY_S),
        leading("housekeeping", tidy, every_s=control.housekeeping_interval_s),
    ]
    for suite in settings.suites.values():
        if suite.every:
            again = partial(housekeeping.evaluate_incumbents, suite=suite.name)
            jobs.append(leading(f"evals of {suite.name}", again, cron=suite.every))
    return Schedule(jobs, clock=installation.clock, on_error=_log_failed_job)


def _log_failed_job(job: str, error: BaseException) -> None:
    structlog.get_logger("swapgate.schedule").error("job_failed", job=job, error=str(error))


def _tracing(settings: TracingSettings) -> "Tracing | None":
    """None unless the file or the standard variables ask for it. Raises ConfigError."""
    given = any(os.environ.get(each) for each in OTLP_VARIABLES)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or not (settings.otlp_endpoint or given):
        return None
    try:
        from router.observers.tracing import OpenTelemetry  # noqa: PLC0415 - the SDK takes its time
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"tracing needs the package {error.name}: install `swapgate[otel]`, or leave "
            "`router.observers.tracing` and the OTEL_EXPORTER_OTLP_… variables out"
        ) from None
    return OpenTelemetry(settings)


def _open_snapshot(cipher: Cipher, snapshot: Snapshot) -> Snapshot:
    from harness.control.providers.header_encryption import decrypt_snapshot  # noqa: PLC0415 - as below

    return decrypt_snapshot(snapshot, cipher)


def _restore_snapshot(installation: Installation, snapshot: Snapshot) -> Snapshot:
    """What the signed rows of a snapshot from disk make. Raises SnapshotInvalid."""
    from harness.store.signing import signed_snapshot as snapshot_rows  # noqa: PLC0415 - only without a database

    if snapshot.signed is None:
        raise SnapshotInvalid("the snapshot on disk is not signed: a former version wrote it")
    now, etag = installation.clock.now(), snapshot.etag
    return snapshot_rows.verified(snapshot.signed, installation.signatures, etag, now)


def _key_sets(
    cipher: Cipher, environ: Mapping[str, str], snapshot: Snapshot
) -> ProviderKeySets:
    """What the router sends to the snapshot's providers."""
    from harness.control.providers.provider_secrets import key_sets  # noqa: PLC0415 - only the router's process

    return key_sets(snapshot.providers.values(), snapshot.stored_keys, cipher, environ)


def _snapshot_file(settings: Settings) -> Path:
    return secret_files.writable_home(settings) / "snapshot.json"


def revision_on_disk(settings: Settings) -> int:
    """The revision that a router of this machine served last; 0 where none is known."""
    from router.snapshot import file as snapshot_file  # noqa: PLC0415 - only a process that routes needs it

    try:
        return snapshot_file.load_snapshot(_snapshot_file(settings)).table.revision
    except SnapshotInvalid:
        return 0


def boot_holder(installation: Installation, transports: "Transports") -> "SnapshotHolder":
    """Of what one process of the router serves. Raises SnapshotInvalid."""
    from router.snapshot.compiler import provider_kinds  # noqa: PLC0415 - only a process that routes needs it
    from router.snapshot.holder import SnapshotHolder  # noqa: PLC0415

    holder = SnapshotHolder(
        installation.store,
        _snapshot_file(installation.settings),
        installation.standing_switches,
        # The environment is read once: a request never looks at it.
        partial(_key_sets, installation.cipher, dict(os.environ)),
        prepare=lambda snapshot: transports.prepare(provider_kinds(snapshot)),
        classes=installation.settings.data_classes,
        opened=partial(_open_snapshot, installation.cipher),
        restored=partial(_restore_snapshot, installation),
    )
    holder.boot()
    return holder


def router_app(
    installation: Installation,
    holder: "SnapshotHolder",
    recording: "Recording",
    exposition: "Exposition",
    transports: "Transports",
    *,
    also_close: Callable[[], Awaitable[None]] | None = None,
) -> "Router":
    """The router's ASGI application, for one process. Raises ConfigError."""
    from router.access.rate_limits import SharedRates  # noqa: PLC0415
    from router.recording.guard_files import GuardFolder  # noqa: PLC0415
    from router.server.app import build_router  # noqa: PLC0415 - only a process that routes needs it

    where, home = (
        installation.settings.router,
        secret_files.writable_home(installation.settings),
    )

    async def close() -> None:
        await transports.aclose()
        if also_close is not None:
            await also_close()

    return build_router(
        holder,
        recording,
        transports,
        where,
        installation.secret,
        installation.clock,
        on_stop=close,
        exposition=exposition,
        rates=SharedRates(home / "rates.book"),
        tracing=_tracing(where.tracing),
        guard_files=GuardFolder(home / "guard"),
    )


def run_router_worker(settings: Settings, *, channel: int, listeners: Sequence[int]) -> None:
    """A router's worker: blocks until SIGTERM or its parent's end, then lets requests end.

    channel, listeners: file descriptors that the parent handed down.
    """
    from router.recording.reporter import Reporter  # noqa: PLC0415 - only the router's process needs it
    from router.server.process import serve  # noqa: PLC0415
    from router.upstream.transports import Transports  # noqa: PLC0415

    telemetry.configure()
    # A hangup is for the parent, which then starts others.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    installation = Installation(
        settings, secret_files.installation_secret(settings), SystemClock(), signs_as=None
    )
    transports = Transports(settings.router)
    holder = boot_holder(installation, transports)
    reporter = Reporter(
        socket.socket(fileno=channel),
        worker=SystemRandomIds().token("router-"),
        clock=installation.clock,
        live_rollouts=lambda: holder.current.rollouts if holder.current else frozenset(),
        # Without the delay: another parent may want the port.
        on_orphaned=partial(signal.raise_signal, signal.SIGINT),
    )
    app = router_app(
        installation, holder, reporter, reporter, transports, also_close=reporter.aclose
    )
    reporter.on_fault = app.note_fault
    sockets = [socket.socket(fileno=each) for each in listeners]
    try:
        serve(
            app,
            drain_s=settings.router.drain_s,
            shutdown_delay_s=settings.router.shutdown_delay_s,
            on_stop=app.stop,
            sockets=sockets,
        )
    finally:
        installation.close()
