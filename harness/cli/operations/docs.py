"""`swapgate docs open` shows a page of the docs. `swapgate docs generate` writes the generated
parts of them: the reference pages, state diagrams, and requirements with their tests.
`swapgate completion` prints a shell's completion.
"""

import webbrowser
from collections.abc import Collection, Mapping
from enum import StrEnum
from inspect import cleandoc
from pathlib import Path
from typing import TypeVar

import click
from click.shell_completion import get_completion_class

from harness import docs_pages, package_data
from harness.app.router_tables import (
    END_HEADS,
    FAULT_HEADS,
    HISTORY_HEADS,
    end_rows,
    fault_rows,
    history_rows,
)
from harness.cli.frame import output
from harness.cli.frame.command import arg, command, opt
from harness.cli.frame.session import Session
from harness.cli.operations.reference import (
    content_tables,
    error_table,
    list_keys,
    list_policies,
    list_policy_keys,
    metric_tables,
    table,
)
from harness.domain.canary import rollout
from harness.domain.errors import ConfigError, InputError
from harness.domain.proposals import proposal

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


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


FOLDER = Path(__file__).resolve().parents[3] / "docs"


@click.group()
def docs() -> None:
    """The docs that ship with Swapgate."""


@command(docs, "open")
def open_page(
    session: Session,
    page: str = arg(default="index"),
    *,
    text: bool = opt("Print the page, and open no browser."),
) -> None:
    """Open a page of the docs in the browser, or print it.

    PAGE is its path, or the last part of it: `gate`, `reference/config`, `runbook`.
    Without a browser, or where the site is not built, the page is printed.
    """
    found = docs_pages.find_page(page)
    if session.json:
        output.document(
            {
                "page": found.name,
                "title": found.title,
                "markdown": str(found.markdown),
                "html": None if found.html is None else str(found.html),
            }
        )
    elif not text and found.html is not None and open_browser(found.html.as_uri()):
        output.note(f"opened {found.html}")
    else:
        output.note(str(found.markdown))
        click.echo(found.markdown.read_text(encoding="utf-8"), nl=False)


def open_browser(address: str) -> bool:
    """Opens the address in a browser; whether there is one."""
    try:
        return webbrowser.get().open(address)
    except webbrowser.Error:
        return False


@command(docs, "list")
def list_pages() -> None:
    """List the pages of the docs."""
    output.listing(
        docs_pages.list_pages(),
        lambda page: {"PAGE": page.name, "TITLE": page.title},
        empty="there are no pages",
        as_document=lambda pages: [{"page": page.name, "title": page.title} for page in pages],
    )


def _program() -> click.Command:
    return click.get_current_context().find_root().command


@command(docs, hidden=True)
def generate(
    session: Session, *, check: bool = opt("Write nothing; exit code 1 when one is stale.")
) -> int:
    """Regenerate the reference pages and the diagrams."""
    stale = {
        path: text
        for path, text in generated_files(_program(), FOLDER).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    names = [f"docs/{path.relative_to(FOLDER).as_posix()}" for path in stale]
    if not check:
        for path, text in stale.items():
            path.write_text(text, encoding="utf-8")
    if session.json:
        output.document({"stale" if check else "written": names})
    elif check:
        for name in names:
            click.echo(f"{name} is stale: run `make docs`")
    else:
        click.echo(f"written: {', '.join(names) or 'nothing had changed'}")
    return 1 if check and stale else 0


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


VARIABLE = "_SWAPGATE_COMPLETE"


@command()
def completion(shell: str = arg(type=click.Choice(["bash", "zsh", "fish"]))) -> None:
    """Print a shell's completion.

    Once, for bash: swapgate completion bash > ~/.swapgate-complete, and
    `. ~/.swapgate-complete` in ~/.bashrc.
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # noqa: S101 - click brings these three
    click.echo(completion_class(_program(), {}, "swapgate", VARIABLE).source())
