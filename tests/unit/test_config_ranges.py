import stat
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from dashboard import markup
from evals.sim import profiles
from harness.app.configuration import schema as shape
from harness.app.configuration.configuration import load_settings
from harness.app.configuration.validation_errors import RETIRED_KEYS, find_range_errors
from harness.frame.configuration import source_locations
from harness.frame.configuration.setting import settings_of
from harness.frame.configuration.source_locations import KeyPath
from harness.frame.errors import ConfigError, InputError
from harness.frame.formatting import escape_formula
from harness.gate.online.guardrails import Guardrails
from harness.gate.policy import CanaryPolicy, CanaryStep, GatePolicy
from harness.interfaces.api.frame.request_body import check_json
from harness.interfaces.cli.program import program

DEFAULTS = Path(__file__).parents[2] / "config" / "default.yaml"

# Numbers that another rule bounds: shares in their written form, and the ratios.
ELSEWHERE = {
    "keep_warm",
    "capture",
    *(field.name for field in fields(Guardrails)),
}


NUMBERS = (float, int, float | None, int | None)


def refusal(tmp_path: Path, content: dict[str, Any]) -> str:
    file = tmp_path / "swapproof.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_settings(file, {}, defaults=DEFAULTS)
    return str(error.value)


def numbers(of: type) -> list[str]:
    return [field.name for field in fields(of) if field.type in NUMBERS]


def first_complaint(policy: dict[str, Any]) -> tuple[KeyPath, str]:
    return next(complaints(policy))


def complaints(policy: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    return find_range_errors(shape.FileConfig.model_validate({"policies": {"odd": policy}}))


STEP = {"weight_bps": 100, "min_exposures": 3}
PARTS = {"canary": CanaryPolicy, "step": CanaryStep, "gate": GatePolicy}
NAMES = [(part, name) for part, of in PARTS.items() for name in numbers(of)]


@pytest.mark.parametrize(("part", "name"), NAMES)
def test_no_number_of_a_policy_lies_beyond_its_range(part: str, name: str) -> None:
    whole = settings_of(PARTS[part])[name].kind is int
    for value in (10**18, -1) if whole else (1e300, 1e18, -1):
        if part == "step":
            policy: dict[str, Any] = {"canary": {"steps": [STEP | {name: value}]}}
            place: KeyPath = ("canary", "steps", 0, name)
        else:
            policy = {part: {name: value}}
            place = (part, name)
        path, said = first_complaint(policy)
        assert path == ("policies", "odd", *place)
        assert said.startswith("is ")
        assert "it must lie in" in said


@pytest.mark.parametrize("name", [field.name for field in fields(Guardrails)])
def test_no_tolerated_ratio_lies_beyond_its_range(name: str) -> None:
    for value in (1e3, 1e308, 0.01):
        [(path, said)] = complaints({"canary": {"guardrails": {name: value}}})
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
    declared = settings_of(CanaryPolicy)
    alphas = [declared[name].range for name in ("alpha", "local_alpha")]
    assert sum(allowed.high for allowed in alphas if allowed) < 1


def test_a_share_of_traffic_is_explained_and_a_range_above_its_bound_is_named(
    tmp_path: Path,
) -> None:
    said = refusal(tmp_path, {"policies": {"odd": {"canary": {"bake_bps": 9_000}}}})
    assert said.endswith("must lie in 1 to 5,000 basis points (1 % is 100)")
    judge = {"target": "sim/m", "max_cost_usd": 0}
    said = refusal(tmp_path, {"suites": {"odd": {"task": "a.py", "judge": judge}}})
    assert said.endswith(
        "judge.max_cost_usd: is 0; it must be above 0, at most 1,000,000,000 USD"
    )


def test_every_number_of_the_file_has_a_range() -> None:
    schema = shape.json_schema()
    parts: dict[str, Any] = {"file": schema, **schema["$defs"]}  # type: ignore[dict-item]
    unbounded = {
        f"{part}.{name}"
        for part, of in parts.items()
        for name, field in of.get("properties", {}).items()
        for kind in (field, *field.get("anyOf", ()))
        if kind.get("type") in ("number", "integer")
        and "maximum" not in {**field, **kind}
        and name not in ELSEWHERE
    }
    assert unbounded == set()


OTHERS = {
    "router.former": "use `router.name`",
    "routes.*.former": "leave it out",
    "router.name=old": "choose another",
}


def with_keys(patterns: list[str]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for pattern in patterns:
        names, _, value = pattern.partition("=")
        *parents, last = [name.replace("*", "some") for name in names.split(".")]
        place = built
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value or "x"
    return built


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "all"],
        ["status"],
        ["config", "show"],
    ],
    ids=str,
)
def test_all_retired_keys_are_named_with_place_and_replacement_and_nothing_starts(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {**RETIRED_KEYS, **OTHERS}
    monkeypatch.setattr("harness.app.configuration.validation_errors.RETIRED_KEYS", table)
    file = tmp_path / "swapproof.yaml"
    home = tmp_path / "home"
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
    file = tmp_path / "swapproof.yaml"
    old = {"policies": {"quick2": {"canary": {"unit": "request", "block_size": 50}}}}
    file.write_text(yaml.safe_dump({"home": str(tmp_path / "home"), **old}))

    done = CliRunner().invoke(program, ["--config", str(file), "config", "show"])

    assert done.exit_code == 0
    assert "block_size: 50" in done.stdout
    [line] = [line for line in caplog.messages if "has no effect" in line]
    assert line.startswith(f"{file}:6: 'policies.quick2.canary.unit' has no effect")


BILLION = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BILLION, r":12: has more than 20 aliases"),
        ("a: " + "[" * 40 + "]" * 40, r":1: is nested more than 32 deep"),
        ("a: " + "[" * 100_000, r":1: is nested more than 32 deep"),
        (
            "a: " + "x" * 1_000_001,
            r":1: is longer than 1,000,000 characters",
        ),
    ],
)
def test_a_configuration_file_has_limits(
    text: str,
    why: str,
    tmp_path: Path,
) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=f"swapproof.yaml{why}"):
        source_locations.parse_file(file)


