"""The frozen settings, which `harness.app.configuration` parses from the configuration file.

The dataclasses hold values and check nothing but a cap. Their comments become the file's
reference (`schema.describe_fields`). Settings of single subjects are beside their subjects,
such as `harness.gate.policy`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from harness.evals.month_spending import check_cap
from harness.evals.settings import SuiteSettings
from harness.frame.alerts.alert_record import AlertSettings
from harness.frame.people.limits import EvalLimits
from harness.gate.policy import Policy
from harness.providers.models.catalogue import CatalogueChange
from harness.providers.oauth import OAuthOverrides
from harness.providers.target import Provider
from harness.routing.capture import CaptureSettings
from harness.routing.freeze import FreezeWindow
from harness.routing.settings import (
    AgentSettings,
    RouterSettings,
    RouteSeed,
    UiSettings,
)

FILE_NAME: Final = "swapgate.yaml"


class RunQueueKind(StrEnum):
    """Selects the processes that run evals."""

    EMBEDDED = "embedded"
    PROCRASTINATE = "procrastinate"


@dataclass(frozen=True, slots=True)
class ControlSettings:
    host: str = "127.0.0.1"  # listening address
    port: int = 8081  # listening port
    reconcile_interval_s: float = 1.0  # how often it checks proposals and canaries
    # How often it deletes records past their retention period.
    housekeeping_interval_s: float = 60.0
    drift_interval_s: float = 10.0  # how often it checks whether a drift run is due
    # procrastinate: `swapgate worker` processes on all hosts share a queue in PostgreSQL.
    queue: RunQueueKind = RunQueueKind.EMBEDDED
    # Maximum number of eval processes; with `procrastinate`, each host has its own limit.
    eval_workers: int = 2
    eval_connections: int = 8  # concurrent requests of one eval worker
    # If true, Swapgate measures, counts and mirrors, but opens no canary and promotes nothing.
    observe_only: bool = False
    failovers_keep_days: float = 14.0  # how long Swapgate keeps the failover log
    # How long Swapgate keeps per-minute traffic and per-key spend; daily totals stay.
    traffic_keep_days: float = 400.0


@dataclass(frozen=True, slots=True)
class SpendingSettings:
    """Limits Swapgate's own spending on models: evals, judges, shadows, drift, agents."""

    monthly_cap_usd: float | None = None  # cap per calendar month (UTC); null for none

    def __post_init__(self) -> None:
        check_cap(self.monthly_cap_usd)


@dataclass(frozen=True)
class Settings:
    """All settings of an installation, checked.

    A value from the database, such as a route's present settings, is not here: `routes` are
    seeds, which count only for routes that the database lacks.
    """

    database_url: str
    home: Path  # the folder for state (SQLite file, secret, disk snapshot, logs)
    source: Path | None  # the file that was read; None for the shipped defaults
    router: RouterSettings
    control: ControlSettings
    ui: UiSettings
    providers: Mapping[str, Provider]
    suites: Mapping[str, SuiteSettings]
    policies: Mapping[str, Policy]
    routes: Mapping[str, RouteSeed]
    switches: tuple[str, ...] = ()  # in the format of `force.parse_file_switches`
    spending: SpendingSettings = SpendingSettings()
    freezes: tuple[FreezeWindow, ...] = ()  # weekly
    alerts: AlertSettings = field(default_factory=AlertSettings)
    # The names of the providers that may see a data class, by class.
    data_classes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # By provider; for all eval workers of this machine together.
    eval_limits: Mapping[str, EvalLimits] = field(default_factory=dict)
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    catalogue: tuple[CatalogueChange, ...] = ()  # the file's changes to the catalogue
    # Sign-in addresses, by provider.
    oauth: Mapping[str, OAuthOverrides] = field(default_factory=dict)
    agents: AgentSettings = field(default_factory=AgentSettings)
