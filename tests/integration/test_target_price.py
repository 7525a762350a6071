"""A target's price is known, listed or missing, and every place says the same about it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.views.provider_dialogs import price_openers
from dashboard.views.providers import list_unpriced_models, price_cell
from evals.sim.server import simulator
from harness.app import seed
from harness.app.installation import load_settings
from harness.frame.errors import InputError, NotAllowed, NotFound
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing.audit_log import AuditLog
from harness.providers.calls.probe import HttpProviderProbe
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import DiscoveredModels, Providers
from harness.providers.registry import named_models, registered_providers, targets
from harness.providers.target import Price, Target
from harness.providers.target_price import PriceState, TargetPrice, describe_missing
from harness.routing.reports.matrix import build_matrix
from tests.support.control.people import ANN
from tests.support.providers.simulator_thread import serve_in_thread
from tests.support.site.command_line import CommandLine, installed

ADMIN = Actor("ada", Role.ADMIN, "pr_ada")
PLAIN = Target("sim", "plain")
MISSING = "the price of sim/plain is unknown"
STEP = "`swapproof model price sim/plain INPUT OUTPUT` sets it"


@pytest.fixture
def cli(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        made.run("model", "add", "sim/plain", "--no-discover")
        made.run("route", "create", "drafts", "--incumbent", "sim/plain", "--suite", "colours")
        yield made


def state(cli: CommandLine, target: Target = PLAIN) -> TargetPrice:
    with cli.world.store.read() as tx:
        return targets.load_price(cli.world.context(), tx, target)


def ask_each_place(cli: CommandLine) -> Mapping[str, str]:
    """Collects the words of each command that depends on a price of `sim/plain`."""
    plan = ("proposal", "create", "chat", "sim/plain", "--dry-run")
    return {
        "model list": cli.run("model", "list").output,
        "status": cli.run("status").output,
        "proposal plan": cli.run(*plan).output,
    }


def refusals(cli: CommandLine) -> Mapping[str, str]:
    claim = ("--claim", "cheaper_and_not_worse", "--reason", "cheaper")
    return {
        "shadow start": cli.error(
            "shadow", "start", "chat", "sim/plain", "--reason", "to see", exits=2
        ),
        "claim": cli.error("proposal", "create", "chat", "sim/plain", *claim, exits=2),
    }


def test_a_missing_price_has_the_same_words_and_the_same_command_in_every_place(
    cli: CommandLine,
) -> None:
    said = {**ask_each_place(cli), **refusals(cli)}

    assert {place for place, text in said.items() if MISSING not in text.lower()} == set()
    assert {place for place, text in said.items() if STEP not in text} == set()
    (row,) = (row for row in build_matrix(cli.world.context()) if row.provider == "sim")
    (model,) = (model for model in row.models if model.model == "plain")
    assert "unknown" in price_cell(model)
    (button,) = price_openers(list_unpriced_models(row))
    assert button.label == "Set the price of sim/plain"
    assert button.role is Role.ADMIN


def test_one_command_makes_the_price_known_in_every_place(cli: CommandLine) -> None:
    done = cli.text("model", "price", "sim/plain", "0.5", "2")

    assert done == "sim/plain costs $0.50 in and $2.00 out per million tokens\n"
    assert state(cli) == TargetPrice("sim/plain", Price(0.5, 2.0), PriceState.KNOWN)
    said = ask_each_place(cli)
    assert {place for place, text in said.items() if "price of" in text} == set()
    cli.run("shadow", "start", "chat", "sim/plain", "--reason", "to see")
    (row,) = (row for row in build_matrix(cli.world.context()) if row.provider == "sim")
    assert list_unpriced_models(row) == []
    with cli.world.store.read() as tx:
        (event,) = (e for e in AuditLog(tx).tail() if e.action == "provider.price")
    assert event.details["model"] == "plain"


def test_a_price_by_command_survives_the_file_that_lacks_it(cli: CommandLine) -> None:
    cli.run("model", "price", "sim/plain", "0.5", "2")

    settings = load_settings(cli.folder / "swapproof.yaml")
    ctx = cli.world.context()
    assert seed.list_seed_differences(ctx, settings) == []
    assert seed.apply_providers(ctx, ADMIN, settings) == []
    assert state(cli).price == Price(0.5, 2.0)


def test_a_new_list_makes_a_missing_price_known_for_registered_models_only(
    cli: CommandLine,
) -> None:
    with cli.world.store.write() as tx:
        provider = Providers(tx).all()["sim"]
        offer = DiscoveredModel("sim", "fresh", provider.api_base, tx.now(), None, Price(3, 4))
        DiscoveredModels(tx).replace("sim", [offer])

    fresh = Target("sim", "fresh")
    assert state(cli, fresh) == TargetPrice("sim/fresh", Price(3, 4), PriceState.LISTED)
    assert "unknown" not in cli.text("model", "add", "sim/fresh", "--no-discover")
    assert state(cli, fresh).state is PriceState.KNOWN
    assert state(cli).state is PriceState.MISSING


def test_the_readme_s_prices_are_known_once_the_simulator_lists_them(cli: CommandLine) -> None:
    ctx = cli.world.context()
    with serve_in_thread(simulator(time_scale=0)) as url:
        with cli.world.store.read() as tx:
            provider = Providers(tx).all()["sim"]
        moved = replace(provider, api_base=f"{url}/v1")
        targets.put_provider(ctx, SYSTEM, moved, "the simulator's address")
        for model in ("sim-base", "sim-better"):
            targets.add_target(ctx, ADMIN, Target("sim", model))
        assert state(cli, Target("sim", "sim-base")).state is PriceState.MISSING
        probing = replace(ctx, probe=HttpProviderProbe(SystemClock()))
        named_models.discover_models(probing, SYSTEM, "sim")

    for model in ("sim-base", "sim-better"):
        assert state(cli, Target("sim", model)).state is PriceState.KNOWN


@pytest.mark.parametrize("usd", [-1.0, float("nan"), float("inf"), 1e9])
def test_a_price_outside_its_range_is_refused(cli: CommandLine, usd: float) -> None:
    with pytest.raises(InputError, match="input"):
        registered_providers.set_price(cli.world.context(), ADMIN, "sim/plain", usd, 1.0)


def test_a_price_needs_an_admin_and_a_provider(cli: CommandLine) -> None:
    ctx = cli.world.context()
    with pytest.raises(NotAllowed):
        registered_providers.set_price(
            ctx, replace(ANN, role=Role.PROPOSER), "sim/plain", 1.0, 1.0
        )
    with pytest.raises(NotFound, match="there is no provider 'gone'"):
        registered_providers.set_price(ctx, ADMIN, "gone/plain", 1.0, 1.0)


def test_several_missing_prices_are_one_sentence_with_one_command() -> None:
    assert describe_missing("a/b", "c/d") == (
        "the price of a/b and c/d is unknown: `swapproof model price PROVIDER/MODEL INPUT "
        "OUTPUT` sets each"
    )
    assert describe_missing("a/b", "c/d", "e/f").startswith("the price of a/b, c/d and 1 more")
