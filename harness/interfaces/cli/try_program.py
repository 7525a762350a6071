"""The root command `swapproof-try`: the commands of `swapproof` that need only files.

The distribution `swapproof-try` holds this module and what its commands import (ADR 0049).
`swapproof` has the same commands.
"""

import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from harness.frame.errors import InputError
from harness.frame.imports import delay_collection
from harness.interfaces.cli.evals.file_decision import DECIDE, DECIDE_CANARY
from harness.interfaces.cli.frame.command import LazyCommandGroup
from harness.interfaces.cli.frame.session import Session, adopt_options, global_options
from harness.interfaces.cli.program import VERBS, RootCommand
from harness.interfaces.cli.proposals.proof_verification import VERIFY

NAME: Final = "swapproof-try"
_GROUPS: Final = (
    LazyCommandGroup("gate", lazy={"decide": DECIDE}, help="The gate's rule, for files."),
    LazyCommandGroup(
        "canary", lazy={"decide": DECIDE_CANARY}, help="The canary's rule, for files."
    ),
    LazyCommandGroup("proof", lazy={"verify": VERIFY}, help=VERBS["proof"].help),
)
_ROOT_OPTIONS: Final = frozenset({"-h", "--help", "--version"})


class TryRoot(RootCommand):
    """Runs `try` if the first word names no command."""

    def main(  # type: ignore[override]  # as RootCommand
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = NAME,
        **extra: Any,
    ) -> NoReturn:
        words = list(sys.argv[1:] if args is None else args)
        super().main(self._complete(words), prog_name, **extra)

    def _complete(self, words: Sequence[str]) -> list[str]:
        first = next((word for word in words if not word.startswith("-")), None)
        is_complete = first in (*self.lazy, *self.commands)
        if is_complete or (first is None and _ROOT_OPTIONS.intersection(words)):
            return list(words)
        return ["try", *words]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if _find_version("swapproof"):
                raise
            raise InputError(
                f"this needs the package swapproof, and only {NAME} is installed: add it with "
                f"`{sys.executable} -m pip install swapproof=={_find_version(NAME)}`"
            ) from error


def _find_version(distribution: str) -> str:
    """Returns the version of an installed distribution; empty if it is not installed."""
    from importlib import metadata  # noqa: PLC0415 - `try` stays quick

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _print_version(
    ctx: click.Context,
    _: click.Parameter,
    value: bool,  # noqa: FBT001 - click's signature
) -> None:
    if value and not ctx.resilient_parsing:
        # A checkout has the modules of both distributions, and is installed as `swapproof`.
        click.echo(f"{NAME} {_find_version(NAME) or _find_version('swapproof')}")
        ctx.exit()


@click.command(
    cls=TryRoot,
    lazy={"try": VERBS["try"], "attach": VERBS["attach"]},
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 96,
    },
    epilog="Exit codes: 0 passed or ok, 1 error, 2 usage, 3 gate failed, 4 inconclusive.",
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
    """Judge a candidate model from files that you have.

    Without a command's name, `swapproof-try` runs `try`: `swapproof-try a.json b.json`. The
    whole of Swapproof is the package `swapproof`, which has these commands too.
    """
    ctx.ensure_object(Session)


program.params.extend(
    option for option in global_options(root=True) if option.name in {"json", "debug"}
)
for _group in _GROUPS:
    program.add_command(adopt_options(_group))


def main() -> None:
    """Starts the command `swapproof-try`. Does not return."""
    delay_collection()
    program(prog_name=NAME)


if __name__ == "__main__":
    main()
