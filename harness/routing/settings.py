"""Settings of the router, the routes in the file, the agents, the dashboard and its sign-in.

The file's reader (`harness.app.configuration`), the reference page and the processes use these
declarations. The reader also checks settings that depend on one another. Settings that can
change without a restart are in `harness.routing.table`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from harness.frame.configuration.setting import (
    COUNT,
    DAY_S,
    DOLLARS,
    HOUR_S,
    KEPT_DAYS,
    PORT,
    SHORTEST_S,
    TOKENS,
    WAIT_S,
    Range,
    number,
    required,
)
from harness.providers.target import Target
from harness.routing.reliability.breaker import (
    DEFAULT_BREAKER,
    BreakerPolicy,
)
from harness.routing.reliability.retry import DEFAULT_RETRY, RetryPolicy
from harness.routing.route_settings import RouteSettings


def http_url(host: str, port: int) -> str:
    """Returns the URL of a server for clients on this machine. The host is a loopback address
    if the server listens on every address.
    """
    client_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound
    if ":" in client_host:
        client_host = f"[{client_host}]"
    return f"http://{client_host}:{port}"


@dataclass(frozen=True, slots=True)
class TurnBounds:
    max_steps: int = number(12, "Maximum model calls in a turn.", Range(1, 1_000))
    max_tokens: int = number(
        1_000_000,
        "Maximum input and output tokens of these calls.",
        TOKENS,
    )
    max_usd: float = number(
        5.0,
        "Maximum cost of these calls; a call without a known price counts 0.",
        DOLLARS,
    )
    timeout_s: float = number(300.0, "Limit for the whole turn, including its tools.", WAIT_S)


class AnsweredModel(StrEnum):
    """What an answer's `model` contains: the route's name, or the name from the provider."""

    ROUTE = "route"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where traces go (OpenTelemetry), and whether they contain prompts and answers."""

    # An OTLP/HTTP collector, such as `http://host:4318`. If empty, OTEL_EXPORTER_OTLP_* apply.
    otlp_endpoint: str = ""
    content: bool = False  # record prompts and answers as well


