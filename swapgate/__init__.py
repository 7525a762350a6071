"""Swapgate's Python client: models behind one interface.

from swapgate import CompletionRequest, Message, ModelClient

with ModelClient.over_http("http://127.0.0.1:8080") as client:
    asked = CompletionRequest(route="support", messages=[Message.user("Where is it?")])
    print(client.complete(asked).text)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# In a wheel this package is imported before every module of ours (ADR 45).
if os.environ.get("SWAPGATE_INTERPRETED", "0") not in {"", "0"}:
    import_module(f"{__name__}.source_finder").install()

if TYPE_CHECKING:
    from swapgate.client import *  # noqa: F403 - `__all__` says what
    from swapgate.client import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        """Load the client when one of its names is first asked for.

        In a wheel every module of ours lies below this package (ADR 0030), and most processes
        need no client.
        """
        return getattr(import_module("swapgate.client"), name)

    def __dir__() -> list[str]:
        return [*globals(), *import_module("swapgate.client").__all__]
