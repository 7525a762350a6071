"""Endpoints for the stored keys of providers (D4): list, set, take away. No answer has a key in
it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from harness.api.frame.endpoint import BodyFactory, CallerParam, endpoint
from harness.api.frame.json_answers import json_answer
from harness.api.frame.request_fields import Body, Name, Text
from harness.control.providers import credentials
from harness.control.providers.credentials import (
    DEFAULT_KEY_NAME,
    LONGEST_OVERLAP,
    CredentialChange,
    ProviderCredentials,
)
from harness.domain.content_hash import hash_content
from harness.domain.pagination import Page
from harness.domain.providers.credentials import MAX_VALUE_LENGTH

router = APIRouter()
Secret = Annotated[SecretStr, Field(max_length=MAX_VALUE_LENGTH + 100)]


class CredentialBody(Body):
    """What is left out stays as it is. overlapS: so long the replaced value is used as well,
    behind the new one. key: the name of the stored key; first: tried before all others. reason:
    needed to move a provider that a route uses.
    """

    model_config = ConfigDict(**{**Body.model_config, "alias_generator": to_camel})

    value: Secret | None = None
    api_base: Annotated[str, Field(max_length=2000)] | None = None
    kind: Name | None = None
    extra_headers: dict[Name, Secret] | None = None
    key: Name = DEFAULT_KEY_NAME
    first: bool = False
    reason: Text = ""
    overlap_s: Annotated[float, Field(ge=0, le=LONGEST_OVERLAP.total_seconds())] = 0.0

    def request_fingerprint(self) -> str:
        """Identifies the request without its secrets, yet tells whether they are the same."""
        shown = self.model_dump_json(exclude={"value", "extra_headers"})
        hidden = (self.change().value, sorted((self._headers or {}).items()))
        return f"{shown} {hash_content(repr(hidden))}"

    def change(self) -> CredentialChange:
        return CredentialChange(
            value=None if self.value is None else _clear(self.value),
            key=self.key,
            first=self.first,
            overlap=timedelta(seconds=self.overlap_s) if self.overlap_s else None,
            kind=self.kind,
            api_base=self.api_base,
            extra_headers=self._headers,
            reason=self.reason,
        )

    @property
    def _headers(self) -> Mapping[str, str] | None:
        if self.extra_headers is None:
            return None
        return {name: _clear(value) for name, value in self.extra_headers.items()}


class NewCredentialBody(CredentialBody):
    """Asks to store a provider's first key. name: of the provider; one that is a kind is added
    where it is missing.
    """

    name: Name
    value: Secret


def _clear(value: SecretStr) -> str:
    return value.get_secret_value()


@endpoint(router, "GET", "/credentials/providers")
def list_credentials(who: CallerParam) -> Page[ProviderCredentials]:
    """Lists every provider, and whether it has a key; never the key."""
    return json_answer(credentials.list_credentials(who.ctx))


@endpoint(router, "POST", "/credentials/providers", status=201)
def create_credential(who: BodyFactory, body: NewCredentialBody) -> ProviderCredentials:
    """Where none is stored yet; else 409. Needs an admin."""
    return credentials.put_credential(
        who.ctx, who.actor, body.name, body.change(), create_only=True
    )


@endpoint(router, "GET", "/credentials/providers/{provider}")
def get_credential(who: CallerParam, provider: str) -> ProviderCredentials:
    return credentials.get_credentials(who.ctx, provider)


@endpoint(router, "PUT", "/credentials/providers/{provider}")
def put_credential(
    who: CallerParam, provider: str, body: CredentialBody
) -> ProviderCredentials:
    """Adds or replaces a provider's key. In force on every router within two seconds. Needs an
    admin.
    """
    return credentials.put_credential(who.ctx, who.actor, provider, body.change())


@endpoint(router, "DELETE", "/credentials/providers/{provider}")
def remove_credential(
    who: CallerParam, provider: str, key: str | None = None
) -> ProviderCredentials:
    """Removes a provider's stored keys, or one of them. Needs an admin."""
    return credentials.remove_credential(who.ctx, who.actor, provider, key=key)
