"""Ports to providers: their servers, the servers for sign-in, the table of models, and the uses
of a provider.

The implementations are `calls.probe`, `calls.oauth_http`, `router.upstream`, `models.catalogue`
and `harness.routing.control.provider_uses`. The context of a process that calls no provider has
None in place of a port.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from harness.frame.failures import FailureClass
from harness.frame.records.transaction import Transaction
from harness.providers.calls.probe import ProbeReply
from harness.providers.force import KillSwitch
from harness.providers.models.catalogue import Catalogue
from harness.providers.oauth import (
    DeviceCode,
    OAuthEndpoints,
    OAuthTokens,
    PollAnswer,
)
from harness.providers.target import Provider, Target


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

        Args:
            key: may be empty.
            body: None for a GET.
        """
        ...

    def reach(
        self,
        provider: Provider,
        key: str,
        timeout_s: float,
    ) -> ProbeReply:
        """Asks whether a provider answers at all, by a request that costs nothing. Never
        raises, as `ask`. The reply has no content.
        """
        ...


class OAuthServer(Protocol):
    """Calls the server where people sign in for a provider.

    Each method raises SignInRefused with the server's error. Without an answer, or with a
    malformed answer, it raises SignInUnreachable.
    """

    def device_code(self, place: OAuthEndpoints) -> DeviceCode: ...

    def poll(self, place: OAuthEndpoints, code: DeviceCode) -> PollAnswer | OAuthTokens:
        """Asks whether the person has consented. Returns PollAnswer.UNREACHABLE without a
        reply.
        """
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

        Args:
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
        """Builds the calls of a provider.

        Args:
            timeout_s: for one call.
            allowed: entries of `router.allow_addresses`.

        Raises ConfigError if a package that the kind needs is not installed.
        """
        ...


class ModelTable(Protocol):
    def catalogue(self) -> Catalogue:
        """Returns the catalogue. The first call may read a file; later calls return the same
        object.
        """
        ...


class ProviderUses(Protocol):
    """Tells which routes, proposals, canaries and eval runs need a provider."""

    def routed_targets(self, tx: Transaction) -> Mapping[str, Sequence[Target]]:
        """Returns the targets of each route, in any role, by the route's name."""
        ...

    def run_times(self, tx: Transaction, targets: Collection[str]) -> Sequence[datetime]:
        """Returns when the newest eval runs of the targets began; empty without a run."""
        ...

    def open_work(self, tx: Transaction, provider: str) -> Sequence[str]:
        """Lists proposals, shadows and canaries' judges that need the provider, as texts for
        people.
        """
        ...

    def outdated_work(self, tx: Transaction, provider: str) -> Sequence[str]:
        """Lists canaries and proposals that become worthless if the provider's address changes,
        as texts for people.
        """
        ...

    def switches(self, tx: Transaction) -> Sequence[KillSwitch]:
        """Lists the stored kill switches that change plans now."""
        ...
