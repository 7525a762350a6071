"""The upstream clients that were candidates, each behind `Transport`."""

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from benchmarks.router.peers.peer import CACHE
from harness.domain.settings import RouterSettings
from router.upstream.pool import UpstreamPool
from router.upstream.transport import Transport, UpstreamRequest

PYREQWEST: Final = CACHE / "pyreqwest"


class Pyreqwest:
    """A prototype on the Rust client: no errors told apart, no limits, whole answers."""

    def __init__(self, settings: RouterSettings) -> None:
        del settings
        self._client: Any = None

    async def send(self, request: UpstreamRequest) -> "PyreqwestReply":
        if self._client is None:
            sys.path.append(str(PYREQWEST))
            from pyreqwest.client import ClientBuilder  # type: ignore[import-not-found]  # noqa: PLC0415 - its own folder

            self._client = ClientBuilder().tcp_nodelay(True).build()  # noqa: FBT003 - its own
        url = f"{request.provider.api_base}/chat/completions"
        asked = self._client.post(url).header("content-type", "application/json")
        return PyreqwestReply(await asked.body_bytes(request.body).build().send())

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()


class PyreqwestReply:
    def __init__(self, response: Any) -> None:
        self.status: int = response.status
        self.headers = [
            (name.lower().encode(), value.encode()) for name, value in response.headers.items()
        ]
        self._response = response

    async def body(self) -> bytes:
        return bytes(await self._response.bytes())

    async def chunks(self) -> AsyncIterator[bytes]:
        yield bytes(await self._response.bytes())

    async def aclose(self) -> None: ...


Maker = Callable[[RouterSettings], Transport]

TRANSPORTS: Final[Mapping[str, Maker]] = {
    "pool": UpstreamPool,
    "pyreqwest": Pyreqwest,
}
