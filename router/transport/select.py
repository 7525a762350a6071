"""The transport of a provider, by its kind."""

from collections.abc import Mapping

from harness.domain.errors import ConfigError
from harness.domain.provider_kinds import SERVED_KINDS
from harness.domain.settings import RouterSettings
from harness.domain.targets import Provider
from router.ports import Transport
from router.transport.pool import Pool


class Transports:
    """One transport per protocol, shared by all its providers.

    secrets: API keys by the name of their environment variable, read once by the caller.
    """

    def __init__(self, settings: RouterSettings, secrets: Mapping[str, str]) -> None:
        self._pool = Pool(settings, secrets)

    def __call__(self, provider: Provider) -> Transport:
        """Raises ConfigError for a kind that this router does not speak."""
        if provider.kind in SERVED_KINDS:
            return self._pool
        raise ConfigError(
            f"provider {provider.name!r} is of kind {provider.kind!r}; "
            f"this router speaks {', '.join(sorted(SERVED_KINDS))}"
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
