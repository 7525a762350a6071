"""The gate without a server, as a pipeline runs it: exit codes and reports."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Installation, Outcome
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import before_simulator


@pytest.fixture(scope="module")
def place(installing_once: Installing) -> Installation:
    return installing_once(lambda made: before_simulator(Simulator(made), support={}))


def run(
    place: Installation,
    candidate: str,
    *more: str,
    suite: str = "tickets",
) -> Outcome:
    models = (
        "--incumbent",
        "sim/sim-base",
        "--candidate",
        f"sim/{candidate}",
    )
    words = (
        "gate",
        "run",
        "--suite",
        suite,
        *models,
        "--policy",
        "short",
        *more,
    )
    return place.cli(*words, code=None)


@pytest.mark.req("F10")
def test_a_better_model_ends_with_0_and_both_reports_say_so(
    place: Installation, tmp_path: Path
) -> None:
    markdown = tmp_path / "report.md"
    junit = tmp_path / "report.xml"
    said = run(
        place,
        "sim-better",
        "--markdown",
        str(markdown),
        "--junit",
        str(junit),
    )

    assert said.code == 0, said
    assert "PASSED" in markdown.read_text(encoding="utf-8")
    suites = ET.parse(junit).getroot()  # noqa: S314 - the file that was just written
    assert suites.findall(".//testcase")
    assert not suites.findall(".//failure")


@pytest.mark.verify
@pytest.mark.req("F10", "A7")
def test_a_worse_model_ends_with_3_and_the_report_says_why(
    place: Installation, tmp_path: Path
) -> None:
    markdown = tmp_path / "report.md"
    junit = tmp_path / "report.xml"
    said = run(
        place,
        "sim-worse",
        "--markdown",
        str(markdown),
        "--junit",
        str(junit),
    )

    assert said.code == 3, said
    text = markdown.read_text(encoding="utf-8")
    assert "FAILED" in text
    assert "points" in text
    suites = ET.parse(junit).getroot()  # noqa: S314 - the file that was just written
    assert suites.findall(".//failure")


@pytest.mark.verify
@pytest.mark.req("F10")
def test_too_little_evidence_ends_with_4(place: Installation) -> None:
    said = run(place, "sim-equal")

    assert said.code == 4, said
    assert "NOT ENOUGH EVIDENCE" in said.out + said.err


@pytest.mark.verify
@pytest.mark.req("A8", "F2")
def test_a_model_that_wraps_its_json_is_a_format_mismatch(
    place: Installation, tmp_path: Path
) -> None:
    markdown = tmp_path / "report.md"
    said = run(place, "sim-fenced", "--markdown", str(markdown), suite="extraction")

    assert said.code == 3, said
    text = markdown.read_text(encoding="utf-8")
    assert "FORMAT MISMATCH" in text
    assert "```" in text or "fence" in text
    assert "lenient" in text
    # A patch of the request is the remedy, and goes through the same gate.
    remedy = ("--response-format", '{"type": "json_object"}')
    again = run(place, "sim-fenced", *remedy, suite="extraction")
    assert again.code == 0, again
