"""The frozen settings, which `harness.app.configuration` parses from the configuration file.

The dataclasses hold values, and check only the monthly cap. The file's reference is generated
from their comments (`schema.describe_fields`). Settings of single subjects are beside their
subjects, such as `harness.gate.policy`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from harness.evals.month_spending import check_cap
from harness.evals.settings import SuiteSettings
from harness.frame.alerts.alert_record import AlertSettings
from harness.frame.configuration.setting import (
    DAY_S,
    DOLLARS,
    KEPT_DAYS,
    PORT,
    WAIT_S,
    Range,
    number,
)
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

FILE_NAME: Final = "swapproof.yaml"


class RunQueueKind(StrEnum):
    """Selects the processes that run evals."""

    EMBEDDED = "embedded"
    PROCRASTINATE = "procrastinate"


@dataclass(frozen=True, slots=True)
class ControlSettings:
    host: str = "127.0.0.1"  # listening address
    port: int = number(8081, "Listening port.", PORT)
    reconcile_interval_s: float = number(
        1.0,
        "How often it checks proposals and canaries.",
        WAIT_S,
    )
    housekeeping_interval_s: float = number(
        60.0,
        "How often it deletes records past their retention period.",
        WAIT_S,
    )
    drift_interval_s: float = number(
        10.0,
        "How often it checks whether a drift run is due.",
        WAIT_S,
    )
    provider_check_interval_s: float = number(
        20.0,
        "How often it asks each provider of a route for its list of models, without a cost, to "
        "see an outage without traffic; 0 for never. Routers have checks of their own.",
        Range(0, DAY_S),
    )
    # procrastinate: `swapproof worker` processes on all hosts share a queue in PostgreSQL.
    queue: RunQueueKind = RunQueueKind.EMBEDDED
    eval_workers: int = number(
        2,
        "Maximum number of eval processes; with `procrastinate`, each host has its own limit.",
        Range(1, 1_000),
    )
    eval_connections: int = number(
        8,
        "Concurrent requests of one eval worker.",
        Range(1, 100_000),
    )
    # If true, Swapproof measures, counts and mirrors, but opens no canary and promotes nothing.
    observe_only: bool = False
    failovers_keep_days: float = number(
        14.0,
        "How long Swapproof keeps the failover log.",
        KEPT_DAYS,
    )
    exposures_keep_days: float = number(
        30.0,
        "How long Swapproof keeps the rows of a canary's callers after its end; its decisions "
        "stay.",
        KEPT_DAYS,
    )
    traffic_keep_days: float = number(
        400.0,
        "How long Swapproof keeps per-minute traffic and per-key spend; daily totals stay.",
        Range(62, 36_600),
    )


@dataclass(frozen=True, slots=True)
class SpendingSettings:
    """Limits Swapproof's own spending on models: evals, judges, shadows, drift, agents."""

    monthly_cap_usd: float | None = number(
        None,
        "Cap per calendar month (UTC); null for none.",
        DOLLARS,
    )

    def __post_init__(self) -> None:
        check_cap(self.monthly_cap_usd)


@dataclass(frozen=True)
class Settings:
    """All checked settings of an installation. They contain no value of the database,
    such as a route's present settings. `routes` are seeds, which count only for
    routes that the database lacks.
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
    # Limits by provider, for all eval workers of this machine together.
    eval_limits: Mapping[str, EvalLimits] = field(default_factory=dict)
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    catalogue: tuple[CatalogueChange, ...] = ()  # the file's changes to the catalogue
    # Sign-in addresses, by provider.
    oauth: Mapping[str, OAuthOverrides] = field(default_factory=dict)
    agents: AgentSettings = field(default_factory=AgentSettings)
