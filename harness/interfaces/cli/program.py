"""The root command `swapproof`. `VERBS` lists every command with its module and help."""

import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import click

from harness.frame.errors import SwapproofError
from harness.interfaces.cli.frame.command import (
    LazyCommand,
    LazyCommandGroup,
    read_example,
)
from harness.interfaces.cli.frame.session import Session, global_options

INTERRUPTED_CODE = 130


class RootCommand(LazyCommandGroup):
    """Ends every call with an exit code. With `--json`, an error is also a document."""

    def main(  # type: ignore[override]  # it always ends the process, in either mode
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "swapproof",
        **extra: Any,
    ) -> NoReturn:
        words = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(words, prog_name, **extra)
        except click.Abort:
            code = INTERRUPTED_CODE
        except click.ClickException as error:
            if isinstance(error, click.NoSuchCommand):
                error = _explain_retired(error)
            error.show()
            if isinstance(error, click.NoSuchCommand):
                _list_commands(error)
            elif isinstance(error, click.UsageError):
                _show_example(error)
            code = error.exit_code
            _print_error(words, type(error).__name__, error.format_message(), code)
        except SwapproofError as error:
            click.echo(f"swapproof: {error}", err=True)
            if error.docs_page and "docs" in self.lazy and sys.stderr.isatty():
                click.echo(
                    f"more about it: swapproof docs open {error.docs_page}",
                    err=True,
                )
            code = error.exit_code
            _print_error(
                words,
                type(error).__name__,
                str(error),
                code,
                retry=error.retryable,
            )
        except Exception as error:  # noqa: BLE001 - no error may leave a traceback without --debug
            code = 1
            _report_unexpected(words, error)
        sys.exit(code if isinstance(code, int) else 0)


def _explain_retired(error: click.NoSuchCommand) -> click.UsageError:
    try:
        from harness.app.configuration.validation_errors import RETIRED_COMMANDS  # noqa: PLC0415 - `--help` stays quick
    except ModuleNotFoundError:  # swapproof-try has no retired command, and no configuration
        return error
    words = [error.command_name]
    ctx = error.ctx
    while ctx is not None and ctx.parent is not None:
        words.insert(0, str(ctx.info_name))
        ctx = ctx.parent
    replacement = RETIRED_COMMANDS.get(" ".join(words))
    if replacement is None:
        return error
    return click.UsageError(
        f"`swapproof {' '.join(words)}` is retired: {replacement}", error.ctx
    )


def _list_commands(error: click.NoSuchCommand) -> None:
    group = error.ctx.command if error.ctx else None
    if not error.possibilities and isinstance(group, click.Group) and error.ctx:
        names = (name for name in group.list_commands(error.ctx) if name not in _HIDDEN)
        click.echo(f"There are: {', '.join(names)}.", err=True)


def _show_example(error: click.UsageError) -> None:
    example = read_example(error.ctx.command) if error.ctx else ""
    if example:
        click.echo(f"Example: {example}", err=True)


def _report_unexpected(words: Sequence[str], error: Exception) -> None:
    if "--debug" in words:
        click.echo(traceback.format_exc(), err=True, nl=False)
    text = f"{type(error).__name__}: {error}"
    click.echo(
        f"swapproof: unexpected error: {text}. This is a fault of Swapproof: report it with "
        "the output of the same command with --debug",
        err=True,
    )
    _print_error(words, "Unexpected", text, 1)


def _print_error(
    words: Sequence[str],
    kind: str,
    message: str,
    code: int,
    *,
    retry: bool = False,
) -> None:
    if "--json" not in words:
        return
    error = {
        "kind": kind,
        "message": message,
        "exit_code": code,
        "retryable": retry,
    }
    click.echo(json.dumps({"error": error}, ensure_ascii=False, indent=2))


def _print_version(
    ctx: click.Context,
    _: click.Parameter,
    value: bool,  # noqa: FBT001 - click's signature
) -> None:
    if value and not ctx.resilient_parsing:
        from importlib import metadata  # noqa: PLC0415 - it takes a fifth of `--help`

        click.echo(f"swapproof {metadata.version('swapproof')}")
        ctx.exit()


