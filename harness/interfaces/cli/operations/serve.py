"""Commands that run processes: the installation's parts, the simulator and the demo."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from harness.frame.errors import InputError
from harness.frame.imports import (
    freeze_modules,
    pause_garbage_collection,
)
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    EXISTING_FILE,
    FILE,
    FiniteRange,
    WholeRange,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.session import KEY_VARIABLE, Session

SERVICE_NAMES = {
    "router": "the router",
    "control": "the control plane",
    "agents": "the agents process",
    "ui": "the dashboard",
}
PARTS = tuple(SERVICE_NAMES)
# Hidden options of the parts that `serve all` starts. With them, the router does not warn about
# missing routes, which the control plane creates, and no part prints its address.
BESIDE_OTHERS_FLAG = "--beside-others"
HIDDEN_OPTIONS = {
    "router": ["--beside-control"],
    "control": [BESIDE_OTHERS_FLAG],
    "ui": [BESIDE_OTHERS_FLAG],
}
# The CLI loads API and dashboard by name, because it may not import them.
ENTRY_POINTS = {
    "control": "harness.interfaces.api.app:run_control",
    "agents": "harness.interfaces.api.agents.process:run_agents",
    "ui": "dashboard.serve:run",
}
HIDDEN_ARGUMENTS = {
    part: {option.lstrip("-").replace("-", "_"): True for option in options}
    for part, options in HIDDEN_OPTIONS.items()
}
_BESIDE_OTHERS_OPTION = opt(
    "Set by `serve all`, which prints the addresses itself.",
    BESIDE_OTHERS_FLAG,
    hidden=True,
)


def own_command(*words: str, config: Path | None = None) -> list[str]:
    config_option = ["--config", str(config)] if config else []
    return [sys.executable, "-m", "swapproof", *config_option, *words]


@click.group()
def serve() -> None:
    """Run Swapproof's processes."""


@command(serve, example="swapproof serve router --workers 4")
def router(
    session: Session,
    *,
    workers: int | None = opt(
        "Worker processes. [default: router.workers]",
        type=WholeRange(1, 256),
        metavar="N",
    ),
    beside_control: bool = opt(
        "Set if a control plane starts, too; it creates the file's routes.",
        hidden=True,
    ),
) -> None:
    """Serve production traffic: the OpenAI-compatible API.

    On SIGTERM, the router finishes its requests. On SIGHUP, it reloads the configuration
    without losing a request.
    """
    from harness.app import data_plane  # noqa: PLC0415 - `--help` stays quick

    with _announce(session, "router", beside_others=beside_control):
        code = data_plane.serve_router(session.config, workers, beside_control=beside_control)
    raise SystemExit(code)


@command(serve, example="swapproof serve control")
def control(session: Session, *, beside_others: bool = _BESIDE_OTHERS_OPTION) -> None:
    """Run the reconcile loop, eval workers and the management API."""
    _run_part(session, "control", beside_others=beside_others)


@command(serve, example="swapproof serve agents")
def agents(session: Session) -> None:
    """Serve agent sessions over HTTP, below the router's /agents.

    After SIGTERM, running answers may continue for at most the router's request timeout.
    """
    _run_part(session, "agents", beside_others=True)


@command(serve, example="swapproof serve ui")
def ui(session: Session, *, beside_others: bool = _BESIDE_OTHERS_OPTION) -> None:
    """Serve the dashboard."""
    _run_part(session, "ui", beside_others=beside_others)


@contextmanager
def _announce(
    session: Session,
    part: str,
    *,
    beside_others: bool,
) -> Iterator[None]:
    """Prints the address of a part that runs alone on a terminal, once the part answers."""
    if beside_others or not sys.stderr.isatty():
        yield
        return
    from harness.app import processes  # noqa: PLC0415 - `--help` stays quick
    from harness.app.installation import load_settings  # noqa: PLC0415 - `--help` stays quick

    settings = load_settings(session.config)
    with processes.announce_when_serving(
        settings, [part], lambda text: click.echo(text, err=True)
    ):
        yield


