"""Reads how long a client waits for an answer before it gives up, from its headers.

Official clients and gateways say so in headers of their own. The value is a wish about the
client's own patience: the planned first attempt and its fallbacks share it, and it never
lengthens a limit. A value that cannot be read, or with an unknown unit, has no effect, because
a wrong limit is worse than none. `tests/world/patience` has published examples.
"""

import math
from collections.abc import Iterable
from typing import Final

_S: Final = 1.0
_MS: Final = 0.001
# The length of the header's unit in seconds.
PATIENCE_HEADERS: Final = {
    # Clients that Stainless generates: OpenAI, Anthropic and others. Releases of the JavaScript
    # clients before April 2025 send milliseconds; read as seconds, these exceed every limit.
    b"x-stainless-read-timeout": _S,
    b"x-stainless-timeout": _S,
    b"x-server-timeout": _S,  # Google's clients
    b"x-litellm-timeout": _S,  # for a LiteLLM proxy
    b"x-portkey-request-timeout": _MS,  # for Portkey's gateway
    b"cf-aig-request-timeout": _MS,  # for Cloudflare's AI Gateway
    b"x-envoy-expected-rq-timeout-ms": _MS,  # an Envoy proxy in front of the router
}
# The answer must arrive before the client's limit, so this share of it is left.
MARGIN_SHARE: Final = 0.1
MOST_MARGIN_S: Final = 1.0
# Longer texts are no number of seconds. Python reads very long ones slowly.
_LONGEST_TEXT: Final = 24


def read_patience_s(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Returns the shortest time in seconds that the headers name; infinite without one.

    Args:
        headers: names in lower case.
    """
    shortest_s = math.inf
    for name, value in headers:
        if name in PATIENCE_HEADERS:
            shortest_s = min(shortest_s, _read_seconds(value, PATIENCE_HEADERS[name]))
    return shortest_s


def answer_by(begun: float, patience_s: float) -> float:
    """Returns when a caller must have its first output, with time to send it."""
    return begun + patience_s - min(MOST_MARGIN_S, MARGIN_SHARE * patience_s)


def _read_seconds(value: bytes, unit_s: float) -> float:
    try:
        # float() alone would accept "1_0".
        number = math.nan if b"_" in value or len(value) > _LONGEST_TEXT else float(value)
    except ValueError:
        return math.inf
    return number * unit_s if 0 < number < math.inf else math.inf
