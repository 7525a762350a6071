"""The examples of docs/reference/suites.md are configurations that load."""

import re
from pathlib import Path

import pytest

from evals.scorers import SCORERS
from harness import package_data
from harness.config import load_settings

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "suites.md"
TEXT = DOCS.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads_and_names_a_scorer_that_there_is(
    tmp_path: Path, example: str
) -> None:
    file = tmp_path / "swapgate.yaml"
    file.write_text(example, encoding="utf-8")

    suites = load_settings(
        file, {}, defaults=package_data.path("config") / "default.yaml"
    ).suites.values()

    assert {suite.scorer for suite in suites} <= SCORERS.keys()


def test_every_scorer_has_its_line_in_the_table() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))

    assert SCORERS.keys() <= listed
