"""These tables say which parameters of a LiteLLM deployment are fields of a request, which say
where it is, and why the others are not taken over.
"""

from collections.abc import Mapping
from typing import Final

# Fields of a request: a target's defaults here as there.
REQUEST_FIELDS: Final = frozenset(
    {
        *(
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "max_completion_tokens",
            "stop",
            "seed",
        ),
        *(
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "logprobs",
            "top_logprobs",
            "n",
        ),
        *(
            "response_format",
            "reasoning_effort",
            "verbosity",
            "thinking",
            "service_tier",
            "user",
        ),
        *("tools", "tool_choice", "parallel_tool_calls", "modalities", "dimensions"),
        *("encoding_format", "truncation", "store", "prediction"),
    }
)
_LIMITS: Final = "Swapgate limits keys, not deployments: `swapgate key create --help`"
_BUDGETS: Final = "budgets belong to keys: `swapgate key create --help`"
_CLOUD_KEY: Final = "give the provider a key: `swapgate provider key set`"
PARAMETER_REASONS: Final[Mapping[str, str]] = {
    "rpm": _LIMITS,
    "tpm": _LIMITS,
    "itpm": _LIMITS,
    "otpm": _LIMITS,
    "max_parallel_requests": _LIMITS,
    "max_budget": _BUDGETS,
    "budget_duration": _BUDGETS,
    "weight": "traffic is not spread over targets: the heaviest one is the incumbent",
    "order": "it set the order of the route's targets, and has no other use",
    "api_version": "Swapgate calls Azure's v1 API, which takes none",
    "drop_params": "Swapgate leaves hints out by itself where a target does not take them",
    "additional_drop_params": "give the model's abilities under `providers.NAME.models`",
    "tags": "requests choose a route by name, or by x-swapgate-task",
    "num_retries": "retries are the router's: `router.retry`",
    "max_retries": "retries are the router's: `router.retry`",
    "cooldown_time": "the breaker is the router's: `router.breaker`",
    "mock_response": "a simulated model is a provider of kind sim: docs/reference/simulator.md",
    "organization": "send it as a header: `extra_headers: {OpenAI-Organization: …}`",
    "cache_control_injection_points": "clients set `cache_control` themselves",
    "aws_access_key_id": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "aws_secret_access_key": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "aws_session_token": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "aws_role_name": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "aws_profile_name": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "vertex_credentials": f"Swapgate calls Vertex with an access token; {_CLOUD_KEY}",
    "azure_ad_token": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
    "tenant_id": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
    "client_id": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
    "client_secret": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
}
INFO_REASONS: Final[Mapping[str, str]] = {
    "id": "a target's id is the hash of its content",
    "base_model": "give prices and abilities under `catalogue`, by KIND/MODEL",
    "access_groups": "a key names the routes that it may use: `swapgate key create --help`",
    "max_tokens": "only `max_input_tokens` is taken, as the context window",
    "max_output_tokens": "only `max_input_tokens` is taken, as the context window",
    "description": "a route has the description, not its targets",
}
# What says where a deployment is.
ADDRESS_PARTS: Final = frozenset(
    {
        *("api_base", "base_url", "custom_llm_provider", "region_name", "aws_region_name"),
        *("vertex_project", "vertex_location"),
    }
)
