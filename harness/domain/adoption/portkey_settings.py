"""What becomes of Portkey's settings that are no targets: why they are not taken over, and what
does the same here.
"""

import re
from collections.abc import Mapping
from typing import Final

# What a group of targets passes on to those that do not say it themselves.
INHERITED: Final = frozenset(
    {
        *("override_params", "provider", "virtual_key", "api_key", "custom_host", "aws_region"),
        *("resource_name", "azure_resource_name", "vertex_project_id", "vertex_region"),
    }
)
# What says nothing about a target.
ROUTE_SETTINGS: Final = frozenset(
    {"retry", "cache", "request_timeout", "name", "slug", "mode", "targets", "options"}
)
_CLOUD_KEY: Final = "give the provider a key: `swapgate provider key set`"
_HOOKS: Final = "Swapgate inspects no prompts; its guardrails watch a canary's answers"
REASONS: Final[Mapping[str, str]] = {
    "cache": "Swapgate caches no answers",
    "input_guardrails": _HOOKS,
    "output_guardrails": _HOOKS,
    "before_request_hooks": _HOOKS,
    "after_request_hooks": _HOOKS,
    "default_input_guardrails": _HOOKS,
    "default_output_guardrails": _HOOKS,
    "forward_headers": "Swapgate passes a client's own headers on to no provider",
    "metadata": "clients send metadata in each request",
    "strict_open_ai_compliance": "answers keep the protocol that the client speaks",
    "api_version": "Swapgate calls Azure's v1 API, which takes none",
    "azure_api_version": "Swapgate calls Azure's v1 API, which takes none",
    "azure_model_name": "the deployment's name is the model here",
    "azure_auth_mode": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
    "azure_ad_token": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
    "azure_entra_client_id": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
    "azure_entra_client_secret": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
    "azure_entra_tenant_id": f"Swapgate calls Azure with its key; {_CLOUD_KEY}",
    "aws_access_key_id": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "aws_secret_access_key": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "aws_session_token": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "aws_role_arn": f"Swapgate calls Bedrock with a Bedrock API key; {_CLOUD_KEY}",
    "vertex_service_account_json": f"Swapgate calls Vertex with an access token; {_CLOUD_KEY}",
    "openai_organization": "send it as a header of the provider: `extra_headers`",
    "openai_project": "send it as a header of the provider: `extra_headers`",
    "anthropic_beta": "send it as a header of the provider: `extra_headers`",
    "anthropic_version": "Swapgate sends the version that it speaks",
}
STRATEGY_REASONS: Final[Mapping[str, str]] = {
    "on_status_codes": "Swapgate falls over by kind of failure: docs/reference/router.md",
}


def plain_key(key: str) -> str:
    """A key in one spelling: Portkey takes both camelCase and snake_case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(key)).lower()