@dataclass(frozen=True, slots=True)
class CorsSettings:
    """The pages that may call the router from a browser."""

    # Allowed origins, such as https://chat.example.com; `*` allows every page, empty allows
    # none.
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Settings of the router. docs/reference/router.md explains the time limits."""

    host: str = "127.0.0.1"  # listening address
    port: int = number(8080, "Listening port.", PORT)
    workers: int = number(
        1,
        "Worker processes; each worker has its own limits and breakers.",
        Range(1, 1_000),
    )
    drain_s: float = number(
        30.0,
        "Time for running requests when their worker shuts down.",
        WAIT_S,
    )
    shutdown_delay_s: float = number(
        0.0,
        "Time after SIGTERM in which the router accepts connections while `/readyz` fails.",
        Range(0, HOUR_S),
    )
    first_token_timeout_s: float | None = number(
        None,
        "Limit for a stream's first output; if answers took longer, the router raises the "
        "limit, to at most three times this value. If null, measured for each target, and at "
        "least 10 s.",
        WAIT_S,
    )
    first_byte_timeout_s: float | None = number(
        None,
        "Limit for a plain answer's first byte; if null, measured for each target.",
        WAIT_S,
    )
    between_chunks_timeout_s: float = number(
        30.0,
        "Limit between two outputs of a stream.",
        WAIT_S,
    )
    total_timeout_s: float = number(
        120.0,
        "Limit for the whole request, including failovers.",
        WAIT_S,
    )
    heartbeat_s: float = number(
        15.0,
        "Time without output after which a stream sends a comment to the client; 0 for never.",
        Range(0, HOUR_S),
    )
    response_model: AnsweredModel = AnsweredModel.ROUTE  # the name in an answer's `model`
    connect_timeout_s: float = number(5.0, "Limit to connect to a provider.", WAIT_S)
    max_body_bytes: int = number(
        32 * 1024 * 1024,
        "Maximum size of a client's request.",
        Range(1, 1e12),
    )
    max_response_bytes: int = number(
        64 * 1024 * 1024,
        "Maximum size of a provider's answer.",
        Range(1, 1e12),
    )
    max_concurrent: int = number(
        512,
        "Concurrent requests of one worker; further requests get 503.",
        COUNT,
    )
    upstream_connections: int = number(
        256,
        "Maximum connections per worker and provider.",
        COUNT,
    )
    rate_share: float = number(
        1.0,
        "Share of each key's rate that this machine grants, such as 1/N for traffic to N "
        "machines.",
        Range(0.001, 1),
    )
    flush_interval_s: float = number(
        1.0,
        "How often observations go to the database.",
        Range(SHORTEST_S, HOUR_S),
    )
    queue_size: int = number(
        50_000,
        "Maximum observations that wait in memory.",
        Range(1, 100_000_000),
    )
    health_check_interval_s: float = number(
        60.0,
        "The router checks a target that answered no client for this time; 0 for no checks.",
        Range(0, DAY_S),
    )
    breaker: BreakerPolicy = DEFAULT_BREAKER  # the circuit breaker of each target
    retry: RetryPolicy = DEFAULT_RETRY  # the retries of each request
    tracing: TracingSettings = TracingSettings()  # OpenTelemetry
    # Exceptions to the forbidden addresses (link-local, metadata services): host names,
    # addresses or networks that providers may have.
    allow_addresses: tuple[str, ...] = ()
    # Addresses or networks whose `X-Forwarded-For` the router trusts.
    trusted_proxies: tuple[str, ...] = ()
    # Further names for `model`. Maps a name, or a pattern such as `claude-haiku-*`, to a route.
    aliases: dict[str, str] = field(default_factory=dict)
    cors: CorsSettings = CorsSettings()  # for clients in browsers


@dataclass(frozen=True, slots=True)
class SpawnLimits:
    """Limits of a session's sub-tasks."""

    max_tasks: int = number(
        8,
        "Maximum sub-tasks of a session at the same time.",
        Range(1, 100),
    )
    max_usd: float = number(1.0, "Maximum cost of all sub-tasks that begin together.", DOLLARS)


