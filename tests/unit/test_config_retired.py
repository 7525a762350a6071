"""Retired keys of a configuration: all named at once, each with its replacement."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.cli.program import program
from harness.config import validation_errors
from harness.config.validation_errors import RETIRED_KEYS

OTHERS = {
    "router.former": "use `router.name`",
    "routes.*.former": "leave it out",
    "router.name=old": "choose another",
}


def with_keys(patterns: list[str]) -> dict[str, Any]:
    """Builds a configuration that has each of them."""
    built: dict[str, Any] = {}
    for pattern in patterns:
        names, _, value = pattern.partition("=")
        *parents, last = [name.replace("*", "some") for name in names.split(".")]
        place = built
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value or "x"
    return built


@pytest.mark.parametrize("words", [["serve", "all"], ["status"], ["config", "show"]], ids=str)
def test_all_retired_keys_are_named_with_place_and_replacement_and_nothing_starts(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {**RETIRED_KEYS, **OTHERS}
    monkeypatch.setattr("harness.config.validation_errors.RETIRED_KEYS", table)
    file, home = tmp_path / "swapgate.yaml", tmp_path / "home"
    file.write_text(yaml.safe_dump({"home": str(home), **with_keys([*table])}))

    done = CliRunner().invoke(program, ["--config", str(file), *words])

    assert done.exit_code == 1
    assert not home.exists()
    for pattern, instead in table.items():
        path = pattern.partition("=")[0].replace("*", "some")
        [line] = [line for line in done.stderr.splitlines() if f"{path!r} is retired" in line]
        assert line.endswith(f": {instead}")
        place, number = line.split(": ")[0].rsplit(":", 1)
        assert place == str(file)
        assert (
            file.read_text()
            .splitlines()[int(number) - 1]
            .strip()
            .startswith(path.rpartition(".")[2] + ":")
        )


def test_the_tables_are_short() -> None:
    assert len(RETIRED_KEYS) + len(validation_errors.RETIRED_COMMANDS) <= 40
