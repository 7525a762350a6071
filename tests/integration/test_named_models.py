from dataclasses import replace
from datetime import timedelta

import pytest

from harness.agents.models import (
    choose_model,
    describe_unchecked,
    list_available,
    load_figures,
)
from harness.app import seed
from harness.app.installation import load_settings
from harness.frame.errors import AmbiguousName, NotFound
from harness.frame.people.access import SYSTEM
from harness.operations.context import Context
from harness.proposals import eval_queue, fallback_chain, review, submission
from harness.proposals.candidates import cost_ratio, estimate
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.proposals.submission import ProposalRequest
from harness.providers.models.capabilities import Capabilities
from harness.providers.models.catalogue import CatalogueEntry
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import DiscoveredModels, Providers, Targets
from harness.providers.registry import targets
from harness.providers.registry.named_models import (
    describe_missing_in_list,
    explain_name,
    find_model,
)
from harness.providers.target import Provider, Target
from harness.routing.control import routes
from harness.routing.records.proposals import Proposals
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.settings import RouteSeed
from tests.support.control.bare_installation import BareInstallation
from tests.support.control.people import ANN, BEN
from tests.support.providers.scripted_probe import FixedCatalogue

pytestmark = pytest.mark.req("C3", "D2")

WAIVER = WaiverRequest("a test", timedelta(days=1))
PLACE = "http://127.0.0.1:9/v1"
KINDS = {
    "main": "openai",
    "google": "gemini",
    "openrouter": "openrouter",
    "far": "anthropic",  # without a key
    "attic": "custom",  # lists nothing
}
KNOWN = {
    "openai": "gpt-5.1 gpt-5-mini gpt-4o",
    "gemini": "gemini-2.5-flash gemini-3.8-flash",
    "anthropic": "claude-opus-4-7 claude-sonnet-4-6",
}
LISTED = (
    "meta-llama/llama-4-scout",
    "meta-llama/llama-4-maverick",
    "qwen/qwen3-32b",
)


@pytest.fixture
def ctx(world: BareInstallation) -> Context:
    plain = world.context()
    for name, kind in KINDS.items():
        variable = f"{name.upper()}_KEY"
        targets.put_provider(plain, SYSTEM, Provider(name, kind, PLACE, variable))
    with plain.store.write() as tx:
        now = plain.clock.now()
        DiscoveredModels(tx).replace(
            "openrouter",
            [DiscoveredModel("openrouter", name, PLACE, now) for name in LISTED],
        )
    entries = [
        CatalogueEntry(kind, model)
        for kind, models in KNOWN.items()
        for model in models.split()
    ]
    environ = {f"{name.upper()}_KEY": "sk-a-key-of-a-test" for name in KINDS if name != "far"}
    return replace(plain, models=FixedCatalogue(*entries), environ=environ)


def find_name(ctx: Context, words: str) -> str:
    """As every door finds it, and as `model match` and `model resolve` explain it."""
    explained = explain_name(ctx, words).found
    with ctx.store.read() as tx:
        found = find_model(ctx, tx, words)
    assert found == explained
    return found.name


@pytest.mark.spine
def test_a_name_means_one_model(ctx: Context) -> None:
    meant = {
        "gpt-5-mini": "main/gpt-5-mini",
        "GPT 5 mini": "main/gpt-5-mini",
        "openai:gpt-5-mini": "main/gpt-5-mini",
        "openai:gpt 5 mini": "main/gpt-5-mini",
        "gemini flash": "google/gemini-3.8-flash",
        "google/gemini-flash": "google/gemini-3.8-flash",
        "llama-4 scout": "openrouter/meta-llama/llama-4-scout",
        "qwen": "openrouter/qwen/qwen3-32b",
        "qwen/qwen3-32b": "openrouter/qwen/qwen3-32b",
        "better": "sim/better",
        # In full: also where the provider's list lacks it, or there is no list, or no key.
        "main/gpt-6-sol": "main/gpt-6-sol",
        "main/gpt-5-minii": "main/gpt-5-minii",
        "sim/betterx": "sim/betterx",
        "attic/qwen": "attic/qwen",
        "far/claude-opus-4-7": "far/claude-opus-4-7",
        # A server of one's own that lists nothing takes a plain name.
        "my-own-model": "attic/my-own-model",
    }

    assert {words: find_name(ctx, words) for words in meant} == meant
    with ctx.store.write() as tx:
        own = [
            DiscoveredModel("attic", name, PLACE, ctx.clock.now())
            for name in ("gpt-4o", "own-model")
        ]
        DiscoveredModels(tx).replace("attic", own)
    assert find_name(ctx, "own") == "attic/own-model"
    assert find_name(ctx, "gpt-4o") == "main/gpt-4o"  # its maker's comes first
    with pytest.raises(NotFound, match="nearest: attic/own-model"):
        find_name(ctx, "my-own-model")


