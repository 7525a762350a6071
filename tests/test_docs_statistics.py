"""The worked examples of docs/explanation/statistics.md, run."""

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "statistics.md"


@pytest.mark.req("F2", "F3")
def test_every_example_gives_the_number_that_the_page_says() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")

    assert result.failed == 0
    assert result.attempted > 40
