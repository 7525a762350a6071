"""Ports to providers: their servers, the servers for sign-in, and the table of models.

The implementations are `calls.probe`, `calls.oauth_http`, `router.upstream` and
`models.catalogue`. The context of a process that calls no provider has None in place of a port.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.frame.failures import FailureClass
from harness.providers.calls.probe import ProbeReply
from harness.providers.models.catalogue import Catalogue
from harness.providers.oauth import (
    DeviceCode,
    OAuthEndpoints,
    OAuthTokens,
    PollAnswer,
)
from harness.providers.target import Provider


class ProviderProbe(Protocol):
    """Sends single small requests of the control plane to providers."""

    def ask(
        self,
        provider: Provider,
        key: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout_s: float,
    ) -> ProbeReply:
        """Sends one small request to a provider. It never raises: the reply contains the error,
        without secrets. It reads a stream only up to its first content.

        key: may be empty.
        body: None for a GET.
        """
        ...


class OAuthServer(Protocol):
    """Calls the server where people sign in for a provider.

    Each method raises SignInRefused with the server's error. Without an answer, or with a
    malformed answer, it raises SignInUnreachable.
    """

    def device_code(self, place: OAuthEndpoints) -> DeviceCode: ...

    def poll(self, place: OAuthEndpoints, code: DeviceCode) -> PollAnswer | OAuthTokens:
        """Asks whether the person has consented. Returns UNREACHABLE without a reply."""
        ...

    def refresh(self, place: OAuthEndpoints, refresh_token: str) -> OAuthTokens: ...

    def exchange(self, place: OAuthEndpoints, account_token: str) -> OAuthTokens:
        """Exchanges an account's token for a short-lived one."""
        ...


@dataclass(frozen=True, slots=True)
class Posted:
    """A provider's answer of any status, in OpenAI's form."""

    status: int
    headers: Mapping[str, str]  # by name in lower case
    body: bytes = field(repr=False)
    failure: FailureClass | None = None  # the failure that a status other than 200 means


class ProviderCalls(Protocol):
    """Sends OpenAI's requests to a provider, translated to its protocol, without retries.

    Belongs to the event loop that calls first.
    """

    async def post(self, path: str, body: bytes) -> Posted:
        """Posts a body to a provider. Returns its answer, of any status, in OpenAI's form.
        Raises NoAnswer.
        path: OpenAI's, e.g. `/chat/completions`.
        """
        ...

    async def close(self) -> None: ...


class ProviderCallsFactory(Protocol):
    def __call__(
        self,
        provider: Provider,
        api_key: str | None,
        *,
        connections: int,
        timeout_s: float,
        allowed: Collection[str],
    ) -> ProviderCalls:
        """timeout_s: for one call. allowed: entries of `router.allow_addresses`.

        Raises ConfigError if a package that the kind needs is not installed.
        """
        ...


class ModelTable(Protocol):
    def catalogue(self) -> Catalogue:
        """Returns the same catalogue each time. The first call may read a file."""
        ...
