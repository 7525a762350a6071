"""Builds a router process, or a router inside another program's process.

A router signs nothing, and needs no private key. `data_plane` runs the parent of such
processes; `router.server` handles requests.
"""

import os
import pickle
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.app import secret_files
from harness.app.configuration.model import Settings
from harness.app.installation import Installation, open_installation
from harness.app.store.router_store import RouterStore
from harness.client.in_process import EmbeddedRouter
from harness.frame.errors import (
    ConfigError,
    DatabaseUnusable,
    SnapshotInvalid,
    StoreUnavailable,
)
from harness.frame.ports import Cipher
from harness.frame.redaction import Redactor
from harness.frame.runtime import telemetry
from harness.frame.runtime.clock import SystemClock, SystemRandomIds
from harness.frame.runtime.supervisor import pass_hangups_on
from harness.providers.credential import ProviderKeySets
from harness.routing.settings import TracingSettings
from harness.routing.table import Snapshot

if TYPE_CHECKING:
    from router.observers.request_tracing import Tracing
    from router.recording.port import Recording
    from router.recording.recorder import Recorder
    from router.server.app import Router
    from router.snapshot.holder import SnapshotHolder
    from router.upstream.transports import Transports


OTLP_VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)


def find_missing_table(installation: Installation) -> str | None:
    """Returns why neither the database nor the disk has a routing table; None if the database
    or the disk has a table. Raises DatabaseUnusable.
    """
    if _find_snapshot_file(installation.settings).exists():
        return None
    try:
        installation.store.etag()
    except DatabaseUnusable as error:
        raise DatabaseUnusable(f"the router cannot start: {error}") from error
    except StoreUnavailable as error:
        return str(error)
    return None


def _build_tracing(settings: TracingSettings) -> "Tracing | None":
    """Builds the tracing. None if neither the file nor the standard variables turn it on, and
    if a variable turns it off. Raises ConfigError.
    """
    is_configured = any(os.environ.get(variable) for variable in OTLP_VARIABLES)
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_disabled or not (settings.otlp_endpoint or is_configured):
        return None
    try:
        from router.observers.tracing import OpenTelemetry  # noqa: PLC0415 - the SDK is slow to import
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"tracing needs the package {error.name}: install `swapproof[otel]`, or remove "
            "`router.tracing` and the OTEL_EXPORTER_OTLP_… variables"
        ) from None
    return OpenTelemetry(settings)


def _restore_snapshot(installation: Installation, snapshot: Snapshot) -> Snapshot:
    """Builds a snapshot from signed rows on disk. Raises SnapshotInvalid."""
    from harness.app.store import signed_snapshot  # noqa: PLC0415 - only without a database

    if snapshot.signed is None:
        raise SnapshotInvalid("the snapshot on disk is not signed: a former version wrote it")
    now = installation.clock.now()
    etag = snapshot.etag
    return signed_snapshot.build_verified(snapshot.signed, installation.signatures, etag, now)


def _find_snapshot_file(settings: Settings) -> Path:
    return secret_files.writable_home(settings) / "snapshot.json"


def _find_exposures(settings: Settings) -> Path:
    """Returns the folder of the files of exposures, which all processes of `home` share."""
    return secret_files.writable_home(settings) / "exposures"


def read_revision_on_disk(settings: Settings) -> int:
    """Returns the last revision that a router of this machine served; 0 if unknown."""
    from router.snapshot.holder import load_snapshot  # noqa: PLC0415 - only a process that routes needs it

    try:
        return load_snapshot(_find_snapshot_file(settings)).table.revision
    except SnapshotInvalid:
        return 0


def decrypt_snapshot(snapshot: Snapshot, cipher: Cipher) -> Snapshot:
    """Returns the snapshot with its providers' headers decrypted."""
    from harness.providers.registry import provider_secrets  # noqa: PLC0415 - only a process that routes needs it

    providers = {
        name: provider_secrets.decrypt_headers(provider, cipher)
        for name, provider in snapshot.providers.items()
    }
    return replace(snapshot, providers=providers)


def load_holder(installation: Installation, transports: "Transports") -> "SnapshotHolder":
    """Loads the snapshot of one router process. Raises SnapshotInvalid."""
    from harness.providers.registry import provider_secrets  # noqa: PLC0415 - only a process that routes needs it
    from router.snapshot.compiler import provider_kinds  # noqa: PLC0415
    from router.snapshot.holder import SnapshotHolder  # noqa: PLC0415

    # A copy, so that the router reads no environment variables during requests.
    cipher = installation.cipher
    environ = dict(os.environ)

    def key_sets(snapshot: Snapshot) -> ProviderKeySets:
        providers = snapshot.providers.values()
        return provider_secrets.key_sets(providers, snapshot.stored_keys, cipher, environ)

    holder = SnapshotHolder(
        RouterStore(installation.store),
        _find_snapshot_file(installation.settings),
        installation.standing_switches,
        key_sets,
        prepare=lambda snapshot: transports.prepare(provider_kinds(snapshot)),
        classes=installation.settings.data_classes,
        opened=lambda snapshot: decrypt_snapshot(snapshot, cipher),
        restored=partial(_restore_snapshot, installation),
    )
    holder.boot()
    return holder


