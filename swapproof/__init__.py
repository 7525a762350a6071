"""Swapproof's Python client: models behind one interface.

from swapproof import CompletionRequest, Message, ModelClient

with ModelClient.over_http("http://127.0.0.1:8080") as client:
    request = CompletionRequest(route="support", messages=[Message.user("Where is it?")])
    print(client.complete(request).text)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swapproof.client import *  # noqa: F403 - `__all__` says what
    from swapproof.client import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        """Imports the client at the first use of one of its names. In a wheel, every process
        imports this package (ADR 0030), and most need no client.
        """
        return getattr(import_module("swapproof.client"), name)

    def __dir__() -> list[str]:
        return [*globals(), *import_module("swapproof.client").__all__]
