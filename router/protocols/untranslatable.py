"""Errors for what a translation cannot carry: `UntranslatableField` (a reply of 422) where a
Messages or Responses request would become a chat; `Untranslatable` and `MalformedRequest` where
a chat would become another provider's protocol.
"""

from harness.domain.reliability.failures import FailureClass
from router.server.replies import error_body
from router.upstream.transport import UpstreamFailed

CODE = "not_supported_by_target"
KIND = "invalid_request_error"


class UntranslatableField(UpstreamFailed):
    """A request that no chat can carry, as a reply of 422. what: as the client wrote it, e.g.
    "a tool of type 'web_search_20250305'". param: the field of the body that it is in.
    """

    def __init__(self, what: str, param: str) -> None:
        detail = f"{what} cannot be said in the protocol of the route's target"
        body = error_body(
            f"{detail}; leave it out, or ask another route", KIND, CODE, param=param
        )
        super().__init__(FailureClass.BAD_REQUEST, detail, status=422, body=body)


def untranslatable_error(held: str) -> UntranslatableField:
    """held: as a bridge says what it cannot carry: a field in backquotes, else a tool."""
    return UntranslatableField(held, held.strip("`") if held.startswith("`") else "tools")


class Untranslatable(Exception):
    """What this request asks for has no counterpart there. param: the field, None where it is
    not known.
    """

    code = CODE

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class MalformedRequest(Untranslatable):
    """The request is none in any protocol: OpenAI refuses it too. param: as a path."""

    code = "invalid_value"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"`{param}` {why}", param)
