"""Which provider takes a model's name (D2), rule by rule, and what is said of it."""

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.providers.force import Force, ForceKind
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.catalogue import CatalogueEntry, build_catalogue
from harness.providers.models.model_match import list_offers
from harness.providers.models.name_resolution import (
    ModelNameQuery,
    Resolution,
    ResolutionRule,
    RuleOutcome,
)
from harness.providers.target import Price, Provider

pytestmark = pytest.mark.req("D2")

KNOWN = build_catalogue(
    [
        CatalogueEntry("openai", "gpt-5"),
        CatalogueEntry("groq", "openai/gpt-oss-120b"),
        CatalogueEntry("vertex", "gemini-3-pro"),
        CatalogueEntry("gemini", "gemini-3-pro"),
        CatalogueEntry("github_copilot", "grok-4.7"),
    ]
)


def provider(name: str, kind: str = "", **fields: object) -> Provider:
    return Provider(name, kind or name, "http://127.0.0.1:9/v1", **fields)  # type: ignore[arg-type]


ALL = [
    provider("anthropic"),
    provider("groq"),
    provider("gemini"),
    provider("home", "ollama"),
    provider("main", "openai"),
    provider("openrouter"),
    provider("codex", "openai_codex"),
    provider("own", "custom", prices={"house-model": Price(1, 1)}),
    provider("vertex"),
]


def resolve_name(name: str, *names: str, **given: object) -> Resolution:
    there = {model.name: model for model in ALL if not names or model.name in names}
    return resolve(name, there, **given)


def resolve(name: str, there: Mapping[str, Provider], **given: object) -> Resolution:
    offers = list_offers(there, KNOWN, ())
    query = ModelNameQuery(name.strip(), there, offers, catalogue=KNOWN, **given)  # type: ignore[arg-type]
    return query.resolve()


@pytest.mark.parametrize(
    ("name", "there", "target", "rule"),
    [
        # prefix: a provider's name, a kind's; by slash and by colon
        ("openrouter/anthropic/claude", "", "openrouter/anthropic/claude", "prefix"),
        ("openai:gpt-4o-mini", "", "main/gpt-4o-mini", "prefix"),
        ("main/gpt-5", "", "main/gpt-5", "prefix"),
        ("home:llama3:8b", "", "home/llama3:8b", "prefix"),
        ("ollama/llama3", "", "home/llama3", "prefix"),
        ("anthropic/claude-sonnet-4-5", "", "anthropic/claude-sonnet-4-5", "prefix"),
        # keyword: the model that the words mean, else whose names begin so
        ("openai/gpt-oss-120b", "groq openrouter", "groq/openai/gpt-oss-120b", "keyword"),
        ("house-model", "", "own/house-model", "keyword"),
        ("gemini-3-pro", "", "gemini/gemini-3-pro", "keyword"),
        ("gemini-3-pro", "vertex", "vertex/gemini-3-pro", "keyword"),
        ("claude-sonnet-4-5", "", "anthropic/claude-sonnet-4-5", "keyword"),
        ("gpt", "main home", "main/gpt-5", "keyword"),
        ("CLAUDE-9", "", "anthropic/CLAUDE-9", "keyword"),
        # local: plain names that nobody sells
        ("llama3:8b", "home openrouter", "home/llama3:8b", "local"),
        ("mistral", "home openrouter", "home/mistral", "local"),
        # gateway: the whole name
        ("google/gemini", "gemini openrouter", "openrouter/google/gemini", "gateway"),
        (
            "anthropic/claude-sonnet-4-5",
            "openrouter home",
            "openrouter/anthropic/claude-sonnet-4-5",
            "gateway",
        ),
        ("meta-llama/llama-3", "openrouter", "openrouter/meta-llama/llama-3", "gateway"),
        ("gpt-5", "home openrouter", "openrouter/gpt-5", "gateway"),
    ],
)  # fmt: skip
def test_the_first_rule_that_fits_decides(
    name: str, there: str, target: str, rule: str
) -> None:
    resolution = resolve_name(name, *there.split())

    assert resolution.target == target
    assert [t.rule.value for t in resolution.rules if t.outcome is RuleOutcome.TOOK] == [rule]


