from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.app.configuration import configuration
from harness.app.configuration.model import Settings
from harness.app.gateways.litellm_import import (
    REQUEST_FIELDS,
    SECTIONS,
    convert_litellm,
)
from harness.app.set_up import convert_file
from harness.frame import package_data
from harness.frame.configuration.config_conversion import (
    Conversion,
    ConversionOutcome,
    SourceConfig,
)
from harness.providers.models.catalogue import package_file

pytestmark = pytest.mark.req("G1")
SECRETS = (
    "sk-proj-abcdefghijklmnopqrstuvwx1234567890",
    "hunter2",
    "master-key-of-all",
)
EXAMPLE = f"""\
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://eu.openai.azure.com/
      api_key: "os.environ/AZURE_KEY"
      api_version: "2025-01-01-preview"
      rpm: 6
      weight: 1
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: {SECRETS[0]}
      temperature: 0.2
      timeout: 30
      weight: 9
    model_info: {{max_input_tokens: 128000, input_cost_per_token: 0.0000025,
      output_cost_per_token: 0.00001}}
  - model_name: claude
    litellm_params: {{model: claude-sonnet-4-5, extra_headers: {{x-team: blue, x-token: t,
      accessToken: {SECRETS[1]}, x-upstream: Bearer {SECRETS[1]}}}}}
  - model_name: "openai/*"
    litellm_params: {{model: "openai/*"}}
  - model_name: drawing
    litellm_params: {{model: openai/gpt-image-1}}
    model_info: {{mode: image_generation}}
  - model_name: team/local
    litellm_params: {{model: hosted_vllm/llama, api_base: "http://10.0.0.5:8000/v1"}}
litellm_settings:
  num_retries: 3
  drop_params: true
  fallbacks: [{{"gpt-4o": ["claude", "drawing"]}}]
  content_policy_fallbacks: [{{"claude": ["team/local"]}}]
router_settings:
  redis_password: {SECRETS[1]}
  model_group_alias: {{gpt-4: gpt-4o}}
  allowed_fails: 3
  timeout: 300
  from_the_future: {{a: 1, b: [x]}}
general_settings: {{master_key: {SECRETS[2]}}}
environment_variables: {{AZURE_KEY: {SECRETS[1]}}}
"""


@pytest.fixture
def example(tmp_path: Path) -> Conversion:
    file = tmp_path / "config.yaml"
    file.write_text(EXAMPLE)
    return convert_file(file, {})


def loaded(conversion: Conversion, folder: Path) -> Settings:
    """What the real loader makes of it."""
    file = folder / "swapproof.yaml"
    file.write_text(yaml.safe_dump(dict(conversion.config), sort_keys=False))
    return configuration.load_settings(
        file, {}, defaults=package_data.path("config/default.yaml")
    )


def notes(conversion: Conversion) -> Mapping[str, tuple[str, str]]:
    return {note.key: (note.outcome.value, note.text) for note in conversion.notes}


def converted(values: Mapping[str, object]) -> Conversion:
    return convert_litellm(SourceConfig(values, {}, {"REGION": "eu-west-1"}))


def deployment(**parameters: object) -> Conversion:
    return converted({"model_list": [{"model_name": "m", "litellm_params": parameters}]})


def test_models_become_routes_whose_chains_are_deployments_and_fallbacks(
    example: Conversion, tmp_path: Path
) -> None:
    settings = loaded(example, tmp_path)

    chains = {
        name: [target.name for target in (route.incumbent, *route.fallbacks)]
        for name, route in settings.routes.items()
    }
    heavy = settings.routes["gpt-4o"].incumbent
    assert [name.split("#")[0] for name in chains["gpt-4o"]] == [
        "openai/gpt-4o",
        "azure/gpt-4o-eu",
        "anthropic/claude-sonnet-4-5",
    ]
    assert heavy.parameters == {"temperature": 0.2}
    assert chains["claude"] == [
        "anthropic/claude-sonnet-4-5",
        "hosted-vllm/llama",
    ]
    assert settings.routes["claude"].settings.on_content_policy == "fallback"
    assert chains["team-local"] == ["hosted-vllm/llama"]
    assert set(chains) == {"gpt-4o", "claude", "team-local"}
    assert settings.router.aliases == {
        "team/local": "team-local",
        "gpt-4": "gpt-4o",
    }
    azure = settings.providers["azure"]
    assert azure.api_base == "https://eu.openai.azure.com/openai/v1"
    assert azure.api_key_env == "AZURE_KEY"
    openai = settings.providers["openai"]
    assert openai.prices["gpt-4o"].input_usd_per_mtok == 2.5
    assert openai.models["gpt-4o"].context_window == 128_000
    assert not settings.providers["anthropic"].extra_headers
    assert settings.router.retry.tries_per_target == 4
    assert settings.router.breaker.failures == 4
    limits = {route.settings.total_timeout_s for route in settings.routes.values()}
    assert limits == {settings.router.total_timeout_s} == {300}