def _run_part(
    session: Session,
    part: str,
    *,
    beside_others: bool,
) -> None:
    from harness.app.database import require_database  # noqa: PLC0415 - `--help` stays quick
    from harness.app.installation import load_settings  # noqa: PLC0415 - `--help` stays quick
    from harness.app.processes import require_port  # noqa: PLC0415 - `--help` stays quick
    from harness.app.reload import reloading  # noqa: PLC0415 - `--help` stays quick

    settings = load_settings(session.config)
    # The dashboard shows faults of the database on its pages.
    if part != "ui":
        require_database(settings)
    part_settings = getattr(settings, part)
    require_port(part_settings, service=SERVICE_NAMES[part], setting=f"{part}.port")
    restart_command = own_command(
        "serve",
        part,
        *HIDDEN_OPTIONS.get(part, ()) if beside_others else (),
        config=session.config,
    )
    address = (part_settings.host, part_settings.port) if part == "ui" else ()
    with (
        _announce(session, part, beside_others=beside_others),
        reloading(restart_command, session.config, settings),
    ):
        _run_entry_point(ENTRY_POINTS[part], session.config, *address)


def _run_entry_point(entry_point: str, *arguments: object) -> None:
    module, _, function = entry_point.partition(":")
    with pause_garbage_collection():
        run = getattr(import_module(module), function)
    freeze_modules()
    run(*arguments)


@serve.group()
def drive() -> None:
    """Set traffic shares in another gateway, which calls the models."""


EVERY: Final = opt(
    "Seconds between two readings of the gateway.",
    type=FiniteRange(min=0.1, max=60.0),
    default=10.0,
    metavar="SECONDS",
)
SETTLE: Final = opt(
    "Seconds until every process of the gateway has a new share.",
    type=FiniteRange(min=0.0, max=600.0),
    default=30.0,
    metavar="SECONDS",
)


@command(drive, example="swapproof serve drive litellm --url http://127.0.0.1:4000")
def litellm(
    session: Session,
    *,
    url: str = opt("LiteLLM's address.", required=True, metavar="URL"),
    key_env: str = opt(
        "Environment variable that holds LiteLLM's master key.",
        metavar="NAME",
        default="LITELLM_MASTER_KEY",
    ),
    every: float = EVERY,
    settle: float = SETTLE,
) -> None:
    """Set the weights of LiteLLM's deployments for each route that is a model group.

    Canaries count the requests in LiteLLM's spend logs.
    """
    from harness.app.database import require_database  # noqa: PLC0415 - `--help` stays quick
    from harness.app.gateways.drive import drive_litellm  # noqa: PLC0415
    from harness.providers.api_base_rules import check_api_base  # noqa: PLC0415

    require_database(session.settings)  # also reads `.env`
    try:
        check_api_base(url, session.settings.router.allow_addresses)
    except InputError as error:
        # Drops the text after the colon, which is about providers.
        text = f"{error}".replace("api_base", "--url").partition(": ")[0]
        raise InputError(text) from None
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise InputError(f"{key_env} is not set: export LiteLLM's master key as {key_env}")
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"HTTP cannot send the key in {key_env}: export the key again")
    freeze_modules()
    drive_litellm(
        session.config,
        url,
        key,
        every_s=every,
        settle_s=settle,
    )


@command(drive, example="swapproof serve drive flagd --flags flags.json --spans spans.jsonl")
def flagd(
    session: Session,
    *,
    flags: Path = opt("flagd's file of flags, in JSON.", type=EXISTING_FILE, required=True),
    spans: Path = opt(
        "File of the OpenTelemetry Collector's `file` exporter.",
        type=FILE,
        required=True,
    ),
    every: float = EVERY,
    settle: float = SETTLE,
) -> None:
    """Set the shares in flagd's file for each flag with a route's name.

    Canaries count the spans in which the flag was evaluated.
    """
    from harness.app.database import require_database  # noqa: PLC0415 - `--help` stays quick
    from harness.app.gateways.drive import drive_flagd  # noqa: PLC0415

    require_database(session.settings)  # also reads `.env`
    freeze_modules()
    drive_flagd(
        session.config,
        flags,
        spans,
        every_s=every,
        settle_s=settle,
    )


