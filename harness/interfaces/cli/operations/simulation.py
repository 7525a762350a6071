"""Commands that simulate: `sim`, `sim traffic` and `demo`."""

import os
from pathlib import Path

import click

from harness.config.model import ControlSettings
from harness.frame.errors import InputError
from harness.frame.imports import leave_modules_alone
from harness.interfaces.cli.frame.command import EXISTING_FILE, FiniteRange, arg, command, opt
from harness.interfaces.cli.frame.session import Session
from harness.routing.settings import http_url

KEY_VARIABLE = "SWAPGATE_KEY"
TIMED_OUT = 5


@command(cls=click.Group, invoke_without_command=True)
def sim(
    *,
    host: str = opt("Address to listen on.", default="127.0.0.1"),
    port: int = opt("Port; 0 selects a free port.", default=9000),
    profiles: Path | None = opt(
        "YAML file of simulated models. [default: the shipped models]", type=EXISTING_FILE
    ),
    suites: tuple[str, ...] = opt(
        "Data file of a suite; may be repeated.", "--suite", metavar="[NAME=]FILE"
    ),
    time_scale: float = opt("Factor for all latencies; 0: no delay.", default=1.0),
    key_env: str | None = opt(
        "Environment variable with the key that requests must send.", metavar="NAME"
    ),
) -> None:
    """Serve simulated models over an OpenAI-compatible API, with fault switches.

    `swapgate sim traffic` sends requests of simulated users to a router.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    from harness.app.processes import require_port, simulate  # noqa: PLC0415 - `--help` stays quick

    if port:
        require_port(
            ControlSettings(host=host, port=port), what="the simulator", setting="--port"
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


assert isinstance(sim, click.Group)  # noqa: S101 - `cls` says so


@command(sim)
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
    url: str = opt("The router's address. [default: as configured]", metavar="URL", default=""),
    key_env: str = opt(
        "Environment variable that holds the client key.", metavar="NAME", default=KEY_VARIABLE
    ),
) -> None:
    """Send requests of simulated users to the router, and print the state of their routes.

    Each request comes from a new user. Without ROUTE, all routes get requests. Exit code 5 if
    --for ends before the proposals do, or if a proposal waits for an approval.
    """
    from harness.app.demo.user_traffic import send_traffic  # noqa: PLC0415 - `--help` stays quick

    key = os.environ.get(key_env, "")
    if not key:
        raise InputError(
            f"{key_env} is not set, but the router requires a client key: "
            f"`swapgate key create traffic` prints one; export it as {key_env}"
        )
    router = session.settings.router
    leave_modules_alone()
    settled = send_traffic(
        session.context,
        url or http_url(router.host, router.port),
        key,
        routes=names,
        rate=rate,
        seconds=seconds,
        until_settled=until_settled,
        say=lambda text: click.echo(text, err=True),
    )
    if not settled:
        raise SystemExit(TIMED_OUT)


@command()
def demo(
    *,
    once: bool = opt("End after one round."),
    swap: bool = opt("Exchange the skills of two candidates."),
) -> int:
    """Show Swapgate at work, with simulated providers and real processes.

    The exit code is 0 only if every story ends as expected.
    """
    leave_modules_alone()
    from harness.app.demo.director import run_demo  # noqa: PLC0415 - `--help` stays quick

    return run_demo(once=once, swap=swap)
