"""The docs say what the code does: generated parts are current, links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from docs_reference.pages import diagrams, generated_files
from harness.frame.errors import InputError
from harness.gate.online import rollout
from harness.gate.verdict import VERDICTS
from harness.interfaces.cli.operations.docs import FOLDER
from harness.interfaces.cli.program import program
from harness.routing import proposal

ROOT = Path(__file__).parent.parent
ARCHITECTURE = FOLDER / "explanation" / "architecture.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_a_stale_page_is_found_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "docs"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("img", "assets"))
    shutil.copy(ROOT / "README.md", tmp_path)
    page = folder / "explanation" / "architecture.md"
    page.write_text(ARCHITECTURE.read_text().replace("start", "begin"))
    monkeypatch.setattr("harness.interfaces.cli.operations.docs.FOLDER", folder)

    stale = CliRunner().invoke(program, ["docs", "generate", "--check"])
    written = CliRunner().invoke(program, ["docs", "generate"])
    again = CliRunner().invoke(program, ["docs", "generate", "--check"])

    assert stale.exit_code == 1
    assert "docs/explanation/architecture.md is stale" in stale.stdout
    assert "skills/swapproof/SKILL.md is stale" in stale.stdout
    assert (written.exit_code, again.exit_code) == (0, 0)


def test_a_page_without_markers_is_named(tmp_path: Path) -> None:
    (tmp_path / "explanation").mkdir()
    (tmp_path / "explanation" / "architecture.md").write_text("nothing")

    with pytest.raises(InputError, match=r"architecture\.md"):
        generated_files(program, tmp_path)


ARROW = re.compile(r"^    (\w+) --> (\w+): (.+)$", re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "table"),
    [("proposal", proposal.TRANSITIONS), ("rollout", rollout.TRANSITIONS)],
)
def test_the_diagram_has_every_transition_and_no_other(
    name: str, table: dict[tuple[str, str], str]
) -> None:
    drawn = {
        (before, event, after)
        for before, after, events in ARROW.findall(diagrams()[name])
        for event in events.split(", ")
    }

    assert drawn == {(before, event, after) for (before, event), after in table.items()}
    assert diagrams()[name] in ARCHITECTURE.read_text()


def test_the_glossary_has_the_five_verdicts() -> None:
    text = (FOLDER / "reference" / "glossary.md").read_text()

    for kind in VERDICTS.values():
        assert f"| `{kind.__name__}` | `{kind.outcome}` | {kind.words} |" in text


def test_every_link_to_a_file_leads_to_one() -> None:
    lost = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in link and not link.startswith("mailto:")
        if not (page.parent / link).exists()
    ]

    assert lost == []


def drawn_paths() -> list[str]:
    """Every folder in the architecture page's table of rooms."""
    table = re.search(
        r"<!-- house -->\n(.*?)<!-- end: house -->",
        ARCHITECTURE.read_text(),
        re.DOTALL,
    )
    assert table is not None
    return re.findall(r"(?m)^\| `([\w/]+)/` \|", table[1])


def test_every_room_that_the_architecture_draws_is_there() -> None:
    lost = [
        path
        for path in drawn_paths()
        if not (ROOT / path).is_dir() and not (ROOT / f"{path}.py").is_file()
    ]

    assert lost == []


def test_the_architecture_draws_every_room() -> None:
    drawn = set(drawn_paths())
    rooms = [
        folder.relative_to(ROOT).as_posix()
        for top in ("harness", "router", "evals", "dashboard")
        for folder in (ROOT / top).rglob("*")
        if any(file.stem != "__init__" for file in folder.glob("*.py"))
    ]

    assert [room for room in rooms if room not in drawn] == []


def test_the_architecture_draws_the_layers_that_the_import_contract_holds() -> None:
    drawing = re.search(
        r"Imports point down\..*?```text\n(.*?)```",
        ARCHITECTURE.read_text(),
        re.DOTALL,
    )
    assert drawing is not None
    row_of = {
        room: row
        for row, line in enumerate(drawing[1].splitlines())
        # What follows two blanks says what the row is for.
        for room in re.split(r"\s{2,}", line.strip())[0].replace("│", " ").split()
    }
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    rows = [
        row_of[max((room for room in row_of if module.startswith(room)), key=len)]
        for layer in layers
        for module in layer.split(" | ")
    ]

    assert rows == sorted(rows)
    assert set(rows) == set(row_of.values())


PATH = re.compile(r"`((?:\.ci|[a-z]+)/[\w./-]*|[\w-]+\.(?:py|md|toml))`")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_a_page_about_the_code_names_only_what_is_there(page: str) -> None:
    written = {"htmlcov/", ".ci/last_passed", "site/"}
    named = set(PATH.findall((ROOT / page).read_text())) - written

    assert sorted(path for path in named if not (ROOT / path).exists()) == []


LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]+")


@pytest.mark.verify
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--site-dir",
            tmp_path,
        ],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        check=False,
        text=True,
    )
    pages = list(tmp_path.rglob("*.html"))

    assert done.returncode == 0, done.stderr
    assert len(pages) > 50
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert LOADED.findall(text) == [], page
        assert 'class="mermaid"' not in text, page  # its library would be loaded