@command(serve, "all", example="swapproof serve all")
def serve_all(session: Session) -> None:
    """Run router, control plane, agents and dashboard together; Ctrl-C ends all of them.

    Prints the address of each part once it answers. `agents.enabled: false` leaves out the
    agents. On SIGHUP, every part reloads the configuration and `.env`.
    """
    from harness.app import processes  # noqa: PLC0415
    from harness.app.database import import_store, require_database  # noqa: PLC0415 - `--help` stays quick
    from harness.app.installation import load_settings  # noqa: PLC0415 - `--help` stays quick

    config = session.config
    settings = load_settings(config)
    require_database(settings)
    parts = [part for part in PARTS if part != "agents" or settings.agents.enabled]
    processes.require_ports(settings, {part: SERVICE_NAMES[part] for part in parts})
    commands: dict[str, Sequence[str]] = {
        part: own_command("serve", part, *HIDDEN_OPTIONS.get(part, ()), config=config)
        for part in parts
    }

    def say(text: str) -> None:
        click.echo(text, err=True)

    def import_shared() -> None:
        import_store()
        if "agents" in parts:  # the control plane needs most of its modules, too
            import_module(ENTRY_POINTS["agents"].partition(":")[0])

    code = processes.supervise(commands, settings, say, import_shared=import_shared)
    if isinstance(code, int):
        raise SystemExit(code)
    # A text is the name of a part: this is the forked process that must run that part.
    click.get_current_context().invoke(serve.commands[code], **HIDDEN_ARGUMENTS.get(code, {}))


@command(example="swapproof mcp --http")
def mcp(
    session: Session,
    *,
    http: bool = opt("Serve streamable HTTP at /mcp; callers need keys."),
    host: str = opt("Address to listen on, for --http.", default="127.0.0.1"),
    port: int = opt("Port, for --http.", default=8086),
    agent_session: str = opt(
        "The agent's session for switch_model and spawn.",
        "--session",
        metavar="ID",
        default="",
    ),
) -> None:
    """Serve tools to agents over MCP: on stdin and stdout, or over HTTP.

    An agent may read and propose a swap, but never approve one. On stdin and stdout, an agent
    without a key has the proposer role.
    """
    from harness.app.database import require_database  # noqa: PLC0415
    from harness.app.processes import require_port  # noqa: PLC0415 - `--help` stays quick

    require_database(session.settings)
    if http:
        listener = replace(session.settings.agents, host=host, port=port)
        require_port(listener, service="the MCP server", setting="--port")
    elif (text := session.key_text()) is not None:
        os.environ[KEY_VARIABLE] = text
    address = (host, port) if http else None
    _run_entry_point(
        "harness.interfaces.api.mcp:run_mcp",
        session.config,
        address,
        agent_session,
    )


@command(example="swapproof worker --slots 4")
def worker(
    session: Session,
    *,
    slots: int = opt(
        "Concurrent eval runs on this host.",
        type=WholeRange(1, 256),
        default=2,
    ),
    providers: tuple[str, ...] = opt(
        "Only runs that use this provider; may be repeated.",
        "--provider",
    ),
) -> None:
    """Take eval runs from the queue that the workers of all hosts share.

    Needs `control.queue: procrastinate` and PostgreSQL. On SIGTERM the worker stops, and other
    workers continue its runs.
    """
    from harness.app.eval_workers.run import run_worker_host  # noqa: PLC0415 - `--help` stays quick

    run_worker_host(session.config, slots=slots, providers=providers)


@command(hidden=True)
def eval_worker(
    session: Session,
    run: str,
    *,
    owner: str = opt("This worker's name on the lease."),
    parent: int = opt("Process id of the parent; the worker ends with it."),
) -> None:
    """Ask and score the missing items of an eval run."""
    from harness.app.eval_workers.run import run_worker  # noqa: PLC0415 - `--help` stays quick

    run_worker(
        session.config,
        run,
        owner=owner,
        parent=parent,
    )


@command(hidden=True)
def eval_worker_template(session: Session) -> None:
    """Fork eval workers for the runs that the parent names on stdin."""
    from harness.app.eval_workers.run import run_worker_template  # noqa: PLC0415 - `--help` stays quick

    run_worker_template(session.config)


@command(hidden=True)
def router_worker(
    *,
    slot: int = opt("Number of this worker."),  # noqa: ARG001 - it tells workers apart in `ps`
    channel: int = opt("File descriptor of the channel to the parent."),
    listeners: tuple[int, ...] = opt("File descriptor of a listening socket.", "--listen"),
) -> None:
    """Serve requests for `swapproof serve router`, which sends the settings on stdin."""
    from harness.app.router_process import run_router_worker  # noqa: PLC0415 - `--help` stays quick

    run_router_worker(sys.stdin.buffer.read(), channel=channel, listeners=listeners)


