"""`swapgate docs generate` writes the generated parts of docs/: the command reference, state
diagrams, and requirements with their tests. `swapgate completion` prints a shell's completion.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from inspect import cleandoc
from os.path import relpath
from pathlib import Path
from typing import TypeVar

import click
import yaml
from click.shell_completion import get_completion_class

from harness.cli.frame import output
from harness.cli.frame.session import Session
from harness.domain.canary import rollout
from harness.domain.errors import ConfigError, InputError
from harness.domain.proposals import proposal

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
    """Writes every visible command with its usage, text and options."""
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


FOLDER = Path(__file__).resolve().parents[3] / "docs"


@click.group(hidden=True)
def docs() -> None:
    """The generated parts of docs/."""


@docs.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 when one is stale.")
@click.pass_context
def generate(ctx: click.Context, *, check: bool) -> None:
    """Regenerate the command reference, the diagrams and the list of requirements."""
    stale = {
        path: text
        for path, text in generated_files(ctx.find_root().command, FOLDER).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    names = [f"docs/{path.relative_to(FOLDER).as_posix()}" for path in stale]
    if not check:
        for path, text in stale.items():
            path.write_text(text, encoding="utf-8")
    if ctx.ensure_object(Session).json:
        output.document({"stale" if check else "written": names})
    elif check:
        for name in names:
            click.echo(f"{name} is stale: run `make docs`")
    else:
        click.echo(f"written: {', '.join(names) or 'nothing had changed'}")
    ctx.exit(1 if check and stale else 0)


def generated_files(program: click.Command, folder: Path) -> dict[Path, str]:
    """Returns each generated file with the text it should have. Raises ConfigError,
    InputError.
    """
    architecture = folder / "explanation" / "architecture.md"
    if not architecture.exists():
        raise ConfigError(f"{architecture} is missing: docs are written in a checkout")
    text = architecture.read_text(encoding="utf-8")
    for name, drawn in diagrams().items():
        try:
            text = replace_diagram(text, name, drawn)
        except ValueError as error:
            raise InputError(f"{architecture}: {error}") from None
    return {
        folder / "cli.md": cli_markdown(program, "swapgate"),
        architecture: text,
        **requirements_page(folder / "reference", folder.parent / "tests"),
    }


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


REQUIREMENTS_HEAD = """\
# Requirements

<!-- Written by `swapgate docs generate` from requirements.yaml and the marks of tests. -->

What Swapgate must do, each requirement with the test files that hold it. Code and tests name a
requirement by its id. `pytest --collect-only --requirements` lists every single test.
"""


def requirements_page(folder: Path, tests: Path) -> dict[Path, str]:
    """Writes the list of requirements. Raises InputError where a test names an unknown id."""
    groups: dict[str, dict[str, str]] = yaml.safe_load(
        (folder / "requirements.yaml").read_text(encoding="utf-8")
    )
    proofs: dict[str, list[Path]] = {}
    for file in sorted(tests.rglob("test_*.py")):
        for id_ in marked_requirements(file.read_text(encoding="utf-8")):
            proofs.setdefault(id_, []).append(file)
    known = {id_ for sentences in groups.values() for id_ in sentences}
    if unknown := sorted(set(proofs) - known):
        raise InputError(f"{folder}/requirements.yaml lacks {', '.join(unknown)}")
    parts = [REQUIREMENTS_HEAD]
    for title, sentences in groups.items():
        parts += [f"## {title}", ""]
        for id_, sentence in sentences.items():
            proof = _proof_lines(proofs.get(id_, ()), folder)
            parts += [f"### {id_}", "", sentence, "", *proof]
    return {folder / "requirements.md": "\n".join(parts).rstrip() + "\n"}


def marked_requirements(source: str) -> set[str]:
    """Finds the ids in all `pytest.mark.req(...)` of a test module."""
    marks = re.findall(r"""^[^"'\n]*pytest\.mark\.req\(([^)]*)\)""", source, re.MULTILINE)
    return {id_ for arguments in marks for id_ in re.findall(r'"(\w+)"', arguments)}


def _proof_lines(files: Iterable[Path], folder: Path) -> list[str]:
    links = [f"- [{file.stem}]({relpath(file, folder)})" for file in files]
    return [*(links or ["No test yet."]), ""]


VARIABLE = "_SWAPGATE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion.

    Once, for bash: swapgate completion bash > ~/.swapgate-complete, and
    `. ~/.swapgate-complete` in ~/.bashrc.
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # noqa: S101 - click brings these three
    click.echo(completion_class(ctx.find_root().command, {}, "swapgate", VARIABLE).source())
