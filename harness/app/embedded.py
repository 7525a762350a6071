"""Builds a whole router within another program's process: for an installation as one more of
its workers, or before one target alone with a database of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from harness.app.installation import Installation, open_installation
from harness.app.router_process import boot_holder, build_recorder, router_app
from harness.control.operations import keys
from harness.control.routing import routes, targets
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.row_signatures import KeyPurpose
from harness.domain.routing.kill_switch import KillSwitch
from harness.domain.routing.table import RouteSettings
from harness.domain.routing.target import Provider, Target
from harness.domain.settings import TargetSeed
from harness.ports import Cipher, Signatures
from harness.runtime import signing, telemetry
from router.frame.asgi import App
from router.upstream.transports import Transports

ROUTE: Final = "doctor"


@dataclass(frozen=True, slots=True)
class EmbeddedRouter:
    app: App  # ASGI; its lifespan starts and stops what it needs
    stop_following: Callable[[], None]  # of the database; may block for a moment
    close: Callable[[], None]  # after the lifespan


def embedded_router(given: Path | None = None) -> EmbeddedRouter:
    """Builds a router within this process; it serves like a worker of `swapgate serve router`.

    It reads the snapshot, follows it, keeps the same breakers, limits and budgets, and records
    what requests do. given: the configuration file, else where the command line looks. Raises
    ConfigError, SnapshotInvalid.
    """
    telemetry.leave_to_the_application()
    return _router(open_installation(given, signs_as=None), "client-")


def _router(installation: Installation, name: str) -> EmbeddedRouter:
    """name: as `build_recorder` takes it."""
    try:
        transports = Transports(installation.settings.router)
        holder = boot_holder(installation, transports)
        recorder = build_recorder(
            installation,
            lambda: holder.current.rollouts if holder.current else frozenset(),
            name=name,
        )
        app = router_app(installation, holder, recorder, transports)
    except BaseException:
        installation.close()
        raise
    return EmbeddedRouter(app, holder.stop, installation.close)


@dataclass(frozen=True, slots=True)
class SingleTargetRouter:
    router: EmbeddedRouter
    key: str  # a data key of it, route: the one that it has
    route: str


@dataclass(frozen=True)
class _SeparateInstallation(Installation):
    """Another installation's configuration and provider keys, with a database of its own.

    Its rows are signed with a key that nobody else knows and that ends with the process.
    """

    of: Installation | None = None

    @cached_property
    def signatures(self) -> Signatures:
        private = signing.new_private_key()
        public = signing.public_key(private, KeyPurpose.CONTROL)
        return signing.Ed25519Signatures(lambda: {public.id: public}, lambda: private)

    @cached_property
    def cipher(self) -> Cipher:
        assert self.of is not None  # noqa: S101 - `single_target_router` gives it
        return self.of.cipher

    @cached_property
    def standing_switches(self) -> tuple[KillSwitch, ...]:
        """None: they would lead away from the target."""
        return ()


def single_target_router(
    installation: Installation,
    target: Target,
    provider: Provider,
    folder: Path,
) -> SingleTargetRouter:
    """A router that asks this target alone, whatever is declared of its model.

    It writes nothing into the installation: no traffic, no observation, no budget. folder: for
    its files; the caller removes it after `close`. Raises InputError for an address that no
    provider may have.
    """
    telemetry.leave_to_the_application()
    database = folder / "swapgate.db"
    database.write_bytes(_empty_database())
    database_url = f"sqlite:///{database}"
    settings = replace(installation.settings, home=folder, database_url=database_url)
    alone = _SeparateInstallation(
        settings, installation.secret, installation.clock, of=installation
    )
    ctx = alone.context
    with installation.store.read() as before:
        stored = [
            credential
            for credential in before.credentials.all()
            if credential.provider == provider.name
        ]
    # What is declared would be done without, and is what is to be seen.
    targets.put_provider(ctx, SYSTEM, replace(provider, models={}))
    with alone.store.write() as tx:
        for stored_key in stored:
            tx.credentials.put(stored_key)
    seed = TargetSeed(target.provider, target.model, target.parameters, target.request_patch)
    known = targets.add_target(ctx, SYSTEM, seed)
    routes.create_route(ctx, SYSTEM, ROUTE, known.id, settings=RouteSettings())
    _, key = keys.create_key(ctx, SYSTEM, "doctor", secret=alone.secret)
    return SingleTargetRouter(_router(alone, "doctor-"), key, ROUTE)


@cache
def _empty_database() -> bytes:
    """The file of a database at the newest schema, without a row: a run of the doctor needs
    one for each of its questions, and alembic takes its time.
    """
    from harness.store import migrate  # noqa: PLC0415 - as it says

    with TemporaryDirectory() as folder:
        file = Path(folder, "swapgate.db")
        migrate.upgrade(f"sqlite:///{file}")
        return file.read_bytes()