def test_a_loose_name_means_what_the_provider_lists_once_its_list_is_known(
    ctx: Context,
) -> None:
    listed = ("gpt-5-mini", "gpt-5-2026-01-01", "gpt-4o")
    with ctx.store.write() as tx:
        DiscoveredModels(tx).replace(
            "main",
            [DiscoveredModel("main", name, PLACE, ctx.clock.now()) for name in listed],
        )
    # A person added a model that the provider does not list.
    targets.add_target(ctx, ANN, Target("main", "gpt-6"))
    meant = {
        "gpt 5": "main/gpt-5-2026-01-01",
        "gpt-5": "main/gpt-5-2026-01-01",
        "openai/gpt-5": "main/gpt-5-2026-01-01",
        "gpt 6": "main/gpt-6",
        "gemini flash": "google/gemini-3.8-flash",  # its list is unknown
    }

    assert {words: choose_model(ctx, words).target for words in meant} == meant
    for words in ("gpt 5.1", "gpt-5.1", "main/gpt-5.1"):
        with pytest.raises(NotFound) as unknown:
            choose_model(ctx, words)
        refused, near = str(unknown.value).split("; nearest: ")
        assert refused == f"no provider lists {words!r}"
        assert "gpt-5.1" not in near.partition(";")[0]
    with ctx.store.read() as tx:
        unlisted = describe_missing_in_list(tx, Target("main", "gpt-5"))
    assert unlisted == "main does not list gpt-5 among 3; did you mean 'gpt-5-2026-01-01'?"
    shown = [model.model for model in list_available(ctx, frozenset(), "main/").models]
    assert shown == [
        "main/gpt-4o",
        "main/gpt-5-2026-01-01",
        "main/gpt-5-mini",
        "main/gpt-6",
    ]


@pytest.mark.parametrize("words", ["gpt 5 mini", "openai:gpt-5-mini"])
@pytest.mark.spine
def test_every_door_reads_the_same_name_and_registers_the_model(
    ctx: Context, words: str
) -> None:
    name = "main/gpt-5-mini"
    assert choose_model(ctx, words).target == name
    estimate.estimate_proposal(ctx, ProposalRequest("chat", words))
    made = submission.create_proposal(ctx, ANN, ProposalRequest("chat", words))
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    route = routes.create_route(ctx, SYSTEM, "other", words, settings=settings)
    wish = FallbackRequest(words, waive=WAIVER)
    chain = fallback_chain.add_fallback(ctx, SYSTEM, "chat", wish, reason="a test")
    run = eval_queue.queue_run(ctx, ANN, "colours", words)

    with ctx.store.read() as tx:
        known = Targets(tx).all()
    assert run is not None
    used = (made.candidate, route.incumbent, chain.fallbacks[-1], run.target)
    assert [known[id_].name for id_ in used] == [name] * 4
    after = fallback_chain.remove_fallback(ctx, SYSTEM, "chat", words, reason="a test")
    assert chain.fallbacks[-1] not in after.fallbacks


def test_who_approves_reads_that_the_provider_does_not_list_the_model(ctx: Context) -> None:
    request = ProposalRequest("chat", "openrouter/qwen/qwen4")
    targets.add_target(ctx, ANN, Target("openrouter", "qwen/qwen4"))
    made = submission.create_proposal(ctx, ANN, request)

    said = "openrouter does not list qwen/qwen4 among 3; did you mean 'qwen/qwen3-32b'?"
    assert review.review_proposal(ctx, made.id).unlisted == said
    preview = submission.preview_proposal(ctx, request)
    assert (preview.candidate, preview.unlisted) == (request.candidate, said)
    with ctx.store.read() as tx:
        target = find_model(ctx, tx, "openrouter/qwen/qwen4")
        assert load_figures(ctx, tx, target).quality_text == f"not measured; {said}"