@dataclass(frozen=True, slots=True)
class ToolServer:
    """An MCP server over streamable HTTP, whose tools agents may use."""

    url: str  # its address, such as https://tools.example/mcp
    # Headers, each with the name of the environment variable that holds its value.
    header_envs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AutoFloor:
    """The score that a target needs before `auto` may choose it for a route."""

    floor: float = field(
        metadata=required(
            "Minimum for the lower 95 % confidence bound of a target's score.",
            range=Range(0, 1),
        )
    )
    suite: str  # the suite that gives the score


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The agents process, and how the router reaches it; see docs/reference/agents.md."""

    enabled: bool = True  # `swapproof serve all` starts the agents process
    host: str = "127.0.0.1"  # listening address
    port: int = number(8085, "Listening port.", PORT)
    # Address to which the router forwards `/agents`. null: `host` and `port`, if `enabled`.
    # Empty string: not forwarded.
    url: str | None = None
    router_url: str = ""  # router that calls the models; empty for the router of this file
    # Control plane that signs grants; empty for the control plane of this file.
    control_url: str = ""
    # Address of approval links; empty for the router of this file.
    public_url: str = ""
    # Requests from this machine need no key; allowed only if router.host and agents.host are
    # loopback addresses.
    open_on_loopback: bool = False
    switch_timeout_s: float = number(
        3_600.0,
        "How long a switch waits for a person.",
        Range(1, 7 * DAY_S),
    )
    switch_days: float = number(
        1.0,
        "How long a session keeps an approved model.",
        Range(0.001, 366),
    )
    literal_days: float = number(
        90.0,
        "How long an agent may use a model named PROVIDER:MODEL.",
        Range(0.001, 3_660),
    )
    max_literals: int = number(
        100,
        "Maximum granted models named PROVIDER:MODEL.",
        Range(0, 10_000),
    )
    keep_days: float = number(
        30.0,
        "How long Swapproof keeps a session after its last message.",
        KEPT_DAYS,
    )
    max_message_bytes: int = number(
        8 * 1024 * 1024,
        "Maximum size of one request's JSON.",
        Range(1_024, 1e9),
    )
    limits: TurnBounds = field(default_factory=TurnBounds)  # for each turn
    spawn: SpawnLimits = SpawnLimits()  # for the sub-tasks that agents spawn
    # MCP servers by name; agents use no other servers.
    tool_servers: Mapping[str, ToolServer] = field(default_factory=dict, hash=False)
    # Floors for `auto`, by route; without a floor, `auto` uses the route's incumbent.
    floors: Mapping[str, AutoFloor] = field(default_factory=dict, hash=False)

    @property
    def auto_route(self) -> str:
        """The route for `auto` without a route. Empty unless exactly one route has a floor."""
        return next(iter(self.floors)) if len(self.floors) == 1 else ""

    @property
    def pass_through_url(self) -> str:
        """The address to which the router forwards `/agents`; empty if it forwards nothing."""
        if self.url is not None:
            return self.url
        if not (self.enabled and self.port):
            return ""
        return http_url(self.host, self.port)

    @property
    def switch_wait(self) -> timedelta:
        """How long a switch waits for a person, as a duration."""
        return timedelta(seconds=self.switch_timeout_s)

    @property
    def switch_duration(self) -> timedelta:
        """How long a session keeps an approved model, as a duration."""
        return timedelta(days=self.switch_days)

    @property
    def literal_duration(self) -> timedelta:
        """How long a grant of a literal target lasts, as a duration."""
        return timedelta(days=self.literal_days)

    @property
    def longest_silence_s(self) -> float:
        """The longest time without a byte: a turn, or the wait for a person's decision."""
        return max(self.limits.timeout_s, self.switch_timeout_s)


@dataclass(frozen=True)
class RouteSeed:
    """A route of the file, created if the database has no route of that name."""

    name: str
    incumbent: Target
    fallbacks: tuple[Target, ...] = ()
    settings: RouteSettings = field(default_factory=RouteSettings)


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """How people sign in to the dashboard by OpenID Connect, and their roles."""

    issuer: str  # issuer, such as https://login.example.com/realms/staff
    client_id: str  # the dashboard's client id at the issuer
    client_secret_env: str  # the variable with the client's secret, or NAME_FILE with its file
    public_url: str  # the dashboard's address, such as https://swapproof.example.com
    # Maps each group at the identity provider to viewer, proposer, approver or admin. A
    # person's highest role counts.
    roles: dict[str, str] = field(default_factory=dict)
    roles_claim: str = "groups"  # claim with a person's groups
    name_claim: str = "email"  # claim with a person's name; the subject identifies the person
    # requested scopes; some servers send `groups` only if you add a scope here
    scope: str = "openid email profile"

    @property
    def redirect_url(self) -> str:
        """The address to register at the issuer; the browser returns there after a sign-in."""
        return f"{self.public_url.rstrip('/')}/oauth2callback"

    @property
    def metadata_url(self) -> str:
        """The address of the issuer's own description (OpenID Connect Discovery)."""
        return f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class UiSettings:
    """The dashboard; see docs/reference/dashboard.md."""

    host: str = "127.0.0.1"  # listening address
    port: int = number(8501, "Listening port.", PORT)
    session_hours: float = number(
        12.0,
        "How long a sign-in to the dashboard lasts.",
        Range(0.1, 168),
    )
    oidc: OidcSettings | None = None  # single sign-on; without it, host must be loopback

    @property
    def url(self) -> str:
        """The address of the dashboard for people, without a slash at the end."""
        if self.oidc is not None:
            return self.oidc.public_url.rstrip("/")
        return http_url(self.host, self.port)

    @property
    def session_duration(self) -> timedelta:
        return timedelta(hours=self.session_hours)
