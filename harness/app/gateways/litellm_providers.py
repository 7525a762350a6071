"""LiteLLM's names of providers, each with its kind in Swapproof, its public address, and the
usual variables of its key, as in `litellm.litellm_core_utils.get_llm_provider_logic` 1.106.
"""

import json
from collections.abc import Collection, Mapping
from functools import cache
from typing import Final

from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.catalogue import package_file

# Our provider kind by LiteLLM's provider name.
KINDS: Final[Mapping[str, str]] = {
    **{
        kind: kind
        for kind in (
            "openai",
            "anthropic",
            "gemini",
            "bedrock",
            "groq",
            "deepseek",
        )
    },
    **{kind: kind for kind in ("mistral", "openrouter", "ollama", "lm_studio", "vllm")},
    "litellm_proxy": "litellm",
    "llamafile": "llama_cpp",
    "azure": "azure_openai",
    "vertex_ai": "vertex",
    "ollama_chat": "ollama",
    "hosted_vllm": "vllm",
    "bedrock_converse": "bedrock",
    # Servers that speak OpenAI's protocol at an address that the file must have.
    **dict.fromkeys(("openai_like", "custom_openai", "azure_ai", "databricks"), "custom"),
    **dict.fromkeys(
        ("xinference", "infinity", "lemonade", "docker_model_runner"),
        "custom",
    ),
}
# Providers that speak OpenAI's protocol: name, address, and the variables of the key.
_Place = tuple[str, tuple[str, ...]]
_PUBLIC_PLACES: Final[Mapping[str, _Place]] = {
    name: (f"https://{address}", tuple(variables))
    for name, address, *variables in map(
        str.split,
        (
            "ai21_chat api.ai21.com/studio/v1 AI21_API_KEY",
            "aiml api.aimlapi.com/v1 AIML_API_KEY",
            "baseten inference.baseten.co/v1 BASETEN_API_KEY",
            "cerebras api.cerebras.ai/v1 CEREBRAS_API_KEY",
            "clarifai api.clarifai.com/v2/ext/openai/v1 CLARIFAI_API_KEY",
            "codestral codestral.mistral.ai/v1 CODESTRAL_API_KEY",
            "cohere api.cohere.ai/compatibility/v1 COHERE_API_KEY CO_API_KEY",
            "cohere_chat api.cohere.ai/compatibility/v1 COHERE_API_KEY CO_API_KEY",
            "cometapi api.cometapi.com/v1 COMETAPI_KEY",
            "compactifai api.compactif.ai/v1 COMPACTIFAI_API_KEY",
            "dashscope dashscope.aliyuncs.com/compatible-mode/v1 DASHSCOPE_API_KEY",
            "deepinfra api.deepinfra.com/v1/openai DEEPINFRA_API_KEY",
            "edenai api.edenai.run/v3 EDENAI_API_KEY",
            "featherless_ai api.featherless.ai/v1 FEATHERLESS_AI_API_KEY FEATHERLESS_API_KEY",
            "fireworks_ai api.fireworks.ai/inference/v1 FIREWORKS_AI_API_KEY FIREWORKS_API_KEY",
            "friendliai api.friendli.ai/serverless/v1 FRIENDLIAI_API_KEY FRIENDLI_TOKEN",
            "github models.inference.ai.azure.com GITHUB_API_KEY",
            "hyperbolic api.hyperbolic.xyz/v1 HYPERBOLIC_API_KEY",
            "inception api.inceptionlabs.ai/v1 INCEPTION_API_KEY",
            "jina_ai api.jina.ai/v1 JINA_AI_API_KEY",
            "lambda_ai api.lambda.ai/v1 LAMBDA_API_KEY",
            "meta_llama api.llama.com/compat/v1 LLAMA_API_KEY",
            "minimax api.minimax.io/v1 MINIMAX_API_KEY",
            "modelscope api-inference.modelscope.cn/v1 MODELSCOPE_API_KEY",
            "moonshot api.moonshot.ai/v1 MOONSHOT_API_KEY",
            "morph api.morphllm.com/v1 MORPH_API_KEY",
            "nadir api.getnadir.com/v1 NADIR_API_KEY",
            "nebius api.studio.nebius.ai/v1 NEBIUS_API_KEY",
            "novita api.novita.ai/v3/openai NOVITA_API_KEY",
            "nscale inference.api.nscale.com/v1 NSCALE_API_KEY",
            "nvidia_nim integrate.api.nvidia.com/v1 NVIDIA_NIM_API_KEY",
            "ovhcloud oai.endpoints.kepler.ai.cloud.ovh.net/v1 OVHCLOUD_API_KEY",
            "perplexity api.perplexity.ai PERPLEXITYAI_API_KEY PERPLEXITY_API_KEY",
            "qwen_ai_platform dashscope.aliyuncs.com/compatible-mode/v1 DASHSCOPE_API_KEY",
            "qwencloud dashscope-intl.aliyuncs.com/compatible-mode/v1 QWENCLOUD_API_KEY",
            "sambanova api.sambanova.ai/v1 SAMBANOVA_API_KEY",
            "tencent tokenhub-intl.tencentcloudmaas.com/v1 TENCENT_API_KEY",
            "together_ai api.together.ai/v1 TOGETHERAI_API_KEY TOGETHER_API_KEY",
            "v0 api.v0.dev/v1 V0_API_KEY",
            "vercel_ai_gateway ai-gateway.vercel.sh/v1 VERCEL_AI_GATEWAY_API_KEY",
            "volcengine ark.cn-beijing.volces.com/api/v3 VOLCENGINE_API_KEY",
            "wandb api.inference.wandb.ai/v1 WANDB_API_KEY",
            "xai api.x.ai/v1 XAI_API_KEY",
            "zai api.z.ai/api/paas/v4 ZAI_API_KEY",
        ),
    )
}
# Providers whose address the file must have.
_OWN_ADDRESSES: Final[Mapping[str, _Place]] = {
    "azure": ("", ("AZURE_API_KEY", "AZURE_OPENAI_API_KEY")),
    "azure_ai": ("", ("AZURE_AI_API_KEY",)),
}
# LiteLLM's own table of more such providers.
_TABLE_FILE: Final = "llms/openai_like/providers.json"


