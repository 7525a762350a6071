"""Builds the `Context` of use cases from configuration, secrets, clock, store and adapters.

Commands and processes call `open_installation`. Properties are built at their first use, so
that a process reads only the secrets, and imports only the libraries, that it needs.
"""

import hmac
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from harness.agents.caller import ApprovalLinks
from harness.app import secret_files
from harness.app.alert_sinks import ConfiguredSinks
from harness.app.configuration.model import FILE_NAME, Settings
from harness.app.store.store import Store
from harness.evals.ports import EvalWorkers, ItemRequest, RunQueue
from harness.frame import package_data
from harness.frame.configuration.dotenv import dotenv_names, record_dotenv
from harness.frame.errors import ConfigError, DatabaseUnusable, InputError
from harness.frame.failures import FailureClass
from harness.frame.ports import Cipher, Clock, Signatures
from harness.frame.runtime import encryption
from harness.frame.runtime.clock import SystemClock, SystemRandomIds
from harness.frame.signing.keyring import KeyPurpose
from harness.gate.order_seeds import InstallationSeeds
from harness.gate.policy import Policy
from harness.operations.context import Context
from harness.providers.calls.oauth_http import HttpOAuthServer
from harness.providers.force import (
    ENVIRONMENT_VARIABLE,
    KillSwitch,
    parse_environment_switches,
    parse_file_switches,
)
from harness.providers.models.catalogue import LitellmTable
from harness.routing.route_settings import Overrides
from harness.routing.settings import OidcSettings, http_url

log = logging.getLogger(__name__)

CONFIG_VARIABLE = "SWAPPROOF_CONFIG"
FileVersion = tuple[int, int, int]
T = TypeVar("T")


def config_file(config_path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Returns the path of the configuration file: `config_path`, the variable SWAPPROOF_CONFIG,
    or an existing ./swapproof.yaml. None without any of them.
    """
    if config_path is not None:
        return config_path
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    local_file = Path.cwd() / FILE_NAME
    return local_file if local_file.is_file() else None


def read_dotenv(folder: Path) -> None:
    """Loads `.env` into the environment. Replaces variables of an earlier call, but no other
    variables.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - only where a command needs it

    former_names = dotenv_names(os.environ)
    file = folder / ".env"
    try:
        lines = dotenv_values(file)
    except OSError:
        return
    values = {
        name: value
        for name, value in lines.items()
        if value is not None and (name in former_names or name not in os.environ)
    }
    os.environ.update(values)
    for name in former_names - set(values):
        os.environ.pop(name, None)
    if values or former_names:
        os.environ.update(record_dotenv(set(values), str(file)))


def read_file_version(file: Path | None) -> FileVersion | None:
    """Returns inode, time of change and size; None if there is no file."""
    try:
        stat = file.stat() if file is not None else None
    except OSError:
        return None
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size) if stat is not None else None


def load_settings(config_path: Path | None = None) -> Settings:
    """Loads the settings. Raises ConfigError with the place of the fault."""
    from harness.app.configuration import configuration  # noqa: PLC0415 - a worker receives its settings

    file = config_file(config_path, os.environ)
    read_dotenv(file.resolve().parent if file else Path.cwd())
    return configuration.load_settings(
        file, os.environ, defaults=package_data.path("config/default.yaml")
    )


def read_settings(config_path: Path | None = None) -> tuple[Settings, FileVersion | None]:
    """Loads the settings, and the version of their file. Raises ConfigError."""
    # Reads the version first, so that a later change of the file causes another read.
    version = read_file_version(config_file(config_path, os.environ))
    return load_settings(config_path), version


class FileAdditions(Generic[T]):
    """Reads a section of the file again after a change of the file, so that additions need no
    restart.
    """

    def __init__(
        self,
        source: Path | None,
        version: FileVersion | None,
        section: Callable[[Settings], Mapping[str, T]],
    ) -> None:
        """Creates a reader of one section of the file.

        Args:
            version: the version of the file that the process read; None if unknown.
        """
        self._source = source
        self._version = version
        self._section = section

    def __call__(self) -> Mapping[str, T]:
        """Returns the section of a changed file; empty if the file is unchanged or invalid."""
        version = read_file_version(self._source)
        if self._source is None or version is None or version == self._version:
            return {}
        self._version = version
        try:
            return self._section(load_settings(self._source))
        except ConfigError as error:
            log.warning("configuration_not_read: %s", error)
            return {}