CLIENT_KEY_VARIABLE = "SWAPPROOF_KEY"
TIMED_OUT_CODE = 5


@command(cls=click.Group, invoke_without_command=True, example="swapproof sim --port 9000")
def sim(
    *,
    host: str = opt("Address to listen on.", default="127.0.0.1"),
    port: int = opt("Port; 0 selects a free port.", default=9000),
    profiles: Path | None = opt(
        "YAML file of simulated models. [default: the shipped models]",
        type=EXISTING_FILE,
    ),
    suites: tuple[str, ...] = opt(
        "Data file of a suite; may be repeated.",
        "--suite",
        metavar="[NAME=]FILE",
    ),
    time_scale: float = opt("Factor for all latencies; 0: no delay.", default=1.0),
    key_env: str | None = opt(
        "Environment variable with the key that requests must send.",
        metavar="NAME",
    ),
) -> None:
    """Serve simulated models over an OpenAI-compatible API, with fault switches.

    `swapproof sim traffic` sends requests of simulated callers to a router.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    from harness.app.configuration.model import ControlSettings  # noqa: PLC0415 - `--help` stays quick
    from harness.app.processes import require_port, simulate  # noqa: PLC0415 - `--help` stays quick

    if port:
        require_port(
            ControlSettings(host=host, port=port),
            service="the simulator",
            setting="--port",
        )
    simulate(
        host,
        port,
        profiles=profiles,
        suites=suites,
        time_scale=time_scale,
        key=os.environ.get(key_env, "") if key_env else "",
        on_ready=lambda url: click.echo(f"simulated provider at {url}/v1", err=True),
    )


assert isinstance(sim, click.Group)  # noqa: S101 - built with `cls=click.Group`


@command(sim, example="swapproof sim traffic support --until-settled")
def traffic(
    session: Session,
    names: tuple[str, ...] = arg("[ROUTE]..."),
    *,
    rate: float = opt(
        "Requests per second on each route.",
        type=FiniteRange(min=0.1, max=2000.0),
        default=50.0,
    ),
    seconds: float | None = opt(
        "End after this many seconds. [default: on Ctrl-C]",
        "--for",
        type=FiniteRange(min=0.0, min_open=True),
        metavar="SECONDS",
    ),
    until_settled: bool = opt("End when each route's open proposal has ended."),
    url: str = opt(
        "The router's address. [default: as configured]",
        metavar="URL",
        default="",
    ),
    key_env: str = opt(
        "Environment variable that holds the client key.",
        metavar="NAME",
        default=CLIENT_KEY_VARIABLE,
    ),
) -> None:
    """Send requests of simulated callers to the router, and print the state of their routes.

    Each request comes from a new caller. Without ROUTE, all routes get requests. Exit code 1 if
    all requests fail, 5 if --for ends before the proposals do, or if a proposal waits for an
    approval.
    """
    from harness.app.demo.traffic import send_traffic  # noqa: PLC0415 - `--help` stays quick
    from harness.routing.settings import http_url  # noqa: PLC0415 - `--help` stays quick

    key = os.environ.get(key_env, "")
    if not key:
        raise InputError(
            f"{key_env} is not set, but the router requires a client key: "
            f"`swapproof key create traffic` prints one; export it as {key_env}"
        )
    router = session.settings.router
    freeze_modules()
    result = send_traffic(
        session.context,
        url or http_url(router.host, router.port),
        key,
        routes=names,
        rate=rate,
        seconds=seconds,
        until_settled=until_settled,
        say=lambda text: click.echo(text, err=True),
    )
    output.documented(result)
    if not result.settled:
        raise SystemExit(TIMED_OUT_CODE)


@command(example="swapproof demo --once")
def demo(
    *,
    once: bool = opt("End after the scenarios."),
    swap: bool = opt("Exchange the accuracy of two candidates."),
) -> int:
    """Show Swapproof at work, with simulated providers and real processes.

    The exit code is 0 only if every scenario ends as expected.
    """
    freeze_modules()
    from harness.app.demo.director import run_demo  # noqa: PLC0415 - `--help` stays quick

    return run_demo(once=once, swap=swap)
