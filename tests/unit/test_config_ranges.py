"""Every number of the file has a closed range: what loads never breaks a loop or a page."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.cli.program import program
from harness.config import load_settings
from harness.config import schema as shape
from harness.config.ranges import RANGES, range_errors
from harness.config.source_locations import KeyPath
from harness.config.validation_errors import RETIRED_KEYS
from harness.domain.canary.guardrails import Guardrails
from harness.domain.errors import ConfigError
from harness.domain.proposals.policy import CanaryPolicy, CanaryStep, GatePolicy

DEFAULTS = Path(__file__).parents[2] / "config" / "default.yaml"

# Numbers that another rule bounds: pydantic's own bounds, the routes' settings, the ratios.
ELSEWHERE = {
    "max_calls", "min_agreement", "levels", "recheck_s", "keep_warm", "capture",
    "capture_per_day", "capture_keep_days", "share",
    *(field.name for field in fields(Guardrails)),
}  # fmt: skip


NUMBERS = (float, int, float | None, int | None)


def refusal(tmp_path: Path, content: dict[str, Any]) -> str:
    file = tmp_path / "swapgate.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_settings(file, {}, defaults=DEFAULTS)
    return str(error.value)


def numbers(of: type) -> list[str]:
    return [field.name for field in fields(of) if field.type in NUMBERS]


def first_complaint(policy: dict[str, Any]) -> tuple[KeyPath, str]:
    return next(range_errors({"policies": {"odd": policy}}))


STEP = {"weight_bps": 100, "min_exposures": 3}
NAMES = [
    *(("canary", name) for name in numbers(CanaryPolicy)),
    *(("step", name) for name in numbers(CanaryStep)),
    *(("gate", name) for name in numbers(GatePolicy)),
]


@pytest.mark.parametrize(("part", "name"), NAMES)
def test_no_number_of_a_policy_lies_beyond_its_range(part: str, name: str) -> None:
    for value in (1e300, 1e18, -1):
        if part == "step":
            policy: dict[str, Any] = {"canary": {"steps": [STEP | {name: value}]}}
            place: KeyPath = ("canary", "steps", 0, name)
        else:
            policy, place = {part: {name: value}}, (part, name)
        path, said = first_complaint(policy)
        assert path == ("policies", "odd", *place)
        assert said.startswith("is ")
        assert "it must lie in" in said


@pytest.mark.parametrize("name", [field.name for field in fields(Guardrails)])
def test_no_tolerated_ratio_lies_beyond_its_range(name: str) -> None:
    for value in (1e3, 1e308, 0.01):
        found = range_errors({"policies": {"odd": {"canary": {"guardrails": {name: value}}}}})
        path, said = list(found)[-1]
        assert path == ("policies", "odd", "canary", "guardrails", name)
        assert said.endswith("a tolerated ratio is 0.1 to 100, or off")


def test_a_number_beyond_its_range_is_refused_with_file_line_field_value_and_range(
    tmp_path: Path,
) -> None:
    said = refusal(tmp_path, {"policies": {"odd": {"canary": {"certificate": 0.5}}}})
    assert said.endswith(
        "yaml:4: policies.odd.canary.certificate: is 0.5; it must lie in 2 to 1,000,000"
    )


def test_both_alphas_of_a_rollout_stay_below_one_together() -> None:
    assert RANGES["alpha"].high + RANGES["local_alpha"].high < 1


def test_every_number_of_the_file_has_a_range() -> None:
    schema = shape.json_schema()
    parts: dict[str, Any] = {"file": schema, **schema["$defs"]}  # type: ignore[dict-item]
    unbounded = {
        f"{part}.{name}"
        for part, of in parts.items()
        for name, field in of.get("properties", {}).items()
        for kind in (field, *field.get("anyOf", ()))
        if kind.get("type") in ("number", "integer") and name not in {*RANGES, *ELSEWHERE}
    }
    assert unbounded == set()


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


def test_a_key_of_older_files_without_effect_is_named_with_its_place_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "swapgate.yaml"
    old = {"policies": {"quick2": {"canary": {"unit": "request", "block_size": 50}}}}
    file.write_text(yaml.safe_dump({"home": str(tmp_path / "home"), **old}))

    done = CliRunner().invoke(program, ["--config", str(file), "config", "show"])

    assert done.exit_code == 0
    assert "block_size: 50" in done.stdout
    [line] = [line for line in caplog.messages if "has no effect" in line]
    assert line.startswith(f"{file}:6: 'policies.quick2.canary.unit' has no effect")
