"""These classes hold the configuration after parsing: frozen, and never read from the file
again. `harness.config` parses them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from harness.domain.agents.turn import TurnBounds
from harness.domain.drift import DriftPolicy
from harness.domain.operations.alerts import ALERT_RULES, AlertKind, Severity
from harness.domain.operations.spending import check_cap
from harness.domain.privacy.capture import CaptureSettings
from harness.domain.proposals.policy import Policy
from harness.domain.providers.catalogue import CatalogueChange
from harness.domain.providers.oauth import OAuthOverrides
from harness.domain.reliability.breaker import DEFAULT_BREAKER, BreakerPolicy
from harness.domain.reliability.rate_limits import EvalLimits
from harness.domain.reliability.retry import DEFAULT_RETRY, RetryPolicy
from harness.domain.routing.freeze import FreezeWindow
from harness.domain.routing.table import RouteSettings
from harness.domain.routing.target import Provider, Target

FILE_NAME: Final = "swapgate.yaml"


class AnsweredModel(StrEnum):
    """What an answer's `model` says."""

    ROUTE = "route"
    PROVIDER = "provider"


class RunQueueKind(StrEnum):
    """Who runs evals."""

    EMBEDDED = "embedded"
    PROCRASTINATE = "procrastinate"


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Says where traces go (OpenTelemetry), and whether they hold content."""

    # Of an OTLP/HTTP collector, such as `http://host:4318`; empty: as OTEL_EXPORTER_OTLP_* say.
    otlp_endpoint: str = ""
    content: bool = False  # record prompts and answers as well


@dataclass(frozen=True, slots=True)
class CorsSettings:
    """Says which pages may call the router from a browser."""

    # Origins such as https://chat.example.com; `*` for every page. Empty: no page may.
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Holds the settings of the data plane. Timeouts are in seconds; see
    docs/reference/router.md for what each one bounds.
    """

    host: str = "127.0.0.1"  # address that it listens on
    port: int = 8080  # port that it listens on
    workers: int = 1  # processes that serve; limits and breakers are each worker's own
    drain_s: float = 30.0  # how long requests may go on once their worker is to end
    # How long after SIGTERM new connections are served while `/readyz` says no.
    shutdown_delay_s: float = 0.0
    first_token_timeout_s: float = 10.0  # of a stream, to its first output
    # Of a plain answer, to its first byte; null: measured for each target.
    first_byte_timeout_s: float | None = None
    between_chunks_timeout_s: float = 30.0  # of a stream, from one output to the next
    total_timeout_s: float = 120.0  # for the whole request, failovers included
    # How long a stream may be silent before a comment goes to the client, 0 for never.
    heartbeat_s: float = 15.0
    response_model: AnsweredModel = AnsweredModel.ROUTE  # name that `model` in an answer has
    connect_timeout_s: float = 5.0  # to reach a provider
    max_body_bytes: int = 32 * 1024 * 1024  # size of a client's request, at most
    max_response_bytes: int = 64 * 1024 * 1024  # size of a provider's answer, at most
    max_concurrent: int = 512  # requests of one worker at a time; more get 503
    upstream_connections: int = 256  # per worker and provider, at most
    # Part of each key's rate that this machine grants: 1/N where traffic goes to N machines.
    rate_share: float = 1.0
    flush_interval_s: float = 1.0  # how often observations go to the database
    queue_size: int = 50_000  # observations that wait in memory, at most
    # Checks a target after so long without an answer to a client; 0 for no checks.
    health_check_interval_s: float = 60.0
    breaker: BreakerPolicy = DEFAULT_BREAKER  # of every target
    retry: RetryPolicy = DEFAULT_RETRY  # of one request
    tracing: TracingSettings = TracingSettings()  # OpenTelemetry
    # Host names, addresses or networks that providers may have though they are closed.
    allow_addresses: tuple[str, ...] = ()
    # Addresses or networks whose `X-Forwarded-For` is believed.
    trusted_proxies: tuple[str, ...] = ()
    # Further names for `model`: a text or a pattern such as `claude-haiku-*`, and its route.
    aliases: dict[str, str] = field(default_factory=dict)
    cors: CorsSettings = CorsSettings()  # for clients in browsers


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


