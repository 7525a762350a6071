"""Says in words why a request left its target, for people at a page or a terminal."""

from collections.abc import Mapping
from typing import Final

from harness.domain.reliability.failures import ArmFailure, ErrorClass, FailureClass

_F, _A = FailureClass, ArmFailure
FAILURE_WORDS: Final[Mapping[ErrorClass, str]] = {
    _F.RATE_LIMITED: "the provider's rate limit",
    _F.QUOTA: "our account's quota at the provider is used up",
    _F.OUR_KEY: "the provider refuses our key",
    _F.OVERLOADED: "the provider is overloaded",
    _F.SERVER: "a server error of the provider",
    _F.CONNECT: "no connection to the provider",
    _F.TIMEOUT: "no answer in time",
    _F.MALFORMED: "the answer could not be read",
    _F.BAD_REQUEST: "the provider rejected the request",
    _F.MODEL_UNKNOWN: "the provider does not know the model",
    _F.CONTEXT_WINDOW: "the request is too long for the model",
    _F.CONTENT_POLICY: "the provider's content policy",
    _F.CANCELLED: "the client left",
    _F.INTERNAL: "a fault of the router",
    _A.CIRCUIT_OPEN: "its circuit was open: it had failed too often just before",
    _A.UNABLE: "the model cannot do what the request needs",
    _A.MISSING: "no outcome came in time",
}


def failure_words(failure: str) -> str:
    """Says in words why a target was left; an unknown class as it is stored."""
    found = {str(known.value): words for known, words in FAILURE_WORDS.items()}
    return found.get(failure, failure.replace("_", " "))
