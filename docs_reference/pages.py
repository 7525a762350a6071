"""Builds the text of each generated file of docs/: the reference pages, and the state diagrams
of proposal and rollout.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum
from inspect import cleandoc
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import click

from docs_reference.agent_files import write_llms_txt, write_skill
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
from harness.interfaces.cli.frame.command import read_example
from harness.routing import proposal

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)
# The reference explains an option of at least this many commands once.
FEWEST_COMMON_USES: Final = 4


def generated_files(program: click.Command, folder: Path) -> dict[Path, str]:
    """Returns the text of each generated file. Raises ConfigError, InputError."""
    reference = folder / "reference"
    default_config = package_data.path("config/default.yaml").read_text(encoding="utf-8")
    parts_by_page = {
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
        reference / "cli.md": {"commands": command_reference(program, "swapproof")},
        reference / "config.md": {"keys": list_keys()},
        reference / "policies.md": {
            "built in": list_policies(default_config),
            "keys": list_policy_keys(),
        },
        reference / "metrics.md": metric_tables(),
        reference / "privacy.md": content_tables(),
        reference / "triggers.md": trigger_parts(),
        reference / "exit-codes.md": {"errors": error_table()},
    }
    pages = {
        page: _replace_parts(page, parts_by_name)
        for page, parts_by_name in parts_by_page.items()
    }
    return {
        **pages,
        folder / "llms.txt": write_llms_txt(folder),
        folder.parent / "skills" / "swapproof" / "SKILL.md": write_skill(folder),
    }


def _replace_parts(page: Path, parts: Mapping[str, str]) -> str:
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
    """Draws the transition tables of proposal and rollout as diagrams. The keys are the names
    of their markers.
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
    """Writes every visible command with its text, arguments and options. Options of at least
    `FEWEST_COMMON_USES` commands come once, before the commands.
    """
    with click.Context(program, info_name=name) as ctx:
        commands = list(_read_commands(ctx))
        uses = Counter(option for command in commands for option in command.options)
        frequent = [
            option for option, count in uses.most_common() if count >= FEWEST_COMMON_USES
        ]
        # Among options with the same name, the most frequent one stays.
        common = list({option.names: option for option in reversed(frequent)}.values())[::-1]
        return "\n".join(
            [
                "## Global options",
                "",
                *_list_options(_read_options(ctx, omitted=())),
                "",
                "## Common options",
                "",
                *_list_options(common),
                "",
                *_write_sections(commands, common),
            ]
        ).rstrip()


class _Option(NamedTuple):
    """An option of a command. names: the option, such as `--limit`. form: with the name of its
    value, such as `--limit N`.
    """

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
    example: str


def _read_commands(parent: click.Context) -> Iterator[_Command]:
    group = parent.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        with click.Context(command, info_name=name, parent=parent) as ctx:
            is_runnable = not isinstance(command, click.Group) or command.invoke_without_command
            pieces = command.collect_usage_pieces(ctx) if is_runnable else []
            yield _Command(
                ctx.command_path,
                # Only newer Pythons take the indentation out of a docstring themselves.
                cleandoc(command.help or ""),
                " ".join(piece for piece in pieces if piece != "[OPTIONS]"),
                tuple(_read_options(ctx, omitted={"--json", "--help"})) if is_runnable else (),
                read_example(command),
            )
            yield from _read_commands(ctx)


def _read_options(ctx: click.Context, *, omitted: Collection[str]) -> Iterator[_Option]:
    for param in ctx.command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None and record[1] and not set(param.opts) & set(omitted):
            form = record[0].replace(" INTEGER", " N").replace(" NUMBER", " X")
            meaning = _join_lines(record[1]).replace(" [default: none]", "")
            yield _Option(max(param.opts, key=len), form, meaning)


def _write_sections(commands: Iterable[_Command], common: Collection[_Option]) -> Iterator[str]:
    """Writes a section for each command. Its heading has the required common options. Options
    that an earlier command has too appear with that command's name.
    """
    first_paths: dict[_Option, str] = {}
    for command in commands:
        required = [
            option for option in command.options if option in common and option.required
        ]
        usage = filter(
            None,
            (command.path, command.arguments, *(option.form for option in required)),
        )
        yield f"#{'#' * command.path.count(' ')} `{' '.join(usage)}`"
        yield from ("", command.text, "")
        if command.example:
            yield from (f"Example: `{command.example}`", "")
        own_options: list[_Option] = []
        options_by_path: dict[str, list[_Option]] = {}
        for option in command.options:
            if option in required:
                continue
            path = "" if option in common else first_paths.setdefault(option, command.path)
            if path == command.path:
                own_options.append(option)
            else:
                options_by_path.setdefault(path, []).append(option)
        lines = list(_list_options(own_options))
        for path, options in options_by_path.items():
            title = f"As in `{path}`" if path else "Common"
            lines.append(f"- {title}: {', '.join(f'`{option.names}`' for option in options)}")
        yield from (*lines, "") if lines else ()


def _list_options(options: Iterable[_Option]) -> Iterator[str]:
    for option in options:
        yield f"- `{option.form}`: {option.meaning}"


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def diagram(
    transitions: Mapping[tuple[State, Event], State],
    *,
    start: State,
    live: Collection[State],
) -> str:
    """Draws a Mermaid state diagram: an arrow per pair of states, with its events.

    Args:
        live: the states that are not final.
    """
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), next_state in transitions.items():
        arrows.setdefault((state.value, next_state.value), []).append(event.value)
    final_states = [state for state in type(start) if state not in live]
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {start.value}",
        *(
            f"    {before} --> {after}: {', '.join(events)}"
            for (before, after), events in arrows.items()
        ),
        *(f"    {state.value} --> [*]" for state in final_states),
        "```",
    ]
    return "\n".join(lines)


def replace_part(
    text: str,
    name: str,
    content: str,
) -> str:
    """Replaces the part of a text between the markers of `name`.

    Raises ValueError if the markers are missing.
    """
    begin = f"<!-- generated: {name} -->"
    end = f"<!-- end: {name} -->"
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise ValueError(f"the markers {begin} and {end} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"
