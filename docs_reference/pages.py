"""Gathers each generated file of docs/ with the text that it should have: the reference pages,
and the state diagrams of proposal and rollout.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from inspect import cleandoc
from pathlib import Path
from typing import TypeVar

import click

from docs_reference.registries import (
    content_tables,
    error_table,
    list_keys,
    list_policies,
    list_policy_keys,
    metric_tables,
    table,
)
from docs_reference.router_tables import (
    END_HEADS,
    FAULT_HEADS,
    HISTORY_HEADS,
    end_rows,
    fault_rows,
    history_rows,
)
from harness import package_data
from harness.domain.canary import rollout
from harness.domain.errors import ConfigError, InputError
from harness.domain.proposals import proposal

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


def generated_files(program: click.Command, folder: Path) -> dict[Path, str]:
    """Returns each generated file with the text it should have. Raises ConfigError,
    InputError.
    """
    reference = folder / "reference"
    shipped = package_data.path("config/default.yaml").read_text(encoding="utf-8")
    parts = {
        folder / "explanation" / "architecture.md": diagrams(),
        reference / "router.md": {
            "history": table(HISTORY_HEADS, history_rows()),
            "whose fault": table(FAULT_HEADS, fault_rows()),
            "ends": table(END_HEADS, end_rows()),
        },
        reference / "cli.md": {"commands": command_reference(program, "swapgate")},
        reference / "config.md": {"keys": list_keys()},
        reference / "policies.md": {
            "built in": list_policies(shipped),
            "keys": list_policy_keys(),
        },
        reference / "metrics.md": metric_tables(),
        reference / "privacy.md": content_tables(),
        reference / "exit-codes.md": {"errors": error_table()},
    }
    return {page: _with_parts(page, named) for page, named in parts.items()}


def _with_parts(page: Path, parts: Mapping[str, str]) -> str:
    if not page.exists():
        raise ConfigError(f"{page} is missing: docs are written in a checkout")
    text = page.read_text(encoding="utf-8")
    for name, content in parts.items():
        try:
            text = replace_part(text, name, content)
        except ValueError as error:
            raise InputError(f"{page}: {error}") from None
    return text


def diagrams() -> dict[str, str]:
    """Draws the transition tables of proposal and rollout as diagrams, by the marker of
    each.
    """
    return {
        "proposal": diagram(
            proposal.TRANSITIONS,
            start=proposal.ProposalPhase.PROPOSED,
            live=proposal.OPEN_PHASES,
        ),
        "rollout": diagram(
            rollout.TRANSITIONS, start=rollout.RolloutState.WAITING, live=rollout.LIVE_STATES
        ),
    }


def command_reference(program: click.Command, name: str) -> str:
    """Writes every visible command with its usage, text and options."""
    with click.Context(program, info_name=name) as ctx:
        return "\n".join([_options("Global options", ctx), *_commands(ctx)]).rstrip()


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
    if not isinstance(ctx.command, click.Group) or ctx.command.invoke_without_command:
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
    final = [state for state in type(start) if state not in live]
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {start.value}",
        *(f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in arrows.items()),
        *(f"    {state.value} --> [*]" for state in final),
        "```",
    ]
    return "\n".join(lines)


def replace_part(text: str, name: str, content: str) -> str:
    """`text` with what stands between the markers of `name` replaced.

    Raises ValueError where the markers are missing.
    """
    begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the markers {begin} and {end} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"
