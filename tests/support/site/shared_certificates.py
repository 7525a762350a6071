"""Reads the certificates of the authorities once in a test process, not for each HTTP client:
that took a fortieth of the tests' CPU, and hardly any client here uses TLS.
"""

import os
import ssl
from functools import cache
from typing import Any, Final

import httpx
from httpx._transports import default

# They name other certificates.
VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def share_certificates() -> None:
    """Lets all clients of httpx that this process makes from now on share what is the same."""
    create = httpx.create_ssl_context

    @cache
    def usual(_variables: tuple[str | None, ...]) -> ssl.SSLContext:
        return create()

    def create_sharing(*arguments: Any, **options: Any) -> ssl.SSLContext:
        asked = {
            "verify": True,
            "cert": None,
            "trust_env": True,
            **options,
        }
        if arguments or list(asked.values()) != [True, None, True]:
            return create(*arguments, **options)
        return usual(tuple(map(os.environ.get, VARIABLES)))

    default.create_ssl_context = create_sharing  # type: ignore[attr-defined]  # imported there
