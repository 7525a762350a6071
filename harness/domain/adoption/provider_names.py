"""LiteLLM's names of providers, each with the kind and the address that Swapgate calls.

What is not in the table has no place that is known, and needs an `api_base`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.domain.providers.kinds import PROVIDER_KINDS


@dataclass(frozen=True, slots=True)
class KnownProvider:
    """Says how Swapgate calls a provider that LiteLLM knows by a name."""

    kind: str
    api_base: str = ""  # empty for the kind's own place, or where the file must say it
    key_env: str = ""  # the variable that its key is usually in


def _custom(api_base: str, key_env: str) -> KnownProvider:
    return KnownProvider("custom", api_base, key_env)


def _of_kind(kind: str) -> KnownProvider:
    return KnownProvider(kind, key_env=PROVIDER_KINDS[kind].key_env)


LITELLM_PROVIDERS: Final[Mapping[str, KnownProvider]] = {
    **{
        kind: _of_kind(kind)
        for kind in ("openai", "anthropic", "gemini", "bedrock", "groq", "deepseek", "mistral")
    },
    "openrouter": _of_kind("openrouter"),
    "ollama": _of_kind("ollama"),
    "lm_studio": _of_kind("lm_studio"),
    "azure": _of_kind("azure_openai"),
    "vertex_ai": _of_kind("vertex"),
    "vllm": _of_kind("vllm"),
    "xai": _custom("https://api.x.ai/v1", "XAI_API_KEY"),
    "cerebras": _custom("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "deepinfra": _custom("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "sambanova": _custom("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "perplexity": _custom("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "moonshot": _custom("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "ollama_chat": _of_kind("ollama"),
    "hosted_vllm": _of_kind("vllm"),
    "bedrock_converse": _of_kind("bedrock"),
    "litellm_proxy": KnownProvider("custom", key_env="LITELLM_PROXY_API_KEY"),
    "openai_like": KnownProvider("custom"),
    "custom_openai": KnownProvider("custom"),
    "together_ai": _custom("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "fireworks_ai": _custom("https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    "nvidia_nim": _custom("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
}


def bedrock_base(region: str) -> str:
    return f"https://bedrock-runtime.{region}.amazonaws.com"


def vertex_base(project: str, region: str) -> str:
    host = (
        "aiplatform.googleapis.com"
        if region == "global"
        else f"{region}-aiplatform.googleapis.com"
    )
    return f"https://{host}/v1/projects/{project}/locations/{region}/publishers/google"


def azure_base(address: str) -> str:
    """Azure's v1 API below a resource's address, which needs no version of an API."""
    plain = address.rstrip("/")
    for ending in ("/openai/v1", "/openai"):
        plain = plain.removesuffix(ending)
    return f"{plain}/openai/v1"
