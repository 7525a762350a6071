"""The table of provider kinds."""

import pytest

from harness.domain.errors import InputError
from harness.domain.providers.api_base_rules import api_base_example, check_api_base_path
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.domain.routing.capabilities import Capabilities
from harness.domain.routing.target import Provider

REQUIRED = (
    "openai anthropic gemini azure_openai bedrock vertex groq deepseek mistral openrouter \
ollama lm_studio vllm llama_cpp sglang tgi ovms litellm custom openai_codex github_copilot sim"
)

pytestmark = pytest.mark.req("D1", "D7")


def test_every_kind_that_is_promised_is_in_the_table() -> None:
    assert set(PROVIDER_KINDS) == set(REQUIRED.split())


def test_an_endpoint_is_either_spoken_or_translated() -> None:
    assert not [kind.name for kind in PROVIDER_KINDS.values() if kind.speaks & kind.adapted]


@pytest.mark.parametrize(
    ("kind", "can", "translated"),
    [
        ("vllm", Capabilities(), {"responses", "messages"}),
        ("vllm", Capabilities(responses="native"), {"messages"}),
        ("custom", Capabilities(responses="native", messages="native"), set()),
        ("openai", Capabilities(), {"messages"}),
        ("openai", Capabilities(responses=False), {"responses", "messages"}),
        ("ollama", Capabilities(chat=False), set()),
        ("anthropic", Capabilities(messages=False), {"chat", "responses"}),
    ],
    ids=["local", "native", "both", "hosted", "declared", "no chat", "anthropic"],
)
def test_a_model_is_asked_by_translation_where_its_own_endpoint_is_not_sure(
    kind: str, can: Capabilities, translated: set[str]
) -> None:
    assert PROVIDER_KINDS[kind].translates(can) == translated


def test_no_keyword_belongs_to_two_kinds() -> None:
    words = [word for kind in PROVIDER_KINDS.values() for word in kind.keywords]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("kind", ["custom", "azure_openai", "vllm", "vertex", "bedrock"])
def test_a_kind_that_can_be_anywhere_has_no_default_place(kind: str) -> None:
    assert not PROVIDER_KINDS[kind].api_base


def test_a_local_provider_needs_no_key() -> None:
    local = [kind for kind in PROVIDER_KINDS.values() if kind.group is ProviderGroup.LOCAL]
    assert local
    assert not any(kind.needs_key for kind in local)


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("openai", {"authorization": "Bearer k"}),
        ("anthropic", {"x-api-key": "k"}),
        ("azure_openai", {"api-key": "k"}),
        ("gemini", {"x-goog-api-key": "k"}),
        ("vertex", {"authorization": "Bearer k"}),
        ("bedrock", {"authorization": "Bearer k"}),
    ],
)
def test_a_key_travels_as_its_kind_wants_it(kind: str, headers: dict[str, str]) -> None:
    provider = Provider("p", kind, "https://one.test/v1")
    assert provider.key_headers("k") == headers
    assert provider.key_headers("") == {}


@pytest.mark.parametrize(
    "api_base",
    [
        "https://one.openai.azure.com",
        "https://one.openai.azure.com/",
        "https://one.openai.azure.com/openai/v1",
    ],
)
def test_an_azure_resource_is_named_by_its_address_alone(api_base: str) -> None:
    wanted = "https://one.openai.azure.com/openai/v1/chat/completions"
    assert Provider("p", "azure_openai", api_base).url("/chat/completions") == wanted


@pytest.mark.parametrize(
    ("kind", "api_base"),
    [
        ("vertex", "https://h/v1/projects/p/locations/l/publishers/google"),
        ("vertex", "https://h/gateway/v1beta1/projects/p/locations/l/publishers/google/"),
        ("openai", "https://h/v1"),
        ("bedrock", "https://bedrock-runtime.eu-west-1.amazonaws.com"),
    ],
)
def test_a_place_below_which_the_kinds_paths_stand_is_taken(kind: str, api_base: str) -> None:
    check_api_base_path(kind, api_base)


@pytest.mark.parametrize(
    "api_base",
    [
        "",
        "https://europe-west4-aiplatform.googleapis.com",
        "https://h/v1/projects/p/locations/l/endpoints/openapi",
        "https://h/v1/projects/p/locations/l/publishers/anthropic",
    ],
)
def test_a_vertex_without_project_and_region_is_refused_with_an_example(api_base: str) -> None:
    with pytest.raises(InputError, match="projects/PROJECT/locations/REGION"):
        check_api_base_path("vertex", api_base)
    assert api_base_example("vertex").startswith("https://REGION-aiplatform.googleapis.com/v1/")
