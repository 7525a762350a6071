"""Decisions are found by their number."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "adr"


def test_each_decision_has_a_number_of_its_own_which_its_title_repeats() -> None:
    files = sorted(FOLDER.glob("*.md"))
    numbers = [int(file.name[:4]) for file in files]

    assert len(set(numbers)) == len(numbers)
    for file, number in zip(files, numbers, strict=True):
        found = re.match(r"# (\d+)\. ", file.read_text(encoding="utf-8"))
        assert found, file.name
        assert int(found[1]) == number
