import json
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.app.configuration import configuration
from harness.frame import package_data
from harness.frame.errors import ConfigError
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.capabilities import UNKNOWN_CAPABILITIES
from harness.providers.models.catalogue import (
    FILE,
    CatalogueChange,
    CatalogueEntry,
    LitellmTable,
    build_catalogue,
    package_file,
)
from harness.providers.models.successors import ALERT_AHEAD, find_successor
from harness.providers.registry.end_facts import EndFacts
from harness.providers.target import Price, Provider, Target, find_price
from harness.routing.control.deprecations import ModelUse, find_deprecations


def table(folder: Path, **rows: dict[str, object]) -> LitellmTable:
    file = folder / "table.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return LitellmTable(file=file)


ROW: dict[str, object] = {
    "litellm_provider": "openai",
    "mode": "chat",
    "input_cost_per_token": 1e-06,
    "output_cost_per_token": 3e-06,
}


def test_litellm_s_table_is_read_without_importing_litellm() -> None:
    code = (
        "import sys; from harness.providers.models.catalogue import LitellmTable;"
        "print(len(LitellmTable().catalogue()), 'litellm' in sys.modules)"
    )
    done = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
    )

    count, imported = done.stdout.split()
    assert int(count) > 500
    assert imported == "False"


def test_every_entry_is_of_a_kind_that_there_is_and_has_a_window_or_none() -> None:
    known = LitellmTable().catalogue()

    assert {model.kind for model in known} <= set(PROVIDER_KINDS)
    assert all(model.context_window is None or model.context_window > 0 for model in known)
    assert all(not entry.has & entry.lacks for entry in known)
    assert known.find("openai", "sample_spec") is None


def test_a_price_of_nothing_is_unknown_but_on_ones_own_machine() -> None:
    free = [
        model
        for model in LitellmTable().catalogue()
        if model.price is not None
        and model.price.input_usd_per_mtok == model.price.output_usd_per_mtok == 0
    ]

    assert {PROVIDER_KINDS[model.kind].group for model in free} == {ProviderGroup.LOCAL}


def test_what_the_table_leaves_out_is_unknown(tmp_path: Path) -> None:
    known = table(
        tmp_path,
        plain={"litellm_provider": "openai", "mode": "chat"},
        half={**ROW, "output_cost_per_token": None},
        blind={
            **ROW,
            "supports_vision": False,
            "supports_function_calling": True,
        },
        odd={
            **ROW,
            "max_input_tokens": "many",
            "deprecation_date": "soon",
        },
    ).catalogue()

    plain = known.find("openai", "plain")
    half = known.find("openai", "half")
    blind = known.find("openai", "blind")
    odd = known.find("openai", "odd")
    assert plain is not None
    assert half is not None
    assert blind is not None
    assert odd is not None
    assert plain.price is None
    assert half.price is None
    assert plain.capabilities.vision
    assert not blind.capabilities.vision
    assert "tools" in blind.has
    assert "tools" not in plain.has | plain.lacks
    assert odd.context_window is None
    assert odd.end_date is None


def test_other_providers_regions_and_modes_are_left_out(tmp_path: Path) -> None:
    known = table(
        tmp_path,
        **{
            "sample_spec": ROW,
            "fireworks_ai/m": {**ROW, "litellm_provider": "fireworks_ai"},
            "azure/eu/m": {**ROW, "litellm_provider": "azure"},
            "azure/m": {**ROW, "litellm_provider": "azure"},
            "vertex_ai/m": {
                **ROW,
                "litellm_provider": "vertex_ai-mistral_models",
            },
            "draw": {**ROW, "mode": "image_generation"},
        },
    ).catalogue()

    assert sorted(model.name for model in known) == [
        "azure_openai/m",
        "vertex/m",
    ]


def test_an_entry_of_which_nothing_is_known_can_do_everything() -> None:
    assert CatalogueEntry("openai", "m").capabilities is UNKNOWN_CAPABILITIES


