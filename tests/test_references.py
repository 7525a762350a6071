"""What the code refers to is in the repository: pages, sections, decisions, requirements."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PRODUCT = (
    "harness",
    "router",
    "evals",
    "dashboard",
    "swapproof",
    "migrations",
    "config",
)
FILES = [
    *(path for top in PRODUCT for path in sorted((ROOT / top).rglob("*.py"))),
    *(ROOT / "config").rglob("*.yaml"),
    ROOT / "pyproject.toml",
]
PAGES = {path.name: path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}
# What commands write and read elsewhere: no page of ours.
WRITTEN = re.compile(r"\b(report|summary|README|CHANGELOG)\.md\b")


def find_matches(pattern: str) -> list[tuple[str, str]]:
    return [
        (path.relative_to(ROOT).as_posix(), match)
        for path in FILES
        for match in re.findall(pattern, path.read_text(encoding="utf-8"))
    ]


def test_every_page_that_code_names_is_there() -> None:
    named = [(file, page) for file, page in find_matches(r"[\w./-]*\b[\w-]+\.md\b") if page]

    lost = [
        (file, page)
        for file, page in named
        if not WRITTEN.search(page)
        and not (ROOT / page).exists()
        and ("/" in page or page not in PAGES)
    ]

    assert lost == []


def test_every_section_is_one_of_the_page_on_statistics() -> None:
    sections = set(
        re.findall(
            r"^##+ (\d+(?:\.\d+)?)\.? ",
            PAGES["statistics.md"].read_text(),
            re.MULTILINE,
        )
    )
    cited = find_matches(r"§(\d+(?:\.\d+)?)")

    assert cited
    assert [(file, number) for file, number in cited if number not in sections] == []


def test_statistics_are_cited_by_section() -> None:
    assert find_matches(r"\bstatistics\.md\b(?!\s§)") == []


@pytest.mark.parametrize("pattern", [r"\bADR 0*(\d+)\b"])
def test_every_decision_that_code_names_is_recorded(pattern: str) -> None:
    recorded = {int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("*.md")}

    assert [(file, n) for file, n in find_matches(pattern) if int(n) not in recorded] == []


REQUIREMENTS = {
    id_
    for sentences in yaml.safe_load((ROOT / "tests/requirements.yaml").read_text()).values()
    for id_ in sentences
}


def marked_requirements() -> set[str]:
    """The ids in all `pytest.mark.req(...)` of the tests."""
    mark = re.compile(r"""^[^"'\n]*pytest\.mark\.req\(([^)]*)\)""", re.MULTILINE)
    return {
        id_
        for path in (ROOT / "tests").rglob("test_*.py")
        for arguments in mark.findall(path.read_text(encoding="utf-8"))
        for id_ in re.findall(r'"(\w+)"', arguments)
    }


def test_every_requirement_has_a_test_and_every_mark_a_requirement() -> None:
    assert marked_requirements() == REQUIREMENTS


def test_code_names_no_requirement() -> None:
    assert find_matches(r"(?:[(;,] ?|requirement )([A-H]\d{1,2})(?=[,;)])") == []