def test_no_secret_of_the_file_is_copied_or_reported(
    example: Conversion, tmp_path: Path
) -> None:
    text = f"{example.config}{example.notes}{example.variables}"

    assert not [secret for secret in SECRETS if secret in text]
    openai = loaded(example, tmp_path).providers["openai"]
    # Another deployment of the file reads OPENAI_API_KEY itself.
    assert openai.api_key_env == "SWAPPROOF_OPENAI_API_KEY"
    assert set(example.variables) == {
        "AZURE_KEY",
        openai.api_key_env,
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
    }


def test_what_was_not_taken_over_has_its_line_and_a_reason(example: Conversion) -> None:
    report = notes(example)
    lines = EXAMPLE.splitlines()

    assert report["model_list.3"][1].startswith("providers.openai-2. A route serves one model")
    assert (
        report["model_list.4"][1]
        == "Swapproof serves chats and embeddings, no image_generation"
    )
    outcome, text = report["litellm_settings.fallbacks.0.gpt-4o"]
    assert (outcome, text) == (
        "changed",
        "fallbacks of gpt-4o, without drawing: not converted",
    )
    for key in ("a", "b.0"):
        unknown = report[f"router_settings.from_the_future.{key}"]
        assert unknown == ("not taken", "Swapproof has no such setting")
    for note in example.notes:
        number = int(note.place.rsplit(":", 1)[1])
        last = note.key.split(".")[-1]
        assert last.isdigit() or last in lines[number - 1], note


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    parts: list[tuple[object, object]] = []
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    if not parts:
        yield ".".join(path)
    for key, part in parts:
        yield from leaves(part, (*path, str(key)))


WORDS = (
    "gpt-4o",
    "openai/gpt-4o",
    "azure/x",
    "os.environ/KEY",
    "http://h/v1",
    "*",
    "claude",
)
GIVEN = (
    "model",
    "api_base",
    "api_key",
    "extra_body",
    "extra_headers",
    "rpm",
    "new",
    "litellm_credential_name",
)
SETTINGS = (
    "drop_params",
    "redis_host",
    "master_key",
    "fallbacks",
    "model_group_alias",
    "timeout",
    "num_retries",
    "default_fallbacks",
    "cooldown_time",
    "new",
)
OTHERS = (
    *SECTIONS,
    "guardrails",
    "credential_list",
    "environment_variables",
    "never_seen",
)


def mappings(
    keys: Iterable[str], values: st.SearchStrategy[object]
) -> st.SearchStrategy[object]:
    return st.dictionaries(st.sampled_from(sorted(keys)), values, max_size=5)


# What stands in real files, and anything else beside it.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 900) | st.sampled_from(["", *WORDS]),
    lambda inner: st.lists(inner, max_size=2) | mappings(["gpt-4o", "m", "x y", "a.b"], inner),
    max_leaves=5,
)
DEPLOYMENTS = st.fixed_dictionaries(
    {
        "model_name": VALUES,
        "litellm_params": VALUES | mappings({*GIVEN, *REQUEST_FIELDS}, VALUES),
    },
    optional={"model_info": VALUES, "other": VALUES},
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "model_list": VALUES | st.lists(VALUES | DEPLOYMENTS, max_size=3),
        **dict.fromkeys(OTHERS, VALUES | mappings(SETTINGS, VALUES)),
    },
)


@given(values=FILES)
def test_every_key_of_any_file_is_accounted_for(values: dict[str, object]) -> None:
    noted = {note.key for note in converted(values).notes}

    for leaf in leaves(values):
        parts = leaf.split(".")
        above = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        assert noted & above or not leaf, leaf


