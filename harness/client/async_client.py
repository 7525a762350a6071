"""`AsyncModelClient` is the Python client for asyncio: completes, streams, runs tool loops and
embeds through a router, over HTTP or in this process.
"""

import os
from pathlib import Path
from typing import Final, Self

from harness.client.channel_client import ChannelClient
from harness.domain.errors import InputError

KEY_VARIABLE: Final = "SWAPGATE_KEY"
# Longer than any router lets a request take, unless its `total_timeout_s` was raised.
TIMEOUT_S: Final = 600.0


class AsyncModelClient(ChannelClient):
    """A client of a router, made by `over_http` or `in_process`. It belongs to one event loop.
    Close it by `aclose`, or by `async with`.

    All methods raise a kind of CallFailed, and InputError for a request that is not valid.
    """

    @classmethod
    def over_http(
        cls, base_url: str, key: str | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> Self:
        """A client of a router at an address.

        key: a data key, else SWAPGATE_KEY of the environment. timeout_s: for a whole answer,
        streams included. Raises InputError.
        """
        from harness.client.http import HttpChannel  # noqa: PLC0415 - aiohttp takes its time
        from harness.runtime.clock import SystemClock  # noqa: PLC0415

        return cls(HttpChannel(base_url, _key(key), timeout_s=timeout_s), SystemClock())

    @classmethod
    def in_process(cls, config: str | Path | None = None, key: str | None = None) -> Self:
        """A client with a router of its own in this process, over the installation's database.

        config: the configuration file, else SWAPGATE_CONFIG, else ./swapgate.yaml. key: as for
        `over_http`; its routes, limits and budget count here as well. Reads files and the
        database before it returns. Raises ConfigError, SnapshotInvalid, InputError.
        """
        try:
            from harness.app.embedded import embedded_router  # noqa: PLC0415 - not needed over HTTP
            from harness.client.in_process import InProcessChannel  # noqa: PLC0415 - the router is
        except ModuleNotFoundError as error:
            if not (error.name or "").endswith("harness.app"):
                raise
            raise InputError(
                "a router in this process comes with the package swapgate: install that, or "
                "use over_http"
            ) from None
        from harness.runtime.clock import SystemClock  # noqa: PLC0415

        found = _key(key)
        router = embedded_router(Path(config) if config is not None else None)
        return cls(InProcessChannel(router, found), SystemClock())


def _key(given: str | None) -> str:
    key = given if given is not None else os.environ.get(KEY_VARIABLE, "")
    if not key or not key.isprintable() or not key.isascii():
        raise InputError(
            "key: there is none, or it is no data key; give one (`swapgate key create`), or "
            f"set {KEY_VARIABLE}"
        )
    return key