def test_the_file_s_word_wins_field_by_field(tmp_path: Path) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(
        "catalogue:\n"
        "  openai/gpt-4o-mini:\n"
        "    price: {input_usd_per_mtok: 9, output_usd_per_mtok: 10}\n"
        "    capabilities: {vision: false}\n"
        "    end_date: 2027-03-01\n"
        "  openrouter/meta-llama/llama-3.3-70b-instruct:\n"
        "    context_window: 131072\n"
        "    family: llama\n",
        encoding="utf-8",
    )
    settings = configuration.load_settings(
        file, {}, defaults=package_data.path("config/default.yaml")
    )

    known = LitellmTable(settings.catalogue).catalogue()

    ours = known.find("openai", "gpt-4o-mini")
    assert ours is not None
    assert ours.price == Price(9, 10)
    assert ours.context_window == 128_000
    assert not ours.capabilities.vision
    assert "tools" in ours.has
    assert ours.end_date == date(2027, 3, 1)
    new = known.find("openrouter", "meta-llama/llama-3.3-70b-instruct")
    assert new is not None
    assert new.price is None
    assert new.context_window == 131_072
    assert new.family == "llama"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "catalogue:\n  gpt-5: {}\n",
            r"swapproof\.yaml:2: catalogue\.gpt-5: write KIND/MODEL",
        ),
        (
            "catalogue:\n  openai/m:\n    prise: 1\n",
            r"yaml:3: unknown key .*did you mean 'price'",
        ),
        (
            "catalogue:\n  openai/m:\n    context_window: 0\n",
            r"yaml:3: .*must lie in 1 to",
        ),
        (
            "catalogue:\n  openai/m:\n    capabilities: {fly: true}\n",
            r"yaml:3: .*'fly' is unknown",
        ),
        (
            "catalogue:\n  openai/m:\n    end_date: soon\n",
            r"yaml:3: .*end_date",
        ),
    ],
)
def test_a_wrong_line_of_the_catalogue_is_named(
    tmp_path: Path,
    text: str,
    said: str,
) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=said):
        configuration.load_settings(file, {}, defaults=package_data.path("config/default.yaml"))


def test_without_litellm_the_file_s_word_is_all_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.providers.models.catalogue.find_spec", lambda _name: None)
    change = CatalogueChange("openai", "m", price=Price(1, 2))

    assert package_file(FILE) is None
    assert [model.name for model in LitellmTable([change]).catalogue()] == ["openai/m"]


TODAY = date(2026, 11, 20)
ABLE = frozenset({"chat", "tools"})


def entry(
    model: str,
    ends_in: int | None = None,
    **more: object,
) -> CatalogueEntry:
    day = None if ends_in is None else TODAY + timedelta(days=ends_in)
    fields: dict[str, object] = {
        "has": ABLE,
        "context_window": 100,
        **more,
    }
    return CatalogueEntry("anthropic", model, end_date=day, **fields)  # type: ignore[arg-type]


OLD = entry("claude-sonnet-4-5", 10)


@pytest.mark.parametrize(
    ("others", "follows"),
    [
        (
            [entry("claude-sonnet-4-6"), entry("claude-sonnet-5")],
            "claude-sonnet-5",
        ),
        (
            [entry("claude-sonnet-4-6"), entry("claude-sonnet-5-preview")],
            "claude-sonnet-4-6",
        ),
        (
            [entry("claude-sonnet-4-6"), entry("claude-opus-5")],
            "claude-sonnet-4-6",
        ),
        ([entry("claude-sonnet-4-1")], None),
        ([entry("claude-sonnet-5", has=frozenset({"chat"}))], None),
        ([entry("claude-sonnet-5", context_window=99)], None),
        ([entry("claude-sonnet-5", context_window=None)], None),
        ([entry("claude-sonnet-5", 60)], None),
        ([entry("claude-sonnet-5", 400)], "claude-sonnet-5"),
        ([entry("claude-sonnet-4-5-20250929", 10)], None),
        (
            [
                CatalogueEntry(
                    "vertex",
                    "claude-sonnet-5",
                    has=ABLE,
                    context_window=100,
                )
            ],
            None,
        ),
    ],
)
@pytest.mark.req("F11")
def test_the_newest_of_the_family_follows_that_can_as_much(
    others: list[CatalogueEntry], follows: str | None
) -> None:
    catalogue_entry = find_successor(OLD, build_catalogue([OLD, *others]), TODAY)

    assert (catalogue_entry.model if catalogue_entry else None) == follows


@given(days=st.integers(-400, 400))
@pytest.mark.req("F11")
def test_it_is_told_from_ninety_days_before_on(days: int) -> None:
    target = Target("main", "claude-sonnet-4-5")
    provider = Provider("main", "anthropic", "http://127.0.0.1:9", prices={})
    known = build_catalogue([entry("claude-sonnet-4-5", days, price=Price(3, 15))])

    facts = EndFacts({"main": provider}, known, {}, {})
    now = datetime.combine(TODAY, time(12), UTC)
    deprecations = find_deprecations([(target, [ModelUse("incumbent", "chat")])], facts, now)

    assert bool(deprecations) == (days <= ALERT_AHEAD.days)
    for deprecation in deprecations:
        assert deprecation.over == (days <= 0)
        assert deprecation.days == days
        assert deprecation.price == Price(3, 15)
        assert deprecation.successor is None


PRICE = Price(2.0, 8.0)
PROVIDER = Provider("north", "sim", "http://127.0.0.1:9/v1", prices={"scout": PRICE})


def test_a_price_is_found_by_the_targets_name_with_and_without_its_short_id() -> None:
    providers = {"north": PROVIDER}

    assert find_price(providers, "north/scout") == PRICE
    assert find_price(providers, "north/scout#a1b2c3") == PRICE
    assert find_price(providers, "north/other") is None
    assert find_price(providers, "south/scout") is None
