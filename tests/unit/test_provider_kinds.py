import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.runner.provider_client import EvalProviderClient, ProviderFailed
from harness.frame.errors import InputError
from harness.providers.api_base_rules import (
    api_base_example,
    check_api_base_path,
)
from harness.providers.calls.guarded_http import (
    MAX_HEADERS,
    MAX_NAME_LENGTH,
    MAX_VALUE_LENGTH,
    check_headers,
)
from harness.providers.kinds import PROVIDER_KINDS, find_kind_at
from harness.providers.models.capabilities import Capabilities
from harness.providers.target import Provider
from router.upstream.transports import ProviderClient

pytestmark = pytest.mark.req("D1", "D7")


def test_an_endpoint_is_either_spoken_or_translated() -> None:
    assert not [kind.name for kind in PROVIDER_KINDS.values() if kind.speaks & kind.adapted]


@pytest.mark.parametrize(
    ("kind", "can", "translated"),
    [
        ("vllm", Capabilities(), {"responses", "messages"}),
        ("vllm", Capabilities(responses="native"), {"messages"}),
        (
            "custom",
            Capabilities(responses="native", messages="native"),
            set(),
        ),
        ("openai", Capabilities(), {"messages"}),
        ("openai", Capabilities(responses=False), {"responses", "messages"}),
        ("ollama", Capabilities(chat=False), set()),
        ("anthropic", Capabilities(messages=False), {"chat", "responses"}),
    ],
    ids=[
        "local",
        "native",
        "both",
        "hosted",
        "declared",
        "no chat",
        "anthropic",
    ],
)
def test_a_model_is_asked_by_translation_where_its_own_endpoint_is_not_sure(
    kind: str,
    can: Capabilities,
    translated: set[str],
) -> None:
    assert PROVIDER_KINDS[kind].translates(can) == translated


def test_no_keyword_belongs_to_two_kinds() -> None:
    words = [word for kind in PROVIDER_KINDS.values() for word in kind.keywords]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("kind", ["custom", "azure_openai", "vllm", "vertex", "bedrock"])
def test_a_kind_that_can_be_anywhere_has_no_default_place(kind: str) -> None:
    assert not PROVIDER_KINDS[kind].api_base


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
        (
            "vertex",
            "https://h/gateway/v1beta1/projects/p/locations/l/publishers/google/",
        ),
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


SECRET = "SECRETLF99999"  # noqa: S105 - made up


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Team": "support", "authorization": "Basic dXNlcjpwYXNz"},
        {"x-empty": ""},
        {"x-inner": "a \t b", "!#$%&'*+.^_`|~0aZ-": "~!"},
        {"x" * MAX_NAME_LENGTH: "v" * MAX_VALUE_LENGTH},
        {f"x-{number}": "v" for number in range(MAX_HEADERS)},
    ],
)
def test_headers_that_http_carries_are_taken(headers: dict[str, str]) -> None:
    check_headers(headers)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "not a header name"),
        ("bad name", "'bad name' is not a header name"),
        ("x:", "not a header name"),
        ("X-É", "not a header name"),
        ("x\r\ny", "not a header name"),
        ("x" * (MAX_NAME_LENGTH + 1), "not a header name"),
        *(
            (name, "for the connection")
            for name in (
                "Host",
                "content-length",
                "Transfer-Encoding",
                "Connection",
                "TE",
            )
        ),
    ],
)
def test_a_name_that_would_break_a_request_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        check_headers({name: SECRET})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        f"a\n{SECRET}",
        f"{SECRET}\n",
        f"{SECRET}\r\nx: y",
        f"a\n {SECRET}",
        f"{SECRET}\0",
        f"vé€{SECRET}",
        f"{SECRET}\x7f",
        f" {SECRET}",
        f"{SECRET}\t",
        SECRET + "v" * MAX_VALUE_LENGTH,
    ],
)
def test_a_value_that_no_header_carries_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(InputError, match="the value of the extra header 'X-A'") as refused:
        check_headers({"X-A": value})
    assert SECRET not in str(refused.value)


def test_names_are_one_whatever_their_case_and_not_too_many() -> None:
    with pytest.raises(InputError, match="'x-a' occurs twice"):
        check_headers({"X-A": "1", "x-a": "2"})
    with pytest.raises(InputError, match=f"more than {MAX_HEADERS}"):
        check_headers({f"x-{number}": "v" for number in range(MAX_HEADERS + 1)})


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_is_taken_is_one_line_each(headers: dict[str, str]) -> None:
    try:
        check_headers(headers)
    except InputError:
        return
    for name, value in headers.items():
        line = f"{name}: {value}"
        assert line.isascii()
        assert line.splitlines() == [line]


def test_an_eval_is_told_of_a_header_that_cannot_be_sent() -> None:
    ours = Provider(
        "up",
        "openai",
        "http://127.0.0.1:9/v1",
        None,
        {"x-a": f"a\n{SECRET}"},
    )

    async def call_provider() -> None:
        client = EvalProviderClient(
            ours,
            None,
            calls=ProviderClient,
            connections=1,
        )
        try:
            await client.ask({"messages": []})
        finally:
            await client.close()

    told = r"a header of this provider cannot be sent(?!.*attempts)"
    with pytest.raises(ProviderFailed, match=told) as failed:
        asyncio.run(call_provider())
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize(
    ("api_base", "kind"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.groq.com/openai/v1/", "groq"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        # OpenAI's protocol at a host whose kind speaks another one.
        ("https://generativelanguage.googleapis.com/v1beta/openai", ""),
        ("https://api.anthropic.com/v1", ""),
        ("http://127.0.0.1:11434/v1", ""),
        ("", ""),
    ],
)
def test_the_kind_at_an_address_speaks_openais_protocol_there(api_base: str, kind: str) -> None:
    assert find_kind_at(api_base) == kind
