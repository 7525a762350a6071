"""How a provider fails, and what each way means for the next attempt (a table, no code)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class FailureClass(StrEnum):
    RATE_LIMITED = "rate_limited"  # 429 with a limit
    QUOTA = "quota"  # 402, 403, 429 insufficient_quota: our account
    OUR_KEY = "our_key"  # 401: our key
    OVERLOADED = "overloaded"  # 503, 529
    SERVER = "server"  # 500, 502, 504, HTML of a gateway
    CONNECT = "connect"  # DNS, refused, TLS, reset
    TIMEOUT = "timeout"  # connect, first token, between chunks, total
    MALFORMED = "malformed"  # 200 that is not what was asked
    BAD_REQUEST = "bad_request"  # 400, 413, 415, 422
    MODEL_UNKNOWN = "model_unknown"  # the name that we put in
    CONTEXT_WINDOW = "context_window"  # 400 saying so
    CONTENT_POLICY = "content_policy"  # 400 saying so
    CANCELLED = "cancelled"  # the client left


_F = FailureClass

# Another target would say the same: the client gets the provider's own words at once. Only a
# canary's is asked again, once, of the incumbent: perhaps the candidate alone rejects it.
CLIENTS_OWN: Final = frozenset({_F.BAD_REQUEST, _F.CONTEXT_WINDOW, _F.CONTENT_POLICY})

# Further tries of the same target, in the same request. A pooled connection that the provider
# closed while it was idle looks like a failure, and is none.
SAME_TARGET_AGAIN: Final[Mapping[FailureClass, int]] = {_F.CONNECT: 1}
