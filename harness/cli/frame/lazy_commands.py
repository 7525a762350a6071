"""`LazyCommandGroup` is a click group whose commands are imported when they are called:
`--help` and completion work from a table of names and texts (`LazyCommand`), and stay quick.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from harness.cli.frame.session import adopt_options
from harness.imports import import_plain_structlog, pause_garbage_collection


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command that is imported when it is called."""

    where: str  # `module:attribute`
    help: str  # the first line of the command's own help
    hidden: bool = False

    def load(self) -> click.Command:
        module, _, attribute = self.where.partition(":")
        with pause_garbage_collection():
            import_plain_structlog()
            command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.where} is no command")
        return command


class LazyCommandGroup(click.Group):
    """A group whose commands stand in a table; listing them imports none.

    sections: headings of its help, each with the names of commands.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, LazyCommand] | None = None,
        sections: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.sections = dict(sections or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Lists the commands in the order of the table."""
        return [*self.lazy, *(n for n in super().list_commands(ctx) if n not in self.lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy and cmd_name not in self.commands:
            self.commands[cmd_name] = adopt_options(self.lazy[cmd_name].load())
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            names = self.list_commands(ctx)
            raise click.NoSuchCommand(
                error.command_name, possibilities=names, ctx=ctx
            ) from None

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        rows = dict(self._visible())
        width = max(map(len, rows), default=0)
        for heading, names in self._grouped(rows):
            with formatter.section(heading):
                # All as wide as the widest: the texts of all sections stand in one column.
                formatter.write_dl([(name.ljust(width), rows[name]) for name in names])

    def _grouped(self, names: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
        """Gives the headings of the help with the names under each."""
        if not self.sections:
            yield "Commands", list(names)
            return
        yield from self.sections.items()
        placed = {name for section in self.sections.values() for name in section}
        if others := [name for name in names if name not in placed]:
            yield "Others", others

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        options = click.Command.shell_complete(self, ctx, incomplete)
        return options + [
            CompletionItem(name, help=text)
            for name, text in self._visible()
            if name.startswith(incomplete)
        ]

    def _visible(self) -> list[tuple[str, str]]:
        eager = {
            name: LazyCommand("", command.get_short_help_str(200), command.hidden)
            for name, command in self.commands.items()
        }
        shown = {**eager, **self.lazy}
        names = [*self.lazy, *(name for name in sorted(eager) if name not in self.lazy)]
        return [(name, shown[name].help) for name in names if not shown[name].hidden]
