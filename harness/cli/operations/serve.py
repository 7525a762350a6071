"""Commands that run processes: `serve` (`router`, `control`, `ui`, `all`), `sim`, `demo`, and
the hidden workers of eval runs and of the router.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from harness.imports import pause_garbage_collection

PARTS = ("router", "control", "ui")


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
    from harness.app.database import require_database  # noqa: PLC0415
    from harness.app.installation import load_settings  # noqa: PLC0415 - as above
    from harness.app.processes import require_port  # noqa: PLC0415

    settings = load_settings(_config(context))
    require_database(settings)
    where = settings.control
    require_port(where, what="the control plane", setting="control.port")
    _run_entry_point("harness.api.control_process:main", _config(context))


@serve.command()
@click.pass_context
def ui(context: click.Context) -> None:
    """Serve the dashboard."""
    from harness.app.installation import load_settings  # noqa: PLC0415
    from harness.app.processes import require_port  # noqa: PLC0415

    where = load_settings(_config(context)).ui
    require_port(where, what="the dashboard", setting="ui.port")
    _run_entry_point("dashboard.serve:main", _config(context))


def _run_entry_point(entry_point: str, config: Path | None) -> None:
    """Call `module:function` with our arguments: the CLI knows API and dashboard by name."""
    module, _, function = entry_point.partition(":")
    with pause_garbage_collection():
        main = getattr(import_module(module), function)
    main(["--config", str(config)] if config else [])


@serve.command(name="all")
@click.pass_context
def serve_all(context: click.Context) -> None:
    """Router, control plane and dashboard together; Ctrl-C ends all three."""
    from harness.app.database import require_database  # noqa: PLC0415
    from harness.app.installation import load_settings  # noqa: PLC0415 - as above
    from harness.app.processes import supervise  # noqa: PLC0415 - as above

    config = _config(context)
    settings = load_settings(config)
    require_database(settings)
    commands: dict[str, Sequence[str]] = {
        part: command("serve", part, config=config) for part in PARTS
    }
    raise SystemExit(supervise(commands, settings, lambda text: click.echo(text, err=True)))


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
@click.option("--once", is_flag=True, help="End by itself instead of running until Ctrl-C.")
@click.option("--swap", is_flag=True, help="Exchange the skills of the two candidates.")
@click.pass_context
def demo(context: click.Context, *, once: bool, swap: bool) -> None:
    """Four stories with simulated providers: promoted, stopped, rolled back, provider lost."""
    from harness.app.demo.director import run_demo  # noqa: PLC0415 - `--help` stays quick

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
