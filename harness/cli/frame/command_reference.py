"""Generated documentation: the commands as Markdown, a transition table as a diagram."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from inspect import cleandoc
from typing import TypeVar

import click

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)

HEAD = """\
# The command line

<!-- Written by `swapgate docs generate`; do not edit. -->

Data goes to stdout; progress and errors go to stderr. Every command takes the global options,
before or after the verb. With `--json` stdout holds one JSON document; an error is
`{"error": {"kind", "message", "exit_code", "retryable"}}` there as well. `gate decide` and
`canary decide` report bad input on stderr only.

| Exit code | Means |
| --- | --- |
| 0 | passed, or done |
| 1 | an error |
| 2 | wrong usage, or invalid input: the message names file and line |
| 3 | the gate failed, or the canary must be rolled back |
| 4 | not enough evidence |
| 5 | timeout |
| 6 | a conflict: somebody else was first, or the route is busy |
| 7 | denied |
| 130 | interrupted |
"""


def cli_markdown(program: click.Command, name: str) -> str:
    """Every visible command with its usage, text and options."""
    with click.Context(program, info_name=name) as ctx:
        parts = [HEAD, _options("Global options", ctx)]
        parts += _commands(ctx)
    return "\n".join(parts).rstrip() + "\n"


def _commands(parent: click.Context) -> list[str]:
    group = parent.command
    if not isinstance(group, click.Group):
        return []
    found = []
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        with click.Context(command, info_name=name, parent=parent) as ctx:
            found.append(_command(ctx))
            found += _commands(ctx)
    return found


def _command(ctx: click.Context) -> str:
    level = "#" * ctx.command_path.count(" ")
    usage = " ".join(ctx.command.collect_usage_pieces(ctx))
    # Only newer Pythons take the indentation out of a docstring themselves.
    text = cleandoc(ctx.command.help or "")
    lines = [f"#{level} `{ctx.command_path}`", "", text, ""]
    if not isinstance(ctx.command, click.Group):
        lines += ["```text", f"{ctx.command_path} {usage}", "```", ""]
        lines += [options] if (options := _options("", ctx)) else []
    return "\n".join(lines)


def _options(title: str, ctx: click.Context) -> str:
    rows = []
    for param in ctx.command.get_params(ctx):
        record = param.get_help_record(ctx)
        known = title == "" and set(param.opts) & {"--json", "--help"}
        if record is not None and record[1] and not known:
            rows.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
    if not rows:
        return ""
    head = [f"## {title}", ""] if title else []
    return "\n".join([*head, "| Option | Meaning |", "| --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def diagram(
    transitions: Mapping[tuple[State, Event], State], *, start: State, live: Collection[State]
) -> str:
    """A Mermaid state diagram: an arrow per pair of states, with its events.

    live: the states that are not final.
    """
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), after in transitions.items():
        arrows.setdefault((state.value, after.value), []).append(event.value)
    final = [each for each in type(start) if each not in live]
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {start.value}",
        *(f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in arrows.items()),
        *(f"    {each.value} --> [*]" for each in final),
        "```",
    ]
    return "\n".join(lines)


def replace_diagram(text: str, name: str, content: str) -> str:
    """`text` with what stands between the markers of `name` replaced.

    Raises ValueError where the markers are missing.
    """
    begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the markers {begin} and {end} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"
