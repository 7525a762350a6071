"""Hostile files and bodies meet a limit, and are told where (faults.md, security)."""

import stat
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from dashboard.text import html
from evals.sim import profiles
from harness.api.frame.request_body import check_json
from harness.cli.program import program
from harness.config import source_locations
from harness.domain.errors import ConfigError, InputError
from harness.domain.formatting import escape_formula

BILLION = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BILLION, r":12: has more than 20 aliases"),
        ("a: " + "[" * 40 + "]" * 40, r":1: is nested more than 32 deep"),
        ("a: " + "[" * 100_000, r":1: is nested more than 32 deep"),
        ("a: " + "x" * 1_000_001, r":1: is longer than 1,000,000 characters"),
    ],
)
def test_a_configuration_file_has_limits(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "swapgate.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=f"swapgate.yaml{why}"):
        source_locations.parse_file(file)


def test_a_value_of_the_environment_and_a_profile_have_the_same_limits(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(BILLION)

    with pytest.raises(ConfigError, match="SWAPGATE__HOME: not a YAML value"):
        source_locations.environment_document({"SWAPGATE__HOME": "[" * 1000})
    with pytest.raises(ConfigError, match="aliases"):
        profiles.load_profiles(file)


def test_a_few_aliases_are_welcome(tmp_path: Path) -> None:
    file = tmp_path / "swapgate.yaml"
    file.write_text("a: &a {x: 1}\nb: *a\nc: *a\n")

    document = source_locations.parse_file(file)

    assert document.values["c"] == {"x": 1}  # noqa: PD011 - no frame


@pytest.mark.parametrize(
    "body", [b'{"reason": "a", "reason": "b"}', b'[{"x": {"role": 1, "role": 4}}]']
)
def test_a_key_given_twice_in_a_body_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match=r"'(reason|role)' twice"):
        check_json(body)


def test_init_writes_a_configuration_that_its_owner_alone_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert CliRunner().invoke(program, ["init"]).exit_code == 0
    assert stat.S_IMODE((tmp_path / "swapgate.yaml").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "start", ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", " \r=1", "\uff1d1+1"]
)
def test_a_cell_of_the_tables_own_download_is_escape_formula(start: str) -> None:
    column = pd.Series([start, "plain", 3]).map(escape_formula)

    assert list(column) == [f"'{start}", "plain", 3]


def test_a_name_does_not_turn_round_the_words_behind_it() -> None:
    assert html.strong("\u202exis") == "<b>\N{REPLACEMENT CHARACTER}xis</b>"