@dataclass(frozen=True, slots=True)
class AlertSink:
    """Says where alerts go: an apprise URL (`url`, or in the variable `url_env`), or a webhook.

    A URL of apprise has passwords in it: it is never logged, stored or shown. Where a variable
    is not set, the file that NAME_FILE names is read.
    """

    name: str = ""  # shown in messages and errors; by default its kind and number
    url: str = field(default="", repr=False)  # of apprise; it holds passwords, prefer `url_env`
    url_env: str = ""  # name of the environment variable with the apprise URL
    webhook: str = ""  # address that gets a signed HTTP POST
    secret_env: str = ""  # name of the variable with the secret that signs it
    severity: Literal["info", "warning", "critical"] = "info"  # the least that it gets
    # Which kinds it gets, such as route_down (docs/reference/events.md); empty for all.
    kinds: tuple[AlertKind, ...] = ()

    def takes(self, kind: AlertKind) -> bool:
        severe = ALERT_RULES[kind].severity >= Severity[self.severity.upper()]
        return severe and (not self.kinds or kind in self.kinds)


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Where alerts are delivered, and how long they are kept."""

    sinks: tuple[AlertSink, ...] = ()  # where messages go
    deliver_interval_s: float = 2.0  # how often due messages are sent
    timeout_s: float = 10.0  # for one delivery
    keep_days: float = 90.0  # how long alerts that are over are kept


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """How people sign in to the dashboard by OpenID Connect, and who may do what."""

    issuer: str  # such as https://login.example.com/realms/staff
    client_id: str  # of the dashboard, at that server
    client_secret_env: str  # the variable with the client's secret, or NAME_FILE with its file
    public_url: str  # where people reach the dashboard, such as https://swapgate.example.com
    # A group of the server's → viewer, proposer, approver or admin; the highest counts.
    roles: dict[str, str] = field(default_factory=dict)
    roles_claim: str = "groups"  # which claim of the token has a person's groups
    name_claim: str = "email"  # claim with a person's name; the identity is the subject
    scope: str = "openid email profile"  # asked of the server; some give `groups` only so

    @property
    def redirect_url(self) -> str:
        return f"{self.public_url.rstrip('/')}/oauth2callback"

    @property
    def metadata_url(self) -> str:
        return f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class UiSettings:
    """The dashboard; see docs/reference/dashboard.md."""

    host: str = "127.0.0.1"  # address that it listens on
    port: int = 8501  # port that it listens on
    session_hours: float = 12.0  # how long a sign-in to the dashboard lasts
    oidc: OidcSettings | None = None  # single sign-on; without it the host is loopback

    @property
    def url(self) -> str:
        if self.oidc is not None:
            return self.oidc.public_url.rstrip("/")
        return http_url(self.host, self.port)

    @property
    def session_lasts(self) -> timedelta:
        return timedelta(hours=self.session_hours)


@dataclass(frozen=True, slots=True)
class SpawnLimits:
    """What the sub-tasks of one session may be."""

    max_tasks: int = 8  # of one call
    max_usd: float = 1.0  # of all sub-tasks of one call


@dataclass(frozen=True, slots=True)
class ToolServer:
    """An MCP server over streamable HTTP, whose tools agents may use."""

    url: str  # where it answers, such as https://tools.example/mcp
    # Headers, each with the name of the environment variable that holds its value.
    header_envs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AutoFloor:
    """What a target must reach before `auto` may choose it for a route."""

    floor: float  # of the lower 95 % bound of its score
    suite: str  # whose score


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The agents process, and how the router reaches it; see docs/reference/agents.md."""

    enabled: bool = True  # `swapgate serve all` starts it
    host: str = "127.0.0.1"  # address that it listens on
    port: int = 8085  # port that it listens on
    # Where the router passes `/agents` to: null for this host and port, empty for nowhere.
    url: str | None = None
    router_url: str = ""  # where models are called; empty for the router of this file
    # Where the control plane signs consents; empty for the control plane of this file.
    control_url: str = ""
    # Where people open approval links; empty for the router of this file.
    public_url: str = ""
    # A request of this machine needs no key; only where nothing listens beyond loopback.
    open_on_loopback: bool = False
    switch_timeout_s: float = 3_600.0  # how long a switch waits for a person
    switch_days: float = 1.0  # how long an approved literal model may be used
    literal_days: float = 90.0  # how long one that an agent was created or changed with may be
    max_literals: int = 100  # literal models that may be granted at one time
    keep_days: float = 30.0  # how long a session is kept after its last message
    max_message_bytes: int = 8 * 1024 * 1024  # of one request, its JSON included
    limits: TurnBounds = field(default_factory=TurnBounds)  # of each turn
    spawn: SpawnLimits = SpawnLimits()  # of the sub-tasks that agents spawn
    # By name; agents use no other servers.
    tool_servers: Mapping[str, ToolServer] = field(default_factory=dict, hash=False)
    # What `auto` may choose, by route; it keeps the incumbent of a route that has no floor.
    floors: Mapping[str, AutoFloor] = field(default_factory=dict, hash=False)

    @property
    def auto_route(self) -> str:
        """What a plain `auto` chooses for: the one route with a floor; empty where several, or
        none, have one.
        """
        return next(iter(self.floors)) if len(self.floors) == 1 else ""

    @property
    def pass_through_url(self) -> str:
        """Where the router passes `/agents` through to; empty for nowhere."""
        if self.url is not None:
            return self.url
        if not (self.enabled and self.port):
            return ""
        return http_url(self.host, self.port)

    @property
    def switch_wait(self) -> timedelta:
        return timedelta(seconds=self.switch_timeout_s)

    @property
    def switch_lasts(self) -> timedelta:
        return timedelta(days=self.switch_days)

    @property
    def literal_lasts(self) -> timedelta:
        return timedelta(days=self.literal_days)

    @property
    def longest_silence_s(self) -> float:
        """How long a request may go without a byte of its answer: a turn, or a person's
        decision.
        """
        return max(self.limits.timeout_s, self.switch_timeout_s)