class ConfiguredPolicies(Mapping[str, Policy]):
    """The policies of the file. If a caller lists the policies or uses an unknown policy, reads
    new policies from the file. A known policy keeps its rules until the process ends.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        added: Callable[[], Mapping[str, Policy]],
    ) -> None:
        self._known = policies
        self._added = added

    def _refresh(self) -> Mapping[str, Policy]:
        if added := self._added():
            self._known = {**added, **self._known}
        return self._known

    def __getitem__(self, name: str) -> Policy:
        return self._known[name] if name in self._known else self._refresh()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._refresh())

    def __len__(self) -> int:
        return len(self._refresh())


def load_sign_on_secrets(settings: Settings, oidc: OidcSettings) -> tuple[str, str]:
    """Returns the key that signs the cookie, and the client's secret. Raises ConfigError."""
    secret = secret_files.installation_secret(settings)
    # Derived from the secret, because a new key at each start would end all sessions.
    cookie_key = hmac.digest(secret, b"swapproof: single sign-on", "sha256").hex()
    return cookie_key, secret_files.require_named_secret(oidc.client_secret_env, "ui.oidc")


@dataclass(frozen=True)
class Installation:
    """The parts of one installation that this process uses. `close` ends its workers and its
    connections.

    secret: the key of hashes and HMAC chains. workers, run_queue: None in a process that starts
    no eval runs.
    """

    settings: Settings
    secret: bytes
    clock: Clock
    workers: EvalWorkers | None = None
    run_queue: RunQueue | None = None
    # The purpose of this process's private signing key; None for a process that only verifies.
    signs_as: KeyPurpose | None = KeyPurpose.CONTROL
    # The version of the configuration file that the process read; None if unknown.
    file_version: FileVersion | None = None

    @cached_property
    def store(self) -> Store:
        from harness.app.store.store import Store  # noqa: PLC0415 - SQLAlchemy is slow to import

        return Store(
            self.settings.database_url,
            secret=self.secret,
            clock=self.clock,
            signatures=self.signatures,
        )

    @cached_property
    def signatures(self) -> Signatures:
        """Reads the keys at the first use, because a router must not read a private key."""
        return secret_files.signatures(self.settings, self.signs_as)

    @cached_property
    def cipher(self) -> Cipher:
        """Reads the keys at the first use, because most installations have no such keys."""
        return encryption.FernetCipher(partial(secret_files.encryption_keys, self.settings))

    @property
    def _approval_links(self) -> ApprovalLinks | None:
        """The links to approval pages. None without a public address, or if this process cannot
        sign.
        """
        agents = self.settings.agents
        router = self.settings.router
        url = agents.public_url
        if not url and agents.pass_through_url:
            url = http_url(router.host, router.port)
        if not url or self.signs_as is not KeyPurpose.CONTROL:
            return None
        try:
            secret_files.private_key(self.settings, KeyPurpose.CONTROL)
        except ConfigError:
            return None
        return ApprovalLinks(url, self.secret)

    @cached_property
    def standing_switches(self) -> tuple[KillSwitch, ...]:
        """Reads SWAPPROOF_FORCE and the file, at the first use. Raises ConfigError."""
        now = self.clock.now()
        try:
            environment_switches = parse_environment_switches(
                os.environ.get(ENVIRONMENT_VARIABLE, ""), now
            )
        except InputError as error:
            raise ConfigError(f"environment variable {error}") from None
        return (
            *environment_switches,
            *parse_file_switches(self.settings.switches, now),
        )

    @cached_property
    def context(self) -> Context:
        """The first argument of all use cases. To build it does not connect to the database."""
        from evals.suites.configured_suites import ConfiguredSuites  # noqa: PLC0415
        from harness.providers.calls.probe import HttpProviderProbe  # noqa: PLC0415 - urllib is slow to import

        settings = self.settings
        source = settings.source
        version = self.file_version
        suites = ConfiguredSuites(
            settings.suites,
            FileAdditions(source, version, lambda s: s.suites),
        )
        policies = ConfiguredPolicies(
            settings.policies,
            FileAdditions(source, version, lambda s: s.policies),
        )
        return Context(
            store=self.store,
            clock=self.clock,
            chance=SystemRandomIds(),
            suites=suites,
            policies=policies,
            workers=self.workers,
            run_queue=self.run_queue,
            eval_workers=settings.control.eval_workers,
            monthly_cap_usd=settings.spending.monthly_cap_usd,
            observe_only=settings.control.observe_only,
            freeze_windows=settings.freezes,
            sinks=ConfiguredSinks(settings.alerts, os.environ),
            dashboard_url=settings.ui.url,
            eval_connections=settings.control.eval_connections,
            allow_addresses=settings.router.allow_addresses,
            cipher=self.cipher,
            environ=dict(os.environ),
            probe=HttpProviderProbe(
                self.clock, settings.router.allow_addresses, _classify_reply
            ),
            oauth=HttpOAuthServer(self.clock, settings.router.allow_addresses),
            oauth_changes=settings.oauth,
            data_classes=settings.data_classes,
            drift={
                name: suite.drift
                for name, suite in settings.suites.items()
                if suite.drift is not None
            },
            models=LitellmTable(settings.catalogue),
            agents=settings.agents,
            approval_links=self._approval_links,
            order_seeds=InstallationSeeds(self.secret),
            choose_override=_choose_override,
            judges=suites.judges,
        )

    def close(self) -> None:
        if self.workers is not None:
            self.workers.stop_all()
        if self.run_queue is not None:
            self.run_queue.close()
        if "store" in self.__dict__:
            self.store.close()


