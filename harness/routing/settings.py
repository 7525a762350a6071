"""Settings of the router, of the routes in the file, and of the agents process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from harness.providers.target import Target
from harness.routing.reliability.breaker import DEFAULT_BREAKER, BreakerPolicy
from harness.routing.reliability.retry import DEFAULT_RETRY, RetryPolicy
from harness.routing.table import RouteSettings


def http_url(host: str, port: int) -> str:
    """Where a server is reached from its own machine: one that listens on every address, on
    loopback.
    """
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


@dataclass(frozen=True, slots=True)
class TurnBounds:
    max_steps: int = 12  # calls of the model
    max_tokens: int = 1_000_000  # of all calls, input and output together
    max_usd: float = 5.0  # of all calls; those without a known price count nothing
    timeout_s: float = 300.0  # its tools included


class AnsweredModel(StrEnum):
    """What an answer's `model` says."""

    ROUTE = "route"
    PROVIDER = "provider"


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
    # Where the router passes `/agents` to: null for this host and port while `enabled`, empty
    # for nowhere.
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


@dataclass(frozen=True)
class RouteSeed:
    """A route that is created when the database has none of that name."""

    name: str
    incumbent: Target
    fallbacks: tuple[Target, ...] = ()
    settings: RouteSettings = field(default_factory=RouteSettings)
