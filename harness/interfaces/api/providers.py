"""Endpoints for providers and their keys, in camelCase. No answer shows a key."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import AliasChoices, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from harness.frame.configuration.setting import settings_of
from harness.frame.people.access import Role
from harness.interfaces.api.frame.endpoint import (
    Body,
    CallerParam,
    Json,
    Name,
    Text,
    endpoint,
    operation,
)
from harness.interfaces.api.frame.operation_endpoint import add_endpoints
from harness.interfaces.api.frame.setting_fields import settings_body
from harness.providers.credential import MAX_VALUE_LENGTH
from harness.providers.registry import credentials, named_models, registered_providers
from harness.providers.registry.credentials import (
    DEFAULT_KEY_NAME,
    LONGEST_OVERLAP,
    CredentialChange,
    ProviderCredentials,
)
from harness.providers.registry.operations import PRICES, PROVIDER_KEYS, PROVIDERS
from harness.providers.registry.registered_providers import ProviderSummary, SelfTest
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import ProviderSettings
from harness.routing.reports.matrix import build_matrix

router = APIRouter()


Secret = Annotated[SecretStr, Field(max_length=MAX_VALUE_LENGTH + 100)]

if TYPE_CHECKING:
    PlainFields = Body
else:
    PlainFields = settings_body(ProviderSettings)


class ProviderBody(PlainFields):
    """A provider's settings. An omitted field keeps its value; a new provider gets its kind's
    default. kind: a new provider's name by default. reason: required to move a provider that a
    route uses.
    """

    model_config = ConfigDict(**{**Body.model_config, "alias_generator": to_camel})

    kind: Name | None = None
    extra_headers: dict[Name, Secret] | None = None
    extra_body: Json | None = None
    reason: Text = ""

    @property
    def settings(self) -> Mapping[str, object]:
        """The declared settings that the body changes, without null fields."""
        values = ((name, getattr(self, name)) for name in settings_of(ProviderSettings))
        return {name: value for name, value in values if value is not None}

    @property
    def headers(self) -> Mapping[str, str] | None:
        if self.extra_headers is None:
            return None
        return {name: _reveal(value) for name, value in self.extra_headers.items()}

    def to_change(self) -> ProviderChange:
        return ProviderChange(
            self.kind, self.settings, self.headers, self.extra_body, self.reason
        )


@endpoint(router, "POST", "/check")
def check_now(caller: CallerParam) -> SelfTest:
    """Checks every provider with a short streamed question, which the provider charges for."""
    caller.actor.require(Role.PROPOSER)
    return registered_providers.run_check(caller.ctx)


# Registered before `/providers/{provider}`, which matches this path too.
operation(router, "GET /providers/matrix", "provider_matrix", build_matrix)


@endpoint(router, "PUT", "/providers/{provider}")
def put_provider(
    caller: CallerParam,
    provider: str,
    body: ProviderBody,
) -> ProviderSummary:
    """Adds or changes a provider, on every router within two seconds. Needs an admin."""
    return registered_providers.change_provider(
        caller.ctx, caller.actor, provider, body.to_change()
    )


credentials_router = APIRouter()
KEY_FIELDS = AliasChoices("value", "apiKey")


class CredentialBody(ProviderBody):
    """A provider's key and settings; an omitted field keeps its value. value: the key, also as
    `apiKey`. Without a value, a new provider reads the environment variable of its vendor's
    tools. overlapS: seconds for which the replaced value stays in use after the new value.

    key: the name of the stored key. first: routers use this key before the provider's others.
    reason: required to move a provider that a route uses.
    """

    value: Annotated[Secret | None, Field(validation_alias=KEY_FIELDS)] = None
    key: Name = DEFAULT_KEY_NAME
    first: bool = False
    overlap_s: Annotated[float, Field(ge=0, le=LONGEST_OVERLAP.total_seconds())] = 0.0

    def change(self) -> CredentialChange:
        return CredentialChange(
            value=None if self.value is None else _reveal(self.value),
            key=self.key,
            first=self.first,
            overlap=timedelta(seconds=self.overlap_s) if self.overlap_s else None,
            kind=self.kind,
            settings=self.settings,
            extra_headers=self.headers,
            extra_body=self.extra_body,
            reason=self.reason,
        )


class NewCredentialBody(CredentialBody):
    """A provider's first key. name: the provider's name. Swapproof adds a missing provider
    whose name is a kind.
    """

    name: Name
    value: Annotated[Secret, Field(validation_alias=KEY_FIELDS)]


def _reveal(value: SecretStr) -> str:
    return value.get_secret_value()


@endpoint(credentials_router, "POST", "/credentials/providers", status=201)
def create_credential(caller: CallerParam, body: NewCredentialBody) -> ProviderCredentials:
    """Stores a provider's first key; 409 if the provider has a key. Needs an admin."""
    return credentials.put_credential(
        caller.ctx, caller.actor, body.name, body.change(), create_only=True
    )


@endpoint(credentials_router, "PUT", "/credentials/providers/{provider}")
def put_credential(
    caller: CallerParam,
    provider: str,
    body: CredentialBody,
) -> ProviderCredentials:
    """Adds or replaces a provider's key, on every router within two seconds. Needs an admin."""
    return credentials.put_credential(caller.ctx, caller.actor, provider, body.change())


@endpoint(credentials_router, "DELETE", "/credentials/providers/{provider}")
def remove_credential(
    caller: CallerParam,
    provider: str,
    key: str | None = None,
) -> ProviderCredentials:
    """Removes all stored keys of a provider, or only `key`. Needs an admin."""
    return credentials.remove_credential(caller.ctx, caller.actor, provider, key=key)


operation(router, "GET /check", "last_check", registered_providers.load_last_check)
operation(
    router,
    "GET /providers/{provider}",
    "get_provider",
    registered_providers.get_provider,
)
add_endpoints(router, PROVIDERS, PRICES)
MODELS = "/providers/{provider}/models"
operation(router, f"GET {MODELS}", "list_discovered", named_models.list_discovered)
operation(router, f"POST {MODELS}", "discover_models", named_models.discover_models)
add_endpoints(credentials_router, PROVIDER_KEYS)
KEYS = "/credentials/providers"
operation(
    credentials_router,
    f"GET {KEYS}/{{provider}}",
    "get_credential",
    credentials.get_credentials,
)
