"""Gathers each generated file of docs/ with the text that it should have: the reference pages,
and the state diagrams of proposal and rollout.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum
from inspect import cleandoc
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import click

from docs_reference.outcome_table import outcome_table
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
    ABILITY_HEADS,
    END_HEADS,
    HISTORY_HEADS,
    KIND_ABILITY_HEADS,
    ability_rows,
    end_rows,
    fault_lines,
    history_rows,
    kind_ability_rows,
)
from docs_reference.trigger_list import trigger_parts
from harness.frame import package_data
from harness.frame.errors import ConfigError, InputError
from harness.gate.online import rollout
from harness.routing import proposal

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)
# An option that as many commands have is explained once.
COMMON: Final = 4


def generated_files(program: click.Command, folder: Path) -> dict[Path, str]:
    """Returns each generated file with the text it should have. Raises ConfigError,
    InputError.
    """
    reference = folder / "reference"
    shipped = package_data.path("config/default.yaml").read_text(encoding="utf-8")
    parts = {
        folder / "explanation" / "architecture.md": diagrams(),
        folder / "explanation" / "canary.md": {"outcomes": outcome_table()},
        reference / "router.md": {
            "history": table(HISTORY_HEADS, history_rows()),
            "abilities of kinds": table(KIND_ABILITY_HEADS, kind_ability_rows()),
            "whose fault": "\n".join(fault_lines()),
            "ends": table(END_HEADS, end_rows()),
        },
        reference / "models.md": {
            "abilities of models": table(ABILITY_HEADS, ability_rows()),
        },
        reference / "cli.md": {"commands": command_reference(program, "swapgate")},
        reference / "config.md": {"keys": list_keys()},
        reference / "policies.md": {
            "built in": list_policies(shipped),
            "keys": list_policy_keys(),
        },
        reference / "metrics.md": metric_tables(),
        reference / "privacy.md": content_tables(),
        reference / "triggers.md": trigger_parts(),
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
            rollout.TRANSITIONS,
            start=rollout.RolloutState.WAITING,
            live=rollout.LIVE_STATES,
        ),
    }


def command_reference(program: click.Command, name: str) -> str:
    """Writes every visible command with its text, arguments and options. An option of four
    commands or more is explained once, before them.
    """
    with click.Context(program, info_name=name) as ctx:
        commands = list(_commands(ctx))
        uses = Counter(option for command in commands for option in command.options)
        frequent = [option for option, n in uses.most_common() if n >= COMMON]
        # Of options with the same name, the most frequent one.
        common = list({option.names: option for option in reversed(frequent)}.values())[::-1]
        return "\n".join(
            [
                "## Global options",
                "",
                *_listed(_options(ctx, left_out=())),
                "",
                "## Common options",
                "",
                *_listed(common),
                "",
                *_sections(commands, common),
            ]
        ).rstrip()


class _Option(NamedTuple):
    """names: the option as it is typed, `--limit`. form: with what it takes, `--limit N`."""

    names: str
    form: str
    meaning: str

    @property
    def required(self) -> bool:
        return "required]" in self.meaning


class _Command(NamedTuple):
    path: str
    text: str
    arguments: str
    options: tuple[_Option, ...]


def _commands(parent: click.Context) -> Iterator[_Command]:
    group = parent.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        with click.Context(command, info_name=name, parent=parent) as ctx:
            runs = not isinstance(command, click.Group) or command.invoke_without_command
            pieces = command.collect_usage_pieces(ctx) if runs else []
            yield _Command(
                ctx.command_path,
                # Only newer Pythons take the indentation out of a docstring themselves.
                cleandoc(command.help or ""),
                " ".join(piece for piece in pieces if piece != "[OPTIONS]"),
                tuple(_options(ctx, left_out={"--json", "--help"})) if runs else (),
            )
            yield from _commands(ctx)


def _options(ctx: click.Context, *, left_out: Collection[str]) -> Iterator[_Option]:
    for param in ctx.command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None and record[1] and not set(param.opts) & set(left_out):
            form = record[0].replace(" INTEGER", " N").replace(" NUMBER", " X")
            meaning = _in_one_line(record[1]).replace(" [default: none]", "")
            yield _Option(max(param.opts, key=len), form, meaning)


def _sections(commands: Iterable[_Command], common: Collection[_Option]) -> Iterator[str]:
    """Writes a section for each command. Its heading has the common options that it requires;
    an option that an earlier command has as well is named with that command.
    """
    shown: dict[_Option, str] = {}
    for command in commands:
        required = [o for o in command.options if o in common and o.required]
        usage = filter(
            None,
            (command.path, command.arguments, *(o.form for o in required)),
        )
        yield f"#{'#' * command.path.count(' ')} `{' '.join(usage)}`"
        yield from ("", command.text, "")
        own: list[_Option] = []
        elsewhere: dict[str, list[_Option]] = {}
        for option in command.options:
            if option in required:
                continue
            place = "" if option in common else shown.setdefault(option, command.path)
            if place == command.path:
                own.append(option)
            else:
                elsewhere.setdefault(place, []).append(option)
        lines = list(_listed(own))
        for place, options in elsewhere.items():
            title = f"As in `{place}`" if place else "Common"
            lines.append(f"- {title}: {', '.join(f'`{option.names}`' for option in options)}")
        yield from (*lines, "") if lines else ()


def _listed(options: Iterable[_Option]) -> Iterator[str]:
    for option in options:
        yield f"- `{option.form}`: {option.meaning}"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def diagram(
    transitions: Mapping[tuple[State, Event], State],
    *,
    start: State,
    live: Collection[State],
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


def replace_part(
    text: str,
    name: str,
    content: str,
) -> str:
    """`text` with what stands between the markers of `name` replaced.

    Raises ValueError where the markers are missing.
    """
    begin = f"<!-- generated: {name} -->"
    end = f"<!-- end: {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the markers {begin} and {end} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"
