"""The examples of the pages on suites are configurations that load."""

import re
from pathlib import Path

import pytest

from evals.scorers import SCORERS
from harness import package_data
from harness.config import load_settings

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "suites.md").read_text(encoding="utf-8")
PAGES = ("clusters-and-slices", "judges", "public-suites")
TEXT = REFERENCE + "".join(
    (DOCS / "how-to" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES
)
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
    listed = set(re.findall(r"^\| `(\w+)` \|", REFERENCE, re.MULTILINE))

    assert SCORERS.keys() <= listed
