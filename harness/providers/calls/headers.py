"""Builds and checks request headers. Errors omit values, which may be secrets. Pure."""

import re
from collections.abc import Mapping
from typing import Final

from harness.frame.errors import InputError
from harness.providers.target import Provider

MAX_HEADERS: Final = 64
MAX_NAME_LENGTH: Final = 200
MAX_VALUE_LENGTH: Final = 8192
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
# Framing headers, and headers of one connection only (RFC 9110, section 7.6.1).
_OURS: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_SHOWN: Final = 40


def check_headers(headers: Mapping[str, str]) -> None:
    """Checks that HTTP can send a provider's extra headers. Raises InputError."""
    if len(headers) > MAX_HEADERS:
        raise InputError(f"{len(headers)} extra headers are more than {MAX_HEADERS}")
    seen: set[str] = set()
    for name, value in headers.items():
        shown = f"{name[:_SHOWN]!r}"
        _check_name(name)
        if name.lower() in seen:
            raise InputError(
                f"the extra header {shown} is given twice: names differ only in their case"
            )
        seen.add(name.lower())
        if len(value) > MAX_VALUE_LENGTH or not _VALUE.fullmatch(value):
            raise InputError(
                f"the value of the extra header {shown} must be at most {MAX_VALUE_LENGTH} "
                "visible ASCII characters, with spaces and tabs only between them"
            )


def request_headers(provider: Provider, key: str, *, stream: bool = False) -> dict[str, str]:
    """Builds the headers of evals and production alike, so that providers cannot distinguish
    them.
    """
    own = {name.lower(): value for name, value in provider.extra_headers.items()}
    return {
        "accept": "text/event-stream" if stream else "application/json",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": "swapgate",
        **provider.key_headers(key),
        **own,
    }


def _check_name(name: str) -> None:
    shown = f"{name[:_SHOWN]!r}"
    if len(name) > MAX_NAME_LENGTH or not _TOKEN.fullmatch(name):
        raise InputError(
            f"{shown} is not a header name: use 1 to {MAX_NAME_LENGTH} of a-z, A-Z, 0-9, `-` "
            "and `_`"
        )
    if name.lower() in _OURS:
        raise InputError(
            f"Swapgate sets the extra header {shown} itself, for the connection: remove it"
        )


def check_request_headers(provider: Provider, key: str) -> None:
    """Checks a request's headers, including its key. Raises InputError."""
    try:
        check_headers(provider.extra_headers)
    except InputError as error:
        raise InputError(
            f"a header of this provider cannot be sent: {error}. Correct its extra headers"
        ) from None
    for name, value in provider.key_headers(key).items():
        if not _VALUE.fullmatch(value):
            raise InputError(
                f"a header of this provider cannot be sent: the key in {name!r} is not visible "
                f"ASCII. Set it again: `swapgate provider key set {provider.name}`"
            )
