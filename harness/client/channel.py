"""`Channel` is the interface below a client: posts a request to a router, and gives an answer
that can be read whole or piece by piece. `http` and `in_process` implement it.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol


class ChannelAnswer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Returns the headers, their names in lower case."""
        ...

    async def body(self) -> bytes:
        """Reads the whole body. Raises RouterUnreachable."""
        ...

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yields the body as it arrives. Raises StreamBroken when it breaks off."""
        ...

    async def aclose(self) -> None:
        """Closes the answer; before the body's end, the router then ends the provider's
        work.
        """
        ...


class Channel(Protocol):
    """Posts requests to a router. It belongs to one event loop, from its first request on.
    Tries nothing again.
    """

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> ChannelAnswer:
        """Sends a request; any status is an answer. Raises RouterUnreachable, InputError once
        it is closed.
        """
        ...

    async def aclose(self) -> None: ...
