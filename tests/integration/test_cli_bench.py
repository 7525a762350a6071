"""`swapgate gate bench` as a user calls it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli.program import program

pytestmark = pytest.mark.req("F2")
QUICK = ("--replications", "60", "--size", "100", "--pairs", "2")


def bench(*words: str) -> Result:
    return CliRunner().invoke(program, ["gate", "bench", *QUICK, *words], prog_name="swapgate")


def mine(tmp_path: Path) -> str:
    """Two models that pass every other item, each its own ones."""
    file = tmp_path / "mine.csv"
    file.write_text("a," + "0110" * 30 + "\nb," + "1010" * 30 + "\n")
    return str(file)


def test_a_matrix_of_the_users_own_is_measured_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "gate.svg"
    done = bench("--matrix", mine(tmp_path), "--claim", "superior", "--svg", str(picture))

    assert done.exit_code in (0, 3), done.output
    lines = done.stdout.splitlines()
    others = [at for at, line in enumerate(lines) if line.split()[0] in ("claim", "slices")]
    assert len(others) == 4
    lines = lines[: others[0]]
    assert lines[0].split()[:5] == ["matrix", "claim", "n", "rule", "false"]
    assert {line.split()[0] for line in lines[1:]} == {"mine"}
    assert picture.read_text().startswith("<svg")


def test_the_document_has_every_figure_and_the_goals_that_were_missed() -> None:
    done = bench("--generated", "3", "--usd-per-item", "0.01", "--json")
    found = json.loads(done.stdout)

    assert {line["matrix"] for line in found["lines"]} == {
        "generated_pass_fail_3",
        "generated_epochs_3",
        "generated_graded_3",
        "generated_rare_3",
    }
    assert {row["population"] for row in found["answers"]} == {"like_these", "these"}
    assert all(line["usd_ten"] == line["items_ten"] * 0.01 for line in found["lines"])
    assert done.exit_code == (3 if found["missed"] else 0)


def test_a_matrix_that_cannot_be_read_ends_in_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,01\nb,0\n")
    done = bench("--matrix", str(tmp_path / "bad.csv"))

    assert done.exit_code == 2
    assert "bad.csv:2" in done.stderr