def test_an_agents_model_is_listed_or_registered_by_a_person(ctx: Context) -> None:
    name = "openrouter/qwen/qwen4"
    with pytest.raises(NotFound) as unlisted:
        choose_model(ctx, name)
    said = f"no provider lists {name!r}; nearest: openrouter/qwen/qwen3-32b"
    assert str(unlisted.value).startswith(said)
    assert f"`swapproof model add {name}` adds it" in str(unlisted.value)
    with ctx.store.write() as tx:
        targets.register_target(ctx, tx, SYSTEM, Target("openrouter", "qwen/qwen4"))

    chosen = [choose_model(ctx, words) for words in (name, "attic/x", "gpt-5-mini")]

    notes = [note.partition(":")[0] for note in describe_unchecked(ctx, chosen)]
    assert notes == ["attic never listed its models, so x was not checked"]


def test_no_door_takes_a_full_name_that_the_known_list_of_its_provider_lacks(
    ctx: Context,
) -> None:
    typed = "openrouter/qwen/qwen4"
    declared = Target("openrouter", "own/finetune")
    request = ProposalRequest("chat", typed)
    route = RouteSeed("other", Target("openrouter", "qwen/qwen4"))
    file = replace(load_settings(), providers={}, routes={"other": route})
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    with ctx.store.read() as tx:
        before = dict(Targets(tx).all())
    for act in (
        lambda: submission.preview_proposal(ctx, request),
        lambda: submission.create_proposal(ctx, ANN, request),
        lambda: routes.create_route(ctx, SYSTEM, "other", typed, settings=settings),
        lambda: seed.apply_file(ctx, SYSTEM, file),
        lambda: cost_ratio.accept_cost_of(
            ctx,
            BEN,
            "chat",
            typed,
            ratio=2.0,
            because="it answers more",
        ),
    ):
        with pytest.raises(
            NotFound,
            match=f"no provider lists '{typed}'; nearest: .*model add",
        ):
            act()
    with ctx.store.read() as tx:
        assert dict(Targets(tx).all()) == before
        own = replace(
            Providers(tx).all()["openrouter"],
            models={"own/finetune": Capabilities()},
        )

    # What the file declares, or a person added, is meant.
    targets.put_provider(ctx, SYSTEM, own)
    targets.add_target(ctx, ANN, route.incumbent)
    both = replace(route, fallbacks=(declared,))
    assert seed.apply_file(ctx, SYSTEM, replace(file, routes={"other": both})).created


@pytest.mark.spine
def test_a_name_that_is_no_one_model_makes_nothing(ctx: Context) -> None:
    with ctx.store.read() as tx:
        before = dict(Targets(tx).all())
    refused = [
        (
            "llama-4",
            AmbiguousName,
            "llama-4-maverick, openrouter/meta-llama/llama-4-scout",
        ),
        ("openai/gpt", AmbiguousName, "may be one of main/"),
        ("gpt 9", NotFound, "nearest: main/gpt"),
        (
            "gpt-5-minii",
            NotFound,
            "lists 'gpt-5-minii'; nearest: main/gpt-5-mini and",
        ),
        ("opus", NotFound, "far/claude-opus-4-7, whose provider has no key"),
        (
            "groq/gpt-4o",
            NotFound,
            "no provider lists 'groq.gpt-4o'; nearest:",
        ),
        (
            "groq:gpt-4o",
            NotFound,
            "no provider lists 'groq.gpt-4o'; nearest:",
        ),
        (
            "gone/better",
            NotFound,
            "no provider lists 'gone/better'; nearest: sim/better",
        ),
        (
            "xyzzy zyx",
            NotFound,
            r"no provider lists 'xyzzy zyx'; nearest: \S+ and \S+; ",
        ),
    ]
    for words, error, message in refused:
        assert explain_name(ctx, words).found is None
        with pytest.raises(error, match=message):
            submission.create_proposal(ctx, ANN, ProposalRequest("chat", words))

    with ctx.store.read() as tx:
        assert dict(Targets(tx).all()) == before
        assert not Proposals(tx).open()
