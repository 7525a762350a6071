from dataclasses import replace
from pathlib import Path

import pytest

from harness import config, package_data
from harness.control.context import Context
from harness.control.routing import seed, targets
from harness.domain.operations.access import SYSTEM
from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.routing.target import Price, Provider, Target
from harness.domain.settings import Settings
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_probe import FixedCatalogue

KNOWN = FixedCatalogue(
    CatalogueEntry("openai", "big", price=Price(3, 15)),
    CatalogueEntry("openai", "small", price=Price(1, 2)),
    CatalogueEntry("openai", "secret"),
)
OPENAI = Provider("main", "openai", "http://127.0.0.1:9/v1", prices={"small": Price(7, 8)})


@pytest.fixture
def ctx(world: SmallInstallation) -> Context:
    return replace(world.context(), models=KNOWN)


def stored(ctx: Context) -> Provider:
    with ctx.store.read() as tx:
        return tx.providers.all()["main"]


def test_a_registered_model_has_the_catalogue_s_price(ctx: Context) -> None:
    targets.put_provider(ctx, SYSTEM, OPENAI)
    assert stored(ctx) == OPENAI

    for model in ("big", "small", "secret"):
        targets.add_target(ctx, SYSTEM, Target("main", model))

    assert stored(ctx).prices == {"small": Price(7, 8), "big": Price(3, 15)}


def test_a_judge_s_model_has_it_too(ctx: Context) -> None:
    judged = replace(ctx, judges={"essays": Target("main", "big")})

    targets.put_provider(judged, SYSTEM, OPENAI)

    assert stored(ctx).prices["big"] == Price(3, 15)


def test_what_was_stored_without_a_price_gets_it_at_the_next_start(
    ctx: Context, settings: Settings
) -> None:
    plain = replace(ctx, models=None)
    targets.put_provider(plain, SYSTEM, OPENAI)
    targets.add_target(plain, SYSTEM, Target("main", "big"))

    assert seed.apply_seed(ctx, settings) == ["prices of provider main"]
    assert stored(ctx).prices["big"] == Price(3, 15)
    assert seed.apply_seed(ctx, settings) == []


def test_the_file_and_what_is_stored_are_one_with_the_catalogue_between(
    ctx: Context, settings: Settings
) -> None:
    targets.put_provider(ctx, SYSTEM, OPENAI)
    targets.add_target(ctx, SYSTEM, Target("main", "big"))

    assert seed.list_seed_differences(ctx, settings) == []
    assert seed.apply_providers(ctx, SYSTEM, settings) == []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:

    file = tmp_path / "swapgate.yaml"
    file.write_text(
        "providers:\n  main:\n    kind: openai\n    api_base: http://127.0.0.1:9/v1\n"
        "    prices: {small: {input_usd_per_mtok: 7, output_usd_per_mtok: 8}}\n",
        encoding="utf-8",
    )
    return config.load_settings(file, {}, defaults=package_data.path("config/default.yaml"))
