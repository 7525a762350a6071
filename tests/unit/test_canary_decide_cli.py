"""`canary decide` on plain files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.interfaces.cli.program import program

pytestmark = pytest.mark.req("F3")

HEAD = "block,requests,canary_requests,failures,canary_failures\n"
LOST = HEAD.replace("\n", ",missing,canary_missing\n")
WORKED = HEAD + (
    "a,100,1,0,0\nb,100,1,1,0\nc,100,1,2,1\nd,100,1,1,0\nmorning,100,1,3,1\nf,100,1,1,1\n"
)
Decide = Callable[..., Result]


@pytest.fixture
def decide(tmp_path: Path) -> Decide:
    def run(content: str, *options: str) -> Result:
        file = tmp_path / "blocks.csv"
        file.write_text(content, encoding="utf-8")
        return CliRunner().invoke(program, ["canary", "decide", str(file), *options])

    return run


def test_it_stops_at_the_block_that_trips(decide: Decide) -> None:
    result = decide(WORKED, "--json")
    found = json.loads(result.stdout)

    assert result.exit_code == 3
    assert list(found) == [
        "action",
        "log_e",
        "block",
        "distance_to_trip",
        "exposures",
    ]
    assert found == {
        "action": "rollback",
        "log_e": pytest.approx(4.3020, abs=1e-4),
        "block": "morning",
        "distance_to_trip": 1.0,
        "exposures": 5,
    }


def test_before_that_it_holds_and_says_how_far_it_is(decide: Decide) -> None:
    result = decide("".join(WORKED.splitlines(keepends=True)[:4]), "--json")
    found = json.loads(result.stdout)

    assert result.exit_code == 0
    assert found["action"] == "hold"
    assert found["block"] is None
    assert found["log_e"] == pytest.approx(1.9879, abs=1e-4)
    assert found["distance_to_trip"] == pytest.approx(0.66, abs=0.005)


def test_evidence_of_health_is_distance_0(decide: Decide) -> None:
    found = json.loads(decide(HEAD + "a,100,5,2,0\n", "--json").stdout)
    assert found["log_e"] == pytest.approx(-0.5397, abs=1e-4)
    assert found["distance_to_trip"] == 0.0


def test_alpha_and_the_tolerated_odds_ratio_are_the_canarys(decide: Decide) -> None:
    stricter = json.loads(decide(WORKED, "--alpha", "0.001", "--json").stdout)
    assert (stricter["block"], stricter["exposures"]) == ("f", 6)
    tolerant = json.loads(decide(WORKED, "--rho", "1.25", "--json").stdout)
    assert tolerant["log_e"] == pytest.approx(3.9418, abs=1e-4)


def test_missing_outcomes_decide_nothing(decide: Decide) -> None:
    """They count for the canary: its own as no failures, the incumbent's as failures."""
    lost = LOST + "a,100,5,2,0,3,3\nb,100,5,1,0,2,2\n"
    held = decide(lost, "--json")
    found = json.loads(held.stdout)
    assert (held.exit_code, found["action"], found["missing"]) == (
        0,
        "hold",
        5,
    )
    assert found["log_e"] < 0.0 < found["log_e_if_missing_failed"]

    sure = LOST + "a,100,5,6,5,2,0\nb,100,5,6,5,2,0\n"
    assert decide(sure, "--json").exit_code == 3


def test_no_block_yet_holds(decide: Decide) -> None:
    result = decide(HEAD, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["exposures"] == 0


def test_without_json_a_person_can_read_it(decide: Decide) -> None:
    assert "action            rollback" in decide(WORKED).stdout


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("block,requests\n", 1, "column 'canary_requests' is missing"),
        (HEAD + "a,100,1,0,0\nb,100,1,nan,0\n", 3, "failures is 'nan'"),
        (HEAD + "a,100.0,1,0,0\n", 2, "requests is '100.0'"),
        (HEAD + "a,-1,1,0,0\n", 2, "requests is '-1'"),
        (HEAD + "a,,1,0,0\n", 2, "requests is ''"),
        (HEAD + "a,9999999999999999,1,0,0\n", 2, "requests is"),
        (HEAD + "a,2000000,1,0,0\n", 2, "a block has 0 to 1,000,000"),
        (HEAD + ",100,1,0,0\n", 2, "block is empty"),
        (
            HEAD + "a,100,1,0,0\na,100,1,0,0\n",
            3,
            "block 'a' is already in line 2",
        ),
        (HEAD + "a,100,101,0,0\n", 2, "101 canary requests of 100"),
        (HEAD + "a,100,1,101,0\n", 2, "101 failures of 100"),
        (HEAD + "a,100,5,1,2\n", 2, "2 canary failures, but 1 failures"),
        (
            HEAD + "a,100,1,5,2\n",
            2,
            "2 canary failures, but 5 failures in all and 1 canary",
        ),
        (
            HEAD + "a,10,9,5,2\n",
            2,
            "3 failures outside the canary, but 1 requests",
        ),
        (LOST + "a,100,5,1,0,1,2\n", 2, "canary_missing is 2, but missing"),
        (
            LOST + "a,10,5,6,1,5,1\n",
            2,
            "9 failures outside the canary, but 5 requests there",
        ),
        (
            LOST + "a,100,1,1,1,1,1\n",
            2,
            "2 canary failures, but 2 failures in all and 1 canary",
        ),
        (LOST + "a,100,1,1,0,x,0\n", 2, "missing is 'x'"),
    ],
)
def test_bad_input_ends_with_2_and_its_place(
    decide: Decide,
    content: str,
    line: int,
    message: str,
) -> None:
    result = decide(content, "--json")

    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["exit_code"] == 2
    assert f"blocks.csv:{line}: " in result.stderr
    assert message in result.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--alpha", "0"),
        ("--alpha", "1"),
        ("--alpha", "nan"),
        ("--rho", "0"),
        ("--rho", "-1"),
        ("--rho", "nan"),
        ("--rho", "inf"),
        ("--rho", "1e308"),
    ],
)
def test_a_bad_option_ends_with_2_and_its_name(
    decide: Decide,
    option: str,
    value: str,
) -> None:
    result = decide(WORKED, option, value)
    assert result.exit_code == 2
    assert option in result.stderr
