"""Sends requests of evals and probes to a provider over the router's transports."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from harness.frame.errors import NoAnswer
from harness.frame.failures import FailureClass
from harness.providers.credential import ProviderKey, hide_provider_secrets
from harness.providers.ports import Posted
from harness.providers.target import Provider
from harness.routing.settings import RouterSettings
from router.frame.failure import UpstreamFailed
from router.protocols.provider_failures import classify_status
from router.upstream.transport import UpstreamRequest
from router.upstream.transports import Transports

CONNECT_S: Final = 10.0
PASSING: Final = (FailureClass.CONNECT, FailureClass.TIMEOUT, FailureClass.OVERLOADED)


class ProviderClient:
    """Implements ports.ProviderCalls. Raises ConfigError if it cannot load a translation."""

    def __init__(
        self,
        provider: Provider,
        api_key: str | None,
        *,
        connections: int,
        timeout_s: float,
        allowed: Collection[str] = (),
    ) -> None:
        self._provider = provider
        self._key = ProviderKey("", api_key) if api_key else None
        self._timeout_s = timeout_s
        settings = replace(
            RouterSettings(),
            upstream_connections=connections,
            connect_timeout_s=CONNECT_S,
            allow_addresses=tuple(allowed),
        )
        self._transports = Transports(settings)
        self._transport = self._transports(provider)
        self._transports.prepare([provider.kind])

    async def post(self, path: str, body: bytes) -> Posted:
        """Posts a body to the provider and waits for the whole answer. Raises NoAnswer."""
        request = UpstreamRequest(self._provider, body, stream=False, path=path, key=self._key)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._posted(request)
        except TimeoutError:
            raise NoAnswer("the provider did not answer in time") from None
        except UpstreamFailed as failed:
            why = f"the call failed: {failed.detail}".encode("utf-8", "surrogatepass")
            safe = hide_provider_secrets(why, self._provider, self._key)
            again = failed.failure in PASSING
            raise NoAnswer(safe.decode("utf-8", "replace"), again=again) from None

    async def close(self) -> None:
        await self._transports.aclose()

    async def _posted(self, request: UpstreamRequest) -> Posted:
        reply = await self._transport.send(request)
        try:
            raw = await reply.body()
        finally:
            await reply.aclose()
        headers = {
            name.decode("latin-1"): value.decode("utf-8", "surrogateescape")
            for name, value in reply.headers
        }
        failure = None if reply.status == 200 else classify_status(reply.status, raw)
        return Posted(reply.status, headers, raw, failure)
