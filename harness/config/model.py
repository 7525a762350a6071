"""The configuration after parsing: frozen, and never read from the file again. `harness.config`
parses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from harness.evals.month_spending import check_cap
from harness.evals.settings import SuiteSettings
from harness.frame.alerts.delivery import AlertSettings
from harness.frame.people.limits import EvalLimits
from harness.gate.policy import Policy
from harness.operations.settings import UiSettings
from harness.providers.models.catalogue import CatalogueChange
from harness.providers.oauth import OAuthOverrides
from harness.providers.target import Provider
from harness.routing.capture import CaptureSettings
from harness.routing.freeze import FreezeWindow
from harness.routing.settings import AgentSettings, RouterSettings, RouteSeed

FILE_NAME: Final = "swapgate.yaml"


class RunQueueKind(StrEnum):
    """Who runs evals."""

    EMBEDDED = "embedded"
    PROCRASTINATE = "procrastinate"


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Holds the settings of the control process."""

    host: str = "127.0.0.1"  # address that it listens on
    port: int = 8081  # port that it listens on
    reconcile_interval_s: float = 1.0  # how often it looks at proposals and canaries
    housekeeping_interval_s: float = 60.0  # how often it removes what is kept no longer
    drift_interval_s: float = 10.0  # how often it looks whether a drift run is due
    # procrastinate: `swapgate worker` on any number of hosts runs evals, by PostgreSQL.
    queue: RunQueueKind = RunQueueKind.EMBEDDED
    # Processes that ask and score, at most; with `procrastinate`, each host has its own number.
    eval_workers: int = 2
    eval_connections: int = 8  # requests of one eval worker at a time
    # Measure, count and mirror; open no canary and promote nothing.
    observe_only: bool = False
    failovers_keep_days: float = 14.0  # how long the failover log is kept
    # How long each minute's traffic and each key's spend are kept; sums of days stay.
    traffic_keep_days: float = 400.0


@dataclass(frozen=True, slots=True)
class SpendingSettings:
    """Bounds what Swapgate itself spends on models: evals, judges, shadows, drift, agents."""

    # US dollars in a calendar month (UTC), together; null for no cap.
    monthly_cap_usd: float | None = None

    def __post_init__(self) -> None:
        check_cap(self.monthly_cap_usd)


@dataclass(frozen=True)
class Settings:
    """Holds the settings of a whole configuration file."""

    database_url: str
    home: Path  # the folder for state (SQLite file, secret, disk snapshot, logs)
    source: Path | None  # where it was read, None for the shipped default
    router: RouterSettings
    control: ControlSettings
    ui: UiSettings
    providers: Mapping[str, Provider]
    suites: Mapping[str, SuiteSettings]
    policies: Mapping[str, Policy]
    routes: Mapping[str, RouteSeed]
    switches: tuple[str, ...] = ()  # as `kill_switch.parse_file_switches` reads them
    spending: SpendingSettings = SpendingSettings()
    freezes: tuple[FreezeWindow, ...] = ()  # of every week
    alerts: AlertSettings = field(default_factory=AlertSettings)
    data_classes: Mapping[str, frozenset[str]] = field(default_factory=dict)  # who may see each
    # Of this machine's eval workers, by provider.
    eval_limits: Mapping[str, EvalLimits] = field(default_factory=dict)
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    catalogue: tuple[CatalogueChange, ...] = ()  # the file's word on models
    # Where people sign in, by provider.
    oauth: Mapping[str, OAuthOverrides] = field(default_factory=dict)
    agents: AgentSettings = field(default_factory=AgentSettings)
