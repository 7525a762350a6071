"""The model that somebody means (C3): worked names, and laws."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.models.catalogue import (
    Catalogue,
    CatalogueEntry,
    build_catalogue,
)
from harness.providers.models.model_match import (
    NO_OFFER,
    VENDOR_WORDS,
    ModelMatch,
    ModelOffer,
    list_nearest,
    list_offers,
    match_among,
)
from harness.providers.models.model_names import parse_model_name
from harness.providers.target import Price, Provider, Target

pytestmark = pytest.mark.req("C3")

TODAY = date(2026, 11, 20)
NAMES = {
    "anthropic": """claude-haiku-4-5 claude-haiku-4-5-20251001 claude-sonnet-4-5
        claude-sonnet-4-5-20250929 claude-sonnet-4-6 claude-opus-4-1-20250805 claude-opus-4-5
        claude-opus-4-7 claude-opus-4-7-20260416 claude-3-5-sonnet-20241022 claude-fable-5
        claude-mythos-preview""",
    "gemini": """gemini-2.5-flash gemini-2.5-flash-lite gemini-2.5-pro gemini-3.1-pro-preview
        gemini-3.5-flash gemini-3.8-flash gemini-flash-latest gemini-3.1-flash-lite-preview
        gemma-3-27b-it gemma-4-31b-it""",
    "openai": """gpt-4 gpt-4.1 gpt-4.1-mini gpt-4o gpt-4o-2024-08-06 gpt-4o-2024-11-20
        gpt-4o-mini gpt-5 gpt-5.1 gpt-5.1-codex gpt-5.3-codex gpt-5-mini gpt-5-nano o3 o4-mini
        o3-mini text-embedding-3-large text-embedding-3-small ft:gpt-4o""",
    "mistral": """mistral-large-2411 mistral-large-2512 mistral-large-latest mistral-medium-3
        mistral-medium-3-5 codestral-2501 codestral-2508 codestral-latest""",
    "deepseek": "deepseek-chat deepseek-v3.2 deepseek-v4-flash deepseek-r1",
    "bedrock": "anthropic.claude-opus-4-7 us.anthropic.claude-opus-4-7 amazon.nova-2-lite-v1:0",
    "github_copilot": "grok-4.7 claude-opus-5",
}
ENDED = {"gpt-5.3-codex": date(2026, 7, 23), "mistral-medium-3-5": TODAY}


def known() -> Catalogue:
    return build_catalogue(
        CatalogueEntry(kind, model, end_date=ENDED.get(model))
        for kind, models in NAMES.items()
        for model in models.split()
    )


PROVIDERS = {
    name: Provider(name, kind, "http://127.0.0.1:9/v1", prices=prices)
    for name, kind, prices in (
        ("anthropic", "anthropic", {}),
        ("aws", "bedrock", {}),
        ("copilot", "github_copilot", {}),
        ("deepseek", "deepseek", {}),
        ("google", "gemini", {}),
        ("main", "openai", {}),
        ("mistral", "mistral", {}),
        (
            "openrouter",
            "openrouter",
            {"meta-llama/llama-3.3-70b-instruct": Price(1, 1)},
        ),
    )
}
TARGETS = [Target("openrouter", "qwen/qwen3-32b")]
OFFERS = list_offers(PROVIDERS, known(), TARGETS)


def match_name(name: str) -> ModelMatch:
    return match_among(name, OFFERS, today=TODAY)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        # a family: its newest
        ("claude-sonnet", "anthropic/claude-sonnet-4-6"),
        ("claude sonnet", "anthropic/claude-sonnet-4-6"),
        ("Sonnet", "anthropic/claude-sonnet-4-6"),
        ("sonnet claude", "anthropic/claude-sonnet-4-6"),
        ("opus", "anthropic/claude-opus-4-7"),
        ("haiku", "anthropic/claude-haiku-4-5"),
        ("claude_fable", "anthropic/claude-fable-5"),
        ("gemini flash", "google/gemini-3.8-flash"),
        ("gemini pro", "google/gemini-2.5-pro"),
        ("gemini flash lite", "google/gemini-2.5-flash-lite"),
        ("gpt mini", "main/gpt-5-mini"),
        ("nano", "main/gpt-5-nano"),
        ("gpt4o", "main/gpt-4o"),
        ("4o", "main/gpt-4o"),
        ("4o mini", "main/gpt-4o-mini"),
        ("o-mini", "main/o4-mini"),
        ("codex", "main/gpt-5.1-codex"),
        ("mistral large", "mistral/mistral-large-2512"),
        ("mistral-medium", "mistral/mistral-medium-3"),
        ("codestral", "mistral/codestral-2508"),
        ("deepseek 3.2", "deepseek/deepseek-v3.2"),
        ("llama", "openrouter/meta-llama/llama-3.3-70b-instruct"),
        ("qwen", "openrouter/qwen/qwen3-32b"),
        ("nova lite", "aws/amazon.nova-2-lite-v1:0"),
        ("embedding large", "main/text-embedding-3-large"),
        ("mythos", "anthropic/claude-mythos-preview"),
        # a version: that one only, however it is written
        ("opus 4.7", "anthropic/claude-opus-4-7"),
        ("opus-4-7", "anthropic/claude-opus-4-7"),
        ("claude opus 4.1", "anthropic/claude-opus-4-1-20250805"),
        ("sonnet4.5", "anthropic/claude-sonnet-4-5"),
        ("claude 3.5 sonnet", "anthropic/claude-3-5-sonnet-20241022"),
        ("sonnet 20250929", "anthropic/claude-sonnet-4-5-20250929"),
        ("gpt 4.1", "main/gpt-4.1"),
        ("gpt5", "main/gpt-5"),
        ("gpt-5.0", "main/gpt-5"),
        ("gemini 2.5 flash", "google/gemini-2.5-flash"),
        ("flash lite 3.1", "google/gemini-3.1-flash-lite-preview"),
        ("gpt-4o 2024-08-06", "main/gpt-4o-2024-08-06"),
        ("codex 5.3", "main/gpt-5.3-codex"),
        ("mistral large 2411", "mistral/mistral-large-2411"),
        ("o3", "main/o3"),
        ("r1", "deepseek/deepseek-r1"),
        # said in so many words
        ("gemini pro preview", "google/gemini-3.1-pro-preview"),
        ("gemini-flash-latest", "google/gemini-flash-latest"),
        ("codestral latest", "mistral/codestral-latest"),
        # a provider in front
        ("aws/opus 4.7", "aws/anthropic.claude-opus-4-7"),
        ("bedrock:claude opus", "aws/anthropic.claude-opus-4-7"),
        ("openai gpt 5", "main/gpt-5"),
        ("anthropic sonnet", "anthropic/claude-sonnet-4-6"),
        # exactly as it is written, also an alias that others come before
        ("main/gpt-4o-2024-11-20", "main/gpt-4o-2024-11-20"),
        ("CLAUDE-HAIKU-4-5-20251001", "anthropic/claude-haiku-4-5-20251001"),
    ],
)
def test_a_name_means_one_model(name: str, found: str) -> None:
    match_ = match_name(name)

    assert match_.found is not None, match_
    assert match_.found.name == found
    assert not match_.candidates


@pytest.mark.parametrize(
    ("name", "among"),
    [
        (
            "claude",
            "claude-fable-5 claude-haiku-4-5 claude-mythos-preview claude-opus-4-7",
        ),
        ("gpt", "gpt-5.1 gpt-4o gpt-5-mini gpt-5-nano gpt-5.1-codex"),
        ("openai gpt", "gpt-5.1 gpt-5-mini"),
        ("gemini", "gemini-3.8-flash gemini-2.5-pro gemini-2.5-flash-lite"),
        (
            "deepseek",
            "deepseek-v3.2 deepseek-v4-flash deepseek-chat deepseek-r1",
        ),
        ("flash", "deepseek-v4-flash gemini-3.8-flash"),
        ("mistral", "mistral-large-2512 mistral-medium-3"),
        ("gemma", "gemma-3-27b-it gemma-4-31b-it"),
        ("mini", "gpt-5-mini o4-mini"),
        ("text embedding", "text-embedding-3-large text-embedding-3-small"),
        ("claude 4.5", "claude-haiku-4-5 claude-opus-4-5 claude-sonnet-4-5"),
    ],
)
def test_a_name_that_fits_several_families_is_not_guessed(name: str, among: str) -> None:
    match_ = match_name(name)

    assert match_.found is None
    assert set(among.split()) <= {candidate.model for candidate in match_.candidates}
    assert "name one of them" in match_.reason


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("opus 4.9", "claude-opus-4-7"),
        ("opus 4", "claude-opus-4-5"),
        ("sonnet 20200101", "claude-sonnet-4-6"),
        ("gpt 9", "gpt-5.1"),
    ],
)
def test_a_version_that_there_is_not_is_no_other_version(name: str, near: str) -> None:
    match_ = match_name(name)

    assert match_.found is None
    assert not match_.candidates
    assert near in [candidate.partition("/")[2] for candidate in match_.near]


@pytest.mark.parametrize("name", ["", "xyzzy", "grok", "ft:gpt", "/", ":", "claud sonet"])
def test_what_nobody_offers_is_not_found(name: str) -> None:
    assert match_name(name).found is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        # the likest letters, where no part is shared
        ("claud sonet", "anthropic/claude-sonnet-4-6"),
        ("gemni flash", "google/gemini-3.8-flash"),
        # the family and the version, however like another name is
        ("gpt-5-minii", "main/gpt-5-mini"),
        ("gpt-5-mimi", "main/gpt-5-mini"),
        ("gpt5minii", "main/gpt-5-mini"),
        # the provider
        ("aws/claude-9", "aws/anthropic.claude-opus-4-7"),
    ],
)
def test_the_nearest_name_shares_most_parts_and_then_most_letters(name: str, near: str) -> None:
    assert list_nearest(name, [offer.name for offer in OFFERS])[0] == near


MODELS = [offer.name for offer in OFFERS]
ANY_NAME = st.sampled_from(MODELS)
TYPED = st.text("abcdeglmnoprstu 0123456789.-/:", max_size=20) | ANY_NAME


@given(name=ANY_NAME)
def test_every_offer_is_found_by_its_full_name(name: str) -> None:
    found = match_name(name).found

    assert found is not None
    assert found.name == name


VENDORS = sorted({" ".join(word) for word in VENDOR_WORDS})


@given(
    word=st.sampled_from(VENDORS),
    others=st.lists(
        st.sampled_from(["", "-big", "-small", "-vast"]),
        min_size=2,
        unique=True,
    ),
    versions=st.lists(st.integers(1, 9), min_size=4, max_size=4),
)
def test_a_vendors_bare_word_never_means_one_of_several_families(
    word: str,
    others: list[str],
    versions: list[int],
) -> None:
    """Also where one family, an old one as a rule, is called by nothing else."""
    models = [f"{word.replace(' ', '-')}{own}-v{n}" for own, n in zip(others, versions)]  # noqa: B905 - there are more versions
    among = [ModelOffer("p", "custom", model) for model in models]

    match_ = match_among(word, among, today=TODAY)

    assert match_.found is None
    assert {candidate.model for candidate in match_.candidates} == set(models)


def test_a_vendors_word_and_a_version_mean_the_plainest_family_that_has_it() -> None:
    models = ["claude-v2", "claude-opus-4-5", "claude-haiku-4-5"]
    among = [ModelOffer("p", "custom", model) for model in models]

    model_match = match_among("claude 4.5", among, today=TODAY)

    assert {candidate.model for candidate in model_match.candidates} == {*models[1:]}


FAMILIES = sorted({parse_model_name(offer.model).words for offer in OFFERS})


@given(
    words=st.sampled_from(FAMILIES),
    version=st.tuples(st.integers(1, 9), st.integers(0, 9)),
    glue=st.sampled_from([".", "-"]),
)
def test_a_version_is_never_another_version(
    words: tuple[str, ...],
    version: tuple[int, int],
    glue: str,
) -> None:
    match_ = match_name(f"{' '.join(words)} {version[0]}{glue}{version[1]}")

    meant = [match_.found] if match_.found else match_.candidates
    literal = version if version[1] else version[:1]
    assert {parse_model_name(model.model).version for model in meant} <= {literal}
    assert meant or match_.near


@given(name=TYPED, order=st.permutations(OFFERS))
def test_the_answer_does_not_hang_on_the_order(name: str, order: list[ModelOffer]) -> None:
    assert match_among(name, order, today=TODAY) == match_name(name)


@given(name=TYPED)
def test_one_answer_of_three(name: str) -> None:
    match_ = match_name(name)

    assert not (match_.found and (match_.candidates or match_.near))
    assert len(match_.candidates) != 1
    assert match_.reason
    families = [parse_model_name(candidate.model).words for candidate in match_.candidates]
    assert len({frozenset(family) for family in families}) == len(families)


@given(
    versions=st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 9)),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    dotted=st.booleans(),
)
def test_a_family_means_its_newest_version(
    versions: list[tuple[int, int]], *, dotted: bool
) -> None:
    models = [f"swan-{a}.{b}-big" if dotted else f"swan-{a}-{b}-big" for a, b in versions]
    among = [ModelOffer("p", "custom", model) for model in [*models, "swan-99-big-preview"]]
    a, b = max(versions)

    found = match_among("big swan", among, today=TODAY).found

    assert found is not None
    assert parse_model_name(found.model).version == ((a, b) if b else (a,))


@given(st.text(max_size=40))
def test_any_text_can_be_read(name: str) -> None:
    read = parse_model_name(name)

    assert not read.version or read.version[-1] > 0
    assert read.rank >= parse_model_name("").rank or read.preview or read.latest or read.date


def test_without_models_or_a_name_the_reason_says_so() -> None:
    assert match_among("claude", (), today=TODAY) == ModelMatch(NO_OFFER)
    assert match_name(" ") == ModelMatch("the name is empty")


def test_a_kind_in_front_that_nobody_has_is_not_left_for_another_one() -> None:
    among = [
        ModelOffer("home", "ollama", "gpt-5"),
        ModelOffer("home", "ollama", "openai-gpt-5"),
    ]

    model_match = match_among("openai:gpt 5", among, today=TODAY)

    assert model_match.found is None
    assert "no configured provider is called 'openai'" in model_match.reason


def test_a_model_that_its_provider_still_lists_has_not_ended() -> None:
    """The catalogue's announced end counts only while the provider's list is unknown."""
    entry = CatalogueEntry("custom", "swan-9", end_date=TODAY)
    older = ModelOffer("p", "custom", "swan-8", listed=True)
    found = {}
    for listed in (True, False, None):
        newer = ModelOffer("p", "custom", "swan-9", entry, listed, build_catalogue([entry]))
        match_ = match_among("swan", [newer, older], today=TODAY).found
        found[listed] = match_.model if match_ else ""

    assert found == {
        True: "swan-9",
        False: "swan-8",
        None: "swan-8",
    }