def http_url(host: str, port: int) -> str:
    """Where a server is reached from its own machine: one that listens on every address, on
    loopback.
    """
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


@dataclass(frozen=True)
class JudgeSettings:
    """The model that scores a suite's answers, and how far it is trusted."""

    target: Target
    max_calls: int = 10_000  # max_calls, max_cost_usd: for each run of the suite
    max_cost_usd: float | None = None
    attempts: int = 3  # how often it is asked when its answer cannot be read
    max_output_tokens: int = 512
    timeout_s: float = 120.0
    # A file of answers with human scores; at each run, but not within recheck_s of the last
    # time, the judge scores these again, and where its agreement with them (Cohen's kappa over
    # `levels` equal bands of the score) is below min_agreement the run measures nothing.
    references: Path | None = None
    min_agreement: float = 0.6
    levels: int = 2
    recheck_s: float = 86_400.0


@dataclass(frozen=True, kw_only=True)
class SuiteFields:
    # JSONL or CSV with `input`, `target` or `expected`; perhaps `id`, `choices`, `metadata`.
    path: str | Path | None = None
    task: str | None = None  # Inspect task instead of `path`: `file.py:name` or `file.py`
    scorer: str = "exact"  # gives an answer its score; the list is in docs/reference/suites.md
    scorer_options: Mapping[str, object] = field(default_factory=dict)  # options of the scorer
    title: str = ""  # what people read
    version: str = "1"  # yours, shown beside the suite's name
    # How an item becomes a message; has `{input}`, and perhaps `{choices}`.
    template: str = "{input}"
    system: str = ""  # system message of every item
    input_field: str = "input"  # field of an item with the question
    # Field of an item with the expected answer; empty for `target` or `expected`.
    target_field: str = ""
    # Of one answer. auto: four times the longest of a run's first 10 answers, which have none.
    max_output_tokens: int | Literal["auto"] = 512
    temperature: float = 0.0  # of every request
    # tools, tool_choice, response_format: sent with every item
    request: Mapping[str, object] = field(default_factory=dict)
    # Cron expression: when the incumbents of its routes are run again; empty for never.
    every: str = ""
    # watch the incumbents of the suite's routes: docs/explanation/drift.md
    drift: DriftPolicy | None = None
    data_class: str = ""  # of its data; one of `data_classes`
    # metadata field; items that share its value count as one unit
    cluster: str = ""
    # metadata fields; no value of them may get worse
    slices: tuple[str, ...] = ()
    # How long questions and answers of its runs are kept; null: as long as their scores.
    texts_keep_days: float | None = None


@dataclass(frozen=True)
class SuiteSettings(SuiteFields):
    """Describes a suite: its data file with a scorer by name, or a Python file with an Inspect
    `@task`.
    """

    name: str
    path: Path | None = field(default=None, kw_only=True)
    judge: JudgeSettings | None = None  # for the scorers that ask a model
    code_uncontained: bool = False  # a model's code may run where the machine cannot contain it


@dataclass(frozen=True)
class RouteSeed:
    """A route that is created when the database has none of that name."""

    name: str
    incumbent: Target
    fallbacks: tuple[Target, ...] = ()
    settings: RouteSettings = field(default_factory=RouteSettings)


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
