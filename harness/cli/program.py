"""The root command `swapgate`: `VERBS` names every command with its module and help;
`RootCommand` ends a call with an exit code, and an error with one sentence on stderr and, with
`--json`, a document.
"""

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.session import Session, global_options
from harness.domain.errors import SwapgateError

INTERRUPTED = 130


class RootCommand(LazyCommandGroup):
    """Ends every call with an exit code; an error is one sentence on stderr.

    With --json it is a document on stdout as well: {"error": {kind, message, …}}.
    """

    def main(  # type: ignore[override]  # it always ends the process, in either mode
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "swapgate",
        **extra: Any,
    ) -> NoReturn:
        words = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(words, prog_name, **extra)
        except click.Abort:
            code = INTERRUPTED
        except click.ClickException as error:
            if isinstance(error, click.NoSuchCommand):
                error = _if_retired(error)
            error.show()
            if isinstance(error, click.NoSuchCommand):
                _list_commands(error)
            code = error.exit_code
            _document(words, type(error).__name__, error.format_message(), code)
        except SwapgateError as error:
            click.echo(f"swapgate: {error}", err=True)
            if error.docs_page and sys.stderr.isatty():
                click.echo(f"more about it: swapgate docs open {error.docs_page}", err=True)
            code = error.exit_code
            _document(words, type(error).__name__, str(error), code, retry=error.retryable)
        except Exception as error:  # noqa: BLE001 - the last resort says it in a sentence
            code = 1
            _unexpected(words, error)
        sys.exit(code if isinstance(code, int) else 0)


def _if_retired(error: click.NoSuchCommand) -> click.UsageError:
    """Returns an error that names the replacement, where the command is retired."""
    from harness.config.validation_errors import RETIRED_COMMANDS  # noqa: PLC0415 - `--help` stays quick

    words, ctx = [error.command_name], error.ctx
    while ctx is not None and ctx.parent is not None:
        words.insert(0, str(ctx.info_name))
        ctx = ctx.parent
    instead = RETIRED_COMMANDS.get(" ".join(words))
    if instead is None:
        return error
    return click.UsageError(f"`swapgate {' '.join(words)}` is retired: {instead}", error.ctx)


def _list_commands(error: click.NoSuchCommand) -> None:
    """Names the commands that there are, where none is like the one that was asked for."""
    group = error.ctx.command if error.ctx else None
    if not error.possibilities and isinstance(group, click.Group) and error.ctx:
        names = ", ".join(group.list_commands(error.ctx))
        click.echo(f"There are: {names}.", err=True)


def _unexpected(words: Sequence[str], error: Exception) -> None:
    if "--debug" in words:
        click.echo(traceback.format_exc(), err=True, nl=False)
    said = f"{type(error).__name__}: {error}"
    click.echo(
        f"swapgate: unexpected error: {said}. This is a fault of Swapgate: report it with what "
        "the same command prints with --debug",
        err=True,
    )
    _document(words, "Unexpected", said, 1)


def _document(
    words: Sequence[str], kind: str, message: str, code: int, *, retry: bool = False
) -> None:
    if "--json" not in words:
        return
    error = {"kind": kind, "message": message, "exit_code": code, "retryable": retry}
    click.echo(json.dumps({"error": error}, ensure_ascii=False, indent=2))


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value and not ctx.resilient_parsing:
        from importlib import metadata  # noqa: PLC0415 - it takes a fifth of `--help`

        click.echo(f"swapgate {metadata.version('swapgate')}")
        ctx.exit()


