"""A whole router within somebody else's process: no server, no parent, the same rules."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import bootstrap
from harness.data_plane import recorder_of
from harness.runtime import telemetry
from router.asgi import App
from router.recording import OwnExposition
from router.transport.select import Transports


@dataclass(frozen=True, slots=True)
class EmbeddedRouter:
    """app: ASGI; its lifespan starts and stops what it needs.

    stop_following: of the database; may block for a moment. close: after the lifespan.
    """

    app: App
    stop_following: Callable[[], None]
    close: Callable[[], None]


def embedded_router(given: Path | None = None) -> EmbeddedRouter:
    """As one worker of `swapgate serve router` with this configuration, beside any others.

    It reads the snapshot, follows it, keeps the same breakers, limits and budgets, and records
    what requests do. given: the configuration file, else where the command line looks. Raises
    ConfigError, SnapshotInvalid.
    """
    telemetry.leave_to_the_application()
    installation = bootstrap.open_installation(given)
    try:
        transports = Transports(installation.settings.router)
        holder = bootstrap.booted_holder(installation, transports)
        recorder = recorder_of(
            installation,
            lambda: holder.current.rollouts if holder.current else frozenset(),
            name="client-",
        )
        app = bootstrap.router_app(installation, holder, recorder, OwnExposition(), transports)
    except BaseException:
        installation.close()
        raise
    return EmbeddedRouter(app, holder.stop, installation.close)