# By heading of the help and by verb: the command's module, and the first line of its help.
_SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Start": {
        "try": (
            ".evals.try_command:try_",
            "Give a first answer about a candidate, from results or questions that you have.",
        ),
        "attach": (
            ".attach:attach_",
            "Read the traffic that you have logged, and say what a swap would save and need.",
        ),
        "init": (".operations.init", "Set up Swapproof in this folder."),
        "serve": (".operations.serve", "Run Swapproof's processes."),
        "worker": (
            ".operations.serve",
            "Take eval runs from the queue that the workers of all hosts share.",
        ),
        "status": (
            ".operations.status",
            "Show the state of all routes, and what waits for a person.",
        ),
        "doctor": (
            ".operations.doctor",
            "Check the installation, and show what to fix.",
        ),
        "docs": (".operations.docs", "The docs that ship with Swapproof."),
        "demo": (
            ".operations.serve",
            "Show Swapproof at work, with simulated providers and real processes.",
        ),
        "sim": (
            ".operations.serve",
            "Serve simulated models over an OpenAI-compatible API, with fault switches.",
        ),
    },
    "Providers, models, routes": {
        "provider": (
            ".providers",
            "Providers: where models are called, and their keys.",
        ),
        "model": (
            ".routing.models",
            "Targets: models at providers, with prices.",
        ),
        "route": (
            ".routing.routes",
            "Routes: the names that clients use as `model`.",
        ),
    },
    "Swap a model": {
        "proposal": (
            ".proposals.proposal",
            "Proposals: requests to swap a route's model.",
        ),
        "label": (
            ".proposals.label",
            "Compare the answers of two models, blind, until the labels suffice.",
        ),
        "canary": (
            ".canary",
            "Canaries: a candidate on a small share of the traffic.",
        ),
        "shadow": (
            ".shadow",
            "Shadows: requests mirrored to a candidate, whose answers callers never get.",
        ),
        "eval": (
            ".evals.runs:eval_group",
            "Eval runs: one suite on one target.",
        ),
        "suite": (
            ".evals.suites",
            "Suites: items with a scorer, which measure models.",
        ),
        "capture": (
            ".evals.suites",
            "Captured requests: redacted requests from production, for labelling.",
        ),
        "gate": (
            ".evals.file_decision",
            "The gate's rule, for files, two targets, or stored verdicts.",
        ),
        "proof": (
            ".proposals.proof",
            "Proofs: the evidence for a swap, in a file that anyone can verify.",
        ),
    },
    "Watch": {
        "alert": (
            ".operations.audit",
            "Alerts: open faults, and who was notified.",
        ),
        "drift": (
            ".drift",
            "The drift watch: whether models still answer as before.",
        ),
        "switch": (
            ".routing.holds",
            "Switches: force or avoid a provider or a target, or freeze routes.",
        ),
        "agent": (".agents", "Agents: their switch requests and grants."),
        "audit": (
            ".operations.audit",
            "The audit log: append-only, hash-chained.",
        ),
        "spending": (
            ".operations.status",
            "Show this month's costs (UTC) of evals, judges, shadows, drift checks and agents.",
        ),
    },
    "Set up": {
        "key": (
            ".operations.client_keys",
            "Keys that Swapproof issues to clients and people.",
        ),
        "person": (
            ".operations.client_keys",
            "People: which principals are one person, and who is signed in.",
        ),
        "user": (".agents", "Users of the clients: delete a user's data."),
        "config": (".operations.configuration", "The configuration."),
        "db": (
            ".operations.database",
            "The database: its schema, and the signatures of its rows.",
        ),
        "mcp": (
            ".operations.serve",
            "Serve tools to agents over MCP: on stdin and stdout, or over HTTP.",
        ),
        "completion": (
            ".operations.docs",
            "Print the completion script of a shell.",
        ),
    },
}
# Only Swapproof's own processes start these commands.
_HIDDEN: Final = {
    "eval-worker": (
        ".operations.serve",
        "Ask and score the missing items of an eval run.",
    ),
    "eval-worker-template": (
        ".operations.serve",
        "Fork eval workers for the runs that the parent names on stdin.",
    ),
    "router-worker": (
        ".operations.serve",
        "Serve requests for `swapproof serve router`, which sends the settings on stdin.",
    ),
}
# Computed, because the package's name is `swapproof.harness…` in a wheel.
_PACKAGE: Final = __name__.rpartition(".")[0]


def _locate(verb: str, location: str) -> str:
    return (
        f"{_PACKAGE}{location}"
        if ":" in location
        else f"{_PACKAGE}{location}:{verb.replace('-', '_')}"
    )


VERBS = {
    name: LazyCommand(_locate(name, location), text, hidden=name in _HIDDEN)
    for verbs in (*_SECTIONS.values(), _HIDDEN)
    for name, (location, text) in verbs.items()
}


@click.command(
    cls=RootCommand,
    lazy=VERBS,
    sections={heading: tuple(verbs) for heading, verbs in _SECTIONS.items()},
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 96,
    },
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
def program(ctx: click.Context) -> None:
    """Change the model behind an LLM feature with proof.

    Without a command, `swapproof` shows the state of all routes, and what waits for a person.
    Global options may stand before or after the verb.
    """
    ctx.call_on_close(ctx.ensure_object(Session).close)
    if ctx.invoked_subcommand is None:
        ctx.invoke(VERBS["status"].load(), is_watching=False)


program.params.extend(global_options(root=True))