def test_a_value_of_the_environment_and_a_profile_have_the_same_limits(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(BILLION)

    with pytest.raises(ConfigError, match="SWAPPROOF__HOME: not a YAML value"):
        source_locations.environment_document({"SWAPPROOF__HOME": "[" * 1000})
    with pytest.raises(ConfigError, match="aliases"):
        profiles.load_profiles(file)


def test_a_few_aliases_are_welcome(tmp_path: Path) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text("a: &a {x: 1}\nb: *a\nc: *a\n")

    document = source_locations.parse_file(file)

    assert document.values["c"] == {"x": 1}  # noqa: PD011 - no frame


@pytest.mark.parametrize(
    "body",
    [b'{"reason": "a", "reason": "b"}', b'[{"x": {"role": 1, "role": 4}}]'],
)
def test_a_key_given_twice_in_a_body_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match=r"'(reason|role)' twice"):
        check_json(body)


def test_init_writes_a_configuration_that_its_owner_alone_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert CliRunner().invoke(program, ["init"]).exit_code == 0
    assert stat.S_IMODE((tmp_path / "swapproof.yaml").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "start",
    ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", " \r=1", "\uff1d1+1"],
)
def test_a_cell_of_the_tables_own_download_is_escape_formula(start: str) -> None:
    column = pd.Series([start, "plain", 3]).map(escape_formula)

    assert list(column) == [f"'{start}", "plain", 3]


def test_a_name_does_not_turn_round_the_words_behind_it() -> None:
    assert markup.strong("\u202exis") == "<b>\N{REPLACEMENT CHARACTER}xis</b>"


KEY_SET = {"by": "key", "values": ["customer-x"]}
STAFF_SET = {"by": "user", "prefixes": ["staff:"]}
AUDIENCE = {"first": [STAFF_SET], "never": [KEY_SET]}


def audience_complaint(audience: dict[str, Any], **more: Any) -> tuple[KeyPath, str]:
    canary = {"steps": [STEP], "audience": audience}
    return first_complaint({"promotion": "approved", "canary": canary, **more})


@pytest.mark.parametrize(
    ("callers", "words"),
    [
        ({"by": "header", "values": ["x"]}, "a set by header needs a `name`"),
        ({"by": "field", "prefixes": ["x"]}, "a set by field needs a `name`"),
        ({"by": "user", "name": "x", "values": ["x"]}, "has no `name`: leave it out"),
        ({"by": "user"}, "give `values` or `prefixes`"),
        ({"by": "user", "prefixes": [""]}, "each with a visible character"),
        ({"by": "key", "values": ["\u200b"]}, "each with a visible character"),
        ({"by": "user", "values": ["x"] * 501}, "has 501 values and prefixes"),
    ],
)
def test_a_set_of_callers_names_some(callers: dict[str, Any], words: str) -> None:
    path, said = audience_complaint({"first": [callers]})
    assert path == ("policies", "odd", "canary", "audience", "first", 0)
    assert words in said


def test_an_audience_has_a_limit_of_sets() -> None:
    path, said = audience_complaint({"first": [STAFF_SET] * 21})
    assert path == ("policies", "odd", "canary", "audience", "first")
    assert "has 21 sets" in said


def test_a_canary_that_never_gets_some_callers_needs_an_approval() -> None:
    path, said = audience_complaint(AUDIENCE, promotion="automatic")
    assert path == ("policies", "odd", "canary", "audience")
    assert "never measured with them (client key customer-x)" in said
    assert "set `promotion: approved`" in said
    canary = {"steps": [STEP], "audience": AUDIENCE}
    assert not list(complaints({"promotion": "approved", "canary": canary}))


@pytest.mark.parametrize(
    "later",
    [{"first": [], "never": [KEY_SET]}, {"first": [STAFF_SET], "never": [KEY_SET, STAFF_SET]}],
)
def test_no_step_takes_a_caller_out_of_the_canary_again(later: dict[str, Any]) -> None:
    steps = [STEP, {"weight_bps": 500, "min_exposures": 3, "audience": later}]
    canary = {"steps": steps, "audience": AUDIENCE}
    path, said = first_complaint({"promotion": "approved", "canary": canary})
    assert path == ("policies", "odd", "canary", "steps")
    assert "would take callers out of the canary again" in said