def build_router_app(
    installation: Installation,
    holder: "SnapshotHolder",
    recording: "Recording",
    transports: "Transports",
    *,
    also_close: Callable[[], Awaitable[None]] | None = None,
) -> "Router":
    """Builds the router's ASGI application, for one process. Raises ConfigError."""
    from router.access.rate_limits import BOOK, SharedRates  # noqa: PLC0415
    from router.recording.shared_files import FILE, GuardFiles, SharedMarks  # noqa: PLC0415
    from router.server.app import Router  # noqa: PLC0415 - only a process that routes needs it

    settings = installation.settings.router
    home = secret_files.writable_home(installation.settings)

    marks = SharedMarks(installation.secret, home / FILE)

    async def close() -> None:
        await transports.aclose()
        marks.close()
        if also_close is not None:
            await also_close()

    return Router(
        holder,
        recording,
        transports,
        settings,
        installation.secret,
        installation.clock,
        on_stop=close,
        rates=SharedRates(home / BOOK),
        tracing=_build_tracing(settings.tracing),
        guard_files=GuardFiles(home / "guard"),
        agents=installation.settings.agents,
        learned=transports.repairs.fields,
        marks=marks,
    )


def build_recorder(
    installation: Installation,
    live_rollouts: Callable[[], frozenset[str]] = frozenset,
    *,
    name: str,
) -> "Recorder":
    """Builds a recorder with the spool of `home`.

    Args:
        name: the prefix of its worker's name.
    """
    from router.recording.capture_writer import CaptureWriter  # noqa: PLC0415
    from router.recording.recorder import Recorder  # noqa: PLC0415
    from router.recording.spool import Spool  # noqa: PLC0415

    settings = installation.settings
    store = RouterStore(installation.store)
    return Recorder(
        store,
        Spool(secret_files.writable_home(settings) / "observations.jsonl"),
        # Each process needs a new name, because its blocks are numbered from 1.
        worker=SystemRandomIds().token(name),
        clock=installation.clock,
        live_rollouts=live_rollouts,
        flush_interval_s=settings.router.flush_interval_s,
        queue_rows=settings.router.queue_size,
        exposures=_find_exposures(settings),
        captures=partial(
            CaptureWriter,
            store,
            Redactor(settings.capture.rules, settings.capture.off),
            installation.secret,
        ),
    )


def build_embedded_router(config_path: Path | None = None) -> EmbeddedRouter:
    """Builds a router that serves like a worker of `swapproof serve router`. Raises
    ConfigError, SnapshotInvalid.
    """
    telemetry.log_through_application()
    return embed_router(open_installation(config_path, signs_as=None), "client-")


def embed_router(installation: Installation, name: str) -> EmbeddedRouter:
    """Builds a router of this installation.

    Args:
        name: see `build_recorder`.
    """
    from router.upstream.transports import Transports  # noqa: PLC0415 - only a process that routes needs it

    try:
        transports = Transports(installation.settings.router)
        holder = load_holder(installation, transports)
        recorder = build_recorder(
            installation,
            lambda: holder.current.rollouts if holder.current else frozenset(),
            name=name,
        )
        app = build_router_app(installation, holder, recorder, transports)
    except BaseException:
        installation.close()
        raise
    return EmbeddedRouter(app, holder.stop, installation.close)


def run_router_worker(
    pickled_settings: bytes,
    *,
    channel: int,
    listeners: Sequence[int],
) -> None:
    """Runs a worker until SIGTERM or its parent's end.

    Args:
        pickled_settings: the parent's settings.
        channel: a file descriptor of the parent.
        listeners: file descriptors of the parent.
    """
    from router.recording.reporter import Reporter  # noqa: PLC0415 - only the router's process needs it
    from router.server.process import serve, server  # noqa: PLC0415
    from router.upstream.transports import Transports  # noqa: PLC0415

    settings = pickle.loads(pickled_settings)  # noqa: S301 - our own parent's
    if not isinstance(settings, Settings):
        raise TypeError("only `swapproof serve router` starts a router's worker")
    telemetry.configure()
    pass_hangups_on(orphaned=lambda: None)  # the parent starts a new worker
    installation = Installation(
        settings,
        secret_files.installation_secret(settings),
        SystemClock(),
        signs_as=None,
    )
    transports = Transports(settings.router)
    holder = load_holder(installation, transports)
    reporter = Reporter(
        socket.socket(fileno=channel),
        worker=SystemRandomIds().token("router-"),
        clock=installation.clock,
        live_rollouts=lambda: holder.current.rollouts if holder.current else frozenset(),
        # Ends without a delay, because another parent may need the port.
        on_orphaned=partial(signal.raise_signal, signal.SIGINT),
        exposures=_find_exposures(settings),
    )
    app = build_router_app(
        installation,
        holder,
        reporter,
        transports,
        also_close=reporter.aclose,
    )
    reporter.on_fault = app.note_fault
    sockets = [socket.socket(fileno=listener) for listener in listeners]
    try:
        worker_server = server(
            app,
            drain_s=settings.router.drain_s,
            shutdown_delay_s=settings.router.shutdown_delay_s,
            on_stop=app.stop,
        )
        serve(worker_server, sockets)
    finally:
        installation.close()
