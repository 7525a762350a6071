"""Commands that run processes: `serve` (`router`, `control`, `agents`, `ui`, `all`), `mcp`,
`sim`, `demo`, and the hidden workers of eval runs and of the router.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click

from harness.cli.frame.session import KEY_VARIABLE, Session, pass_session
from harness.imports import pause_garbage_collection

PARTS = ("router", "control", "agents", "ui")


def command(*words: str, config: Path | None = None) -> list[str]:
    """The argv that runs one of our commands in a process of its own."""
    chosen = ["--config", str(config)] if config else []
    return [sys.executable, "-m", "swapgate", *chosen, *words]


def _config(context: click.Context) -> Path | None:
    given = context.find_root().params.get("config")
    return Path(given) if given else None


@click.group()
def serve() -> None:
    """Run Swapgate's processes."""


@serve.command()
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Number of worker processes; by default router.workers of the configuration.",
)
@click.pass_context
def router(context: click.Context, workers: int | None) -> None:
    """Serve production traffic: the OpenAI-compatible API.

    SIGTERM lets requests end; SIGHUP reads the configuration again, without losing one.
    """
    from harness.app import data_plane  # noqa: PLC0415 - `--help` stays quick

    raise SystemExit(data_plane.serve_router(_config(context), workers))


@serve.command()
@click.pass_context
def control(context: click.Context) -> None:
    """Run the reconcile loop, eval workers and the management API."""
    _run_part(context, "control", "the control plane", "harness.api.control_process:main")


@serve.command()
@click.pass_context
def agents(context: click.Context) -> None:
    """Serve agents: their sessions over HTTP, below the router's /agents.

    SIGTERM lets answers end for as long as the router's requests may take.
    """
    _run_part(context, "agents", "the agents process", "harness.api.agents.process:main")


@serve.command()
@click.pass_context
def ui(context: click.Context) -> None:
    """Serve the dashboard."""
    _run_part(context, "ui", "the dashboard", "dashboard.serve:main")


def _run_part(context: click.Context, part: str, what: str, entry_point: str) -> None:
    """Run a part once its database and its port are found to be in order."""
    from harness.app.database import require_database  # noqa: PLC0415 - `--help` stays quick
    from harness.app.installation import load_settings  # noqa: PLC0415 - as above
    from harness.app.processes import require_port  # noqa: PLC0415 - as above

    settings = load_settings(_config(context))
    # The dashboard says on its pages what is wrong with the database.
    if part != "ui":
        require_database(settings)
    require_port(getattr(settings, part), what=what, setting=f"{part}.port")
    _run_entry_point(entry_point, _config(context))


def _run_entry_point(entry_point: str, config: Path | None, *more: str) -> None:
    """Call `module:function` with our arguments: the CLI knows API and dashboard by name."""
    module, _, function = entry_point.partition(":")
    with pause_garbage_collection():
        main = getattr(import_module(module), function)
    chosen = ["--config", str(config)] if config else []
    main([*chosen, *more])


@serve.command(name="all")
@click.pass_context
def serve_all(context: click.Context) -> None:
    """Router, control plane, agents and dashboard together; Ctrl-C ends all of them.

    `agents.enabled: false` leaves the agents out.
    """
    from harness.app.database import require_database  # noqa: PLC0415
    from harness.app.installation import load_settings  # noqa: PLC0415 - as above
    from harness.app.processes import supervise  # noqa: PLC0415 - as above

    config = _config(context)
    settings = load_settings(config)
    require_database(settings)
    parts = [part for part in PARTS if part != "agents" or settings.agents.enabled]
    commands: dict[str, Sequence[str]] = {
        part: command("serve", part, config=config) for part in parts
    }
    raise SystemExit(supervise(commands, settings, lambda text: click.echo(text, err=True)))