@cache
def load_public_places() -> Mapping[str, _Place]:
    """Maps LiteLLM's providers that speak OpenAI's protocol to address and variables of the
    key. Adds LiteLLM's own table if LiteLLM is installed.
    """
    file = package_file(_TABLE_FILE)
    rows = json.loads(file.read_text(encoding="utf-8")) if file else {}
    installed_places = {
        name: (row["base_url"].rstrip("/"), (row["api_key_env"],)) for name, row in rows.items()
    }
    return {
        **installed_places,
        **_PUBLIC_PLACES,
        **_OWN_ADDRESSES,
    }


def list_vendors() -> Collection[str]:
    return KINDS.keys() | load_public_places().keys()


def find_vendor(name: str, vendor: str) -> tuple[str, str]:
    """Splits LiteLLM's `model` into its provider and the provider's model.

    Args:
        vendor: the value of `custom_llm_provider`.

    Raises InputError.
    """
    prefix, slash, model = name.partition("/")
    if vendor:
        return vendor, model if slash and prefix == vendor else name
    if slash and prefix in list_vendors():
        # LiteLLM's names may have the name of an interface before the model's name.
        return prefix, model.removeprefix("converse/").removeprefix("responses/")
    for kind in ("openai", "anthropic"):
        if name.startswith(PROVIDER_KINDS[kind].keywords):
            return kind, name
    if name == "*":
        raise InputError("`*` names no provider: give each model its own entry")
    hint = did_you_mean(prefix, list_vendors(), otherwise=".") if slash else "."
    raise InputError(
        f"Swapproof does not know the provider of {name!r}{hint} If it uses OpenAI's "
        "protocol, add a provider of kind custom with its api_base"
    )