def test_two_names_stay_two_routes_and_names_that_no_route_may_have_become_aliases() -> None:
    models: list[object] = [
        {
            "model_name": "team/chat",
            "litellm_params": {"model": "openai/gpt-4o"},
        },
        {
            "model_name": "team-chat",
            "litellm_params": {"model": "anthropic/claude-haiku-4-5"},
        },
        {"model_name": "*", "litellm_params": {"model": "*"}},
        {"model_name": 7, "litellm_params": {"model": "openai/gpt-4o"}},
        {
            "model_name": "claude-*",
            "litellm_params": {"model": "anthropic/claude-opus-4-8"},
        },
        {
            "model_name": "@cf/Llama 3",
            "litellm_params": {"model": "groq/llama"},
        },
        {"model_name": "*", "litellm_params": {"model": "zai/glm"}},
    ]
    aliases = {"team-chat": "team/chat", "openai/gpt-4": "team/chat"}
    given = {
        "model_list": models,
        "router_settings": {"model_group_alias": aliases},
    }
    conversion = converted(given)

    routes = conversion.config["routes"]
    assert routes == {
        "team-chat": {"incumbent": "anthropic/claude-haiku-4-5"},
        "team-chat-2": {"incumbent": "openai/gpt-4o"},
        "claude": {"incumbent": "anthropic/claude-opus-4-8"},
        "cf-Llama-3": {"incumbent": "groq/llama"},
        "glm": {"incumbent": "zai/glm"},
    }
    router = conversion.config["router"]
    assert isinstance(router, dict)
    # The router takes the first pattern that fits.
    assert list(router["aliases"].items()) == [
        ("openai/gpt-4", "team-chat-2"),
        ("@cf/Llama 3", "cf-Llama-3"),
        ("team/chat", "team-chat-2"),
        ("claude-*", "claude"),
        ("*", "glm"),
    ]
    report = notes(conversion)
    assert "Clients can still send team/chat" in report["model_list.0.model_name"][1]
    assert report["router_settings.model_group_alias.team-chat"][0] == "not taken"
    assert report["model_list.2"][1].startswith("`*` names no provider")


def test_a_canary_by_hand_is_reported_with_the_commands_that_take_its_place() -> None:
    new = {"model": "openai/gpt-5-mini", "weight": 5}
    models: list[object] = [
        {
            "model_name": "m",
            "litellm_params": {"model": "openai/gpt-4o", "weight": 95},
        },
        {
            "model_name": "m",
            "litellm_params": {**new, "silent_model": "next"},
        },
        {"model_name": "m", "litellm_params": {**new, "silent_model": "m"}},
        {
            "model_name": "next",
            "litellm_params": {"model": "anthropic/claude-haiku-4-5"},
        },
    ]
    fallback = {
        "model": "next",
        "messages": [{"role": "user", "content": "short"}],
    }
    conversion = converted(
        {
            "model_list": models,
            "router_settings": {"optional_pre_call_checks": ["session_affinity"]},
            "litellm_settings": {"fallbacks": [{"m": [fallback, "m"]}]},
        }
    )

    report = notes(conversion)
    assert (
        "`swapproof proposal create m openai/gpt-5-mini`"
        in report["model_list.1.model_name"][1]
    )
    shadow = report["model_list.1.litellm_params.silent_model"]
    assert "`swapproof shadow start m " in shadow[1]
    assert "for a model without a known price, add `--usd-per-day none`" in shadow[1]
    # The commands for these two would be refused.
    assert report["model_list.2.model_name"][1] == "route m: it has this target already."
    assert report["model_list.2.litellm_params.silent_model"] == (
        "not taken",
        "m is the incumbent of route m already",
    )
    assert "x-swapproof-sticky" in report["router_settings.optional_pre_call_checks"][1]
    assert report["litellm_settings.fallbacks.0.m"] == (
        "changed",
        "fallbacks of m, without messages, itself (m): not converted",
    )
    assert "anthropic/claude-haiku-4-5" in f"{conversion.config['routes']}".split("'next'")[0]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (
            {"model": "opneai/gpt"},
            "Swapproof does not know the provider of 'opneai/gpt'; did you mean 'openai'?",
        ),
        ({"model": "bedrock/x"}, "needs `aws_region_name`"),
        (
            {"model": "azure/x"},
            "a provider of kind 'azure_openai' needs an api_base",
        ),
        (
            {"model": "openai/x", "api_base": "os.environ/NOWHERE"},
            "NOWHERE is not set: set it",
        ),
        (
            {"model": "openai/x", "api_base": "http://169.254.169.254"},
            "api_base names 169.254",
        ),
        (
            {"model": "openai/x", "api_base": "http://u:p@h/v1"},
            "api_base contains a user or a",
        ),
        (
            {"model": "openai/x", "litellm_credential_name": "c"},
            "write the credential's api_base",
        ),
        ({}, "Swapproof does not know the provider of 'no model'"),
        ({"model": "azure/"}, "its `model` names a provider alone"),
    ],
)
def test_a_deployment_that_cannot_be_called_is_left_out_with_the_reason(
    parameters: dict[str, object], reason: str
) -> None:
    conversion = deployment(**parameters)

    assert "routes" not in conversion.config
    outcome, text = notes(conversion)["model_list.0"]
    assert outcome == ConversionOutcome.LEFT
    assert text.startswith(reason)