@click.command()
@click.option(
    "--http", is_flag=True, help="Serve streamable HTTP, at /mcp, with callers' keys."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on, for --http."
)
@click.option("--port", default=8086, show_default=True, help="Port, for --http.")
@click.option(
    "--session",
    "agent_session",
    default="",
    metavar="ID",
    help="The agent's session in whose name switch_model and spawn are called.",
)
@pass_session
def mcp(session: Session, *, http: bool, host: str, port: int, agent_session: str) -> None:
    """Serve tools to agents over MCP: on stdin and stdout, or over HTTP.

    An agent may look, and propose a swap; it can never approve one. On stdin and stdout it acts
    with the management key of --key-file, or with a data key there; without a key as the
    operator, who then proposes at most.
    """
    from harness.app.database import require_database  # noqa: PLC0415
    from harness.app.processes import require_port  # noqa: PLC0415 - as above

    require_database(session.settings)
    chosen = ["--session", agent_session]
    if http:
        where = replace(session.settings.agents, host=host, port=port)
        require_port(where, what="the MCP server", setting="--port")
        chosen += ["--http", "--host", host, "--port", str(port)]
    elif (text := session.key_text()) is not None:
        os.environ[KEY_VARIABLE] = text
    _run_entry_point("harness.api.mcp.process:main", session.config, *chosen)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9000, show_default=True, help="Port; 0 takes a free one.")
@click.option(
    "--profiles",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML file of simulated models; by default the shipped ones.",
)
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Data file of a suite; may be repeated.",
)
@click.option(
    "--swap", "swaps", multiple=True, metavar="A=B", help="Exchange the skills of two models."
)
@click.option(
    "--time-scale",
    default=1.0,
    show_default=True,
    help="Factor on all latencies; 0 answers at once.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the random latencies and faults."
)
@click.option(
    "--key-env",
    metavar="NAME",
    help="Refuse requests without the key in this environment variable.",
)
@click.option("--no-switches", is_flag=True, help="Do not offer fault switches under /sim/.")
def sim(  # noqa: PLR0913 - the options of the command, one by one
    *,
    host: str,
    port: int,
    profiles: Path | None,
    suites: tuple[str, ...],
    swaps: tuple[str, ...],
    time_scale: float,
    seed: int,
    key_env: str | None,
    no_switches: bool,
) -> None:
    """Serve simulated models over an OpenAI-compatible API, with fault switches."""
    from harness.app.processes import simulate  # noqa: PLC0415 - `--help` stays quick

    simulate(
        host,
        port,
        profiles=profiles,
        suites=suites,
        swaps=swaps,
        time_scale=time_scale,
        seed=seed,
        allow_switches=not no_switches,
        key=os.environ.get(key_env, "") if key_env else "",
        on_ready=lambda url: click.echo(f"simulated provider at {url}/v1", err=True),
    )


@click.command()
@click.argument("story", type=click.Choice(["models", "agents"]), default="models")
@click.option("--once", is_flag=True, help="End by itself, and approve what agents ask for.")
@click.option("--swap", is_flag=True, help="models: exchange the skills of the candidates.")
@click.pass_context
def demo(context: click.Context, *, story: str, once: bool, swap: bool) -> None:
    """Show what Swapgate does, with simulated providers and real processes.

    `models`: a candidate is promoted, one stopped, one rolled back, a provider lost. `agents`:
    an agent loses its provider, asks for another model, which a person approves, and goes on in
    another protocol with all that was said.
    """
    if story == "agents":
        from harness.app.demo.agents_director import run_agents_demo  # noqa: PLC0415 - `--help` stays quick

        context.exit(run_agents_demo(once=once))
    from harness.app.demo.director import run_demo  # noqa: PLC0415 - as above

    context.exit(run_demo(once=once, swap=swap))


@click.command(hidden=True)
@click.argument("run")
@click.option("--owner", required=True, help="This worker's name on the lease.")
@click.option(
    "--parent",
    type=int,
    required=True,
    help="Process id of the parent; the worker ends with it.",
)
@click.pass_context
def worker(context: click.Context, run: str, owner: str, parent: int) -> None:
    """Ask and score what one eval run still lacks."""
    from harness.app.eval_workers import run_worker  # noqa: PLC0415 - `--help` stays quick

    given = context.find_root().params.get("config")
    run_worker(Path(given) if given else None, run, owner=owner, parent=parent)


@click.command(hidden=True)
@click.option("--slot", type=int, required=True, help="Number of this worker.")
@click.option(
    "--channel", type=int, required=True, help="File descriptor of the channel to the parent."
)
@click.option(
    "--listen",
    "listeners",
    type=int,
    multiple=True,
    help="File descriptor of a listening socket.",
)
def router_worker(slot: int, channel: int, listeners: tuple[int, ...]) -> None:  # noqa: ARG001 - the slot tells workers apart in `ps`
    """Serve requests for `swapgate serve router`, which sends the settings on stdin."""
    from harness.app.router_process import run_router_worker  # noqa: PLC0415 - as above

    run_router_worker(sys.stdin.buffer.read(), channel=channel, listeners=listeners)
