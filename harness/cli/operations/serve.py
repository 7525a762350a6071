"""Commands that run processes: `serve` (`router`, `control`, `agents`, `ui`, `all`), `mcp`,
`worker`, and the hidden workers of eval runs and of the router.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click

from harness.cli.frame.session import KEY_VARIABLE, Session, pass_session
from harness.imports import leave_modules_alone, pause_garbage_collection

WHAT = {
    "router": "the router",
    "control": "the control plane",
    "agents": "the agents process",
    "ui": "the dashboard",
}
PARTS = tuple(WHAT)
# The control plane brings the file's routes in: the router need not miss them meanwhile. The
# addresses are said once for all.
BESIDE_OTHERS = "--beside-others"
MORE = {"router": ["--beside-control"], "control": [BESIDE_OTHERS], "ui": [BESIDE_OTHERS]}
# The CLI knows API and dashboard by name.
ENTRY_POINTS = {
    "control": "harness.api.app:main",
    "agents": "harness.api.agents.process:main",
    "ui": "dashboard.serve:main",
}
BESIDE = {
    part: {option.lstrip("-").replace("-", "_"): True for option in options}
    for part, options in MORE.items()
}
_beside_others = click.option(
    BESIDE_OTHERS,
    is_flag=True,
    hidden=True,
    help="Started by `serve all`, which says the addresses.",
)


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
@click.option(
    "--beside-control",
    is_flag=True,
    hidden=True,
    help="Started with a control plane, which brings in the file's routes.",
)
@click.pass_context
def router(context: click.Context, workers: int | None, *, beside_control: bool) -> None:
    """Serve production traffic: the OpenAI-compatible API.

    SIGTERM lets requests end; SIGHUP reads the configuration again, without losing one.
    """
    from harness.app import data_plane  # noqa: PLC0415 - `--help` stays quick

    with _announced(context, "router", beside_others=beside_control):
        code = data_plane.serve_router(_config(context), workers, beside_control=beside_control)
    raise SystemExit(code)


@serve.command()
@_beside_others
@click.pass_context
def control(context: click.Context, *, beside_others: bool) -> None:
    """Run the reconcile loop, eval workers and the management API."""
    _run_part(context, "control", beside_others=beside_others)


@serve.command()
@click.pass_context
def agents(context: click.Context) -> None:
    """Serve agents: their sessions over HTTP, below the router's /agents.

    SIGTERM lets answers end for as long as the router's requests may take.
    """
    _run_part(context, "agents", beside_others=True)


@serve.command()
@_beside_others
@click.pass_context
def ui(context: click.Context, *, beside_others: bool) -> None:
    """Serve the dashboard."""
    _run_part(context, "ui", beside_others=beside_others)


@contextmanager
def _announced(context: click.Context, part: str, *, beside_others: bool) -> Iterator[None]:
    """Says on a terminal where a part that was started alone is, as soon as it answers; a log
    has its lines alone.
    """
    if beside_others or not sys.stderr.isatty():
        yield
        return
    from harness.app import processes  # noqa: PLC0415 - `--help` stays quick
    from harness.app.installation import load_settings  # noqa: PLC0415 - as above

    settings = load_settings(_config(context))
    with processes.announcing(settings, [part], lambda text: click.echo(text, err=True)):
        yield


def _run_part(context: click.Context, part: str, *, beside_others: bool) -> None:
    """Run a part once its database and its port are found to be in order."""
    from harness.app.database import require_database  # noqa: PLC0415 - `--help` stays quick
    from harness.app.installation import load_settings  # noqa: PLC0415 - as above
    from harness.app.processes import require_port  # noqa: PLC0415 - as above

    settings = load_settings(_config(context))
    # The dashboard says on its pages what is wrong with the database.
    if part != "ui":
        require_database(settings)
    require_port(getattr(settings, part), what=WHAT[part], setting=f"{part}.port")
    with _announced(context, part, beside_others=beside_others):
        _run_entry_point(ENTRY_POINTS[part], _config(context))


def _run_entry_point(entry_point: str, config: Path | None, *more: str) -> None:
    """Call `module:function` with our arguments."""
    module, _, function = entry_point.partition(":")
    with pause_garbage_collection():
        main = getattr(import_module(module), function)
    leave_modules_alone()
    chosen = ["--config", str(config)] if config else []
    main([*chosen, *more])


@serve.command(name="all")
@click.pass_context
def serve_all(context: click.Context) -> None:
    """Router, control plane, agents and dashboard together; Ctrl-C ends all of them.

    Prints their addresses once they answer. `agents.enabled: false` leaves the agents out.
    """
    from harness.app import processes  # noqa: PLC0415
    from harness.app.database import import_store, require_database  # noqa: PLC0415 - as above
    from harness.app.installation import load_settings  # noqa: PLC0415 - as above

    config = _config(context)
    settings = load_settings(config)
    require_database(settings)
    parts = [part for part in PARTS if part != "agents" or settings.agents.enabled]
    processes.require_ports(settings, {part: WHAT[part] for part in parts})
    commands: dict[str, Sequence[str]] = {
        part: command("serve", part, *MORE.get(part, ()), config=config) for part in parts
    }

    def say(text: str) -> None:
        click.echo(text, err=True)

    def import_shared() -> None:
        import_store()
        if "agents" in parts:  # the control plane needs most of what it imports, too
            import_module(ENTRY_POINTS["agents"].partition(":")[0])

    code = processes.supervise(commands, settings, say, import_shared=import_shared)
    if isinstance(code, int):
        raise SystemExit(code)
    # A process of the part's own from here on.
    context.invoke(serve.commands[code], **BESIDE.get(code, {}))


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
@click.option(
    "--slots",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    help="Eval runs of this host at a time, each in a process of its own.",
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    help="Take only runs whose target this provider serves; may be given several times.",
)
@click.pass_context
def worker(context: click.Context, slots: int, providers: tuple[str, ...]) -> None:
    """Take eval runs from the queue that the workers of all hosts share.

    Needs `control.queue: procrastinate` in the configuration, and PostgreSQL. Start it on as
    many hosts as there shall be: each run goes to one of them, and to another one when its
    host dies. SIGTERM ends it: what it had goes on elsewhere.
    """
    from harness.app.worker_host import run_worker_host  # noqa: PLC0415 - as above

    run_worker_host(_config(context), slots=slots, providers=providers)


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
def eval_worker(context: click.Context, run: str, owner: str, parent: int) -> None:
    """Ask and score what one eval run still lacks."""
    from harness.app.eval_workers import run_worker  # noqa: PLC0415 - `--help` stays quick

    run_worker(_config(context), run, owner=owner, parent=parent)


@click.command(hidden=True)
@click.option(
    "--channel", type=int, required=True, help="File descriptor of the channel to the parent."
)
@click.pass_context
def eval_worker_template(context: click.Context, channel: int) -> None:
    """Fork eval workers for the runs that the parent names."""
    from harness.app.eval_workers import run_worker_template  # noqa: PLC0415 - as above

    run_worker_template(_config(context), channel=channel)


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