def _classify_reply(status: int, body: bytes) -> FailureClass | None:
    """Classifies a provider's reply as the router does (`provider_failures`)."""
    from router.protocols.provider_failures import classify_reply  # noqa: PLC0415 - few commands call providers

    return classify_reply(status, body)


def _choose_override(overrides: Overrides, request: ItemRequest) -> str | None:
    """Chooses the override of an item's request as the router does (`find_override`)."""
    from router.request.item_requests import choose_override  # noqa: PLC0415 - few commands split a route

    return choose_override(overrides, request)


def open_installation(
    config_path: Path | None = None,
    *,
    create_secret: bool = False,
    signs_as: KeyPurpose | None = KeyPurpose.CONTROL,
    read: tuple[Settings, FileVersion | None] | None = None,
) -> Installation:
    """Opens the installation, without connecting to the database.

    Args:
        create_secret: whether to create a missing secret and signing keys.
        read: the configuration, if the caller has read it (`read_settings`).

    Raises ConfigError; DatabaseUnusable without an installation.
    """
    settings, version = read or read_settings(config_path)
    if not (create_secret or has_state(settings)):
        file = settings.database_url.removeprefix("sqlite:///")
        raise DatabaseUnusable(
            f"there is no installation here: the database {file} and its secret are "
            "missing; run `swapproof init`, or fix `database_url` and `home`"
        )
    secret = secret_files.installation_secret(settings, create=create_secret)
    if create_secret:
        secret_files.create_keys(settings)
    return Installation(
        settings,
        secret,
        SystemClock(),
        signs_as=signs_as,
        file_version=version,
    )


def job_queue(settings: Settings) -> ModuleType:
    """Imports the module of the job queue. Raises ConfigError if its package is not
    installed.
    """
    try:
        from harness.app.store import job_queue as module  # noqa: PLC0415 - an extra of the package
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"control.queue: {settings.control.queue} needs the package {error.name}: install "
            "`swapproof[workers]`"
        ) from error
    return module


def has_state(settings: Settings) -> bool:
    """Returns whether an installation exists here. With PostgreSQL, returns True without a
    connection.
    """
    file = Path(settings.database_url.removeprefix("sqlite:///"))
    is_sqlite = settings.database_url.startswith("sqlite:///")
    return not is_sqlite or file.exists() or secret_files.has_secret(settings)
