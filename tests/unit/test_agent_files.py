"""`SKILL.md` and `llms.txt` are in the formats that agents read, and their commands work."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner

from docs_reference.agent_files import write_skill
from harness.frame.errors import InputError
from harness.interfaces.cli.program import program

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
WORLD: Final = ROOT / "tests" / "world" / "agents"
SKILL_FILE: Final = ROOT / "skills" / "swapproof" / "SKILL.md"
LLMS_TXT: Final = DOCS / "llms.txt"
HEADER: Final = re.compile(r"---\n(.*?)\n---(?:\n|$)", re.DOTALL)
SKILL_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
ENTRY: Final = re.compile(r"- \[[^\]]+\]\(([^)]+)\)(?:: .+)?")
# Whole commands in a sentence; `swapproof try` alone only names the command.
INLINE: Final = re.compile(r"`swapproof (docs [^`]+)`")


def read_examples(name: str) -> list[Any]:
    examples: list[Any] = yaml.safe_load((WORLD / name).read_text(encoding="utf-8"))
    return examples


def find_fault(text: str, folder: str) -> str:
    """Returns why an agent does not load a skill, by the specification; empty if it does."""
    header = HEADER.match(text)
    if header is None:
        return "no header"
    try:
        fields = yaml.safe_load(header[1])
    except yaml.YAMLError:
        return "not YAML"
    name = fields.get("name", "")
    if not SKILL_NAME.fullmatch(name) or len(name) > 64:
        return "name"
    if name != folder:
        return "folder"
    return "" if 1 <= len(fields.get("description", "")) <= 1024 else "description"


def read_index(text: str) -> dict[str, Any]:
    """Reads an llms.txt: its title, and the links of each section."""
    title, *lines = text.splitlines()
    assert title.startswith("# ")
    sections: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("## "):
            sections[line.removeprefix("## ")] = []
        elif sections and (entry := ENTRY.fullmatch(line)):
            list(sections.values())[-1].append(entry[1])
        else:
            assert not sections or not line, line  # a section has nothing but links
    return {"title": title.removeprefix("# "), "sections": sections}


@pytest.mark.parametrize("example", read_examples("skills.yaml"), ids=lambda it: it["source"])
def test_a_published_skill_is_read_as_the_specification_says(example: Any) -> None:
    assert find_fault(example["text"], example["folder"]) == example["right"]


@pytest.mark.parametrize("example", read_examples("llms.yaml"), ids=lambda it: it["source"])
def test_a_published_index_is_read_as_the_format_says(example: Any) -> None:
    index = read_index(example["text"])

    counts = {name: len(links) for name, links in index["sections"].items()}
    assert {"title": index["title"], "sections": counts} == example["right"]


def test_our_skill_is_loaded_and_short() -> None:
    text = SKILL_FILE.read_text(encoding="utf-8")

    assert find_fault(text, SKILL_FILE.parent.name) == ""
    assert len(text.splitlines()) < 500
    # It is copied to other folders, where a relative link leads nowhere.
    assert "](" not in text


def test_our_index_has_every_page_once() -> None:
    text = LLMS_TXT.read_text(encoding="utf-8")
    index = read_index(text)
    links = [link for section in index["sections"].values() for link in section]

    assert text.split("\n\n")[1].startswith("> Swapproof changes the model")
    assert index["title"] == "Swapproof"
    assert list(index["sections"])[-1] == "Optional"
    assert sorted(links) == sorted(
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    )


@pytest.mark.parametrize("file", [SKILL_FILE, LLMS_TXT], ids=lambda file: file.name)
def test_each_command_in_a_sentence_works(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    in_sentences = re.sub(r"```sh\n.*?```", "", text, flags=re.DOTALL)

    for words in INLINE.findall(in_sentences):
        done = CliRunner().invoke(program, words.split())
        assert done.exit_code == 0, (words, done.output)


def test_a_page_without_the_skill_s_markers_is_named(tmp_path: Path) -> None:
    (tmp_path / "how-to").mkdir()
    (tmp_path / "how-to" / "coding-agents.md").write_text("# Agents\n")

    with pytest.raises(InputError, match=r"coding-agents\.md"):
        write_skill(tmp_path)
