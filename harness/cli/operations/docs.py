"""`swapgate docs`: the parts of docs/ that are written from the code."""

import re
from collections.abc import Iterable
from os.path import relpath
from pathlib import Path

import click
import yaml

from harness.cli.frame import command_reference, output
from harness.cli.frame.session import Session
from harness.domain.canary import rollout
from harness.domain.errors import ConfigError, InputError
from harness.domain.proposals import proposal

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
    """Each generated file with the text it should have. Raises ConfigError, InputError."""
    architecture = folder / "explanation" / "architecture.md"
    if not architecture.exists():
        raise ConfigError(f"{architecture} is missing: docs are written in a checkout")
    text = architecture.read_text(encoding="utf-8")
    for name, drawn in diagrams().items():
        try:
            text = command_reference.replace_diagram(text, name, drawn)
        except ValueError as error:
            raise InputError(f"{architecture}: {error}") from None
    return {
        folder / "cli.md": command_reference.cli_markdown(program, "swapgate"),
        architecture: text,
        **requirements_page(folder / "reference", folder.parent / "tests"),
    }


def diagrams() -> dict[str, str]:
    """By marker: the proposal's and the rollout's transition tables as diagrams."""
    return {
        "proposal": command_reference.diagram(
            proposal.TRANSITIONS,
            start=proposal.ProposalPhase.PROPOSED,
            live=proposal.OPEN_PHASES,
        ),
        "rollout": command_reference.diagram(
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
    """The list of requirements. Raises InputError where a test names an unknown id."""
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
    """The ids in all `pytest.mark.req(...)` of a test module."""
    marks = re.findall(r"""^[^"'\n]*pytest\.mark\.req\(([^)]*)\)""", source, re.MULTILINE)
    return {id_ for arguments in marks for id_ in re.findall(r'"(\w+)"', arguments)}


def _proof_lines(files: Iterable[Path], folder: Path) -> list[str]:
    links = [f"- [{file.stem}]({relpath(file, folder)})" for file in files]
    return [*(links or ["No test yet."]), ""]
