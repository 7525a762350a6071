"""Parameters of a LiteLLM deployment: fields of a request, and those that say where it is."""

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
# What says where a deployment is.
ADDRESS_PARTS: Final = frozenset(
    {
        *("api_base", "base_url", "custom_llm_provider", "region_name", "aws_region_name"),
        *("vertex_project", "vertex_location"),
    }
)
