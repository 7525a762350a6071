import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.app import seed
from harness.app.configuration import configuration
from harness.app.configuration.model import Settings
from harness.frame import package_data
from harness.frame.errors import InputError
from harness.frame.people.access import SYSTEM
from harness.operations.context import Context
from harness.providers.models.catalogue import CatalogueEntry, LitellmTable
from harness.providers.records import Providers
from harness.providers.registry import targets
from harness.providers.target import Price, Provider, Target
from harness.routing.records.proposals import Proposals
from tests.support.control.colours_suite import SKILL
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_chat import Response, serving
from tests.support.providers.scripted_probe import FixedCatalogue
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.documented_commands import DOCS

LLAMA = "openrouter/meta-llama/llama-3.3-70b-instruct"


@pytest.fixture
def cli(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        yield made


@pytest.mark.req("D1", "A7")
def test_a_provider_comes_with_its_first_model_and_the_model_is_a_candidate(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda _body: Response("hello")) as server:
        added = cli.run("model", "add", LLAMA, "--api-base", server.url)
        proposed = cli.json("proposal", "create", "chat", LLAMA)
        monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-of-the-test")
        answered = cli.json("model", "probe", LLAMA)

    assert added.stdout.split()[1] == LLAMA
    assert "OPENROUTER_API_KEY is not set" in added.stderr
    assert "`swapproof provider key set openrouter`" in added.stderr
    assert answered["answer"] == "hello"
    (asked,) = server.requests
    assert asked["model"] == "meta-llama/llama-3.3-70b-instruct"
    assert asked["authorization"] == "Bearer sk-or-of-the-test"
    monkeypatch.setitem(SKILL, "meta-llama/llama-3.3-70b-instruct", SKILL["better"])
    decided = cli.world.until_decided(proposed["proposal"]["id"])
    assert decided.verdict


def test_the_kind_s_place_and_key_are_taken_where_nothing_else_is_said(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-of-the-test")

    first = cli.run("model", "add", LLAMA, "--no-discover")
    again = cli.run("model", "add", LLAMA, "--no-discover")
    with cli.world.store.read() as tx:
        made = Providers(tx).all()["openrouter"]

    assert first.stdout == again.stdout
    assert first.stderr.strip() == "added provider openrouter at https://openrouter.ai/api/v1"
    assert again.stderr == ""
    assert (made.kind, made.api_base) == (
        "openrouter",
        "https://openrouter.ai/api/v1",
    )
    assert made.api_key_env == "OPENROUTER_API_KEY"


def test_another_name_with_an_address_is_an_openai_compatible_server(cli: CommandLine) -> None:
    added = cli.run(
        "model",
        "add",
        "attic/llama3:8b",
        "--api-base",
        "http://127.0.0.1:9/v1",
    )

    said, unknown = added.stderr.splitlines()
    assert said == "added provider attic at http://127.0.0.1:9/v1"
    unread = "Swapproof could not read its models: provider 'attic' lists no models: "
    assert unknown.startswith(unread)


@pytest.mark.parametrize(
    ("words", "exits", "said"),
    [
        (["openruoter/m"], 1, "did you mean 'openrouter'?"),
        (["vllm/m"], 2, "has no usual address: give --api-base"),
        (["openai_codex/m"], 2, "signs in"),
        (
            ["attic/m", "--api-base", "ftp://x"],
            2,
            "not an http or https address",
        ),
        (
            ["sim/m", "--api-base", "http://127.0.0.1:1"],
            6,
            "is configured at",
        ),
    ],
)
def test_what_cannot_be_added_says_what_to_do(
    cli: CommandLine,
    words: list[str],
    exits: int,
    said: str,
) -> None:
    assert said in cli.error("model", "add", *words, exits=exits)


def test_the_catalogue_is_listed_and_searched(cli: CommandLine) -> None:
    cli.run("model", "add", "anthropic/claude-sonnet-4-5")

    listed = {model["name"]: model for model in cli.json("model", "list", "--all")}
    searched = cli.json("model", "search", "sonnet 4-5", "anthropic/")
    shown = cli.text("model", "search", "anthropic/claude-sonnet-4-5")

    assert listed["anthropic/claude-sonnet-4-5"]["price"]["input_usd_per_mtok"] == 3
    assert listed["sim/base"]["price"] == {
        "input_usd_per_mtok": 1,
        "output_usd_per_mtok": 2,
    }
    assert "anthropic/claude-sonnet-4-5-20250929" in [model["name"] for model in searched]
    assert "2026-11-30" in shown
    assert "no such model" in cli.run("model", "search", "xyzzy").stderr


@pytest.mark.req("A7")
def test_a_model_that_speaks_no_chat_is_not_proposed_for_evals_that_would_fail(
    world: SmallInstallation,
) -> None:
    codex = Provider("codex", "openai_codex", "https://chatgpt.com/backend-api/codex")
    targets.put_provider(world.context(), SYSTEM, codex)
    targets.add_target(world.context(), SYSTEM, Target("codex", "gpt-5-codex"))

    with pytest.raises(InputError, match="suites need chat"):
        world.propose("codex/gpt-5-codex")

    with world.store.read() as tx:
        assert not Proposals(tx).open()
    assert world.propose("sim/better").route == "chat"


@pytest.mark.req("A7", "B7")
@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
def test_a_model_whose_chats_are_translated_may_be_proposed(
    world: SmallInstallation, kind: str
) -> None:
    other = Provider("other", kind, "https://models.example/v1")
    targets.put_provider(world.context(), SYSTEM, other)

    assert world.propose("other/opus").route == "chat"


PAGE = (DOCS / "reference/models.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = "".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)).splitlines()
    in_text = re.findall(r"`(swapproof model (?:add|list|search|match|resolve)[^`]*)`", PAGE)
    plain = [" ".join(command.split()) for command in in_text]
    return blocks + [
        command for command in plain if "WORDS" not in command and "NAME" not in command
    ]


def test_every_command_of_the_page_works(cli: CommandLine) -> None:
    ran = commands()
    for command in ran:
        words = shlex.split(command)
        assert words[0] == "swapproof"
        # Nothing that this installation's one provider offers is a gemini.
        cli.run(*words[1:], exits=1 if words[1:3] == ["model", "match"] else 0)

    assert {" ".join(command.split()[1:3]) for command in ran} == {
        "model add",
        "model list",
        "model search",
        "model match",
        "proposal create",
    }


def test_the_settings_are_understood_and_the_count_is_right(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(catalogue:.*?)```", PAGE, flags=re.DOTALL)
    file = tmp_path / "swapproof.yaml"
    file.write_text(block, encoding="utf-8")
    settings = configuration.load_settings(
        file, {}, defaults=package_data.path("config/default.yaml")
    )

    assert len(settings.catalogue) == len(yaml.safe_load(block)["catalogue"])
    assert f"of {len(LitellmTable().catalogue())} models" in PAGE


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
        return Providers(tx).all()["main"]


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

    file = tmp_path / "swapproof.yaml"
    file.write_text(
        "providers:\n  main:\n    kind: openai\n    api_base: http://127.0.0.1:9/v1\n"
        "    prices: {small: {input_usd_per_mtok: 7, output_usd_per_mtok: 8}}\n",
        encoding="utf-8",
    )
    return configuration.load_settings(
        file, {}, defaults=package_data.path("config/default.yaml")
    )