VERBS = {
    "init": LazyCommand("harness.cli.operations.init:init", "Set up Swapgate in this folder."),
    "serve": LazyCommand("harness.cli.operations.serve:serve", "Run Swapgate's processes."),
    "status": LazyCommand(
        "harness.cli.operations.status:status",
        "Show where things stand, and what waits for a person.",
    ),
    "spending": LazyCommand(
        "harness.cli.operations.status:spending",
        "Show what evals, judges, shadows, drift checks and agents cost in this month (UTC).",
    ),
    "doctor": LazyCommand(
        "harness.cli.operations.doctor:doctor", "Check the installation, and say what to fix."
    ),
    "demo": LazyCommand(
        "harness.cli.operations.simulation:demo",
        "Show what Swapgate does, with simulated providers and real processes.",
    ),
    "sim": LazyCommand(
        "harness.cli.operations.simulation:sim",
        "Serve simulated models over an OpenAI-compatible API, with fault switches.",
    ),
    "mcp": LazyCommand(
        "harness.cli.operations.serve:mcp",
        "Serve tools to agents over MCP: on stdin and stdout, or over HTTP.",
    ),
    "worker": LazyCommand(
        "harness.cli.operations.serve:worker",
        "Take eval runs from the queue that the workers of all hosts share.",
    ),
    "eval-worker": LazyCommand(
        "harness.cli.operations.serve:eval_worker",
        "Ask and score what one eval run still lacks.",
        hidden=True,
    ),
    "eval-worker-template": LazyCommand(
        "harness.cli.operations.serve:eval_worker_template",
        "Fork eval workers for the runs that the parent names.",
        hidden=True,
    ),
    "router-worker": LazyCommand(
        "harness.cli.operations.serve:router_worker",
        "Serve requests for `swapgate serve router`, which sends the settings on stdin.",
        hidden=True,
    ),
    "provider": LazyCommand(
        "harness.cli.providers:provider", "Providers: where models are called, and their keys."
    ),
    "model": LazyCommand(
        "harness.cli.routing.models:model", "Targets: models at providers, with prices."
    ),
    "route": LazyCommand(
        "harness.cli.routing.routes:route", "Routes: the names that clients use as `model`."
    ),
    "eval": LazyCommand(
        "harness.cli.evals.runs:eval_group", "Eval runs: one suite on one target."
    ),
    "suite": LazyCommand(
        "harness.cli.evals.suite_import:suite",
        "Suites: items with their scorer, by which models are measured.",
    ),
    "capture": LazyCommand(
        "harness.cli.evals.captures:capture",
        "Captured requests: from production, redacted, to be labelled.",
    ),
    "proposal": LazyCommand(
        "harness.cli.proposals.proposal:proposal",
        "Proposals: requests to swap a route's model.",
    ),
    "proof": LazyCommand(
        "harness.cli.proposals.proof:proof",
        "Proofs: what one swap rests on, in a file that others can verify.",
    ),
    "canary": LazyCommand(
        "harness.cli.canary:canary", "Canaries: a candidate on a small share of the traffic."
    ),
    "shadow": LazyCommand(
        "harness.cli.shadow:shadow",
        "Shadows: requests mirrored to a candidate, whose answers no user gets.",
    ),
    "switch": LazyCommand(
        "harness.cli.routing.kill_switch:switch",
        "The kill switch: force a provider or a target.",
    ),
    "agent": LazyCommand(
        "harness.cli.agents:agent",
        "Agents: what they ask people for, and what they were granted.",
    ),
    "alert": LazyCommand(
        "harness.cli.operations.alerts:alert",
        "Alerts: what is wrong now, and who was notified.",
    ),
    "drift": LazyCommand(
        "harness.cli.drift:drift", "The drift watch: whether models still answer as they did."
    ),
    "gate": LazyCommand(
        "harness.cli.evals.file_decision:gate",
        "The gate's rule, on files, on two targets, and on stored verdicts again.",
    ),
    "key": LazyCommand(
        "harness.cli.operations.client_keys:key",
        "Keys of Swapgate's own, for clients and for people.",
    ),
    "person": LazyCommand(
        "harness.cli.operations.people:person",
        "People: who of the principals is one person, and who is signed in.",
    ),
    "user": LazyCommand(
        "harness.cli.agents:user",
        "Users of the clients: delete what one said and got.",
    ),
    "audit": LazyCommand(
        "harness.cli.operations.audit:audit", "The audit log: append-only, hash-chained."
    ),
    "db": LazyCommand(
        "harness.cli.operations.database:db",
        "The database: its schema, and the signatures of its rows.",
    ),
    "config": LazyCommand("harness.cli.operations.configuration:config", "The configuration."),
    "completion": LazyCommand(
        "harness.cli.operations.docs:completion", "Print a shell's completion."
    ),
    "docs": LazyCommand(
        "harness.cli.operations.docs:docs", "The docs that ship with Swapgate."
    ),
}

SECTIONS = {
    "Start": ("init", "serve", "worker", "status", "doctor", "docs", "demo", "sim"),
    "Providers, models, routes": ("provider", "model", "route"),
    "Swap a model": (
        "proposal",
        "canary",
        "shadow",
        "eval",
        "suite",
        "capture",
        "gate",
        "proof",
    ),
    "Watch": ("alert", "drift", "switch", "agent", "audit", "spending"),
    "Set up": (
        "key",
        "person",
        "user",
        "config",
        "db",
        "mcp",
        "completion",
    ),
}


@click.command(
    cls=RootCommand,
    lazy=VERBS,
    sections=SECTIONS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
    epilog="Exit codes: 0 passed or ok, 1 error, 2 usage, 3 gate failed, 4 inconclusive, "
    "5 timeout, 6 conflict, 7 denied.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.pass_context
def program(ctx: click.Context, config: Path | None) -> None:  # noqa: ARG001 - serve looks for it in the root's params
    """Change the model behind an LLM feature with proof.

    Without a command it shows where things stand, and what waits for a person. Global options
    are accepted before and after the verb.
    """
    ctx.call_on_close(ctx.ensure_object(Session).close)
    if ctx.invoked_subcommand is None:
        ctx.invoke(VERBS["status"].load(), watched=False)


program.params.extend(global_options(root=True))
