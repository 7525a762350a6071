"""Protocols of providers: what is stored of them (keys, sign-ins, checks), and how they are
called: one probe, a sign-in at an OAuth server, or an eval's requests (`ProviderCalls`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.domain.providers.catalogue import Catalogue
from harness.domain.providers.credentials import Credential
from harness.domain.providers.discovered_model import DiscoveredModel
from harness.domain.providers.oauth_kinds import OAuthEndpoints
from harness.domain.providers.oauth_tokens import DeviceCode, OAuthTokens, PollAnswer, SignIn
from harness.domain.providers.probe import ProbeReply, ProviderCheck
from harness.domain.routing.target import Provider


class ProviderDoor(Protocol):
    """Asks a provider one small thing."""

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


class Providers(Protocol):
    def put(self, provider: Provider) -> None: ...

    def remove(self, name: str) -> None:
        """Removes a provider, as if it had never been put. Raises NotFound."""
        ...

    def all(self) -> Mapping[str, Provider]: ...


class Credentials(Protocol):
    """Keys of providers, encrypted by whoever stores them. None is ever deleted."""

    def all(self) -> Sequence[Credential]:
        """Lists the stored keys by provider, in the order in which they are tried, with those
        taken away.
        """
        ...

    def put(self, credential: Credential) -> None:
        """Adds a key, or replaces the one of its provider and name. Raises InputError for an
        unknown provider.
        """
        ...


class SignIns(Protocol):
    """Stores people's sign-ins, one per provider. Routers never see them."""

    def all(self) -> Sequence[SignIn]:
        """Lists the sign-ins by provider."""
        ...

    def start(self, new: SignIn) -> None:
        """Stores a new sign-in in place of the provider's last one. Raises InputError for an
        unknown provider.
        """
        ...

    def save(self, changed: SignIn) -> None:
        """Saves a sign-in. Raises StaleWrite where somebody signed in anew, or out."""
        ...

    def replace(self, before: SignIn, after: SignIn) -> None:
        """Saves `after` where the sign-in is as `before` says. Raises StaleWrite where it is
        over, or another process renews it.
        """
        ...

    def end(self, provider: str) -> bool:
        """Removes a provider's sign-in; returns whether there was one."""
        ...


class ProviderChecks(Protocol):
    """What `/check` found of each provider last, whichever process asked (D5)."""

    def all(self) -> Sequence[ProviderCheck]:
        """Loads the last check of each provider."""
        ...

    def keep(self, checks: Iterable[ProviderCheck]) -> None:
        """Stores each check in place of an older one of its provider.

        Raises InputError for an unknown provider.
        """
        ...


class DiscoveredModels(Protocol):
    """The models that providers listed, whoever asked."""

    def all(self) -> Sequence[DiscoveredModel]:
        """Lists the discovered models by provider and name; none of a provider that was
        removed.
        """
        ...

    def replace(self, of_provider: str, models: Iterable[DiscoveredModel]) -> None:
        """All of one provider, instead of those before. Raises InputError for an unknown
        provider.
        """
        ...


class OAuthServer(Protocol):
    """Talks to the server where people sign in for a provider.

    All raise SignInRefused with the server's word, SignInUnreachable, also for an answer that
    is none.
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
    """A provider's whole answer."""

    status: int
    headers: Mapping[str, str]  # by their names in lower case
    body: bytes = field(repr=False)


class ProviderCalls(Protocol):
    """Carries OpenAI's requests to a provider, in that one's own words. Never tries again.

    Belongs to the event loop that calls first.
    """

    async def post(self, path: str, body: bytes) -> Posted:
        """Posts a body to a provider; any status is an answer, as OpenAI would word it. path:
        OpenAI's, e.g. `/chat/completions`. Raises NoAnswer when there is none.
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
    """What is known of models, from what lies on this machine."""

    def catalogue(self) -> Catalogue:
        """Always the same; the first call may read a file."""
        ...
