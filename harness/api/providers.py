"""Endpoints for providers, where models are called: list, add, change, remove, what their
models can do, which models they list, and the check that asks each one. Fields are in
camelCase, as elsewhere (D1).
"""

from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from harness.api.frame.endpoint import CallerParam, endpoint
from harness.api.frame.json_answers import json_answer
from harness.api.frame.request_fields import Body, Json, Name, Text
from harness.control.providers import checks, discovery, registry
from harness.control.providers.checks import SelfTest
from harness.control.providers.matrix import MatrixRow, build_matrix
from harness.control.providers.registry import ProviderChange, ProviderSummary
from harness.domain.operations.access import Role
from harness.domain.pagination import Page
from harness.domain.providers.discovered_model import DiscoveredList, DiscoveredModel

router = APIRouter()
Url = Annotated[str, Field(max_length=2000)]


class ProviderBody(Body):
    """What is left out stays as it is; of a new provider it is the kind's. kind: without it,
    a new provider's is its name. reason: needed to move one that a route uses.
    """

    model_config = ConfigDict(**{**Body.model_config, "alias_generator": to_camel})

    kind: Name | None = None
    api_base: Url | None = None
    api_key_env: Name | None = None
    extra_headers: dict[Name, SecretStr] | None = None
    extra_body: Json | None = None
    reason: Text = ""

    def to_change(self) -> ProviderChange:
        headers = None
        if self.extra_headers is not None:
            given = self.extra_headers.items()
            headers = {name: value.get_secret_value() for name, value in given}
        return ProviderChange(
            self.kind,
            self.api_base,
            self.api_key_env,
            headers,
            self.extra_body,
            self.reason,
        )


@endpoint(router, "GET", "/check")
def last_check(who: CallerParam) -> SelfTest:
    """Shows the last check of the providers: reachable, key, model, first token and clock of
    each. They are asked at most once a minute.
    """
    return checks.load_last_check(who.ctx)


@endpoint(router, "POST", "/check")
def check_now(who: CallerParam) -> SelfTest:
    """Ask every provider now: a short streamed question each, which it charges for."""
    who.actor.require(Role.PROPOSER)
    return checks.run_check(who.ctx)


@endpoint(router, "GET", "/providers")
def list_providers(who: CallerParam) -> Page[ProviderSummary]:
    """Lists the providers with the routes that use each; of extra headers the names alone."""
    return json_answer(registry.list_providers(who.ctx))


@endpoint(router, "GET", "/providers/matrix")
def provider_matrix(who: CallerParam) -> Page[MatrixRow]:
    """What each provider's models can do, whether it is configured, and whether it is well."""
    return json_answer(build_matrix(who.ctx))


@endpoint(router, "GET", "/providers/{provider}")
def get_provider(who: CallerParam, provider: str) -> ProviderSummary:
    return registry.get_provider(who.ctx, provider)


@endpoint(router, "GET", "/providers/{provider}/models")
def list_discovered(who: CallerParam, provider: str) -> Page[DiscoveredModel]:
    """The models that it listed when somebody asked last, with the date. It is not asked."""
    return json_answer(discovery.list_discovered(who.ctx, provider))


@endpoint(router, "POST", "/providers/{provider}/models")
def discover_models(who: CallerParam, provider: str) -> DiscoveredList:
    """Ask it for its models now, and keep them instead of those before. 409 where it has no
    key, 502 where it has no list that can be kept.
    """
    return discovery.discover_models(who.ctx, who.actor, provider)


@endpoint(router, "PUT", "/providers/{provider}")
def put_provider(who: CallerParam, provider: str, body: ProviderBody) -> ProviderSummary:
    """Adds a provider, or changes one that is there. In force on every router within two
    seconds. Needs an admin.
    """
    return registry.change_provider(who.ctx, who.actor, provider, body.to_change())


@endpoint(router, "DELETE", "/providers/{provider}", status=204)
def remove_provider(who: CallerParam, provider: str) -> None:
    """Removes a provider. 409 while a route, a proposal, a shadow or a judge uses it. Needs an
    admin.
    """
    registry.remove_provider(who.ctx, who.actor, provider)
