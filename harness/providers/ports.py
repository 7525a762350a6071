"""Protocols of providers: their servers, the server for a sign-in, and the table of models."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.frame.failures import FailureClass
from harness.providers.calls.probe import ProbeReply
from harness.providers.models.catalogue import Catalogue
from harness.providers.oauth import DeviceCode, OAuthEndpoints, OAuthTokens, PollAnswer
from harness.providers.target import Provider


class ProviderDoor(Protocol):
    def ask(
        self,
        provider: Provider,
        key: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout_s: float,
    ) -> ProbeReply:
        """Sends one small request to a provider. key: empty for none. body: None for a GET; of
        a stream only its first content is waited for. Raises nothing: what failed is in the
        answer, without a secret.
        """
        ...


class OAuthServer(Protocol):
    """Talks to the server where people sign in for a provider.

    All raise SignInRefused with the server's message, or SignInUnreachable, also for a
    malformed answer.
    """

    def device_code(self, place: OAuthEndpoints) -> DeviceCode: ...

    def poll(self, place: OAuthEndpoints, code: DeviceCode) -> PollAnswer | OAuthTokens:
        """Whether the person is done. UNREACHABLE where there was no reply."""
        ...

    def refresh(self, place: OAuthEndpoints, refresh_token: str) -> OAuthTokens: ...

    def exchange(self, place: OAuthEndpoints, account_token: str) -> OAuthTokens:
        """Exchanges an account's token for a short-lived one."""
        ...


@dataclass(frozen=True, slots=True)
class Posted:
    status: int
    headers: Mapping[str, str]  # by their names in lower case
    body: bytes = field(repr=False)
    failure: FailureClass | None = None  # what a status that is not 200 means


class ProviderCalls(Protocol):
    """Carries OpenAI's requests to a provider, in that one's own words. Never tries again.

    Belongs to the event loop that calls first.
    """

    async def post(self, path: str, body: bytes) -> Posted:
        """Posts a body to a provider. Returns its answer of any status in OpenAI's form. path:
        OpenAI's, e.g. `/chat/completions`. Raises NoAnswer.
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
        """timeout_s: of one call. allowed: as `api_base_rules` reads it.

        Raises ConfigError where what a kind of provider needs is not installed.
        """
        ...


class ModelTable(Protocol):
    def catalogue(self) -> Catalogue:
        """Always the same; the first call may read a file."""
        ...