@pytest.mark.parametrize(
    ("name", "there", "said"),
    [
        (
            "claude-opus-5",
            "main",
            "such names belong to anthropic, but no provider of it is configured",
        ),
        ("GPT-99", "", "its known models do not include GPT-99"),
        ("claude nine", "anthropic", "a name of several words is not an exact name"),
        ("gpt-5", "home", "it is not a local model: the catalogue has it for openai"),
        ("qwen/qwen3-32b", "home", "a local provider takes only plain names"),
        ("llama3", "main", "no local provider with an apiBase is configured"),
        ("llama3", "main", "no gateway (openrouter) with a key is configured"),
        ("bedrock/m", "main", "bedrock is a kind, but no provider of it is configured"),
        ("elsewhere/m", "main", "'elsewhere' is neither a configured provider nor a kind"),
        ("grok-4.7", "codex", "an OAuth provider needs its own prefix"),
        ("", "main", "the name is empty"),
        # A kind in front is never left for another one.
        ("mistral:7b", "home openrouter", "is configured"),
        ("vertex/gemini-9", "gemini", "is configured"),
        ("openrouter/anthropic/claude-opus-5", "anthropic", "is configured"),
    ],
)
def test_a_name_that_nobody_takes_says_why(name: str, there: str, said: str) -> None:
    resolution = resolve_name(name, *there.split())

    assert resolution.target is None
    assert said in resolution.reason


def test_a_server_that_is_called_like_another_kind_is_not_taken_for_it() -> None:
    disguised = {"openai": provider("openai", "ollama")}
    beside = {**disguised, "main": provider("main", "openai")}

    assert resolve("openai:gpt-5", disguised).target is None
    assert resolve("openai:gpt-5", beside).target == "main/gpt-5"
    # As a target is written, which has the provider's name in front.
    assert resolve("openai/llama3", beside).target == "openai/llama3"


@given(
    kind=st.sampled_from(sorted(set(PROVIDER_KINDS) - {"sim"})),
    model=st.text("abgpt-5.:", min_size=1, max_size=8),
    there=st.sets(st.sampled_from([model.name for model in ALL])),
)
def test_a_kind_and_a_colon_lead_to_that_kind_or_to_nobody(
    kind: str, model: str, there: set[str]
) -> None:
    configured = {model.name: model for model in ALL if model.name in there}
    resolution = resolve(f"{kind}:{model}", configured)

    assert resolution.provider is None or configured[resolution.provider].kind == kind


@pytest.mark.req("D7")
def test_an_account_is_taken_by_its_prefix_alone_and_signed_in() -> None:
    signed_in = resolve_name("openai_codex/gpt-5", signed_in={"codex"})
    not_yet = resolve_name("codex/gpt-5")
    by_model = resolve_name("gpt-5", "codex", signed_in={"codex"})

    assert signed_in.target == "codex/gpt-5"
    assert not_yet.target is None
    # The name asked for one account: no other provider of gpt-5 is taken in its place.
    assert [t.outcome for t in not_yet.rules][1:5] == [RuleOutcome.NO] * 4
    assert not_yet.rules[-1].outcome is RuleOutcome.REFUSED
    assert "sign in" in not_yet.reason
    assert by_model.target is None


@pytest.mark.req("B11")
@pytest.mark.parametrize(
    ("force", "name", "target"),
    [
        ("provider:main", "anthropic/claude-opus-5", "main/anthropic/claude-opus-5"),
        ("provider:main", "openai:gpt-5", "main/gpt-5"),
        ("provider:gone", "main/gpt-5", "main/gpt-5"),
        ("provider:codex", "main/gpt-5", "main/gpt-5"),
        ("target:groq/small", "claude-opus-5", "groq/small"),
        ("target:t_0123", "claude-opus-5", "anthropic/claude-opus-5"),
    ],
)
def test_a_forced_provider_comes_before_all(force: str, name: str, target: str) -> None:
    kind, _, forced = force.partition(":")

    assert resolve_name(name, forced=Force(ForceKind(kind), forced)).target == target


NAMES = st.text("abcgpt/:-.5", max_size=12) | st.sampled_from(
    ["openai:gpt-5", "claude-opus-5", "openrouter/x/y", "llama3", "codex/gpt-5"]
)


@given(name=NAMES, there=st.sets(st.sampled_from([model.name for model in ALL])))
def test_every_name_has_each_rule_once_and_at_most_one_that_takes_it(
    name: str, there: set[str]
) -> None:
    configured = {model.name: model for model in ALL if model.name in there}
    resolution = resolve(name, configured)

    took = [t for t in resolution.rules if t.outcome is RuleOutcome.TOOK]
    assert [t.rule for t in resolution.rules] == list(ResolutionRule)
    assert all(t.reason for t in resolution.rules)
    assert len(took) == (resolution.provider is not None)
    if resolution.provider is not None:
        assert resolution.provider in there
        assert resolution.provider != "codex"
        assert resolution.model


@given(model=st.text("abc/:-5", min_size=1, max_size=8), there=st.sampled_from(ALL))
@example(model="b/", there=provider("groq"))
def test_a_provider_s_own_prefix_always_leads_to_it(model: str, there: Provider) -> None:
    resolution = resolve_name(f"{there.name}/{model}", signed_in={"codex"})

    assert (resolution.provider, resolution.model) == (there.name, model.strip())
