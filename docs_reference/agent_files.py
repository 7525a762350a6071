"""Writes the files for coding agents from the docs: `docs/llms.txt`, an index of the pages, and
`skills/swapproof/SKILL.md`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from harness.frame.errors import InputError

SKILL_PAGE: Final = "how-to/coding-agents.md"
SKILL: Final = re.compile(r"<!-- skill -->\n(.*?)<!-- end: skill -->", re.DOTALL)
# `llms.txt` names the section that a reader with little room may leave out.
SECTIONS: Final[Mapping[str, str]] = {
    "Start": "*.md",
    "How-to": "how-to/*.md",
    "Reference": "reference/*.md",
    "Explanation": "explanation/*.md",
    "Optional": "adr/*.md",
}
LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")
SENTENCE: Final = re.compile(r".*?[.:?](?=\s|$)")
# A first block that begins like this is a table, a list, a block of code or a picture, or the
# context of a decision, whose title says more.
NOT_PROSE: Final = ("#", "|", "-", "```", "<", "!", "**Context")
HOW_TO_READ: Final = (
    "`swapproof docs list` lists the pages, and `swapproof docs open tutorial --text` prints "
    "one. `skills/swapproof/SKILL.md` in Swapproof's repository tells a coding agent which "
    "commands to use."
)


def write_llms_txt(folder: Path) -> str:
    """Writes an index of the pages below `folder`, in the format of llmstxt.org.

    The summary is README's first paragraph.
    """
    readme = folder.parent / "README.md"
    lines = [f"# {_read_title(readme)}", "", f"> {_read_paragraph(readme)}", "", HOW_TO_READ]
    for section, pattern in SECTIONS.items():
        lines += ["", f"## {section}", ""]
        lines += [_write_entry(page, folder) for page in sorted(folder.glob(pattern))]
    return "\n".join(lines) + "\n"


def _write_entry(page: Path, folder: Path) -> str:
    entry = f"- [{_read_title(page)}]({page.relative_to(folder).as_posix()})"
    first = SENTENCE.match(_read_paragraph(page))
    return f"{entry}: {first[0].rstrip(':')}" if first else entry


def _read_title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _read_paragraph(page: Path) -> str:
    """Returns the paragraph below the title in one line, without links; empty without one."""
    block = next(_read_blocks(page.read_text(encoding="utf-8")), "")
    return "" if block.startswith(NOT_PROSE) else " ".join(LINK.sub(r"\1", block).split())


def _read_blocks(text: str) -> Iterator[str]:
    return (block.strip() for block in text.split("\n\n")[1:])


def write_skill(folder: Path) -> str:
    """Writes the skill: the marked part of its page, below the header that agents read first.

    Raises InputError if the page has no marked part.
    """
    page = folder / SKILL_PAGE
    part = SKILL.search(page.read_text(encoding="utf-8"))
    if part is None:
        markers = "<!-- skill --> and <!-- end: skill -->"
        raise InputError(f"{page}: the markers {markers} are missing")
    description = " ".join(part[1].partition("\n\n")[0].split())
    # JSON's strings are YAML's too. Without quotes, a colon in the text would end it.
    header = ["---", "name: swapproof", f"description: {json.dumps(description)}", "---"]
    return "\n".join([*header, "", "# Swapproof", "", part[1]])