def test_a_name_that_only_a_wildcard_matches_gets_its_own_route() -> None:
    models = [
        {"model_name": "*", "litellm_params": {"model": "openai/*"}},
        {
            "model_name": "fast/*",
            "litellm_params": {"model": "groq/llama-*"},
        },
        {"model_name": "m", "litellm_params": {"model": "openai/m"}},
        {"model_name": "n", "litellm_params": {"model": "openai/n"}},
    ]
    aliases = {"quick": {"model": "fast/8b", "hidden": True}}
    settings = {
        "model_group_alias": aliases,
        "fallbacks": [{"m": ["fast/8b"]}, {"*": ["gpt-4o"]}],
        "context_window_fallbacks": [{"n": ["m"]}],
        "cooldown_time": 1_000,
        "timeout": 1e6,
    }
    conversion = converted({"model_list": models, "router_settings": settings})

    assert conversion.config["routes"] == {
        "m": {"incumbent": "openai/m", "fallbacks": ["groq/llama-8b"]},
        "n": {
            "incumbent": "openai/n",
            "fallbacks": ["openai/m", "openai/gpt-4o"],
        },
        "fast-8b": {
            "incumbent": "groq/llama-8b",
            "fallbacks": ["openai/gpt-4o"],
        },
        "gpt-4o": {"incumbent": "openai/gpt-4o"},
    }
    router = conversion.config["router"]
    assert isinstance(router, dict)
    assert router["aliases"] == {"fast/8b": "fast-8b", "quick": "fast-8b"}
    assert router["breaker"] == {"open_s": 1_000, "open_max_s": 1_000}
    report = notes(conversion)
    reason = "gives total_timeout_s: 1e+06; it must be from 0.001 to 86,400"
    assert report["router_settings.timeout"] == ("not taken", reason)
    assert "LiteLLM hides it" in report["router_settings.model_group_alias.quick"][1]
    assert "any failure" in report["router_settings.context_window_fallbacks.0.n"][1]


@pytest.mark.parametrize(
    ("model", "address"),
    [
        ("zai/glm-5", "https://api.z.ai/api/paas/v4"),
        (
            "dashscope/qwen",
            "https://dashscope.aliyuncs.com/compatible-mode/v1",
        ),
        ("together_ai/x/y", "https://api.together.ai/v1"),
        ("poe/x", "https://api.poe.com/v1"),  # of LiteLLM's own table
    ],
)
def test_a_provider_that_speaks_openai_s_protocol_has_its_public_place(
    model: str, address: str
) -> None:
    assert address in f"{deployment(model=model).config['providers']}"


def test_azure_s_foundry_is_called_as_azure() -> None:
    base = "https://x.services.ai.azure.com"
    for address in (base, f"{base}/models/"):
        providers = deployment(model="azure_ai/m", api_base=address).config["providers"]
        assert providers == {
            "azure-ai": {
                "kind": "azure_openai",
                "api_base": f"{base}/openai/v1",
                "api_key_env": "AZURE_AI_API_KEY",
            }
        }


@pytest.mark.verify
def test_each_file_that_litellm_publishes_gives_an_installation_or_the_reasons(
    tmp_path: Path,
) -> None:
    folder = package_file("proxy/proxy_config.yaml")
    assert folder is not None
    files = [
        *folder.parent.glob("*.yaml"),
        *folder.parent.glob("example_config_yaml/*.yaml"),
    ]
    for file in files:
        conversion = convert_file(file, {"FAKE_OPENAI_API_BASE": "https://example.org/v1"})
        assert conversion.notes, file
        routes = loaded(conversion, tmp_path).routes
        deployments = yaml.safe_load(file.read_text()).get("model_list") or ()
        assert routes or not any(
            outcome != "not taken" and key.startswith("model_list") and "model_name" in key
            for key, (outcome, _) in notes(conversion).items()
        ), (file, deployments)
    assert len(files) >= 20


def test_an_address_may_come_from_the_environment() -> None:
    conversion = deployment(model="bedrock/m", aws_region_name="os.environ/REGION")

    assert "https://bedrock-runtime.eu-west-1.amazonaws.com" in f"{conversion.config}"
